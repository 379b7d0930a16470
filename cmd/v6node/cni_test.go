package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/cni"
)

// cniRun runs "v6node cni ARGS" on directories of its own and returns what it
// printed and its exit code.
func cniRun(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	app := newApp()
	var out, errOut bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errOut
	all := append([]string{"v6node", "cni", args[0], "--conf-dir", filepath.Join(dir, "net.d"), "--bin-dir", filepath.Join(dir, "bin")}, args[1:]...)
	code = perform(t.Context(), app, all)
	return out.String(), errOut.String(), code
}

func TestCNICommandsInstallShowAndUninstall(t *testing.T) {
	dir := t.TempDir()
	if out, _, code := cniRun(t, dir, "show"); code != exitNotInEffect || !strings.Contains(out, "in effect: no") ||
		!strings.Contains(out, "v6node cni install --conf-dir "+dir) {
		t.Errorf("show before: %d\n%s", code, out)
	}
	for range 2 {
		if out, errOut, code := cniRun(t, dir, "install"); code != 0 || !strings.Contains(out, "in effect: yes") {
			t.Errorf("install: %d %s\n%s", code, errOut, out)
		}
	}
	out, _, code := cniRun(t, dir, "show", "-o", "json")
	var r cni.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || !r.Effective || r.Plugin.State != cni.Current {
		t.Errorf("show: %d %v\n%s", code, err, out)
	}
	if out, errOut, code := cniRun(t, dir, "uninstall"); code != 0 || strings.Contains(out, "problem") {
		t.Errorf("uninstall: %d %s\n%s", code, errOut, out)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestCNIInstallWantsToBeForcedOverAnotherNetwork(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "net.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "net.d", "10-other.conf")
	if err := os.WriteFile(other, []byte(`{"name":"other","type":"bridge"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := cniRun(t, dir, "install"); code != 1 || !strings.Contains(errOut, other) || !strings.Contains(errOut, "--force") {
		t.Errorf("install: %d %s", code, errOut)
	}
	out, errOut, code := cniRun(t, dir, "install", "--force")
	if code != 0 || !strings.Contains(errOut, "warning") || !strings.Contains(out, "hidden") {
		t.Errorf("install --force: %d %s\n%s", code, errOut, out)
	}
}

func TestCNIUsageErrorsHaveTheirOwnExitCode(t *testing.T) {
	for _, args := range [][]string{{"show", "-o", "xml"}, {"show", "surplus"}, {"install", "--no-such-flag"}} {
		if out, errOut, code := cniRun(t, t.TempDir(), args...); code != exitUsage || errOut == "" {
			t.Errorf("%q: %d %s\n%s", args, code, errOut, out)
		}
	}
}
