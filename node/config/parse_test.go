package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/metrics"
	"github.com/v6node/v6node/node/policy"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/proxy/egress"
	"github.com/v6node/v6node/proxy/tunnel"
)

// minimal is the shortest configuration there is.
const minimal = "server_url: https://v6.example.org\napi_key: k\n"

func mustParse(t testing.TB, text string) (*Config, []Warning) {
	t.Helper()
	c, w, err := Parse("/etc/v6node/site.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c, w
}

func full(t testing.TB) (*Config, []Warning) {
	t.Helper()
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, string(data))
}

func TestTheReferenceNodesFileIsAcceptedAsItIs(t *testing.T) {
	c, warnings := full(t)
	yes := true
	want := &Config{
		Name:     "site",
		Server:   Server{URL: "https://v6.example.org", Port: 443, APIPath: "", CAFile: "/etc/v6node/ca.pem"},
		APIKey:   NewSecret("3f0c2f0e-0000-4000-8000-000000000001"),
		StateDir: "/srv/v6/state", TaskDir: "/srv/v6/tasks",
		Databases: []Database{
			{Label: "default", URI: "/etc/v6node/data/patients.csv", Type: "csv", MountMode: MountCopy},
			{Label: "registry", URI: "/data/registry.parquet", Type: "parquet", MountMode: MountCopy, Private: true},
			{Label: "omop", URI: "jdbc:postgresql://db.example.org:5454/postgres?user=x&password=uri-secret", Type: "omop", MountMode: MountCopy,
				Env: Env{"user": "admin@example.org", "password": "01234543210", "dbms": "postgresql"}, Endpoints: []hostport.Pair{{Host: "db.example.org", Port: 5454}}},
			{Label: "images", URI: "/data/images", Type: "folder", MountMode: MountReadOnly},
		},
		Services: []reach.Service{
			{At: at(t, "pacs:104"), Target: reach.Target{Kind: reach.TCP, Address: "10.1.2.3:104"}},
			{At: at(t, "orthanc:8042"), Target: reach.Target{Kind: reach.Unix, Address: "/run/orthanc/http.sock"}},
			{At: at(t, "web:80"), Target: reach.Target{Kind: reach.TCP, Address: "localhost:8080"}},
		},
		Tunnels: []Tunnel{{At: at(t, "my-data-source:8000"), Config: tunnel.Config{
			Name: "my-data-source:8000", Server: at(t, "127.0.0.1:2222"), User: "vantage6", KeyFile: "/etc/v6node/keys/tunnel", PassphraseFile: "/etc/v6node/keys/tunnel.passphrase", Dest: at(t, "127.0.0.1:5432"),
			HostKey: hostKey(t, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJRzZ2kE2yVxVb0u1mHqkzYqQjz0o6Vw3p6bQm1uH0aL"),
		}}},
		Whitelist: Whitelist{Rules: egress.Rules{
			Domains: []string{"google.com", ".github.com", "host.docker.internal"}, IPs: []string{"172.17.0.1", "8.8.8.8", "10.1.0.0/16"}, Ports: []int{443, 80},
			Pairs: []string{"data.example.net:443"},
		}},
		Encryption: Encryption{Enabled: true, PrivateKey: "/etc/v6node/keys/private_key.pem"},
		Policies: policy.Config{
			AllowedAlgorithms: []string{`^harbor2\.vantage6\.ai/[a-zA-Z]+/[a-zA-Z]+`, "ghcr.io/org/algo:v1"},
			AllowedUsers:      []string{"2"}, AllowedOrganizations: []string{"6", "root"}, AllowBasics: &yes, RequirePull: true,
		},
		Registries:     []Registry{{Registry: "docker.io", Username: "team", Password: NewSecret("registry-secret")}},
		RegistryAccess: RegistryAccess{AuthFiles: []string{"/etc/v6node/auth.json"}, CertsDirs: []string{"/etc/v6node/certs.d"}},
		SIF: SIF{
			Directories: []string{"/srv/images", "/etc/v6node/images"}, RequireSignature: true, Keys: []string{"/etc/v6node/keys.asc"},
			CacheSize: 50 << 30, MaxImageSize: 64 << 30, RegistryPort: 5099,
		},
		GC: GC{
			Interval: 30 * time.Minute, MinFree: 20 << 30, ScratchAge: 48 * time.Hour, RecordAge: 8760 * time.Hour,
			LogAge: 72 * time.Hour, LogSize: 2 << 30,
			Images: ImagesGC{MaxAge: 240 * time.Hour, MaxSize: 100 << 30, Keep: []collect.Pin{pin(t, "ghcr.io/org/algo:v1"), pin(t, "sif:algo")}},
		},
		AlgorithmEnv: Env{"player": "Alice", "threads": "4"},
		ShareConfig:  true, ShareAlgorithmLogs: false, RunContextFile: false,
		LogLevel: slog.LevelDebug, LogFormat: LogAuto,
		Prometheus: Prometheus{Enabled: true, Interval: 45 * time.Second},
		Metrics:    address(t, "127.0.0.1:9464"),
		Runtime:    Runtime{Endpoint: "unix:///run/containerd/containerd.sock", Handler: "runc", UserNS: UserNSAuto},
		Proxy:      Proxy{Port: 8080},
		Limits: Limits{Memory: 4 << 30, MemorySwap: 6 << 30, MemoryReservation: 512 << 20, CPUs: 1.5, CPUShares: 1024,
			CpusetCpus: "0-3,8", CpusetMems: "0", Pids: 512, TmpfsSize: 256 << 20, InputSize: 8 << 30, OutputSize: 1 << 30, ScratchSize: 20 << 30, LogSize: 128 << 20, ShmSize: 128 << 20,
			Ulimits: []limits.Ulimit{{Name: "core"}, {Name: "nofile", Soft: 1024, Hard: 4096}}, Timeout: 12 * time.Hour, OOMScoreAdj: new(int64(500)),
			Devices: []limits.Device{{Kind: "nvidia.com/gpu", Name: "0"}, {Kind: "vendor.com/fpga", Count: 2}}},
		Enforce:      EnforceBestEffort,
		PollInterval: 30 * time.Second, StopGrace: 10 * time.Second,
	}
	// Compiled patterns are functions, which cannot be compared.
	if got, rules := fmt.Sprintf("%+v", plainRules(c.LimitRules)), fmt.Sprintf("%+v", plainRules(fullRules(t))); got != rules {
		t.Errorf("got  rules %s\nwant rules %s", got, rules)
	}
	c.LimitRules = nil
	if got := fmt.Sprintf("%s", plainSome(c.Whitelist.Some)); got != "[[omics.example.org:8443] ghcr.io/org/omics 6 [a.example.org:1 10.9.9.9:2]  root]" {
		t.Errorf("the whitelist for some runs is %s", got)
	}
	c.Whitelist.Some = nil
	if !reflect.DeepEqual(c, want) {
		// %v would hide the secrets, and with them the difference.
		type plain Config
		t.Errorf("got  %+v\nwant %+v", plain(*c), plain(*want))
	}
	if got := c.Server.Base().String(); got != "https://v6.example.org:443" {
		t.Errorf("base is %s", got)
	}

	wantWarnings := []string{
		"databases[1].mount_mode", "logging", "vpn_subnet", "algorithm_device_requests",
		"node_extra_env", "node_extra_mounts", "node_extra_hosts", "images", "debug", "ssh-tunnels[0].ssh.host", "whitelist.domains", "docker_services",
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.Key)
		if w.Line == 0 || w.File != "/etc/v6node/site.yaml" || !strings.HasPrefix(w.Message, w.Key+": ") {
			t.Errorf("the warning %+v does not say where and what", w)
		}
		if strings.Contains(w.String(), "secret") {
			t.Errorf("a warning shows a secret: %s", w)
		}
	}
	slices.Sort(got)
	slices.Sort(wantWarnings)
	if !slices.Equal(got, wantWarnings) {
		t.Errorf("warnings about %q, want exactly one each about %q", got, wantWarnings)
	}
}

func TestTheApplicationWrapperIsTransparent(t *testing.T) {
	c, warnings := mustParse(t, "application:\n  server_url: https://v6.example.org\n  api_key: k\nenvironments: {}\n")
	if c.Server.URL != "https://v6.example.org" || len(warnings) != 1 || warnings[0].Key != "environments" {
		t.Errorf("%+v, %v", c.Server, warnings)
	}
	_, _, err := Parse("f.yaml", []byte("application:\n  server_url: https://x.org\n  api_key: k\nport: 5\n"))
	if err == nil || !strings.Contains(err.Error(), `f.yaml:4: "port" stands beside the section application`) {
		t.Errorf("a key beside application: %v", err)
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	c, warnings := mustParse(t, minimal)
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if c.Server.Port != 443 || c.Server.APIPath != "/api" || c.Proxy.Port != 8080 || c.PollInterval != 30*time.Second || c.StopGrace != 10*time.Second ||
		!c.ShareConfig || !c.ShareAlgorithmLogs || c.RunContextFile || c.LogLevel != slog.LevelInfo || c.LogFormat != LogAuto ||
		!c.Policies.RequirePull || c.Policies.AllowBasics != nil || !reflect.DeepEqual(c.Limits, Limits{Pids: 2048, TmpfsSize: 64 << 20, InputSize: 4 << 30, OutputSize: 100 << 20, ScratchSize: 10 << 30, LogSize: 64 << 20}) || c.Enforce != EnforceStrict {
		t.Errorf("%+v", c)
	}
	if !strings.HasSuffix(c.StateDir, "/v6node/site") || c.TaskDir != "" {
		t.Errorf("state %q, tasks %q", c.StateDir, c.TaskDir)
	}
}

// fullRules are the rules of full.yaml.
func fullRules(t *testing.T) []limits.Rule {
	t.Helper()
	rule := func(image, organization string, values map[string]string) limits.Rule {
		var c limits.Change
		for _, f := range limits.Fields() {
			if v, ok := values[f.Key]; ok {
				if err := c.Set(f, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		r, err := limits.NewRule(image, organization, c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	return []limits.Rule{
		rule(`^ghcr\.io/org/big.*`, "", map[string]string{"memory": "16g", "memory_swap": "16g"}),
		rule("ghcr.io/org/small:v1", "6", map[string]string{"cpus": "0.5", "timeout": "1h"}),
	}
}

// plainRules are rules without what cannot be compared: what they match, and
// what they make of no limits.
func plainRules(rules []limits.Rule) (out []any) {
	for _, r := range rules {
		out = append(out, r.Image, r.Organization, r.Change.Apply(limits.Limits{}))
	}
	return out
}

// TestEveryMistakeIsNamedWithItsLine: the key "at" is where the mistake is, counted in the text given.
func TestEveryMistakeIsNamedWithItsLine(t *testing.T) {
	for _, c := range []struct {
		name, text string
		line       int
		want       string
	}{
		{"unknown key", minimal + "polices: {}", 3, `unknown key "polices"; did you mean "policies"?`},
		{"dash for underscore", minimal + "task-dir: /x", 3, `did you mean "task_dir"?`},
		{"underscore for dash", minimal + "ssh_tunnels: []", 3, `did you mean "ssh-tunnels"?`},
		{"unknown nested key", minimal + "policies:\n  allowed_algoritms: x", 4, `unknown key "policies.allowed_algoritms"; did you mean "allowed_algorithms"?`},
		{"key in the wrong section", minimal + "allowed_users: [1]", 3, `did you mean "policies.allowed_users", one section away?`},
		{"nothing like it", minimal + "zzzzzzzzzz: 1", 3, `docs/configuration.md lists all keys`},
		{"unknown database key", minimal + "databases:\n  - label: a\n    uri: /a\n    type: csv\n    mount: ro", 7, `unknown key "databases[0].mount"`},
		{"wrong type of a text", "server_url: 5\napi_key: k", 1, "server_url must be a text, not the number 5"},
		{"wrong type of a number", minimal + "port: many", 3, `port must be a whole number from 1 to 65535, not the text "many"`},
		{"metrics for others", minimal + "metrics: {listen: 0.0.0.0:9464}", 3, "metrics.listen: 0.0.0.0 can be reached from other machines"},
		{"a collection every second", minimal + "gc: {interval: 1s}", 3, "gc.interval: 1s is less than a minute"},
		{"a pin that is no image", minimal + "gc: {images: {keep: [\"sha256:1\"]}}", 3, "gc.images.keep: \"sha256:1\" is no digest"},
		{"a pin that is no reference", minimal + "gc: {images: {keep: [Org/x]}}", 3, "gc.images.keep: invalid image reference"},
		{"records that are forgotten soon", minimal + "gc: {records: {max_age: 24h}}", 3, "gc.records.max_age: 24h is outside 168h0m0s"},
		{"metrics nowhere", minimal + "metrics: {listen: 9464}", 3, "metrics.listen must be a text"},
		{"out of range", minimal + "port: 70000", 3, "port must be a whole number"},
		{"wrong type of a switch", minimal + "share_config: maybe", 3, `share_config must be true or false, not the text "maybe"`},
		{"quoted switch", minimal + `share_config: "yes"`, 3, "share_config must be true or false"},
		{"wrong type of a section", minimal + "policies: all", 3, "policies must be a section"},
		{"wrong type of a list", minimal + "databases: /data/x.csv", 3, "databases must be a list of databases"},
		{"list of lists", minimal + "policies:\n  allowed_algorithms: [[a]]", 4, "policies.allowed_algorithms must be a text or a list of texts; it contains a list"},
		{"no server", "api_key: k", 1, "server_url is missing"},
		{"no api key", "server_url: https://x.org", 1, "api_key is missing"},
		{"two api keys", minimal + "api_key_file: /k", 2, "api_key and api_key_file are both given"},
		{"variable as key", "server_url: https://x.org\napi_key: ${KEY}", 2, "not expanded"},
		{"no scheme", "server_url: v6.example.org\napi_key: k", 1, "server_url must be an address"},
		{"login in the url", "server_url: https://u:hush@x.org\napi_key: k", 1, "server_url contains a user name or password"},
		{"path in the url", "server_url: https://x.org/api\napi_key: k", 1, "as api_path"},
		{"two ports", "server_url: https://x.org:1\nport: 2\napi_key: k", 1, "keep one"},
		{"query as api path", minimal + "api_path: /api?x", 3, "api_path"},
		{"bad level", minimal + "logging:\n  level: wraning", 4, `did you mean "WARNING"?`},
		{"bad format", minimal + "logging:\n  format: jsn", 4, `did you mean "json"?`},
		{"tilde", minimal + "task_dir: ~/v6", 3, "starts with ~, which is not expanded"},
		{"variable in a path", minimal + "task_dir: ${HOME}/v6", 3, "contains a variable, which is not expanded"},
		{"windows path", minimal + `state_dir: C:\v6`, 3, "Windows path"},
		{"private key missing", minimal + "encryption:\n  enabled: true", 3, "encryption.private_key is missing"},
		{"endpoint no socket", minimal + "runtime:\n  endpoint: tcp://1.2.3.4", 4, "unix://"},
		{"relative endpoint", minimal + "runtime:\n  endpoint: unix://run/x.sock", 4, "unix://"},
		{"label no identifier", minimal + "databases:\n  - {label: my-db, uri: /a, type: csv}", 4, `"my-db" is not an identifier`},
		{"label with a digit first", minimal + "databases:\n  - {label: 1db, uri: /a, type: csv}", 4, "not an identifier"},
		{"label missing", minimal + "databases:\n  - {uri: /a, type: csv}", 4, "databases[0].label is missing"},
		{"uri missing", minimal + "databases:\n  - {label: a, type: csv}", 4, "databases[0].uri is missing"},
		{"type missing", minimal + "databases:\n  - {label: a, uri: /a}", 4, "databases[0].type is missing"},
		{"label twice", minimal + "databases:\n  - {label: a, uri: /a, type: csv}\n  - {label: a, uri: /b, type: csv}", 5, `"a" is given twice`},
		{"labels differ in case", minimal + "databases:\n  - {label: a, uri: /a, type: csv}\n  - {label: A, uri: /b, type: csv}", 5, "differ only in case"},
		{"reserved label", minimal + "databases:\n  - {label: data, uri: /a, type: folder}", 4, "another meaning"},
		{"file at an address", minimal + "databases:\n  - {label: a, uri: 'https://x.org/a.csv', type: csv}", 4, "is an address"},
		{"the whole machine", minimal + "databases:\n  - {label: a, uri: /data/.., type: folder, mount_mode: ro}", 4, "whole machine"},
		{"writable folder", minimal + "databases:\n  - {label: a, uri: /a, type: folder, mount_mode: rw}", 4, "size_limit is missing; a writable folder needs one"},
		{"writable file", minimal + "databases:\n  - {label: a, uri: /a, type: csv, mount_mode: rw, size_limit: 1g}", 4, "mount_mode: copy gives each run a copy"},
		{"size of what cannot grow", minimal + "databases:\n  - {label: a, uri: /a, type: folder, mount_mode: ro, size_limit: 1g}", 4, "only a folder with mount_mode: rw has one"},
		{"size that holds nothing", minimal + "databases:\n  - {label: a, uri: /a, type: folder, mount_mode: rw, size_limit: 1k}", 4, "less than the smallest"},
		{"writable service", minimal + "databases:\n  - {label: a, uri: 'postgres://h/x', type: sql, mount_mode: rw, size_limit: 1g}", 4, "only files and folders"},
		{"mounted service", minimal + "databases:\n  - {label: a, uri: 'postgres://h/x', type: sql, mount_mode: ro}", 4, "only files and folders"},
		{"the proxy as a database", minimal + "databases:\n  - {label: a, uri: 'http://proxyserver/x', type: sparql}", 4, "something else in each sandbox"},
		{"a group of machines as a database", minimal + "databases:\n  - {label: a, uri: 'http://224.0.0.1/x', type: sparql}", 4, "not the address of one machine"},
		{"whitelist that is a list", minimal + "whitelist: [a]", 3, "whitelist must be a section"},
		{"whitelisted address for a name", minimal + "whitelist:\n  domains: [10.0.0.1]", 4, "write it under ips"},
		{"whitelisted URL", minimal + "whitelist:\n  domains:\n    - ok.org\n    - https://x.org", 6, "whitelist.domains: \"https://x.org\" is not a host name"},
		{"whitelisted network", minimal + "whitelist: {ips: [10.0.0.1/8]}", 3, "write 10.0.0.0/8"},
		{"whitelisted port", minimal + "whitelist: {domains: [a.org], ports: [70000]}", 3, "is not a port"},
		{"whitelisted pair", minimal + "whitelist:\n  pairs:\n    - a.org", 5, "write it as db.example.org:5432"},
		{"pairs that are a text", minimal + "whitelist: {pairs: a.org:1}", 3, "whitelist.pairs must be a list of host:port"},
		{"pair for nobody", minimal + "whitelist:\n  pairs:\n    - {to: a.org:1}", 5, "names neither an image nor an organization"},
		{"pair without a host", minimal + "whitelist:\n  pairs:\n    - {image: a/b}", 5, "whitelist.pairs[0].to is missing"},
		{"pair with a bad image", minimal + "whitelist:\n  pairs:\n    - {to: a.org:1, image: '^(?!x)'}", 5, "is not a regular expression"},
		{"pair with an unknown key", minimal + "whitelist:\n  pairs:\n    - {to: a.org:1, img: x}", 5, "unknown key \"whitelist.pairs[0].img\""},
		{"services that are a list", minimal + "services: [a]", 3, "services must be a section"},
		{"service without a port", minimal + "services:\n  pacs: 10.1.2.3", 4, "services.pacs: \"10.1.2.3\" is not a host and a port"},
		{"service that is a section", minimal + "services: {pacs: {a: b}}", 3, "services.pacs must be host:port or unix"},
		{"socket without a port", minimal + "services: {pacs: 'unix:///run/x'}", 3, "such as pacs:80"},
		{"relative socket", minimal + "services: {'pacs:1': 'unix://run/x'}", 3, "is not a socket"},
		{"service with the proxy's name", minimal + "services: {webproxy: 'a:1'}", 3, "choose another name"},
		{"service with a number as name", minimal + "services: {10.1.2.3: 'a:1'}", 3, "is not a host name"},
		{"service twice", minimal + "services: {pacs: 'a:1', 'pacs:1': 'b:2'}", 3, "pacs:1 is given twice"},
		{"service and tunnel", minimal + "services: {far:8000: 'a:1'}\n" + sshTunnel, 4, "far:8000 is given twice"},
		{"database at another port of a service", minimal + "services: {pacs: 'a:1'}\ndatabases: [{label: a, uri: 'http://pacs/x', type: other}]", 4, "leads to port 80 of pacs, which services or ssh-tunnels have with another port"},
		{"tunnels", minimal + "ssh-tunnels: {hostname: far}", 3, "ssh-tunnels must be a list of tunnels"},
		{"tunnel without a fingerprint", minimal + strings.Replace(sshTunnel, `"SHA256:`+strings.Repeat("A", 43)+`"`, "", 1), 4, "ssh-tunnels[0].ssh.fingerprint is missing"},
		{"tunnel with a bad fingerprint", minimal + strings.Replace(sshTunnel, "SHA256:", "SHA256:x", 1), 4, "not a whole fingerprint"},
		{"tunnel without a key", minimal + strings.Replace(sshTunnel, "key: k", "", 1), 4, "ssh-tunnels[0].ssh.identity.key is missing"},
		{"tunnel without a port", minimal + strings.Replace(sshTunnel, "port: 8000", "", 1), 4, "ssh-tunnels[0].tunnel.bind.port is missing"},
		{"tunnel with an unknown key", minimal + strings.Replace(sshTunnel, "host: s", "host: s, hots: s", 1), 5, "did you mean \"host\"?"},
		{"tunnel with the proxy's name", minimal + strings.Replace(sshTunnel, "hostname: far", "hostname: proxyserver", 1), 4, "choose another name"},
		{"tunnel with an address as name", minimal + strings.Replace(sshTunnel, "hostname: far", "hostname: 10.1.2.3", 1), 4, "write a name"},
		{"env of a database", minimal + "databases:\n  - {label: a, uri: /a, type: csv, env: {a-b: x}}", 4, "a variable's name"},
		{"env differs in case", minimal + "databases:\n  - {label: a, uri: /a, type: csv, env: {user: x, USER: y}}", 4, "differ only in case"},
		{"env is a list", minimal + "algorithm_env: [a]", 3, "algorithm_env must be a section of names and values"},
		{"env holds a section", minimal + "algorithm_env: {a: {b: c}}", 3, "must be a text or a number"},
		{"reserved variable", minimal + "algorithm_env: {INPUT_FILE: x}", 3, "the node sets this variable itself"},
		{"variable of the image", minimal + "algorithm_env: {PKG_NAME: x}", 3, "the image sets this variable"},
		{"database variable", minimal + "algorithm_env: {DEFAULT_DATABASE_URI: x}", 3, "the node sets this variable itself"},
		{"policy regular expression", minimal + "policies:\n  allowed_algorithms:\n    - ok/ok\n    - ^(?!x)", 6, "policies.allowed_algorithms"},
		{"policy image", minimal + "policies:\n  allowed_algorithms: Foo/Bar", 4, "neither an image nor a regular expression"},
		{"store without a scheme", minimal + "policies:\n  allowed_algorithm_stores:\n    - https://a.org\n    - store.example.org", 6, "neither the address of a store"},
		{"store expression", minimal + "policies:\n  allowed_algorithm_stores: '(?!x)'", 4, "policies.allowed_algorithm_stores"},
		{"signatures without keys", minimal + "policies:\n  signatures: {}", 4, "policies.signatures.keys is missing"},
		{"signatures with an empty list", minimal + "policies:\n  signatures: {keys: []}", 4, "policies.signatures.keys is empty"},
		{"signatures with a path that is none", minimal + "policies:\n  signatures: {keys: ~/cosign.pub}", 4, "policies.signatures.keys"},
		{"rules that are no list", minimal + "policies:\n  rules: {approve: manual}", 4, "policies.rules must be a list of rules"},
		{"rule that says nothing", minimal + "policies:\n  rules:\n    - image: a/b", 5, "policies.rules[0]: a rule says what holds for its runs"},
		{"rule about a name", minimal + "policies:\n  rules:\n    - user: alice\n      approve: manual", 5, "policies.rules[0].user must be a whole number"},
		{"rule about no image", minimal + "policies:\n  rules:\n    - image: Foo/Bar\n      approve: manual", 5, "neither an image nor a regular expression"},
		{"rule with another word", minimal + "policies:\n  rules:\n    - approve: manuel", 5, `did you mean "manual"?`},
		{"rule with an empty name", minimal + "policies:\n  rules:\n    - functions: ['']", 5, "is not a name"},
		{"rule with a limit that is none", minimal + "policies:\n  rules:\n    - limits: {memory: lots}", 5, `policies.rules[0].limits.memory: "lots" is not a size`},
		{"rule with limits that contradict", minimal + "policies:\n  rules:\n    - limits: {memory: 100m, memory_swap: 10m}", 5, "policies.rules[0].limits.memory_swap"},
		{"rule with an unknown key", minimal + "policies:\n  rules:\n    - {approve: manual, images: a/b}", 5, `did you mean "image"?`},
		{"registry login", minimal + "docker_registries:\n  - {registry: x.org, username: u}", 4, "docker_registries[0].password is missing"},
		{"registry name", minimal + "docker_registries:\n  - {registry: 'a b', username: u, password: p}", 4, "is not a registry"},
		{"two logins", minimal + "docker_registries:\n  - {registry: docker.io, username: u, password: p}\n  - {registry: index.docker.io, username: u, password: p}", 5, "two logins for docker.io"},
		{"size", minimal + "limits: {memory: lots}", 3, `limits.memory: "lots" is not a size`},
		{"too small", minimal + "limits: {memory: 1m}", 3, "less than the smallest"},
		{"size with a fraction of a number", minimal + "limits: {memory: 1.5}", 3, "limits.memory must be a size"},
		{"swap less than memory", minimal + "limits: {memory: 2g, memory_swap: 1g}", 3, "memory and swap together"},
		{"swap without memory", minimal + "limits: {memory_swap: 1g}", 3, "limits.memory_swap: it needs a limit of memory"},
		{"reservation", minimal + "limits: {memory: 1g, memory_reservation: 2g}", 3, "limits.memory_reservation: it cannot be more than memory"},
		{"cpus", minimal + "limits: {cpus: -1}", 3, "limits.cpus: it must be a number"},
		{"cpus not a number", minimal + "limits: {cpus: .nan}", 3, "limits.cpus: it must be a number"},
		{"cpuset", minimal + "limits: {cpuset_cpus: 3-1}", 3, "not a list of numbers"},
		{"pids", minimal + "limits: {pids: -2}", 3, "limits.pids: it must be a whole number"},
		{"ulimit", minimal + "limits:\n  ulimits: [nofile=9, nofiles=9]", 4, `"nofiles" is none of the ulimits`},
		{"ulimit upside down", minimal + "limits: {ulimits: nofile=9:8}", 3, "soft limit is above the hard one"},
		{"ulimit twice", minimal + "limits: {ulimits: [core=0, core=1]}", 3, "core is given twice"},
		{"device path", minimal + "limits: {devices: /dev/fuse}", 3, "devices have CDI names"},
		{"device", minimal + "limits: {devices: [nvidia.com/gpu]}", 3, "is not a device"},
		{"device that is a section", minimal + "limits: {devices: {nvidia.com/gpu: 1}}", 3, "limits.devices must be a text or a list of texts"},
		{"oom score", minimal + "limits: {oom_score_adj: 1001}", 3, "from -1000 to 1000"},
		{"timeout", minimal + "limits: {timeout: 10ms}", 3, "limits.timeout: 10ms is outside"},
		{"enforcement", minimal + "resources: {enforce: stict}", 3, `did you mean "strict"?`},
		{"rules", minimal + "limit_rules: {image: a}", 3, "limit_rules must be a list of rules"},
		{"rule for everything", minimal + "limit_rules:\n  - limits: {pids: 5}", 4, "names neither an image nor an organization"},
		{"rule without limits", minimal + "limit_rules:\n  - image: a/b", 4, "limit_rules[0].limits is missing"},
		{"rule with a bad image", minimal + "limit_rules:\n  - {image: '^(?!x)', limits: {pids: 5}}", 4, "limit_rules[0]: \"^(?!x)\" is not a regular expression"},
		{"rule with a bad limit", minimal + "limit_rules:\n  - image: a/b\n    limits:\n      memory: lots", 6, `limit_rules[0].limits.memory: "lots" is not a size`},
		{"rule with an unknown limit", minimal + "limit_rules:\n  - image: a/b\n    limits: {memroy: 1g}", 5, `did you mean "memory"?`},
		{"rule against the defaults", minimal + "limits: {memory: 1g}\nlimit_rules:\n  - image: a/b\n    limits: {memory_reservation: 2g}", 6, "limit_rules[0].limits.memory_reservation: it cannot be more than memory"},
		{"duration", minimal + "poll_interval: soon", 3, "not a duration"},
		{"duration out of range", minimal + "poll_interval: 2h", 3, "outside"},
		{"twice", minimal + "port: 1\nport: 2", 4, `"port" is given twice, first in line 3`},
		{"twice, nested", minimal + "limits:\n  pids: 5\n  pids: 6", 5, "given twice"},
		{"custom tag", minimal + "task_dir: !env X", 3, "the YAML tag"},
		{"key is a list", minimal + "[a]: b", 3, "a key must be a word"},
		{"not a mapping", "- a\n- b", 1, "the file must have keys and values such as server_url: https://..., and is a list"},
		{"broken YAML", minimal + "a: b: c", 3, "not valid YAML"},
		{"two documents", minimal + "---\na: b", 0, "second YAML document"},
		{"a v5 file", "node:\n  apiKey: x\n", 1, "vantage6 5"},
		{"zero byte", minimal + `task_dir: "/a\0b"`, 3, "one line of text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Parse("f.yaml", []byte(c.text))
			var problems Problems
			if !errors.As(err, &problems) || !errors.Is(err, ErrInvalid) {
				t.Fatalf("accepted, or a strange error: %v", err)
			}
			for _, p := range problems {
				if strings.Contains(p.Message, c.want) && (c.line == 0 || p.Line == c.line) {
					return
				}
			}
			t.Errorf("no problem in line %d that says %q, but:\n%v", c.line, c.want, err)
		})
	}
}

func TestAllMistakesAreReportedAtOnceInOrder(t *testing.T) {
	_, _, err := Parse("f.yaml", []byte("api_kye: x\nport: abc\nlimits:\n  pids: -2\ndatabases:\n  - {label: 1, uri: /x, type: csv}\n"))
	lines := strings.Split(err.Error(), "\n")
	var at []string
	for _, l := range lines {
		if !strings.HasPrefix(l, "f.yaml:") {
			t.Errorf("%q does not start with the file and line", l)
		}
		at = append(at, l[:8])
	}
	if want := []string{"f.yaml:1", "f.yaml:1", "f.yaml:1", "f.yaml:2", "f.yaml:4", "f.yaml:6"}; !slices.Equal(at, want) {
		t.Errorf("problems at %q, want %q:\n%v", at, want, err)
	}
}

func TestWhatRestrictsNothingIsSaid(t *testing.T) {
	for text, want := range map[string]string{
		"policies: {allowed_algorithms: []}":                                                           "every algorithm may run",
		"policies: {allowed_users: []}":                                                                "every user may send tasks",
		"policies: {allowed_organizations: []}":                                                        "every organization may send tasks",
		"policies: {allowed_users: [alice]}":                                                           "allows nobody",
		"policies: {allow_either_whitelist_or_store: true}":                                            "has no effect",
		"policies: {allow_either_whitelist_or_store: true, allowed_algorithms: a/b}":                   "without allowed_algorithm_stores",
		"policies: {allow_either_whitelist_or_store: true, allowed_algorithm_stores: 'https://a.org'}": "without allowed_algorithms",
		"policies: {allowed_algorithm_stores: []}":                                                     "tasks need not come from a store",
		"policies: {rules: [{databases: nosuch}]}":                                                     `this node has no database "nosuch"`,
		"databases: [{label: a, uri: /a, type: folder}]":                                               "read-only",
		"databases: [{label: a, uri: /a, type: cvs}]":                                                  `did you mean "csv"?`,
		"databases: [{label: a, uri: 'C:\\data\\x.csv', type: csv}]":                                   "Windows path",
		"databases: [{label: a, uri: 'bigquery://hush', type: sql}]":                                   "but no connection: it names no port",
		"databases: [{label: a, uri: 'postgresql://u:hu/sh@db/x', type: sql}]":                         "cannot be told from its password",
		"databases: [{label: a, uri: hush, type: other}]":                                              "no host",
		"docker_services: {pacs: dicom}":                                                               "such as pacs: 127.0.0.1:PORT",
		"whitelist: {ports: [443]}":                                                                    "reach nothing by it",
		"databases: {default: /data/x.csv}":                                                            "out of date",
		"task_dir: 'C:\\Users\\me'":                                                                    "Windows path",
		"logging: {use_console: no}":                                                                   "use_console is not used",
	} {
		_, warnings := mustParse(t, minimal+text)
		if len(warnings) != 1 || !strings.Contains(warnings[0].Message, want) || strings.Contains(warnings[0].Message, "hush") {
			t.Errorf("%s: %v, want one that says %q", text, warnings, want)
		}
	}
	for _, quiet := range []string{"databases: [{label: a, uri: 'file:///data/x.db', type: other}]", "databases: [{label: a, uri: 'http://h:9999/sparql', type: sparql}]", "databases: [{label: a, uri: 'jdbc:sqlserver://h:1;user=x;password=hush', type: sql}]", "whitelist: {domains: []}", "ssh-tunnels: []", "docker_services:", "algorithm_device_requests: {gpu: false}", "policies:", "databases:", "encryption: {enabled: false, private_key: null}", "encryption: {enabled: false, private_key: ~}", "encryption: {enabled: false, private_key: ''}"} {
		if _, warnings := mustParse(t, minimal+quiet); len(warnings) != 0 {
			t.Errorf("%s: %v, want no warning", quiet, warnings)
		}
	}
	if _, warnings := mustParse(t, "server_url: http://v6.example.org\napi_key: k"); len(warnings) != 1 || !strings.Contains(warnings[0].Message, "unprotected") {
		t.Errorf("http: %v", warnings)
	}
	if _, warnings := mustParse(t, "server_url: http://127.0.0.1:7601\napi_key: k"); len(warnings) != 0 {
		t.Errorf("http on loopback: %v", warnings)
	}
}

func TestPolicyRulesAndTheirLimits(t *testing.T) {
	c, warnings := mustParse(t, minimal+`
databases: [{label: patients, uri: /p.csv, type: csv, mount_mode: ro}]
limit_rules: [{image: a/b, limits: {pids: 10}}]
policies:
  allowed_algorithm_stores: https://store.example.org
  rules:
    - databases: []
      functions: count
    - {image: a/b, organization: 06, user: 7, databases: [patients], approve: Manual, limits: {memory: 1g}}
    - limits: {timeout: 1h}
`)
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	r := c.Policies.Rules
	if len(r) != 3 || r[0].Databases == nil || len(*r[0].Databases) != 0 || (*r[0].Functions)[0] != "count" || r[1].Functions != nil ||
		r[1].Organization != "06" || r[1].User != 7 || r[1].Approve != policy.ApproveManual || c.Policies.AllowedStores[0] != "https://store.example.org" {
		t.Errorf("rules %+v", r)
	}
	l := c.LimitRules
	if len(l) != 3 || l[0].Path(0) != "limit_rules[0]" || l[1].Path(1) != "policies.rules[1]" || l[1].User != 7 || l[2].Image != "" || !l[2].Change.Sets("timeout") {
		t.Errorf("limit rules %+v", l)
	}
}

func TestTheOldFormOfDatabasesIsUnderstood(t *testing.T) {
	c, _ := mustParse(t, minimal+"databases:\n  default: /data/x.csv\n  more: sub/y.parquet\n  full: {uri: /z, type: folder, mount_mode: ro}\n")
	want := []Database{
		{Label: "default", URI: "/data/x.csv", Type: "csv", MountMode: MountCopy},
		{Label: "more", URI: "/etc/v6node/sub/y.parquet", Type: "parquet", MountMode: MountCopy},
		{Label: "full", URI: "/z", Type: "folder", MountMode: MountReadOnly},
	}
	if !reflect.DeepEqual(c.Databases, want) {
		t.Errorf("got %v, want %v", c.Databases, want)
	}
}

func TestServerAddressesAreNormalised(t *testing.T) {
	for text, want := range map[string]string{
		"server_url: https://x.org":                                  "https://x.org:443/api",
		"server_url: https://x.org:8443\napi_path: api":              "https://x.org:8443/api",
		"server_url: https://x.org\nport: '7601'\napi_path: /v6/":    "https://x.org:7601/v6",
		"server_url: http://[::1]\napi_path: ''":                     "http://[::1]:80",
		"server_url: http://localhost\nport: 7601\napi_path: /":      "http://localhost:7601",
		"server_url: https://x.org:443\nport: 443\napi_path: '/a/b'": "https://x.org:443/a/b",
	} {
		c, _ := mustParse(t, "api_key: k\n"+text)
		if got := c.Server.Base().String(); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestAliasesAndMergesAreFollowedWithinBounds(t *testing.T) {
	c, _ := mustParse(t, minimal+"databases:\n  - &d {label: a, uri: /a, type: csv}\n  - {<<: *d, label: b}\n")
	if len(c.Databases) != 2 || c.Databases[1].Label != "b" || c.Databases[1].URI != "/a" {
		t.Errorf("%v", c.Databases)
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i <= 'j'; i++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	for name, text := range map[string]string{
		"bomb":   bomb,
		"cycle":  "a: &a [*a]",
		"merges": "a: &a\n  <<: *a\n",
		"depth":  strings.Repeat("[", 200) + strings.Repeat("]", 200),
		"length": strings.Repeat("# x\n", maxFile/4+1),
	} {
		start := time.Now()
		if _, _, err := Parse("f.yaml", []byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	c, warnings := full(t)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "key", c.APIKey, "db", c.Databases[2], "env", c.AlgorithmEnv)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", *c, "key", c.APIKey, "db", c.Databases[2], "env", c.AlgorithmEnv)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown := log.String() + string(asJSON) + string(asYAML) + fmt.Sprint(warnings)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown += fmt.Sprintf(verb, *c) + fmt.Sprintf(verb, c) + fmt.Sprintf(verb, c.APIKey) + fmt.Sprintf(verb, c.Databases) + fmt.Sprintf(verb, c.AlgorithmEnv)
	}
	for _, secret := range []string{"3f0c2f0e", "registry-secret", "uri-secret", "admin@example.org", "01234543210", fmt.Sprintf("%x", "registry-secret")} {
		if i := strings.Index(shown, secret); i >= 0 {
			t.Errorf("%s is shown: ...%s", secret, shown[max(0, i-80):i+len(secret)])
		}
	}
	if !strings.Contains(string(asJSON), "db.example.org:5454") {
		t.Errorf("hosts may be shown, and are not: %s", asJSON)
	}
	if c.APIKey.Reveal() != "3f0c2f0e-0000-4000-8000-000000000001" || c.Databases[2].Env["password"] != "01234543210" {
		t.Error("the secrets themselves are lost")
	}
}

func TestMessagesDoNotShowSecrets(t *testing.T) {
	_, _, err := Parse("f.yaml", []byte(`
server_url: https://user:hush-1@x.org
api_key: [hush-2]
docker_registries:
  - registry: x.org
    username: u
    password: [hush-3]
  - {registry: y.org, password: hush-4}
databases:
  - {label: a-b, uri: 'postgres://u:hush-5@h/x', type: sql, mount_mode: ro, env: {password: hush-6, PASSWORD: hush-7}}
algorithm_env: {PKG_NAME: hush-8, a-b: hush-9}
`))
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
}

// TestLoginsInTheWrongPlaceAreNotShown: whoever writes an address where none is wanted is told so without its password.
func TestLoginsInTheWrongPlaceAreNotShown(t *testing.T) {
	for _, text := range []string{
		"hush", "'hush: '", "- hush\n- x",
		minimal + "databases: 'jdbc:postgresql://u:hush@h/db'",
		minimal + "databases: ['jdbc:postgresql://u:hush@h/db']",
		minimal + "databases: ['jdbc:postgresql://h/db?password=hush&x=y']",
		minimal + "databases: ['jdbc:sqlserver://h;Password=hush']",
		minimal + "databases: [{label: d, uri: 'http://u:hush@h/', type: csv}]",
		minimal + "databases: [{label: d, uri: 'http://u:hu@sh@h/', type: csv}]",
		minimal + "databases: [{label: d, uri: 'http://u:" + strings.Repeat("hush", 100) + "@h/', type: csv}]",
		minimal + "services: {a: 'u:hush@h:1'}",
		minimal + "whitelist: {domains: ['https://u:hush@h:1']}",
		minimal + "policies: {allowed_algorithm_stores: 'https://u:hush@h('}",
		minimal + "proxy_port: u:hush@h",
	} {
		if _, _, err := Parse("f.yaml", []byte(text)); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s:\n%v", text, err)
		}
	}
	digest := "a:b@sha256:12"
	if _, _, err := Parse("f.yaml", []byte(minimal+"policies: {allowed_algorithms: '"+digest+"'}")); err == nil || !strings.Contains(err.Error(), digest) {
		t.Errorf("a digest is no login, and is to be shown: %v", err)
	}
}

func TestAddressesAreShownWithoutCredentials(t *testing.T) {
	for uri, want := range map[string]string{
		"postgres://u:hush@db:5432/x":            "postgres://db:5432/***",
		"postgres://u:hu@sh@db:5432/x":           "postgres://db:5432/***",
		"postgres://u:hu/sh@db:5432/x":           "***",
		"postgres://u:hu@hu/sh@db:5432/x":        "***",
		"jdbc:postgresql://db/x?password=hush":   "jdbc:postgresql://db/***",
		"jdbc:sqlserver://db:1433;password=hush": "jdbc:sqlserver://db:1433/***",
		"http://db:9999/sparql":                  "http://db:9999/***",
		"Server=db;Password=hush":                "***",
		"user/hush@//db:1521/x":                  "***",
		"password=hush host=x://db":              "***",
		"hush":                                   "***",
		"mongodb://u:hush@a:1,b:2/x":             "mongodb://a:1/***",
		"mongodb://u:hush@a:1,u:hush@b:2/x":      "***",
	} {
		if got := (Database{URI: uri}).shown().URI; got != want {
			t.Errorf("%s is shown as %s, want %s", uri, got, want)
		}
	}
}

func TestNamesFitForDirectories(t *testing.T) {
	for path, want := range map[string]string{
		"/etc/v6/alpha.yaml": "alpha", "/x/My Node.yml": "My-Node", "/x/..yaml": "node", "/x/a/b.c.yaml": "b.c", "/x/日本.yaml": "node",
		"/x/" + strings.Repeat("n", 100) + ".yaml": strings.Repeat("n", 64),
	} {
		if got := nodeName(path); got != want {
			t.Errorf("%s names the node %q, want %q", path, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	if data, err := os.ReadFile("testdata/full.yaml"); err == nil {
		f.Add(data)
	}
	for _, s := range []string{minimal, "application:\n  a: b", "a: &a [*a]", "a: &a\n  <<: *a", "? [a]\n: b", "databases: {a: b}", "\xff", "- a", "limits: {memory: 1.5g}", "a: !!binary eA==", "%YAML 1.2\n---\na: b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := Parse("/etc/v6/f.yaml", data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || c != nil || err.Error() == "" {
				t.Fatalf("a strange error: %v", err)
			}
			return
		}
		if c.Server.URL == "" || c.APIKey.IsZero() == (c.APIKeyFile == "") {
			t.Fatalf("accepted without server or key: %+v", c)
		}
		for _, db := range c.Databases {
			if !identifier.MatchString(db.Label) {
				t.Fatalf("accepted the label %q", db.Label)
			}
		}
		if _, err := policy.New(c.Policies); err != nil {
			t.Fatalf("accepted a policy that is none: %v", err)
		}
	})
}

// sshTunnel is a tunnel without a fault.
const sshTunnel = `ssh-tunnels:
  - hostname: far
    ssh: {host: s, identity: {username: u, key: k},
      fingerprint: "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    tunnel: {bind: {port: 8000}, dest: {ip: 127.0.0.1, port: 5432}}
`

func TestATunnelWithoutAFault(t *testing.T) {
	c, warnings := mustParse(t, minimal+sshTunnel+"databases: [{label: a, uri: 'postgresql://far:8000/x', type: sql}]")
	if len(warnings) != 0 || len(c.Tunnels) != 1 || c.Tunnels[0].Server != at(t, "s:22") {
		t.Errorf("%+v, %v", c.Tunnels, warnings)
	}
}

// plainSome is a whitelist without what cannot be compared.
func plainSome(some []WhitelistRule) (out []any) {
	for _, s := range some {
		out = append(out, s.Pairs, s.Runs.Image, s.Runs.Organization)
	}
	return out
}

func at(t testing.TB, text string) hostport.Pair {
	t.Helper()
	p, err := hostport.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func hostKey(t testing.TB, text string) tunnel.HostKey {
	t.Helper()
	k, err := tunnel.ParseHostKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pin(t testing.TB, text string) collect.Pin {
	t.Helper()
	p, err := collect.ParsePin(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func address(t testing.TB, text string) metrics.Address {
	t.Helper()
	a, err := metrics.ParseAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
