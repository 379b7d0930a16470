package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admin/admintest"
)

const somePolicies = `server_url: https://v6.example.org
api_key: key
databases: [{label: patients, uri: /p.csv, type: csv, mount_mode: ro}]
limit_rules: [{image: ghcr.io/org/average, limits: {memory: 1g}}]
policies:
  allowed_algorithms: [ghcr.io/org/average]
  allowed_organizations: [6, Maastro]
  allowed_algorithm_stores: https://store.example.org
  allow_either_whitelist_or_store: true
  rules:
    - databases: [patients]
      functions: [central, partial]
      limits: {timeout: 1h}
    - image: sha256:` + "2222222222222222222222222222222222222222222222222222222222222222" + `
      approve: manual
`

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPolicyTestExplainsTheDecision(t *testing.T) {
	file := writeConfig(t, somePolicies)
	ones, twos := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	for _, c := range []struct {
		args, decision string
		code           int
		steps, reason  string
		limits         string
	}{
		{"--image ghcr.io/org/average@" + ones + " --organization 6 --function central --database patients", wouldAllow, 0,
			"allowed_organizations allowed_algorithms rules", `is allowed by "ghcr.io/org/average"`, "limit_rules[0] policies.rules[0]"},
		{"--image ghcr.io/org/average --digest " + ones + " --organization Maastro --function partial", wouldAllow, 0, "allowed_organizations allowed_algorithms rules", "", "limit_rules[0] policies.rules[0]"},
		{"--image ghcr.io/org/average@" + ones + " --organization 4 --organization Maastro --function partial", wouldAllow, 0, "allowed_organizations allowed_algorithms rules", "", "limit_rules[0] policies.rules[0]"},
		{"--image ghcr.io/org/average@" + ones + " --organization 4 --function partial", wouldRefuse, exitNotAllowed, "allowed_organizations", "add --organization NAME", ""},
		{"--image ghcr.io/org/average@" + ones + " --organization Other --function partial", wouldRefuse, exitNotAllowed, "allowed_organizations", "does not accept tasks", ""},
		{"--image ghcr.io/org/average@" + ones + " --organization 6 --function dump", wouldRefuse, exitNotAllowed, "allowed_organizations allowed_algorithms rules", `call the function "dump"`, ""},
		{"--image ghcr.io/org/average@" + ones + " --organization 6 --function central --database other", wouldRefuse, exitNotAllowed, "allowed_organizations allowed_algorithms rules", `the database "other"`, ""},
		{"--image ghcr.io/org/other@" + ones + " --organization 6 --function central", wouldRefuse, exitNotAllowed, "allowed_organizations allowed_algorithms or allowed_algorithm_stores", "comes from none", ""},
		{"--image ghcr.io/org/other@" + ones + " --organization 6 --function central --store https://store.example.org/", wouldAllow, 0,
			"allowed_organizations allowed_algorithms or allowed_algorithm_stores rules", "algorithm store https://store.example.org is allowed", "policies.rules[0]"},
		{"--image ghcr.io/org/average@" + twos + " --organization 6 --function central", wouldWait, exitUndecided, "allowed_organizations allowed_algorithms rules", "approves it", "limit_rules[0] policies.rules[0]"},
		{"--image ghcr.io/org/average --offline --organization 6 --function central", wouldDepend, exitUndecided, "allowed_organizations allowed_algorithms rules", "depends on the digest", "limit_rules[0] policies.rules[0]"},
		{"--image ghcr.io/org/evil --offline --organization 6", wouldRefuse, exitNotAllowed, "allowed_organizations allowed_algorithms or allowed_algorithm_stores", "nothing in allowed_algorithms matches", ""},
	} {
		args := append([]string{"policy", "test", "--config", file, "-o", "json"}, strings.Fields(c.args)...)
		out, errOut, code := v6node(t, t.Context(), args...)
		var r policyReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%s: %v\n%s%s", c.args, err, out, errOut)
		}
		var asked []string
		for _, s := range r.Steps {
			asked = append(asked, s.Rule)
		}
		if code != c.code || r.Decision != c.decision || strings.Join(asked, " ") != c.steps || !strings.Contains(r.Reason, c.reason) || strings.Join(r.Limits, " ") != c.limits {
			t.Errorf("%s: exit code %d\n%s%s", c.args, code, out, errOut)
		}
		table, _, _ := v6node(t, t.Context(), append([]string{"policy", "test", "--config", file}, strings.Fields(c.args)...)...)
		if !strings.Contains(table, "RULE") || !strings.Contains(table, r.Reason) {
			t.Errorf("%s: the table is\n%s", c.args, table)
		}
	}
	for args, says := range map[string]string{
		"--image Bad/Name": "--image", "--image a/b --digest latest": "--digest", "--image a/b --organization 1 --organization 2": "--organization",
		"--image a/b --organization A --organization B": "--organization", "--image a/b --user -4": "--user", "": "no image is named", "--image a/b surplus": "takes no argument",
	} {
		_, errOut, code := v6node(t, t.Context(), append([]string{"policy", "test", "--config", file}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(errOut, says) {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
	if _, errOut, code := v6node(t, t.Context(), "policy", "test", "--config", writeConfig(t, "policies: {rules: 5}"), "--image", "a/b"); code != exitUsage {
		t.Errorf("an invalid file: %d, %s", code, errOut)
	}
}

func TestApproveDenyAndReload(t *testing.T) {
	s := hospital()
	s.RunList = append([]*admin.Run{{ID: 106, Task: 55, Image: "a/b", State: admin.Held, ReceivedAt: before(0)}}, s.RunList...)
	s.Waiting = append(s.Waiting, admin.Waiting{Run: 106, Task: 55, Image: "a/b", Since: before(0), Reason: "waits for v6node approve or deny"})
	s.Changed = admin.Change{Applied: []string{"policies", "limits"}, Restart: []string{"api_key"}, Warnings: []string{"node.yaml:3: odd"}}
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	run := func(args ...string) (string, string, int) {
		return v6node(t, t.Context(), append(args, "--state-dir", dir)...)
	}
	if out, _, code := run("approve", "106"); code != 0 || out != "106\n" {
		t.Errorf("approve: %d %q", code, out)
	}
	if out, _, code := run("deny", "latest", "--reason", "not today", "-o", "json"); code != 0 || strings.Join(strings.Fields(out), "") != "[106]" {
		t.Errorf("deny: %d %q", code, out)
	}
	if calls := strings.Join(s.Calls(), "; "); !strings.Contains(calls, "Approve 106; ") || !strings.HasSuffix(calls, `Deny 106 "not today"`) {
		t.Errorf("the node was asked %s", calls)
	}
	if _, errOut, code := run("approve", "103"); code != exitState || !strings.Contains(errOut, "does not wait for approval") {
		t.Errorf("approve of a running run: %d %s", code, errOut)
	}
	if out, _, _ := run("ps"); !strings.Contains(out, "Waits for approval") {
		t.Errorf("ps:\n%s", out)
	}
	if out, _, _ := run("queue"); !strings.Contains(out, "\n-         106") {
		t.Errorf("queue:\n%s", out)
	}
	if out, errOut, code := run("reload"); code != 0 || out != "Applied: policies, limits.\n" || !strings.Contains(errOut, "restart of the node: api_key") || !strings.Contains(errOut, "node.yaml:3: odd") {
		t.Errorf("reload: %d %q %q", code, out, errOut)
	}
	if out, _, code := run("reload", "-o", "json"); code != 0 || !strings.Contains(out, `"api_key"`) {
		t.Errorf("reload as JSON: %d %s", code, out)
	}
	s.OnReload = func(context.Context) (*admin.Change, error) {
		return nil, admin.Problemf(admin.ErrInvalid, "nothing has changed")
	}
	if _, errOut, code := run("reload"); code != exitUsage || errOut != "v6node: nothing has changed\n" {
		t.Errorf("a reload that is refused: %d %q", code, errOut)
	}
}
