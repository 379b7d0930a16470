//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/v6node/v6node/node/config"
)

func setupScenarios() []scenario {
	return []scenario{
		{"a node that init has set up runs a task", initialized},
		{"a configuration of the reference node that was migrated runs a task", migrated},
	}
}

// complete adds what a test's node needs besides: nothing of it may be outside of
// the world's directory.
func (n *node) complete(t *testing.T) {
	t.Helper()
	more, err := yaml.Marshal(map[string]any{"state_dir": n.StateDir, "resources": n.w.resources(map[string]any{"runs": 200, "memory": "1t", "pids": 1_000_000})})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(n.Config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(more)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// runsATask starts the node and runs a task on its database.
func (n *node) runsATask(t *testing.T) {
	t.Helper()
	n.online(t)
	got := completed[map[string]any](t, n.call(t, "noop", nil, databases("default")))
	if len(got) == 0 {
		t.Error("the result is empty")
	}
}

func initialized(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{Sealed: true})
	cfg, _, err := config.Load(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(n.Config)
	key := filepath.Join(dir, "api.key")
	if err := errors.Join(os.Remove(n.Config), os.WriteFile(key, []byte(cfg.APIKey.Reveal()+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if w.user != nil {
		if err := w.user.own(dir); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"init", "--yes", "--config", n.Config, "--server-url", fmt.Sprintf("%s:%d", cfg.Server.URL, cfg.Server.Port), "--api-path", cfg.Server.APIPath,
		"--api-key-file", key, "--private-key", cfg.Encryption.PrivateKey, "--database", "default=" + cfg.Databases[0].URI, "--allow-all-algorithms", "-o", "json"}
	out, errOut, err := w.v6node(t, args...)
	var r struct {
		File, Organization string
		Encrypted          bool
		Checks             []struct{ Name, Status string }
	}
	if failed := json.Unmarshal([]byte(out), &r); err != nil || failed != nil {
		t.Fatalf("%v, %v\n%s%s", err, failed, out, errOut)
	}
	if r.File != n.Config || !r.Encrypted || !strings.HasPrefix(r.Organization, "organization ") || len(r.Checks) < 5 {
		t.Errorf("%+v", r)
	}
	if w.server.PublicKey(n.org) != "" {
		t.Error("init has changed something at the server")
	}
	n.complete(t)
	n.runsATask(t)
	if w.server.PublicKey(n.org) != n.key.Public().Base64() {
		t.Error("the node has not published its key")
	}
}

func migrated(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{})
	cfg, _, err := config.Load(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	// As version 3 has it, beside the database.
	old := filepath.Join(filepath.Dir(n.Config), "old.yaml")
	text, err := yaml.Marshal(map[string]any{
		"environments": map[string]any{"prod": map[string]any{}},
		"application": map[string]any{
			"api_key": cfg.APIKey.Reveal(), "server_url": cfg.Server.URL, "port": cfg.Server.Port, "api_path": cfg.Server.APIPath, "task_dir": `C:\Users\site`,
			"databases": map[string]any{"default": filepath.Base(cfg.Databases[0].URI)}, "allowed_images": []string{".*"},
			"encryption": map[string]any{"enabled": false, "private_key": nil}, "vpn_subnet": "10.76.0.0/16", "algorithm_env": map[string]any{"SITE": "north"},
			"logging": map[string]any{"level": "DEBUG", "file": "node.log", "use_console": true, "backup_count": 5, "max_size": 1024, "format": "%(message)s", "datefmt": "%H"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(n.Config), os.WriteFile(old, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	if w.user != nil {
		if err := w.user.own(filepath.Dir(old)); err != nil {
			t.Fatal(err)
		}
	}
	if out, errOut, err := w.v6node(t, "config", "migrate", old, n.Config); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errOut)
	}
	if out, errOut, err := w.v6node(t, "config", "check", "--config", n.Config); err != nil || !strings.Contains(out, "0 errors, 0 warnings") {
		t.Errorf("%v\n%s%s", err, out, errOut)
	}
	n.complete(t)
	n.runsATask(t)
}
