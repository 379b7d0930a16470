package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// installation is a runtime's view of our network, installed into directories
// of the test's own with the test binary as the plugin.
type installation struct {
	Layout
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func install(t testing.TB) *installation {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := Layout{ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin")}
	if _, err := Install(l, self); err != nil {
		t.Fatal(err)
	}
	list, err := libcni.NetworkConfFromFile(filepath.Join(l.ConfDir, ConfName))
	if err != nil {
		t.Fatal(err)
	}
	return &installation{l, libcni.NewCNIConfigWithCacheDir([]string{l.BinDir}, filepath.Join(dir, "cache"), nil), list}
}

func attachment(netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: "sandbox-1", NetNS: netns, IfName: ifName,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "run-7"}}}
}

func TestARuntimeTakesASandboxThroughItsLife(t *testing.T) {
	in := install(t)
	if in.list.CNIVersion != "1.1.0" {
		t.Errorf("a new runtime speaks CNI %s to the plugin", in.list.CNIVersion)
	}
	ctx := t.Context()
	path := newNetns(t)
	rt := attachment(path)

	if err := in.cni.GetStatusNetworkList(ctx, in.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	if _, err := in.cni.ValidateNetworkList(ctx, in.list); err != nil {
		t.Errorf("VERSION: %v", err)
	}
	got, err := in.cni.AddNetworkList(ctx, in.list, rt)
	if err != nil {
		t.Fatalf("ADD: %v", err)
	}
	result, err := types100.GetResult(got)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Interfaces) != 1 || result.Interfaces[0].Name != ifName || result.Interfaces[0].Sandbox != path ||
		len(result.IPs) != 1 || result.IPs[0].Address.String() != podAddress || *result.IPs[0].Interface != 0 ||
		result.IPs[0].Gateway != nil || len(result.Routes) != 0 || !result.DNS.IsEmpty() {
		t.Errorf("ADD's result: %+v", result)
	}
	n := open(t, path)
	if err := n.Verify(); err != nil {
		t.Error(err)
	}
	if err := in.cni.CheckNetworkList(ctx, in.list, rt); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := in.cni.GCNetworkList(ctx, in.list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{
		{ContainerID: rt.ContainerID, IfName: rt.IfName}}}); err != nil {
		t.Errorf("GC: %v", err)
	}
	if err := n.Verify(); err != nil {
		t.Errorf("after GC: %v", err)
	}
	for range 2 {
		if err := in.cni.DelNetworkList(ctx, in.list, rt); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	if err := n.Verify(); !errors.Is(err, ErrForeignNetwork) {
		t.Errorf("after DEL: %v", err)
	}
	// A runtime may use the namespace again.
	if _, err := in.cni.AddNetworkList(ctx, in.list, rt); err != nil {
		t.Errorf("ADD after DEL: %v", err)
	}
	if err := n.Verify(); err != nil {
		t.Errorf("ADD after DEL: %v", err)
	}
}

// run executes the installed plugin as a runtime does, and returns its output
// and, if it exited with an error, that error.
func (in *installation) run(t testing.TB, command, netns, conf string, change ...func(*exec.Cmd)) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), in.pluginFile())
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=sandbox-1", "CNI_NETNS="+netns,
		"CNI_IFNAME="+ifName, "CNI_PATH="+in.BinDir)
	cmd.Stdin = strings.NewReader(conf)
	cmd.Stderr = os.Stderr
	for _, c := range change {
		c(cmd)
	}
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	answer := new(types.Error)
	if err := json.Unmarshal(out, answer); err != nil {
		t.Fatalf("%s failed without saying why: %q", command, out)
	}
	return "", answer
}

func conf(version string, more ...string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"v6node","type":"v6node"%s}`, version, strings.Join(more, ""))
}

func wantCode(t *testing.T, what string, err error, code uint, words ...string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Errorf("%s: got %v, want an error with code %d", what, err, code)
		return
	}
	if e.Code != code {
		t.Errorf("%s: code %d, want %d: %v", what, e.Code, code, e)
	}
	oneSentence(t, e, words...)
}

func TestEachVersionOfCNIGetsItsOwnResult(t *testing.T) {
	in := install(t)
	for _, version := range supportedVersions() {
		t.Run(version, func(t *testing.T) {
			path := newNetns(t)
			out, err := in.run(t, "ADD", path, conf(version))
			if err != nil {
				t.Fatal(err)
			}
			var head struct{ CNIVersion string }
			if err := json.Unmarshal([]byte(out), &head); err != nil || head.CNIVersion != version {
				t.Errorf("the result has version %q: %v", head.CNIVersion, err)
			}
			parse := types100.NewResult
			if version < "1" {
				parse = types040.NewResult
			}
			if _, err := parse([]byte(out)); err != nil {
				t.Error(err)
			}
			if err := open(t, path).Verify(); err != nil {
				t.Error(err)
			}
			prev := fmt.Sprintf(`,"prevResult":%s`, out)
			if version >= "0.4.0" { // older ones have no CHECK
				if _, err := in.run(t, "CHECK", path, conf(version, prev)); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			}
			if _, err := in.run(t, "DEL", path, conf(version, prev)); err != nil {
				t.Errorf("DEL: %v", err)
			}
		})
	}
}

func TestARuntimeFromBeforeCNI11Uses10(t *testing.T) {
	// Such a runtime (containerd 1.6) knows only this key, and no result newer
	// than 1.0.0.
	var list struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(ConfList(), &list); err != nil || list.CNIVersion != "1.0.0" {
		t.Errorf("cniVersion is %q: %v", list.CNIVersion, err)
	}
}

func TestAddRefusesToWorkTwice(t *testing.T) {
	in := install(t)
	path := newNetns(t)
	if _, err := in.run(t, "ADD", path, conf("1.0.0")); err != nil {
		t.Fatal(err)
	}
	_, err := in.run(t, "ADD", path, conf("1.0.0"))
	wantCode(t, "a second ADD", err, codeInternal, "exists already")
	if err := open(t, path).Verify(); err != nil {
		t.Errorf("the first network was spoilt: %v", err)
	}
}

func TestAddRefusesBadInput(t *testing.T) {
	in := install(t)
	path := newNetns(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, netns, conf string
		code              uint
		says              string
	}{
		{"no JSON", path, "{", types.ErrDecodingFailure, ""},
		{"an address manager", path, conf("1.0.0", `,"ipam":{"type":"host-local"}`), codeUnsupportedField, "ipam"},
		{"port mappings", path, conf("1.0.0", `,"runtimeConfig":{"portMappings":[]}`), codeUnsupportedField, "runtimeConfig"},
		{"an unknown key", path, conf("1.0.0", `,"bridge":"br0"`), codeUnsupportedField, "bridge"},
		{"another plugin's configuration", path, `{"cniVersion":"1.0.0","name":"x","type":"bridge"}`, codeConfig, `"bridge"`},
		{"a version that is too old", path, conf("0.2.0"), types.ErrIncompatibleCNIVersion, ""},
		{"a version from the future", path, conf("2.0.0"), types.ErrIncompatibleCNIVersion, ""},
		{"a plugin before it", path, conf("1.0.0", `,"prevResult":{"cniVersion":"1.0.0"}`), codeConfig, "only one"},
		{"more than 1 MiB", path, conf("1.0.0") + strings.Repeat(" ", maxConf), types.ErrDecodingFailure, "larger"},
		{"no namespace", "", conf("1.0.0"), types.ErrInvalidEnvironmentVariables, "CNI_NETNS"},
		{"a missing namespace", plain + "x", conf("1.0.0"), codeNetns, "no such file"},
		{"a plain file", plain, conf("1.0.0"), codeNetns, "not a network namespace"},
		{"the plugin's own namespace", "/proc/self/ns/net", conf("1.0.0"), codeNetns, "shares"},
	} {
		_, err := in.run(t, "ADD", c.netns, c.conf)
		wantCode(t, c.name, err, c.code, c.says)
	}
	if links, err := open(t, path).links(); err != nil || len(links) != 1 {
		t.Errorf("something was left behind: %v, %v", links, err)
	}
}

func (n *Netns) links() (names []string, err error) {
	h, err := n.netlink()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names, err
}

func TestDelSucceedsWhenThereIsNothingToDo(t *testing.T) {
	in := install(t)
	empty := newNetns(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ netns, conf string }{
		"no namespace named":                {"", conf("1.0.0")},
		"the namespace is gone":             {plain + "x", conf("1.0.0")},
		"only its mount point is left":      {plain, conf("1.0.0")},
		"a file is where a directory was":   {plain + "/x", conf("1.0.0")},
		"ADD never happened":                {empty, conf("1.0.0")},
		"the configuration was changed":     {empty, conf("1.0.0", `,"ipam":{"type":"host-local"}`)},
		"the result of ADD cannot be read":  {empty, conf("1.0.0", `,"prevResult":[1]`)},
		"the oldest version of CNI we have": {empty, conf("0.3.1")},
	} {
		if _, err := in.run(t, "DEL", c.netns, c.conf); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDelLeavesAForeignInterfaceAlone(t *testing.T) {
	in := install(t)
	w := newWorld(t)
	w.replaceEth0(veth(ifName))
	if _, err := in.run(t, "DEL", w.n.Path(), conf("1.0.0")); err != nil {
		t.Error(err)
	}
	if addrs, err := w.AddrList(w.link(ifName), 0); err != nil || len(addrs) == 0 {
		t.Errorf("eth0 has the addresses %v: %v", addrs, err)
	}
}

func TestCheckFindsEachDeviation(t *testing.T) {
	in := install(t)
	fresh := func(t *testing.T) (*world, string) {
		path := newNetns(t)
		out, err := in.run(t, "ADD", path, conf("1.0.0"))
		if err != nil {
			t.Fatal(err)
		}
		n := open(t, path)
		h, err := n.netlink()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		return &world{t, n, h}, out
	}
	for _, c := range []struct {
		name   string
		change func(w *world, result map[string]any)
		code   uint
		says   string
	}{
		{"lo down", func(w *world, _ map[string]any) { w.must(w.LinkSetDown(w.link(loName))) }, codeNetwork, "lo is down"},
		{"address gone", func(w *world, _ map[string]any) { w.delAddr(ifName, podAddress) }, codeNetwork, "no address"},
		{"interface gone", func(w *world, _ map[string]any) { w.must(w.LinkDel(w.link(ifName))) }, codeNetwork, "no eth0"},
		{"another interface in its place", func(w *world, _ map[string]any) { w.replaceEth0(veth(ifName)) }, codeNetwork, "veth"},
		{"another one of the same kind", func(w *world, _ map[string]any) {
			w.must(w.LinkDel(w.link(ifName)))
			_, err := w.n.setUp(ifName)
			w.must(err)
		}, codeNetwork, "hardware address"},
		{"a result with another address", func(_ *world, r map[string]any) {
			r["ips"] = []any{map[string]any{"address": "10.0.0.1/24", "interface": 0}}
		}, codeNetwork, "exactly the address"},
		{"a result of another namespace", func(_ *world, r map[string]any) {
			r["interfaces"].([]any)[0].(map[string]any)["sandbox"] = "/run/netns/other"
		}, codeNetwork, "/run/netns/other"},
		{"a result with a route", func(_ *world, r map[string]any) {
			r["routes"] = []any{map[string]any{"dst": "0.0.0.0/0"}}
		}, codeNetwork, "routes"},
		{"an empty result", func(_ *world, r map[string]any) { clear(r) }, codeNetwork, "does not have"},
		{"a result of nulls", func(_ *world, r map[string]any) { r["interfaces"] = []any{nil} }, codeConfig, "null"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, out := fresh(t)
			var result map[string]any
			if err := json.Unmarshal([]byte(out), &result); err != nil {
				t.Fatal(err)
			}
			c.change(w, result)
			prev, err := json.Marshal(result)
			if err != nil {
				t.Fatal(err)
			}
			_, err = in.run(t, "CHECK", w.n.Path(), conf("1.0.0", `,"prevResult":`, string(prev)))
			wantCode(t, "CHECK", err, c.code, c.says)
		})
	}
	w, _ := fresh(t)
	_, err := in.run(t, "CHECK", w.n.Path(), conf("1.0.0"))
	wantCode(t, "no result", err, codeConfig, "prevResult")
}

func TestStatusSaysWhichRightsAreMissing(t *testing.T) {
	in := install(t)
	needRoot(t)
	if _, err := in.run(t, "STATUS", "", conf("1.1.0")); err != nil {
		t.Errorf("as root: %v", err)
	}
	// The plugin must be executable by anybody, and so must its directory.
	for dir := in.BinDir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, err := in.run(t, "STATUS", "", conf("1.1.0"), func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	})
	wantCode(t, "as nobody", err, codeNotAvailable, "CAP_SYS_ADMIN and CAP_NET_ADMIN")
	_, err = in.run(t, "STATUS", "", conf("1.1.0", `,"x":1`))
	wantCode(t, "a bad configuration", err, codeUnsupportedField)
}

func TestGCRefusesABadConfiguration(t *testing.T) {
	_, err := install(t).run(t, "GC", "", conf("1.1.0", `,"x":1`))
	wantCode(t, "GC", err, codeUnsupportedField)
}

func TestVersionDoesNotWaitForInput(t *testing.T) {
	in := install(t)
	r, w := io.Pipe() // never written to and never closed until the end
	defer w.Close()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), in.pluginFile())
	cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
	cmd.Stdin, cmd.Stdout = r, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	state, err := cmd.Process.Wait()
	w.Close()
	cmd.Wait()
	if err != nil || !state.Success() || !strings.Contains(out.String(), `"supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]`) {
		t.Errorf("%v, %v: %s", state, err, &out)
	}
}

// The small program is what is installed in practice.
func TestTheSmallProgramIsThePlugin(t *testing.T) {
	dir := t.TempDir()
	small := filepath.Join(dir, "v6node-cni")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", small, modulePath+"/cmd/v6node-cni")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	in := &installation{Layout: Layout{ConfDir: dir, BinDir: filepath.Join(dir, "bin")}}
	if _, err := Install(in.Layout, small); err != nil {
		t.Fatal(err)
	}
	path := newNetns(t)
	if _, err := in.run(t, "ADD", path, conf("1.1.0")); err != nil {
		t.Fatal(err)
	}
	if err := open(t, path).Verify(); err != nil {
		t.Error(err)
	}
	if _, err := in.run(t, "DEL", path, conf("1.1.0")); err != nil {
		t.Error(err)
	}
}

// A rootless runtime runs its plugins, and the node, inside a user namespace.
func TestAUserNamespaceIsEnough(t *testing.T) {
	needRoot(t)
	const inside = "V6NODE_TEST_IN_USERNS"
	if os.Getenv(inside) != "" {
		t.Skip("this is the inside")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.v",
		"-test.run=^(TestARuntimeTakesASandboxThroughItsLife|TestAListenerInTheSandboxServesFromOutside|TestVerifyAcceptsWhatThePluginMade)$")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this machine allows no user namespaces: %v", err)
	}
	if err != nil || bytes.Count(out, []byte("\n--- PASS")) != 3 {
		t.Errorf("%v:\n%s", err, out)
	}
}
