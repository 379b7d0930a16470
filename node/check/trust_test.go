package check

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/keyfile"
	"github.com/v6node/v6node/proxy/e2e"
)

// cosignKey writes a public key as cosign does.
func cosignKey(t *testing.T, dir string) string {
	t.Helper()
	_, public, err := imagekit.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "cosign.pub")
	if err := os.WriteFile(file, public, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSigningKeysAreReadAndNobodyElseMayChangeThem(t *testing.T) {
	h := newHospital(t, false, standin.Options{})
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := cosignKey(t, dir)
	const name = "policies.signatures.keys"
	look := func(file string) []Result {
		o := h.load(t, map[string]any{"policies": map[string]any{"signatures": map[string]any{"keys": []string{file}}}})
		return results(t, o.signing)
	}
	want(t, look(file), name, OK, file, "ECDSA P-256", "cosign 1, 2 and 3")
	for _, c := range []struct {
		path string
		mode os.FileMode
		text string
	}{{file, 0o646, "chmod go-w " + file}, {dir, 0o777, "chmod go-w " + dir}} {
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
		want(t, look(file), name, Warn, "who changes this file decides", c.text)
		if err := os.Chmod(c.path, c.mode&^0o022); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		want(t, look(file), name, Warn, "belongs to user 65534")
	}
	fifo, broken := filepath.Join(dir, "fifo"), filepath.Join(dir, "broken.pub")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.WriteFile(broken, []byte("no key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want(t, look(file+".not"), name, Fail, "no such file", "correct "+name)
	want(t, look(fifo), name, Fail, "is not a file")
	want(t, look(broken), name, Fail, "does not hold one public key")

	o := h.load(t, map[string]any{"sif": map[string]any{"directories": []string{dir}, "keys": []string{file, broken}}})
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	got := results(t, o.sif)
	want(t, got, "sif.keys", OK, file)
	want(t, got, "sif.keys", Fail, "broken.pub")
}

func TestThePrivateKeyIsOpenedEvenIfTheServerIsAway(t *testing.T) {
	h := newHospital(t, true, standin.Options{})
	h.Stop()
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	file, secret := filepath.Join(t.TempDir(), "key.pem"), filepath.Join(t.TempDir(), "passphrase")
	if err := errors.Join(keyfile.Create(file, key, []byte("correct horse")), os.WriteFile(secret, []byte("correct horse\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	look := func(e map[string]any) []Result {
		e["enabled"] = true
		return results(t, h.load(t, map[string]any{"encryption": e}).privateKey)
	}
	want(t, look(map[string]any{"private_key": file, "passphrase_file": secret}), "n", OK, key.Public().Fingerprint())
	want(t, look(map[string]any{"private_key": file}), "n", Fail, "passphrase")
	want(t, look(map[string]any{"private_key": file + ".not"}), "n", Fail, "no such file")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, look(map[string]any{"private_key": file, "passphrase_file": secret}), "n", Fail, "chmod 600 "+file)
}

func TestWhatTheNodeListensOnIsTried(t *testing.T) {
	h := newHospital(t, false, standin.Options{})
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	look := func(at string) []Result {
		return results(t, h.load(t, map[string]any{"metrics": map[string]any{"listen": at}}).listening)
	}
	want(t, look(l.Addr().String()), "metrics.listen", Skip, "in use")
	busy := l.Addr().(*net.TCPAddr).Port
	got := results(t, h.load(t, map[string]any{"sif": map[string]any{"directories": []string{dir}, "registry_port": busy}}).listening)
	want(t, got, "sif.registry_port", Skip, "in use")
	l.Close()
	want(t, look(l.Addr().String()), "metrics.listen", OK, "is free")
	want(t, look("unix://"+dir+"/m.sock"), "metrics.listen", OK, "can be made")
	want(t, look("unix://"+dir+"/none/m.sock"), "metrics.listen", Fail, "no directory")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTheWhitelistIsTriedAndDevicesAndBudgetAreHeldAgainstTheMachine(t *testing.T) {
	h := newHospital(t, false, standin.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := h.load(t, map[string]any{
		"whitelist": map[string]any{"domains": []string{"localhost", ".nowhere.invalid", "*.example.invalid"}, "pairs": []any{l.Addr().String(), map[string]any{"to": "127.0.0.1:1", "organization": 6}}},
		"limits":    map[string]any{"devices": []string{"nvidia.com/gpu=7", "nvidia.com/gpu:1"}},
		"policies":  map[string]any{"rules": []any{map[string]any{"user": 3, "limits": map[string]any{"devices": "vendor.com/fpga=all"}}}},
		"resources": map[string]any{"budget": map[string]any{"memory": "4000t", "cpus": 8000, "devices": []string{"nvidia.com/gpu:4"}}},
	})
	got := results(t, o.whitelist)
	want(t, got, "whitelist.domains", OK, "localhost")
	want(t, got, "whitelist.domains", Warn, "nowhere.invalid", "getent hosts")
	want(t, got, "whitelist.pairs", OK, l.Addr().String())
	want(t, got, "whitelist.pairs", Warn, "127.0.0.1:1")
	if len(got) != 4 {
		t.Errorf("%+v", got)
	}
	if !o.usesDevices() {
		t.Error("the devices are not seen")
	}
	var devices []Result
	o.deviceNames(func(r Result) { devices = append(devices, r) }, map[string][]string{"nvidia.com/gpu": {"0", "1"}})
	want(t, devices, "limits.devices", Fail, "nvidia.com/gpu=7", "0, 1")
	want(t, devices, "limits.devices", OK, "nvidia.com/gpu:1")
	want(t, devices, "policies.rules[0].limits.devices", Fail, "no vendor.com/fpga", "nvidia.com/gpu")
	want(t, devices, "resources.budget.devices", Warn, "more than this machine has (2)")
	budget := results(t, o.limits)
	want(t, budget, "resources.budget.memory", Warn, "more than the machine has")
	want(t, budget, "resources.budget.cpus", Warn, "8000")
	var names []string
	for _, c := range Doctor(o) {
		names = append(names, c.Name)
	}
	if all := strings.Join(names, " "); !strings.Contains(all, "devices listening") || !strings.Contains(all, "whitelist") {
		t.Errorf("%s", all)
	}
}
