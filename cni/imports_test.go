package cni

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The plugin is started for each sandbox: what it links, it pays for each time.
func TestThePluginLinksNothingBig(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}",
		modulePath+"/cmd/v6node-cni").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{
		modulePath + "/cni", modulePath + "/cmd/v6node-cni",
		"github.com/containernetworking/cni/",
		"github.com/vishvananda/netlink", "github.com/vishvananda/netns",
		"golang.org/x/sys/unix",
	}
	deps := strings.Fields(string(out))
	if len(deps) == 0 {
		t.Fatal("go list said nothing")
	}
	for _, dep := range deps {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(dep, a) }) {
			t.Errorf("it links %s", dep)
		}
	}
}
