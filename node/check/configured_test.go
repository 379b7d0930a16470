package check

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/credentials"
	"github.com/v6node/v6node/node/image/hosts"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/proxy/e2e"
	"github.com/v6node/v6node/proxy/tunnel"
)

func databaseAt(path string) config.Database {
	return config.Database{Label: "data", URI: path, Type: "csv", MountMode: config.MountReadOnly}
}

func TestDatabasesAreLookedAtAsTheNodeMountsThem(t *testing.T) {
	dir := openDir(t)
	file := filepath.Join(dir, "data.csv")
	if err := os.WriteFile(file, []byte("a\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, results(t, database(databaseAt(file))), "n", OK, "/mnt/data.csv", "only by algorithms that run as user")
	want(t, results(t, database(databaseAt(dir))), "n", OK, "/mnt/data in the container")
	want(t, results(t, database(databaseAt(file+".not"))), "n", Fail, "does not exist", "correct its uri")
	want(t, results(t, database(databaseAt("/dev/null"))), "n", Fail, "neither a file nor a folder")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, results(t, database(databaseAt(pipe))), "n", Fail, "neither a file nor a folder")
	want(t, results(t, database(config.Database{Label: "data", URI: "hush"})), "n", Skip, "no connection")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at, err := hostport.Parse(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there := config.Database{Label: "data", URI: "postgres://u:secret@db/x", Endpoints: []hostport.Pair{at}}
	want(t, results(t, database(there)), "n", OK, at.String()+" takes connections")
	as := reach.Service{At: at, Target: reach.Target{Kind: reach.TCP, Address: at.String()}}
	want(t, results(t, service(as)), "n", OK, at.String()+" takes connections")
	want(t, results(t, database(there, as)), "n", Skip, "among the connections")
	l.Close()
	want(t, results(t, database(there)), "n", Fail, at.String()+" cannot be reached", "correct its address")
	want(t, results(t, service(as)), "n", Fail, at.String()+" cannot be reached", "correct its address")
	far := config.Tunnel{At: at, Config: tunnel.Config{Name: "far", Server: at, Dest: at, User: "u", KeyFile: file + ".not"}}
	want(t, results(t, sshTunnel(far)), "n", Fail, "the private key cannot be used", "correct ssh-tunnels")
	want(t, lookAs(t, "database", file), "", Fail, "permission denied", "the file's permissions")
}

// hospital is a server with a node of an organization.
type hospital struct {
	*standin.Server
	org int64
	key string // the node's API key
}

func newHospital(t *testing.T, encrypted bool, o standin.Options) hospital {
	t.Helper()
	s, err := standin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	h := hospital{Server: s, org: s.AddOrganization("Maastro")}
	h.key = s.AddNode(h.org, s.AddCollaboration("Lung", encrypted, h.org))
	return h
}

// load writes and reads a node's configuration.
func (h hospital) load(t *testing.T, extra map[string]any) Options {
	t.Helper()
	doc := map[string]any{
		"server_url": "http://127.0.0.1", "port": h.Port(), "api_path": h.APIPath(), "api_key": h.key,
		"state_dir": filepath.Join(t.TempDir(), "state"), "encryption": map[string]any{"enabled": false},
	}
	for k, v := range extra {
		doc[k] = v
	}
	b, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{File: filepath.Join(t.TempDir(), "node.yaml")}
	if err := os.WriteFile(o.File, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if o.Config, o.Warnings, err = config.Load(o.File); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAServerThatTheNodeFitsToIsOK(t *testing.T) {
	h := newHospital(t, false, standin.Options{})
	got := results(t, h.load(t, nil).server)
	want(t, got, "n", OK, "http://127.0.0.1")
	want(t, got, "clock", OK)
	want(t, got, "version", OK, "4.14.0")
	want(t, got, "API key", OK, "Maastro")
	want(t, got, "blob store", Skip, "none")
	want(t, got, "encryption", OK, "not encrypted")
	if h.Sockets(0) != 0 {
		t.Error("an event socket was opened, which disturbs the node that runs")
	}
}

func TestASkewedClockIsSeen(t *testing.T) {
	for _, c := range []struct {
		ahead  time.Duration
		status Status
		text   string
	}{{time.Hour, Fail, "behind the server"}, {-time.Hour, Fail, "ahead of the server"}, {time.Minute, Warn, "behind the server"}, {0, OK, ""}} {
		h := newHospital(t, false, standin.Options{})
		h.Fault(standin.Fault{Path: "/version", Status: 200, Body: `{"version": "4.13.1"}`, Header: http.Header{
			"Date": {time.Now().Add(c.ahead).UTC().Format(http.TimeFormat)},
		}})
		got := results(t, h.load(t, nil).server)
		want(t, got, "clock", c.status, c.text)
		want(t, got, "version", OK, "4.13.1")
	}
}

func TestAServerThatCannotBeUsedFailsWithItsOwnFix(t *testing.T) {
	h := newHospital(t, false, standin.Options{})
	o := h.load(t, map[string]any{"api_key": "00000000-0000-4000-8000-000000000000"})
	want(t, results(t, o.server), "API key", Fail, "does not recognize", "api_key_file")

	o = h.load(t, map[string]any{"api_path": "/elsewhere"})
	want(t, results(t, o.server), "n", Fail, "not the vantage6 API", "correct server_url, port and api_path")

	h.Fault(standin.Fault{Path: "/version", Status: 200, Body: `{"version": "5.0.0"}`})
	want(t, results(t, h.load(t, nil).server), "version", Fail, "5.0.0", "version 4")
	h.Stop()
	want(t, results(t, h.load(t, nil).server), "n", Fail, "connection refused", "firewall")

	o = h.load(t, map[string]any{"server_url": "http://server.invalid"})
	want(t, results(t, o.server), "n", Fail, "getent hosts server.invalid")
}

func TestAnUnknownAuthorityFailsAndItsCertificateMendsIt(t *testing.T) {
	model := httptest.NewUnstartedServer(nil)
	model.StartTLS() // for its certificate
	defer model.Close()
	h := newHospital(t, false, standin.Options{TLS: &tls.Config{Certificates: model.TLS.Certificates}})
	want(t, results(t, h.load(t, map[string]any{"server_url": "https://127.0.0.1"}).server), "n", Fail, "ca_file")
	want(t, results(t, h.load(t, map[string]any{"server_url": "http://127.0.0.1"}).server), "n", Fail)
}

func TestTheServerIsAskedThroughTheProxyOfTheEnvironment(t *testing.T) {
	proxied := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied <- r.URL.String()
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", strings.Replace(proxy.URL, "//", "//alice:secret@", 1))
	h := newHospital(t, false, standin.Options{})
	o := h.load(t, map[string]any{"server_url": "http://server.invalid"})
	got := results(t, o.server)
	want(t, got, "n", Fail, "through the proxy "+proxy.URL, "403")
	if u := <-proxied; !strings.HasPrefix(u, "http://server.invalid:") {
		t.Errorf("the proxy was asked for %q", u)
	}
	if strings.Contains(got[len(got)-1].Detail, "secret") {
		t.Errorf("the proxy's password is shown: %+v", got)
	}
}

func TestTheKeyMustBeTheOrganizations(t *testing.T) {
	key := func() (string, *e2e.PrivateKey) {
		k, err := e2e.GeneratePrivateKey(2048)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(file, k.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		return file, k
	}
	ours, private := key()
	other, _ := key()
	h := newHospital(t, true, standin.Options{})
	with := func(file string) []Result {
		return results(t, h.load(t, map[string]any{"encryption": map[string]any{"enabled": true, "private_key": file}}).server)
	}
	want(t, results(t, h.load(t, nil).server), "encryption", Fail, "set encryption.enabled to true")
	want(t, with(ours), "encryption", OK, "publishes")
	if h.PublicKey(h.org) != "" {
		t.Error("the check published a key")
	}
	h.SetPublicKey(h.org, private.Public().Base64())
	want(t, with(ours), "encryption", OK, "is the organization's")
	want(t, with(other), "encryption", Fail, "name the organization's key")
	if err := os.Chmod(ours, 0o640); err != nil {
		t.Fatal(err)
	}
	want(t, with(ours), "private key", Warn, "chmod 600")
	if err := os.Chmod(ours, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, with(ours), "encryption", Fail, "chmod 600")
	if err := os.WriteFile(other, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, with(other), "encryption", Fail, "cannot be used")
}

func TestLoginsAreTriedAndFileFaultsListed(t *testing.T) {
	reg, err := imagekit.Serve(t.Context(), imagekit.RegistryOptions{Username: "alice", Password: "right"})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	for password, status := range map[string]Status{"right": OK, "wrong-one": Fail} {
		got := results(t, Options{}.registry(config.Registry{Registry: reg.Host(), Username: "alice", Password: config.NewSecret(password)}))
		want(t, got, "n", status, "alice")
		if strings.Contains(got[0].Detail+got[0].Fix, password) {
			t.Errorf("the password is shown: %+v", got)
		}
	}

	broken := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(broken, []byte("server_url: https://v6.example.org\napi_key: x\nno_such_key: 1\nencryption: {enabled: maybe}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := Options{File: broken}
	o.Config, o.Warnings, o.Invalid = config.Load(broken)
	if !errors.Is(o.Invalid, config.ErrInvalid) {
		t.Fatal(o.Invalid)
	}
	want(t, results(t, o.configuration), "no_such_key", Fail, "node.yaml:3")
	o.Config, o.Warnings, o.Invalid = config.Load(broken + ".none")
	want(t, results(t, o.configuration), "n", Fail, "cannot be read", "--config")
}

func TestFilesOfRegistriesAreRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	at := func(files ...string) Options {
		return Options{Access: &image.Access{Logins: credentials.New(credentials.Options{Files: files}), Hosts: hosts.Directories{filepath.Join(dir, "certs.d")}}}
	}
	want(t, results(t, at().loginFiles), "n", OK, "no files")
	good := write("good.json", `{"credsStore":"no-such-helper"}`, 0o644)
	got := results(t, at(good).loginFiles)
	want(t, got, "n", Warn, "chmod 600 "+good)
	want(t, got, "n", Fail, "docker-credential-no-such-helper")
	want(t, results(t, at(write("bad.json", `{"s3cret`, 0o600)).loginFiles), "n", Fail, "bad.json")
	want(t, results(t, at().mirrors), "n", OK, "no mirrors")
	write("certs.d/good.example.org/hosts.toml", `[host."https://mirror.example.org"]`, 0o600)
	write("certs.d/bad.example.org/hosts.toml", `server =`, 0o600)
	got = results(t, at().mirrors)
	want(t, got, "n", OK, "good.example.org")
	want(t, got, "n", Fail, "bad.example.org", "hosts.toml")
	write("certs.d/bad.example.org/hosts.toml", `ca = "none.crt"`, 0o600)
	want(t, results(t, at().mirrors), "n", Fail, "none.crt")
}

func TestOpenFilesAndLimitsOfTheConfigurationAreHeldAgainstTheMachine(t *testing.T) {
	h := newHospital(t, false, standin.Options{})
	o := h.load(t, map[string]any{"limits": map[string]any{"cpuset_cpus": "8000"}})
	want(t, results(t, o.limits), "limits.cpuset_cpus", Fail, "8000")
	o.Config.Enforce = config.EnforceBestEffort
	want(t, results(t, o.limits), "limits.cpuset_cpus", Warn, "best-effort")
	want(t, results(t, h.load(t, nil).limits), "n", OK)
	if got := results(t, openFiles); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	if err := os.Chmod(o.File, 0o644); err != nil {
		t.Fatal(err)
	}
	o.Config, o.Warnings, o.Invalid = config.Load(o.File)
	want(t, results(t, o.configuration), "file", Warn, "chmod 600 "+o.File)
}

// TestTheReportOfAWholeConfiguration: every group is there, in its order, and no
// secret.
func TestTheReportOfAWholeConfiguration(t *testing.T) {
	h := newHospital(t, false, standin.Options{})
	dir := t.TempDir()
	data := filepath.Join(dir, "data.csv")
	if err := os.WriteFile(data, []byte("a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := h.load(t, map[string]any{
		"databases":         []map[string]any{{"label": "default", "uri": data, "type": "csv"}, {"label": "pg", "uri": "postgres://u:pgsecret@db.invalid/x", "type": "sql"}},
		"docker_registries": []map[string]any{{"registry": "127.0.0.1:1", "username": "alice", "password": "regsecret"}},
		"sif":               map[string]any{"directories": []string{dir}},
		"services":          map[string]any{"pacs": "127.0.0.1:1"},
	})
	o.Endpoint = "unix://" + dir + "/none.sock"
	var got []Result
	s, err := Run(t.Context(), Doctor(o), func(r Result) { got = append(got, r) })
	if err != nil || s.Fail == 0 {
		t.Errorf("%v, %+v", err, s)
	}
	for _, name := range []string{"kubelet", "network", "image store"} {
		want(t, got, name, Skip, "does not answer")
	}
	var groups []string
	for _, r := range got {
		if !slices.Contains(groups, r.Group) {
			groups = append(groups, r.Group)
		}
	}
	if g := strings.Join(groups, " "); g != "machine configuration runtime storage server registries databases connections" {
		t.Errorf("the groups are %s", g)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{h.key, "pgsecret", "regsecret"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("the report has a secret in it: %s", b)
		}
	}
}
