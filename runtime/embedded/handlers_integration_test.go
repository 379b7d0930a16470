//go:build integration

package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestAHandlerDiffersFromTheDefaultOnlyInItsLimits compares what containerd
// hands to runc, and then asks the kernel about the process itself.
func TestAHandlerDiffersFromTheDefaultOnlyInItsLimits(t *testing.T) {
	cfg := testConfig(t)
	cfg.Handlers = []Handler{{Name: "limited", Rlimits: []Rlimit{{"RLIMIT_NOFILE", 77, 99}, {"RLIMIT_CORE", 0, 0}}}}
	n := startNode(t, cfg)
	ctx := t.Context()
	specs, pids := map[string]map[string]any{}, map[string]int{}
	for _, handler := range []string{"", "limited"} {
		sandbox, err := n.client.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandboxConfig("s" + handler), RuntimeHandler: handler})
		if err != nil {
			t.Fatal(err)
		}
		defer n.remove(context.WithoutCancel(ctx), sandbox.PodSandboxId)
		// As v6node creates its containers: without capabilities, of which the
		// seccomp profile depends too.
		created, err := n.client.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
			PodSandboxId: sandbox.PodSandboxId, SandboxConfig: sandboxConfig("s" + handler), Config: &cri.ContainerConfig{
				Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: n.pause.ref()},
				Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
					NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
					Capabilities:     &cri.Capability{DropCapabilities: []string{"ALL"}},
					NoNewPrivs:       true, ReadonlyRootfs: true, MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
					Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
				}},
			}})
		if err != nil {
			t.Fatal(err)
		}
		id := created.ContainerId
		n.start(ctx, id)
		r, err := n.client.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			PID  int            `json:"pid"`
			Spec map[string]any `json:"runtimeSpec"`
		}
		if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil {
			t.Fatal(err)
		}
		// Names that differ between any two containers.
		text, err := json.Marshal(info.Spec)
		if err != nil {
			t.Fatal(err)
		}
		plain := strings.NewReplacer(id, "ID", sandbox.PodSandboxId, "SANDBOX", `"slimited"`, `"s"`).Replace(string(text))
		if err := json.Unmarshal([]byte(plain), &info.Spec); err != nil {
			t.Fatal(err)
		}
		specs[handler], pids[handler] = info.Spec, info.PID
	}
	process, ok := specs["limited"]["process"].(map[string]any)
	if !ok || fmt.Sprint(process["rlimits"]) != "[map[hard:99 soft:77 type:RLIMIT_NOFILE] map[hard:0 soft:0 type:RLIMIT_CORE]]" {
		t.Errorf("limits: %v", process["rlimits"])
	}
	delete(process, "rlimits")
	for _, s := range specs {
		delete(s, "ociVersion")
		if l, ok := s["linux"].(map[string]any); ok {
			for _, ns := range l["namespaces"].([]any) {
				m := ns.(map[string]any)
				if path, ok := m["path"].(string); ok {
					m["path"] = filepath.Base(path) // below the directory of the sandbox's process
				}
			}
		}
	}
	if !reflect.DeepEqual(specs[""], specs["limited"]) {
		for k := range specs[""] {
			if !reflect.DeepEqual(specs[""][k], specs["limited"][k]) {
				t.Errorf("%s differs:\ndefault %.3000v\nlimited %.3000v", k, specs[""][k], specs["limited"][k])
			}
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pids["limited"]))
	// Go raises the soft limit of its own process: the hard one is what holds.
	if err != nil || !regexp.MustCompile(`Max open files +\d\d +99 `).Match(b) || !regexp.MustCompile(`Max core file size +0 +0 `).Match(b) {
		t.Errorf("the process has the limits\n%s(%v)", b, err)
	}
}
