//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/integration/standin"
)

// externalScenarios need a runtime that v6node has not set up.
func externalScenarios() []scenario {
	return []scenario{
		{"a run in a network that is not ours is refused, with the command that mends it", foreignNetwork},
		{"a runtime that a kubelet uses is refused", sharedWithKubelet},
	}
}

// TestMain lets the test program stand in for the CNI plugin of another
// network.
func TestMain(m *testing.M) {
	switch os.Getenv("CNI_COMMAND") {
	case "":
		os.Exit(m.Run())
	case "ADD":
		if err := foreignPlugin(os.Getenv("CNI_NETNS"), os.Getenv("CNI_IFNAME")); err != nil {
			fmt.Printf(`{"cniVersion":"1.0.0","code":999,"msg":%q}`, err.Error())
			os.Exit(1)
		}
	case "VERSION":
		fmt.Print(`{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}`)
	}
}

const foreignConf = `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"suite-other"}]}`

// foreignPlugin makes a network with a way out, as most do. It vanishes with
// its namespace.
func foreignPlugin(netns, name string) error {
	ns, err := cni.OpenNetns(netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	err = ns.Do(func() error {
		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 99, 0, 2), Mask: net.CIDRMask(24, 32)}}
		if err := netlink.AddrAdd(link, address); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Gw: net.IPv4(10, 99, 0, 1)})
	})
	if err != nil {
		return err
	}
	fmt.Printf(`{"cniVersion":"1.0.0","interfaces":[{"name":%q,"sandbox":%q}],"ips":[{"address":"10.99.0.2/24","interface":0}]}`, name, netns)
	return nil
}

var advice = regexp.MustCompile(`"v6node (cni install [^"]+)"`)

func foreignNetwork(t *testing.T, w *world) {
	runtime := w.startServer(t, "fc")
	t.Cleanup(func() { runtime.stop(t) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(runtime.binDir, "suite-other")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(runtime.confDir, "10-other.conflist"), []byte(foreignConf), 0o644); err != nil {
		t.Fatal(err)
	}
	runtime.waitNetwork(t, "other")

	n := w.start(t, nodeOptions{Endpoint: runtime.endpoint()})
	done := n.call(t, "noop", nil)
	if done.Status != standin.StatusStartFailed || done.Data != nil {
		t.Errorf("the run ended as %q: %s", done.Status, done.Text)
	}
	for _, e := range done.History {
		if e.Field("status") == standin.StatusActive {
			t.Error("the algorithm was started")
		}
	}
	m := advice.FindStringSubmatch(done.Text)
	if m == nil {
		t.Fatalf("the log names no command that mends it: %s", done.Text)
	}
	n.gone(t, done.ID)

	// The administrator does as told, and is asked about the other network.
	args := strings.Fields(m[1])
	out, errOut, err := w.v6node(t, args...)
	if err == nil || !strings.Contains(errOut, "--force") {
		t.Errorf("v6node %s: %v\n%s%s", m[1], err, out, errOut)
	}
	if out, errOut, err := w.v6node(t, append(args, "--force")...); err != nil {
		t.Fatalf("v6node %s --force: %v\n%s%s", m[1], err, out, errOut)
	}
	runtime.waitNetwork(t, cni.NetworkName)
	completed[any](t, n.call(t, "noop", nil))
}
