package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// withoutEffect are keys that no configuration has in effect.
var withoutEffect = []string{"ssh-tunnels[].tunnel.bind.ip", "logging.file", "logging.use_console", "logging.backup_count", "logging.max_size", "logging.datefmt", "logging.loggers",
	"docker_services", "algorithm_device_requests", "algorithm_device_requests.gpu"}

// everything is a file in which every key has a value.
func everything(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	// The name of a key's kind is lost: a fingerprint is shown.
	text = regexp.MustCompile("fingerprint: .*").ReplaceAllString(text, "fingerprint: SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")
	text = strings.Replace(text, "  enforce: best-effort\n", `  enforce: best-effort
  cgroup: /v6node-alice
  budget: {memory: 64g, cpus: 16, pids: 20000, runs: 8, devices: ["nvidia.com/gpu:2"]}
  reserve: {memory: 0, cpus: 1, pids: 100}
  subtasks: {depth: 2, memory: 1g, cpus: 2, pids: 64}
  queue: {max_passes: 8, max_passed_for: 1m30s, stall_after: 90}
`, 1)
	text = strings.Replace(text, "policies:\n", `policies:
  allowed_algorithm_stores: https://store.example.org
  signatures: {keys: [cosign.pub]}
  rules:
    - {image: ghcr.io/org/algo, organization: "6", user: 3, databases: [default], functions: [], approve: manual, limits: {memory: 614401k, cpus: 0.5, devices: [], timeout: 90m, memory_swap: -1}}
    - {organization: Maastro, approve: automatic}
`, 1)
	return strings.Replace(text, "encryption:\n", "encryption:\n  passphrase_file: /etc/v6node/passphrase\n", 1)
}

func TestAnEffectiveConfigurationReadAgainIsTheSame(t *testing.T) {
	for name, text := range map[string]string{"everything": everything(t), "nothing": minimal, "a key in a file": "server_url: https://v6.example.org:8443\napi_key_file: key\n"} {
		c, _ := mustParse(t, text)
		b, err := c.document(plain).yaml("# again")
		if err != nil {
			t.Fatal(err)
		}
		again, _ := mustParse(t, string(b))
		// Where nothing was said, the defaults of the queue stand.
		if c.Admission == (Admission{}) {
			again.Admission = c.Admission
		}
		if d := Differences(c, again); len(d) > 0 {
			t.Errorf("%s: %q differ in\n%s", name, d, b)
		}
	}
}

func TestAnEffectiveConfigurationHasEveryKeyAndNoSecret(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "site.yaml"), everything(t), 0o600)
	e, err := LoadEffective(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := e.YAML()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"3f0c2f0e", "secret", "01234543210", "Alice", "admin@"} {
		if strings.Contains(string(text)+string(data), secret) {
			t.Errorf("it shows %q", secret)
		}
	}
	_, d := parse(path, path, []byte(everything(t)))
	var shown []string
	e.root.walk("", func(key string) { shown = append(shown, indices.ReplaceAllString(key, "[]")) })
	for _, k := range d.known {
		if !slices.Contains(shown, k) && !strings.Contains(k, "rules[].limits.") && !slices.Contains(withoutEffect, k) && !slices.ContainsFunc(replaced, func(r replacement) bool { return r.key == k }) {
			t.Errorf("it does not show %s", k)
		}
	}
	var fromYAML map[string]any
	if err := yaml.Unmarshal(text, &fromYAML); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var fromJSON struct {
		Configuration map[string]any
		Sources       map[string]Source
	}
	if err := json.Unmarshal(data, &fromJSON); err != nil || len(fromJSON.Configuration) != len(fromYAML) || fromJSON.Configuration["proxy_port"] != 8080.0 {
		t.Errorf("%v\n%s", err, data)
	}
}

// walk visits every key.
func (v *value) walk(path string, visit func(key string)) {
	for _, f := range v.fields {
		key := strings.TrimPrefix(path+"."+f.key, ".")
		visit(key)
		f.val.walk(key, visit)
	}
	for _, i := range v.items {
		i.walk(path+"[]", visit)
	}
}

func TestAnEffectiveConfigurationSaysWhereValuesComeFrom(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "site.yaml"), "server_url: https://v6.example.org\napi_key: hush\nlimits:\n  memory: 2g\npolicies:\n  allowed_users:\n    - 2\n    - 3\nalgorithm_env:\n  A: b\ndatabases:\n  - label: x\n    uri: x.csv\n    type: csv\n", 0o600)
	e, err := LoadEffective(path)
	if err != nil {
		t.Fatal(err)
	}
	s := e.Sources()
	for key, want := range map[string]Source{
		"server_url": {FromFile, 1}, "port": {From: FromDefault}, "limits.memory": {FromFile, 4}, "limits.pids": {From: FromDefault},
		"policies.allowed_users": {FromFile, 6}, "algorithm_env": {FromFile, 9}, "databases[0].uri": {FromFile, 13}, "databases[0].mount_mode": {From: FromDefault},
	} {
		if s[key] != want {
			t.Errorf("%s comes from %v, want %v", key, s[key], want)
		}
	}
	text, err := e.YAML()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"server_url: https://v6.example.org # line 1", "port: 443 # default", "api_key: '***' # line 2", "  memory: 2g # line 4", "  allowed_users: # line 6",
		"algorithm_env: # line 9", "  - label: x # line 12", "    uri: " + filepath.Dir(path) + "/x.csv # line 13", "services: {} # default",
	} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("there is no line %q in\n%s", line, text)
		}
	}
}
