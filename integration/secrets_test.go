//go:build integration

package integration

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/node/keyfile"
	"github.com/v6node/v6node/proxy/tunnel"
)

// secrets are what a node must keep to itself, by what they are.
type secrets map[string]string

// in names those that a text has in it, as they are or in base64.
func (s secrets) in(text []byte) (found []string) {
	for what, secret := range s {
		if bytes.Contains(text, []byte(secret)) || bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString([]byte(secret)))) {
			found = append(found, what)
		}
	}
	if jwt.Match(text) {
		found = append(found, "a token")
	}
	return found
}

// jwt is any token of the server: header, claims, signature.
var jwt = regexp.MustCompile(`eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}`)

// secretsNowhere gives a node every kind of secret, lets it use them, well and in vain, at the highest
// log level, and looks for them in all that it has written and in what others can see of it.
func secretsNowhere(t *testing.T, w *world) {
	ssh := newSSHServer(t, w)
	port := says(t, "127.0.0.1:0", "warehouse")
	known := secrets{
		"the password of the database":         "password-of-omop-8431",
		"the password in the database's URI":   "password-of-uri-8431",
		"the password of the registry":         "password-of-registry-8431",
		"the passphrase of the organization":   "passphrase-of-organization-8431",
		"the passphrase of the tunnel":         tunnelPassphrase,
		"the words of the algorithm's log":     "words-of-the-algorithm-8431",
		"the passphrase of the unused tunnel":  "passphrase-of-environment-8431",
		"the passphrase of the unused key":     "passphrase-of-variable-8431",
		"the password of the unreachable base": "password-of-nowhere-8431",
	}
	warehouse := sqlDatabase("db", "warehouse", "5432")
	warehouse["uri"] = "postgresql://user:" + known["the password in the database's URI"] + "@warehouse:5432/x"
	warehouse["env"] = map[string]any{"password": known["the password of the database"]}
	dead := freePort(t, "127.0.0.1")
	nowhere := sqlDatabase("nowhere", "localhost", dead)
	nowhere["uri"] = "postgresql://user:" + known["the password of the unreachable base"] + "@localhost:" + dead + "/x"
	n := w.configure(t, nodeOptions{
		Sealed: true,
		Env:    []string{keyfile.PassphraseVariable + "=" + known["the passphrase of the unused key"], tunnel.PassphraseVariable + "=" + known["the passphrase of the unused tunnel"]},
		Extra: map[string]any{
			"databases":         []map[string]any{warehouse, nowhere},
			"ssh-tunnels":       []any{ssh.tunnel("warehouse", ssh.print, "user", "127.0.0.1:"+port)},
			"docker_registries": []any{map[string]any{"registry": "registry.invalid", "username": "user", "password": known["the password of the registry"]}},
		},
	})
	lock(t, w, n, known["the passphrase of the organization"])
	config, err := os.ReadFile(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(config), "\n") {
		if key, ok := strings.CutPrefix(line, "api_key: "); ok {
			known["the API key"] = strings.Trim(key, `"' `)
		}
	}
	if known["the API key"] == "" {
		t.Fatal("the configuration has no API key")
	}
	n.online(t)

	words := known["the words of the algorithm's log"]
	n.call(t, "say", kwargs{"text": words, "end": "panic"}, databases("db"))
	n.call(t, "talk", kwargs{"address": "warehouse:5432", "send": "select"}, databases("db"))
	n.call(t, "talk", kwargs{"address": "localhost:" + dead, "send": "select"}, databases("nowhere"))
	n.call(t, "noop", nil, image("registry.invalid/algorithm:1"))
	stranger := n.call(t, "http", kwargs{"method": "GET", "path": "/task/1?secret=" + words, "token": "forged-" + words})
	if got := completed[struct{ Status int }](t, stranger); got.Status == http.StatusOK {
		t.Errorf("a forged token is answered with %d", got.Status)
	}
	held := n.hold(t, databases("db"))
	token, err := os.ReadFile(filepath.Join(n.runDir(held.run), "token"))
	if err != nil || !jwt.Match(token) {
		t.Fatalf("the run's token is %q, %v", token, err)
	}
	known["the token of a run"] = string(token)

	run := strconv.FormatInt(held.run, 10)
	for what, text := range map[string]string{
		"its log": n.Log(1 << 24), "inspect": n.command(t, "inspect", run), "ps": n.command(t, "ps", "-a", "-o", "json"),
		"info": n.command(t, "info", "-o", "json"), "events": n.command(t, "events", "-o", "json"),
	} {
		if found := known.in([]byte(text)); len(found) > 0 {
			t.Errorf("%s shows %q", what, found)
		}
	}
	// The administrator sees the algorithm's words, and nobody else.
	files := 0
	ledgers := map[string]bool{}
	if err := filepath.WalkDir(n.StateDir, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(n.StateDir, path) // below it
		top, _, _ := strings.Cut(rel, "/")
		if err != nil || !e.Type().IsRegular() || top == "work" || top == "containerd" || top == "containerd-state" {
			return nil // these are looked at below, as others see them
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		ledgers[filepath.Base(path)] = true
		if found := known.in(text); len(found) > 0 {
			t.Errorf("%s has %q", rel, found)
		}
		return nil
	}); err != nil || files < 4 || !ledgers["ledger.db"] || !ledgers["head"] {
		t.Errorf("%d files of the state directory were read, %v (%v)", files, ledgers, err)
	}
	known.processes(t, w, n)
	known.strangers(t, w, n)
	held.undisturbed(t)
}

// lock gives a node's private key a passphrase, which is in a file.
func lock(t *testing.T, w *world, n *node, passphrase string) {
	t.Helper()
	file, secret := filepath.Join(filepath.Dir(n.Config), "private_key.pem"), filepath.Join(filepath.Dir(n.Config), "passphrase")
	if err := os.WriteFile(secret, []byte(passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Create(file, n.key, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	if w.user != nil {
		if err := w.user.own(filepath.Dir(file)); err != nil {
			t.Fatal(err)
		}
	}
	n.reconfigure(t, func(doc map[string]any) {
		doc["encryption"].(map[string]any)["passphrase_file"] = secret
	})
}

// online starts a configured node and its researcher.
func (n *node) online(t *testing.T) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitOnline(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.login(within(t)); err != nil {
		t.Fatal(err)
	}
}

// processes looks at the arguments of all processes, and at the environments of those that the node
// started: the runtime and its monitors. What the administrator gave to the node itself is in the
// node's own, which only the node's user and root may read.
func (s secrets) processes(t *testing.T, w *world, n *node) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		if found := s.in(args); len(found) > 0 {
			t.Errorf("the arguments of process %d (%.60s) have %q", pid, args, found)
		}
		name := filepath.Base(string(bytes.SplitN(args, []byte{0}, 2)[0]))
		if !strings.HasPrefix(name, "containerd") && !slices.Contains([]string{"runc", "rootlesskit", "crio", "conmon"}, name) || !strings.Contains(string(args), w.dir) && !strings.Contains(string(args), "/v6node-") {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue
		}
		looked++
		if found := s.in(env); len(found) > 0 {
			t.Errorf("the environment of process %d (%s) has %q", pid, name, found)
		}
	}
	if looked < 2 {
		t.Errorf("only %d processes of the runtime were found", looked)
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", n.PID())); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the node's environment: %v, %v", info, err)
	}
}

// strangers looks with the eyes of a user who has nothing to do with the node for all that lies where
// the node and its runtime write, and at all processes.
func (s secrets) strangers(t *testing.T, w *world, n *node) {
	t.Helper()
	var patterns []string
	for _, secret := range s {
		patterns = append(patterns, secret, base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	own, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	visible := func() string {
		cmd := exec.Command("grep", append([]string{"-r", "-s", "-l", "-a", "-F", "-D", "skip", "-f", "-", w.dir, "/run", "/dev/shm"}, own...)...)
		cmd.Stdin = strings.NewReader(strings.Join(patterns, "\n") + "\n")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, _ := cmd.Output() // it fails for each file that it may not read
		return string(out)
	}
	// What the node protects by itself and not by where the test has put it.
	for _, dir := range []string{w.dir, filepath.Dir(n.Config)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out := visible(); out != "" {
		t.Errorf("another user can read secrets in %q", out)
	}
	open := filepath.Join(filepath.Dir(n.Config), "open")
	if err := os.WriteFile(open, []byte(patterns[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := visible(); out != open+"\n" {
		t.Errorf("another user would be seen to read %q, wanted %s", out, open)
	}
}
