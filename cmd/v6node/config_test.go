package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/node/config"
)

// written makes a file for its owner only.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const plainConfig = "server_url: https://v6.example.org\napi_key: hush-hush\n"

func TestConfigCheckNamesEveryErrorAndWarning(t *testing.T) {
	good, warned := written(t, "good.yaml", plainConfig), written(t, "warned.yaml", plainConfig+"vpn_subnet: 10.0.0.0/8\n")
	bad := written(t, "bad.yaml", "server_url: https://v6.example.org\napi_kye: hush-hush\nvpn_subnet: 10.0.0.0/8\nport: x\n")
	if err := os.Chmod(bad, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file  string
		code  int
		wants []string
	}{
		{good, 0, []string{good + ": 0 errors, 0 warnings"}},
		{warned, 0, []string{warned + ":3: warning: vpn_subnet: not used", "-> algorithms exchange data", "0 errors, 1 warnings"}},
		{bad, exitUsage, []string{bad + ":1: error: api_key is missing", bad + ":2: error: unknown key \"api_kye\"", "-> did you mean \"api_key\"?", bad + ":3: warning: ", bad + ":4: error: port must be", bad + ": warning: this file holds secrets", "-> run: chmod 600", "3 errors, 2 warnings"}},
		{bad + ".not", exitUsage, []string{"error: ", "cannot be read", "1 errors"}},
	} {
		out, errOut, code := v6node(t, t.Context(), "config", "check", "-c", c.file)
		if code != c.code || strings.Contains(out, "hush") {
			t.Errorf("%s: %d\n%s%s", c.file, code, out, errOut)
		}
		at := 0
		for _, want := range c.wants {
			i := strings.Index(out, want)
			if i < 0 || !strings.Contains(want, ": warning: this file") && !strings.Contains(want, "chmod") && i < at {
				t.Errorf("%q is not there, or out of order:\n%s", want, out)
			}
			if !strings.Contains(want, "chmod") && !strings.Contains(want, "this file") {
				at = max(i, at)
			}
		}
		out, _, code = v6node(t, t.Context(), "config", "check", "-c", c.file, "-o", "json")
		var r configReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != c.code || r.Valid != (code == 0) || r.File != c.file || r.Valid != (len(r.Problems) == 0) {
			t.Errorf("%v, %d, %+v", err, code, r)
		}
		if c.file == bad && (r.Problems[1].Line != 2 || r.Problems[1].Key != "api_kye" || r.Problems[1].Fix != `did you mean "api_key"?` || len(r.Warnings) != 2) {
			t.Errorf("%+v", r)
		}
	}
}

func TestConfigShowHasDefaultsAndNoSecrets(t *testing.T) {
	file := written(t, "alpha.yaml", plainConfig+"limits: {memory: 4g}\nvpn_subnet: 10.0.0.0/8\n")
	out, errOut, code := v6node(t, t.Context(), "config", "show", "--config", file)
	for _, want := range []string{"# What holds for node alpha by " + file, "\napi_key: '***' # line 2\n", "\n  memory: 4g # line 3\n", "\n  pids: 2048 # default\n", "\npoll_interval: 30s # default\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not there:\n%s", want, out)
		}
	}
	if code != 0 || strings.Contains(out, "hush") || !strings.Contains(errOut, "warning: "+file+":4: vpn_subnet") {
		t.Errorf("%d, %s", code, errOut)
	}
	out, _, code = v6node(t, t.Context(), "config", "show", "--config", file, "-o", "json")
	var r struct {
		File, Name    string
		Configuration struct {
			Limits  map[string]any
			API_Key string
		}
		Sources map[string]config.Source
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Name != "alpha" || r.Configuration.Limits["memory"] != "4g" || r.Configuration.API_Key != "***" || r.Sources["limits.memory"].Line != 3 {
		t.Errorf("%v, %d, %+v", err, code, r)
	}
	for _, args := range [][]string{{"show", "-o", "table", "-c", file}, {"show", "-c", file + ".not"}, {"show", "x"}, {"check", "x"}, {"migrate"}} {
		if _, errOut, code := v6node(t, t.Context(), append([]string{"config"}, args...)...); code != exitUsage || errOut == "" {
			t.Errorf("%q: %d, %s", args, code, errOut)
		}
	}
}

const oldConfig = `application: {}
environments:
  prod:
    api_key: hush-hush
    server_url: https://v6.example.org
    port: 443
    api_path: /api
    databases:
      default: patients.csv
    allowed_images: [registry.example.org/average]
    encryption: {enabled: false, private_key: ""}
    logging: {level: DEBUG, file: node.log, use_console: true}
  test: {api_key: hush-too, server_url: https://test.example.org}
`

func TestConfigMigrateWritesANewFileAndSaysWhatBecameOfEachKey(t *testing.T) {
	old := written(t, "alpha.yaml", oldConfig)
	to := filepath.Join(t.TempDir(), "etc", "alpha.yaml")
	if _, errOut, code := v6node(t, t.Context(), "config", "migrate", old, to); code != exitUsage || !strings.Contains(errOut, "prod, test; choose one with --environment") && !strings.Contains(errOut, "--environment") {
		t.Errorf("without an environment: %d, %s", code, errOut)
	}
	out, errOut, code := v6node(t, t.Context(), "config", "migrate", "--environment", "prod", "--dry-run", old, to)
	if _, err := os.Stat(to); code != 0 || !errors.Is(err, os.ErrNotExist) || !strings.Contains(out, "Nothing was written") {
		t.Errorf("%d, %v\n%s%s", code, err, out, errOut)
	}
	out, errOut, code = v6node(t, t.Context(), "config", "migrate", "--environment", "prod", old, to)
	for _, want := range []string{"allowed_images", "renamed", "policies.allowed_algorithms", "no effect", "kept", "Wrote " + to, "v6node run --config " + to} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not there:\n%s", want, out)
		}
	}
	info, err := os.Stat(to)
	if err != nil || code != 0 || info.Mode().Perm() != 0o600 || strings.Contains(out+errOut, "hush") {
		t.Fatalf("%d, %v\n%s%s", code, err, out, errOut)
	}
	cfg, warnings, err := config.Load(to)
	if err != nil || len(warnings) > 0 || cfg.APIKey.Reveal() != "hush-hush" || cfg.Databases[0].URI != filepath.Join(filepath.Dir(old), "patients.csv") || cfg.Policies.AllowedAlgorithms[0] != "registry.example.org/average" {
		t.Errorf("%+v, %q, %v", cfg, warnings, err)
	}
	if _, errOut, code := v6node(t, t.Context(), "config", "migrate", "--environment", "test", old, to); code != exitFailure || !strings.Contains(errOut, "--force") {
		t.Errorf("over what exists: %d, %s", code, errOut)
	}
	if _, errOut, code := v6node(t, t.Context(), "config", "migrate", "--environment", "test", "--force", old, old); code != exitUsage || !strings.Contains(errOut, "stays as it is") {
		t.Errorf("over itself: %d, %s", code, errOut)
	}
	out, _, code = v6node(t, t.Context(), "config", "migrate", "--environment", "test", "--force", "-o", "json", old, to)
	var r migrateReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || !r.Written || r.Environment != "test" || r.To != to || len(r.Changes) < 3 {
		t.Errorf("%v, %d, %+v", err, code, r)
	}
	if cfg, _, err := config.Load(to); err != nil || cfg.Server.URL != "https://test.example.org" {
		t.Errorf("%+v, %v", cfg, err)
	}
	if left, err := os.ReadFile(old); err != nil || string(left) != oldConfig {
		t.Errorf("the old file was changed: %v", err)
	}
	lost := written(t, "lost.yaml", plainConfig+"something_new: 1\n")
	if _, errOut, code := v6node(t, t.Context(), "config", "migrate", lost, to+".2"); code != exitUsage || !strings.Contains(errOut, lost+":3: unknown key") {
		t.Errorf("an unknown key: %d, %s", code, errOut)
	}
	if _, err := os.Stat(to + ".2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was written all the same: %v", err)
	}
}

func TestTheManualShowsWhatMigrateAndCheckPrint(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("../../docs", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	migration, commands := read("migration.md"), read("commands.md")
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("alpha.yaml", []byte(`environments:
  prod:
    api_key: hush-hush
    server_url: https://v6.example.org
    databases:
      default: patients.csv
    allowed_images: [registry.example.org/average]
    vpn_subnet: 10.76.0.0/16
`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errOut, code := v6node(t, t.Context(), "config", "migrate", "--environment", "prod", "alpha.yaml", filepath.Join(dir, "new", "alpha.yaml"))
	out = strings.ReplaceAll(out, filepath.Join(dir, "new"), "/etc/v6node")
	if shown := "\n$ v6node config migrate --environment prod alpha.yaml /etc/v6node/alpha.yaml\n" + out + "```"; code != 0 || !strings.Contains(migration, shown) {
		t.Errorf("%d, %s\nthe manual shows something else than\n%s", code, errOut, out)
	}
	if err := os.WriteFile("alpha.yaml", []byte("server_url: https://v6.example.org\napi_kye: x\napi_key: hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, _ = v6node(t, t.Context(), "config", "check", "--config", "alpha.yaml")
	lines := strings.SplitAfter(out, "\n")
	if len(lines) != 4 || !strings.Contains(commands, "\n$ v6node config check --config alpha.yaml\n"+lines[0]+lines[1]+"```") {
		t.Errorf("the manual shows something else than\n%s", out)
	}
}

func TestTheOnlyConfigurationIsTakenWhereNoneIsNamed(t *testing.T) {
	dir := t.TempDir()
	if _, err := onlyConfig(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "v6node init") {
		t.Errorf("none: %v", err)
	}
	for _, name := range []string{"alpha.yaml", "private_key.pem", ".alpha.yaml.swp.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := onlyConfig(dir); err != nil || got != filepath.Join(dir, "alpha.yaml") {
		t.Errorf("one: %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "beta.yml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := onlyConfig(dir); err == nil || !strings.Contains(err.Error(), "alpha.yaml") || !strings.Contains(err.Error(), "beta.yml") {
		t.Errorf("two: %v", err)
	}
}

func TestAServiceIsMentionedWhereItsUnitIsInstalled(t *testing.T) {
	units := t.TempDir()
	if got := serviceCommand("/etc/v6node/alpha.yaml", "/etc/v6node", units); got != "" {
		t.Errorf("without a unit: %q", got)
	}
	if err := os.WriteFile(filepath.Join(units, "v6node@.service"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"/etc/v6node/alpha.yaml": "systemctl enable --now v6node@alpha", "/etc/v6node/alpha.yml": "", "/srv/alpha.yaml": ""} {
		if got := serviceCommand(file, "/etc/v6node", units+"/none", units); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

func TestWordsAreQuotedForAShell(t *testing.T) {
	for in, want := range map[string]string{"/etc/v6node/a.yaml": "/etc/v6node/a.yaml", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$x": "'$x'"} {
		if got := shellWord(in); got != want {
			t.Errorf("%q became %s, want %s", in, got, want)
		}
	}
}
