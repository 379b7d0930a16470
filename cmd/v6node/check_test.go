package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/node/check"
)

// checkRun runs "v6node check ARGS" and returns what it printed and its exit code.
func checkRun(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	app := newApp()
	var out, errOut bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errOut
	code = perform(t.Context(), app, append([]string{"v6node", "check"}, args...))
	return out.String(), errOut.String(), code
}

func TestCheckFailsWithWhatToDoWhereThereIsNoRuntime(t *testing.T) {
	endpoint := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	out, _, code := checkRun(t, "--cri-endpoint", endpoint)
	if code != exitCheck || !strings.Contains(out, "fail  endpoint") || !strings.Contains(out, "-> check that the runtime is running") {
		t.Errorf("%d\n%s", code, out)
	}
	out, _, code = checkRun(t, "--cri-endpoint", endpoint, "-o", "json")
	var r checkReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitCheck || r.Summary.Fail == 0 {
		t.Errorf("%d, %v\n%s", code, err, out)
	}
	if i := slices.IndexFunc(r.Results, func(r check.Result) bool { return r.Group == "runtime" && r.Name == "endpoint" }); i < 0 || r.Results[i].Status != check.Fail || r.Results[i].Fix == "" {
		t.Errorf("%+v", r.Results)
	}
}

func TestCheckGoesOnWhereTheConfigurationIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte("server_url: https://v6.example.org\nno_such_key: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, code := checkRun(t, "--config", file, "--cri-endpoint", "unix://"+file+".sock")
	if code != exitCheck || !strings.Contains(out, "fail  no_such_key") || !strings.Contains(out, "fail  api_key") || !strings.Contains(out, "fail  endpoint") {
		t.Errorf("%d\n%s", code, out)
	}
}

func TestCheckRefusesWhatItWouldIgnore(t *testing.T) {
	for _, args := range [][]string{{"surplus"}, {"--only", "logs"}, {"--run-tests", "--only", "no such test"}, {"-o", "xml"}} {
		if out, errOut, code := checkRun(t, args...); code != exitUsage || errOut == "" {
			t.Errorf("%q: %d %s\n%s", args, code, errOut, out)
		}
	}
}
