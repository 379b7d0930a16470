package hosts

import (
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, dir, registry, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, registry), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, registry, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFileIsReadAsContainerdReadsIt(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "docker.io", "hosts.toml", `
server = "https://registry-1.docker.io"
ca = "own.crt"

[host."https://z.example.org"]
  capabilities = ["pull", "resolve"]
  ca = ["/etc/a.crt", "b.crt"]
  client = [["c.cert", "c.key"], "both.pem"]
  dial_timeout = "5s"
[host."https://z.example.org".header]
  x-key = ["a", "b"]

[host."a.example.org:5000/v2/cache/"]
  capabilities = ["pull"]
  skip_verify = true

[host."http://10.0.0.1/odd"]
  override_path = true
`)
	in := func(name string) string { return filepath.Join(dir, "docker.io", name) }
	want := []Host{
		{Scheme: "https", Host: "z.example.org", Path: "/v2", Mirror: true, Resolve: true, Pull: true, DialTime: 5 * time.Second,
			CAs: []string{"/etc/a.crt", in("b.crt")}, Client: []KeyPair{{in("c.cert"), in("c.key")}, {in("both.pem"), ""}},
			Header: http.Header{"X-Key": {"a", "b"}}},
		{Scheme: "https", Host: "a.example.org:5000", Path: "/v2/cache/v2", Mirror: true, Pull: true, SkipVerify: true},
		{Scheme: "http", Host: "10.0.0.1", Path: "/odd", Mirror: true, Resolve: true, Pull: true},
		{Scheme: "https", Host: "registry-1.docker.io", Path: "/v2", Resolve: true, Pull: true, CAs: []string{in("own.crt")}},
	}
	got, err := Directories{dir}.Load("docker.io")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestTheFirstDirectoryOfTheClosestNameCounts(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	mirror := func(name string) string { return "[host.\"https://" + name + ".example.org\"]\n" }
	write(t, a, "_default", "hosts.toml", mirror("default"))
	write(t, b, "r.example.org:5000", "hosts.toml", mirror("colon"))
	write(t, b, "x.example.org", "hosts.toml", mirror("b"))
	write(t, a, "x.example.org", "hosts.toml", mirror("a"))
	for registry, want := range map[string]string{"r.example.org:5000": "colon", "x.example.org": "a", "y.example.org": "default", "../x": "", ".": ""} {
		all, err := Directories{a, b, filepath.Join(a, "missing")}.Load(registry)
		if err != nil || want == "" && all != nil || want != "" && all[0].Host != want+".example.org" {
			t.Errorf("%s: %+v, %v", registry, all, err)
		}
	}
	write(t, b, "file", "hosts.toml", "")
	if all, err := (Directories{filepath.Join(b, "file", "hosts.toml"), a}).Load("x.example.org"); err != nil || all[0].Host != "a.example.org" {
		t.Errorf("a file in the place of a directory: %+v, %v", all, err)
	}
	write(t, a, "r.example.org_5000_", "hosts.toml", mirror("underscore"))
	if all, err := (Directories{a, b}).Load("r.example.org:5000"); err != nil || all[0].Host != "underscore.example.org" || all[1].Host != "" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestCertificatesAreFoundAsDockerHasThem(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "r.example.org", "ca.crt", "")
	write(t, dir, "r.example.org", "client.cert", "")
	write(t, dir, "r.example.org", "client.key", "")
	write(t, dir, "none.example.org", "README", "")
	in := func(name string) string { return filepath.Join(dir, "r.example.org", name) }
	all, err := Directories{dir}.Load("r.example.org")
	want := []Host{{Path: "/v2", Resolve: true, Pull: true, CAs: []string{in("ca.crt")}, Client: []KeyPair{{in("client.cert"), in("client.key")}}}}
	if err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := (Directories{dir}).Load("none.example.org"); err != nil || all != nil {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := all[0].TLS(); err == nil || !strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("an authority without a certificate: %v", err)
	}
}

func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"no TOML": "server = ", "another type": "capabilities = 3", "a capability": `capabilities = ["fly"]`, "no address": `server = "https://"`,
		"a password": `server = "https://u:p@r.example.org"`, "a scheme": `[host."httpx://r"]`, "a pair": `client = [["a"]]`, "a header": "[header]\nx = 3",
		"a duration": `dial_timeout = "soon"`, "a host inside a line": `host = {"https://r.example.org" = {}}`, "a CA": "ca = 3",
	} {
		dir := t.TempDir()
		write(t, dir, "r.example.org", "hosts.toml", text)
		if all, err := (Directories{dir}).Load("r.example.org"); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "r.example.org", "hosts.toml")) {
			t.Errorf("%s: %+v, %v", name, all, err)
		}
	}
}

func FuzzHostsFile(f *testing.F) {
	f.Add([]byte("server = \"https://a\"\n[host.\"https://b/v2\"]\ncapabilities=[\"pull\"]\n"))
	f.Add([]byte("[host.a.header]\nx=\"y\"\n[host.b]\nclient=[[\"a\",\"b\"]]"))
	f.Add([]byte("[[host]]\n[host]\na={}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parse(text, "/dir")
		if err == nil && (len(all) == 0 || all[len(all)-1].Mirror) {
			t.Errorf("%+v", all)
		}
	})
}
