package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// migrated rewrites a file of /old for /new, and reads it.
func migrated(t *testing.T, environment, text string) (*Config, *Migrated) {
	t.Helper()
	m, err := migrate("/old/site.yaml", "/new/site.yaml", environment, []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	c, _, err := Parse("/new/site.yaml", m.Text)
	if err != nil {
		t.Fatalf("%v\n%s", err, m.Text)
	}
	return c, m
}

// change is what becomes of a key.
func (m *Migrated) change(key string) Migration {
	i := slices.IndexFunc(m.Changes, func(c Migration) bool { return c.Key == key })
	if i < 0 {
		return Migration{}
	}
	return m.Changes[i]
}

func TestOlderShapesMigrate(t *testing.T) {
	const inner = "api_key: k\nserver_url: https://x.org\n"
	under := func(key, text string) string {
		return key + ":\n  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
	}
	for _, c := range []struct{ name, text, environment, want string }{
		{"version 4", inner, "", ""},
		{"application", under("application", inner) + "environments: {prod: {}, test: {}}\n", "", "application"},
		{"application by name", under("application", inner) + under("environments", under("prod", inner)), "application", "application"},
		{"the only environment", "application: {}\n" + under("environments", under("prod", inner)+"test: {}\n"), "", "prod"},
		{"one of two", under("environments", under("prod", inner)+under("test", inner)), "test", "test"},
		{"not application", under("application", inner) + under("environments", under("acc", inner)), "acc", "acc"},
	} {
		got, m := migrated(t, c.environment, c.text)
		if got.Server.URL != "https://x.org" || m.Environment != c.want || got.APIKey.Reveal() != "k" {
			t.Errorf("%s: %+v, %q", c.name, got.Server, m.Environment)
		}
	}
	for name, c := range map[string][2]string{
		"two environments":   {"", under("environments", under("prod", inner)+under("test", inner))},
		"an unknown one":     {"dev", under("application", inner)},
		"one where are none": {"prod", inner},
		"keys beside":        {"", under("application", inner) + "port: 1\n"},
		"empty":              {"", "application: {}\n"},
		"a list":             {"", "- a\n"},
		"environments: 1":    {"", "environments: 1\n"},
		"unknown key":        {"", inner + "api_kye: 1\n"},
		"both lists":         {"", inner + "allowed_images: [a]\npolicies: {allowed_algorithms: [b]}\n"},
		"not YAML":           {"", "a: [\n"},
		"an image wrong":     {"", inner + "allowed_images: ['a[']\n"},
	} {
		if m, err := migrate("/old/site.yaml", "/new/site.yaml", c[0], []byte(c[1])); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func TestMigrationRewritesWhatMeansSomethingElseHere(t *testing.T) {
	const text = `# Our node.
api_key: k # from the registration
server_url: https://x.org
# The data of the north.
databases:
  default: data/a.csv
  omop: postgres://u:p@host.docker.internal:5432/x
allowed_images: [registry.example.org/a]
algorithm_device_requests: {gpu: yes}
docker_services: {pacs: orthanc, "bad name": x}
ca_file: ca.pem
whitelist: {domains: [host.docker.internal, a.example.org], ips: [172.17.0.1]}
ssh-tunnels:
  - hostname: far
    ssh:
      host: host.docker.internal
      fingerprint: SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU
      identity: {username: 0123, key: id}
      tunnel: {bind: {ip: 0.0.0.0, port: 80}, dest: {ip: 10.0.0.1, port: 80}}
logging: {file: x.log}
task_dir: C:\tasks
`
	c, m := migrated(t, "", text)
	got := fmt.Sprintln(c.Databases[0].URI, c.Databases[0].Type, len(c.Services), c.Services[0].At, c.Services[0].Target, c.Policies.AllowedAlgorithms, c.Limits.Devices, c.Server.CAFile,
		c.Whitelist.Rules.Domains, c.Tunnels[0].Server, c.Tunnels[0].KeyFile, c.Tunnels[0].User, c.TaskDir)
	if want := "/old/data/a.csv csv 1 host.docker.internal:5432 127.0.0.1:5432 [registry.example.org/a] [nvidia.com/gpu=all] /old/ca.pem [a.example.org] 127.0.0.1:22 /old/id 0123"; strings.TrimSpace(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for key, want := range map[string]string{
		"databases": Changed, "databases[0].uri": Changed, "databases[1].uri": Replaced, "allowed_images": Renamed, "algorithm_device_requests.gpu": Replaced, "docker_services": NoEffect,
		"ca_file": Changed, "whitelist.domains": NoEffect, "whitelist.ips": Kept, "ssh-tunnels[0].ssh.tunnel": Renamed, "ssh-tunnels[0].ssh.host": Changed,
		"ssh-tunnels[0].tunnel.bind.ip": NoEffect, "logging.file": NoEffect, "task_dir": NoEffect, "api_key": Kept,
	} {
		if got := m.change(key); got.Change != want || got.Line == 0 {
			t.Errorf("%s: %+v, want %s", key, got, want)
		}
	}
	for _, want := range []string{"# Our node.", "api_key: k # from the registration", "# The data of the north.", "\n#   pacs: 127.0.0.1:PORT\n", "\n#   NAME: 127.0.0.1:PORT\n"} {
		if !strings.Contains(string(m.Text), want) {
			t.Errorf("%q is not in\n%s", want, m.Text)
		}
	}
	for _, c := range m.Changes {
		if strings.Contains(c.Note, "u:p") {
			t.Errorf("a note shows a password: %+v", c)
		}
	}
	if !slices.IsSortedFunc(m.Changes, func(a, b Migration) int { return a.Line - b.Line }) {
		t.Error("the changes are not in the order of the file")
	}
}

func TestAMigratedFileMayBeMigratedAgain(t *testing.T) {
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	first, m := migrated(t, "", string(data))
	again, err := migrate("/new/site.yaml", "/new/site2.yaml", "", m.Text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range again.Changes {
		if c.Change != Kept {
			t.Errorf("the second time: %+v", c)
		}
	}
	second, _, err := Parse("/new/site.yaml", again.Text)
	if err != nil {
		t.Fatal(err)
	}
	if d := Differences(first, second); len(d) > 0 {
		t.Errorf("%q differ", d)
	}
}

// FuzzMigrate: whatever is migrated says the same afterwards, and is never a panic.
func FuzzMigrate(f *testing.F) {
	for _, name := range []string{"testdata/full.yaml", "testdata/reference.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("application: {api_key: k, server_url: 'https://x.org', databases: {a: &b /x, c: *b}}"))
	f.Add([]byte("api_key: !!str 12\nserver_url: https://x.org\nalgorithm_env: {A: 0x1f, B: '~', C: yes, D: \"a\\nb\", E: 1_000, F: 2020-01-01}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := migrate("/old/site.yaml", "/new/site.yaml", "", data)
		switch {
		case errors.Is(err, ErrInvalid):
			if strings.Contains(err.Error(), "would not") {
				t.Errorf("the new file says something else: %v\n%q", err, data)
			}
		case err != nil:
			t.Errorf("%v\n%q", err, data)
		default:
			if _, _, err := Parse("/new/site.yaml", m.Text); err != nil {
				t.Errorf("%v\n%s", err, m.Text)
			}
		}
	})
}

// FuzzWriting: what is written is read again as it was. A configuration without keys is
// written as one without text, which means the same.
func FuzzWriting(f *testing.F) {
	f.Add([]byte("a: [1, '2', {b: ~}]\nc: |\n  x\n   y\nd: \"\\u0085\\t\"\n? e\n: 'no'\n"))
	f.Add([]byte("a: &x {b: 1}\nc: {<<: *x, d: -.inf}\n'#': ' # '\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, problems := readDocument("a", data)
		if problems != nil || v.kind != mapping || len(v.fields) == 0 {
			return
		}
		text, err := v.yaml("#")
		if err != nil {
			t.Fatalf("%v\n%q", err, data)
		}
		again, problems := readDocument("a", text)
		if problems != nil {
			t.Fatalf("%v\n%s", problems, text)
		}
		if !v.same(again) {
			t.Errorf("%q became\n%s", data, text)
		}
	})
}

// same compares values without their places and comments.
func (v *value) same(o *value) bool {
	return v.kind == o.kind && v.text == o.text && (v.tag == o.tag || v.text == "<<") && slices.EqualFunc(v.items, o.items, (*value).same) &&
		slices.EqualFunc(v.fields, o.fields, func(a, b field) bool { return a.key == b.key && a.val.same(b.val) })
}
