package credentials

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// helper installs a credential helper, a shell script, in front of PATH.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, helperPrefix+name), "#!/bin/sh\n"+script, 0o700)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func find(t *testing.T, s *Store, repository string) (Login, bool) {
	t.Helper()
	l, ok, err := s.Find(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	return l, ok
}

func TestTheEntryThatSaysMostDecides(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "auth.json"), fmt.Sprintf(`{"auths": {
		"registry.example.org": {"auth": %q},
		"registry.example.org/group": {"auth": %q},
		"registry.example.org/group/algo": {"username": "algo", "password": "p"},
		"https://Other.example.org:5000/v1/": {"auth": %q},
		"https://index.docker.io/v1/": {"auth": %q},
		"empty.example.org": {},
		"tokens.example.org": {"identitytoken": "id"},
		"plain.example.org": {"registrytoken": "reg"}}}`,
		basic("host", "p"), basic("group", "p:with:colons\x00\x00"), basic("other", "p"), basic("hub", "p")), 0o600)
	s := New(Options{Files: []string{file}})
	for repository, want := range map[string]string{
		"registry.example.org/x":            "host",
		"registry.example.org":              "host",
		"registry.example.org/group/x":      "group",
		"registry.example.org/groups/x":     "host",
		"registry.example.org/group/algo":   "algo",
		"registry.example.org/group/algo/x": "algo",
		"other.example.org:5000/x":          "other",
		"other.example.org/x":               "",
		"docker.io/library/python":          "hub",
		"registry-1.docker.io/library/x":    "hub",
		"empty.example.org/x":               "",
		"evil.registry.example.org/x":       "",
	} {
		if l, ok := find(t, s, repository); ok != (want != "") || l.Username != want {
			t.Errorf("%s: %v, %t; want %q", repository, l, ok, want)
		}
	}
	if l, _ := find(t, s, "registry.example.org/group/x"); l.Password != "p:with:colons" {
		t.Error("the password is another one")
	}
	if l, ok := find(t, s, "tokens.example.org/x"); !ok || l.IdentityToken != "id" {
		t.Error("the identity token is not found")
	}
	if l, ok := find(t, s, "plain.example.org/x"); !ok || l.RegistryToken != "reg" {
		t.Error("the registry token is not found")
	}
}

func TestThePlacesComeInTheOrderThatTheToolsHave(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	entry := func(user string) string {
		return fmt.Sprintf(`{"auths":{"r.example.org":{"auth":%q}}}`, basic(user, "p"))
	}
	places := []struct{ user, path string }{
		{"configured", in("own.json")},
		{"podman", in("run/containers/auth.json")},
		{"skopeo", in("config/containers/auth.json")},
		{"docker", in("docker/config.json")},
	}
	env := map[string]string{"HOME": in("home"), "XDG_RUNTIME_DIR": in("run"), "XDG_CONFIG_HOME": in("config"), "DOCKER_CONFIG": in("docker")}
	o := Options{Logins: []Login{{Registry: "r.example.org/only", Username: "first", Password: "p"}}, Environment: func(name string) string { return env[name] }}
	for _, p := range places {
		write(t, p.path, entry(p.user), 0o600)
	}
	o.Files = []string{places[0].path}
	for _, p := range places {
		if l, _ := find(t, New(o), "r.example.org/x"); l.Username != p.user {
			t.Errorf("%q comes before %q", l.Username, p.user)
		}
		if l, _ := find(t, New(o), "r.example.org/only/x"); l.Username != "first" {
			t.Errorf("%q comes before the configuration", l.Username)
		}
		if err := os.Remove(p.path); err != nil {
			t.Fatal(err)
		}
		o.Files = nil
	}
	// Without the variables, in the home directory; REGISTRY_AUTH_FILE takes the place of the runtime directory's.
	write(t, in("home/.docker/config.json"), entry("home docker"), 0o600)
	write(t, in("home/.config/containers/auth.json"), entry("home skopeo"), 0o600)
	write(t, in("run/containers/auth.json"), entry("podman"), 0o600)
	env = map[string]string{"HOME": in("home"), "XDG_RUNTIME_DIR": in("run"), "REGISTRY_AUTH_FILE": write(t, in("named.json"), "{}", 0o600)}
	if l, _ := find(t, New(o), "r.example.org/x"); l.Username != "home skopeo" {
		t.Errorf("%q was found", l.Username)
	}
}

func TestAFileThatCannotBeUsedIsAnErrorThatShowsNothingOfIt(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"no JSON": `{"auths": s3cret`, "no BASE64": `{"auths":{"r.example.org":{"auth":"s3cret!"}}}`,
		"no colon": fmt.Sprintf(`{"auths":{"r.example.org":{"auth":%q}}}`, base64.StdEncoding.EncodeToString([]byte("s3cret"))),
		"too long": strings.Repeat(" ", maxFile) + "s3cret",
	} {
		file := write(t, filepath.Join(dir, "auth.json"), text, 0o600)
		_, ok, err := New(Options{Files: []string{file}}).Find(t.Context(), "r.example.org/x")
		if ok || err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %t, %v", name, ok, err)
		}
	}
	if _, _, err := New(Options{Files: []string{filepath.Join(dir, "missing")}}).Find(t.Context(), "r.example.org/x"); err == nil {
		t.Error("a file that the configuration names may be missing")
	}
}

func TestAHelperIsAskedForItsRegistry(t *testing.T) {
	args := filepath.Join(t.TempDir(), "args")
	helper(t, "test", `read server
echo "$@ $server $V6NODE_KEY_PASSPHRASE" >> `+args+`
case "$server" in
helped.example.org) echo '{"ServerURL":"helped.example.org","Username":"bob","Secret":"s3cret"}';;
token.example.org) echo '{"Username":"<token>","Secret":"s3cret"}';;
https://index.docker.io/v1/) echo '{"Username":"hub","Secret":"s3cret"}';;
broken.example.org) echo 's3cret is wrong'; exit 1;;
garbled.example.org) echo s3cret;;
*) echo "credentials not found in native keychain"; exit 1;;
esac
`)
	t.Setenv("V6NODE_KEY_PASSPHRASE", "hidden")
	file := write(t, filepath.Join(t.TempDir(), "config.json"), fmt.Sprintf(`{"credsStore":"test","auths":{"docker.io":{},"file.example.org":{"auth":%q}},
		"credHelpers":{"missing.example.org":"no-such","path.example.org":"../../bin/sh","helped.example.org":"test"}}`, basic("file", "p")), 0o600)
	s := New(Options{Files: []string{file}})
	if l, _ := find(t, s, "helped.example.org/x"); l.Username != "bob" || l.Password != "s3cret" {
		t.Errorf("%v", l)
	}
	if l, _ := find(t, s, "token.example.org/x"); l.Username != "" || l.IdentityToken != "s3cret" {
		t.Errorf("%v", l)
	}
	if l, _ := find(t, s, "docker.io/library/x"); l.Username != "hub" {
		t.Errorf("%v", l)
	}
	if l, _ := find(t, s, "file.example.org/x"); l.Username != "file" {
		t.Errorf("%v", l)
	}
	if _, ok := find(t, s, "unknown.example.org/x"); ok {
		t.Error("a login that nobody has")
	}
	for _, registry := range []string{"broken", "garbled", "missing", "path"} {
		_, ok, err := s.Find(t.Context(), registry+".example.org/x")
		if ok || err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %t, %v", registry, ok, err)
		}
	}
	log, err := os.ReadFile(args)
	if err != nil || strings.Contains(string(log), "hidden") || !strings.HasPrefix(string(log), "get helped.example.org ") {
		t.Errorf("the helper saw %q, %v", log, err)
	}
}

func TestAHelperThatDoesNotAnswerIsEnded(t *testing.T) {
	helper(t, "slow", "sleep 1000 & sleep 1000\n")
	file := write(t, filepath.Join(t.TempDir(), "config.json"), `{"credsStore":"slow"}`, 0o600)
	_, _, err := New(Options{Files: []string{file}, HelperTimeout: 50 * time.Millisecond}).Find(t.Context(), "r.example.org/x")
	if err == nil || !strings.Contains(err.Error(), "did not answer") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := New(Options{Files: []string{file}}).Find(ctx, "r.example.org/x"); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("%v", err)
	}
}

func TestALoginShowsNoSecret(t *testing.T) {
	l := Login{Registry: "h", Username: "u", Password: "s3cret", IdentityToken: "s3cret", RegistryToken: "s3cret"}
	if text := fmt.Sprintf("%v %+v %#v %s", l, l, l, l); strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"a.example.org/b":{"auth":"dTpw"}},"credHelpers":{"c.example.org":"x"},"credsStore":"y"}`), "a.example.org/b/c")
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"identitytoken":"t"},"":{}}}`), "docker.io/library/x")
	f.Fuzz(func(t *testing.T, text []byte, repository string) {
		file, err := parse(text)
		if err != nil {
			return
		}
		name := Normalize(repository)
		if l, ok, err := file.entry(name); err == nil && ok && !covers(l.Registry, name) {
			t.Errorf("the login of %q is for %q", l.Registry, name)
		}
		if h, asked := file.helperFor(name); h != "" && !covers(Normalize(asked), name) {
			t.Errorf("the helper of %q is for %q", asked, name)
		}
		file.Helpers()
	})
}
