//go:build integration

package integration

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/proxy/e2e"
)

// The exit codes that docs/commands.md promises.
const (
	exitFailure    = 1
	exitUsage      = 2
	exitAPIKey     = 4
	exitEncryption = 5
	exitRuntime    = 6
	exitInUse      = 7
)

// TestNodesThatCannotWorkSayWhyAndEnd: each way in which a start fails has one
// sentence on standard error and a documented exit code.
func TestNodesThatCannotWorkSayWhyAndEnd(t *testing.T) {
	w := newWorld(t, externalKind)
	bare := w.startServer(t, "bare")
	t.Cleanup(func() { bare.stop(t) })
	scenarios := []scenario{
		{"a wrong API key", wrongAPIKey},
		{"a wrong API key, with the node's own containerd", wrongAPIKeyEmbedded},
		{"an encrypted collaboration without encryption", encryptionMissing},
		{"encryption without an encrypted collaboration", encryptionTooMuch},
		{"a private key of another organization", foreignKey},
		{"the second node with one state directory", secondNode},
		{"a state directory that cannot be", badStateDirs},
		{"a runtime without the node's network", func(t *testing.T, w *world) {
			w.configure(t, nodeOptions{Endpoint: bare.endpoint()}).exits(t, exitRuntime, bare.socket(), "no working pod network", "v6node cni install")
		}},
	}
	for _, s := range append(append(scenarios, badKeys()...), append(badConfigs(), badEndpoints()...)...) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, w)
		})
	}
}

const unknownKey = "00000000-0000-4000-8000-000000000000"

func wrongAPIKey(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{Extra: map[string]any{"api_key": unknownKey}})
	words := n.exits(t, exitAPIKey, "API key", "api_key")
	if strings.Contains(n.Log(1000), unknownKey) {
		t.Errorf("the key is in the log: %s", words)
	}
	if again := strings.Count(n.Log(1000), "trying again"); again > 0 {
		t.Errorf("it was tried again %d times", again)
	}
}

func wrongAPIKeyEmbedded(t *testing.T, _ *world) {
	w := newWorld(t, embeddedKind) // its end finds containerd, if it is left
	w.configure(t, nodeOptions{Extra: map[string]any{"api_key": unknownKey}}).exits(t, exitAPIKey, "API key", "api_key")
}

func encryptionMissing(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{Sealed: true, Extra: map[string]any{"encryption": map[string]any{"enabled": false}}})
	n.exits(t, exitEncryption, `"alone"`, "is encrypted", "set encryption.enabled to true")
}

func encryptionTooMuch(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{})
	file := writeKey(t, w, n.Name, newKey(t).PEM())
	n = w.reconfigure(t, n, map[string]any{"encryption": map[string]any{"enabled": true, "private_key": file}})
	n.exits(t, exitEncryption, `"alone"`, "is not encrypted", "set encryption.enabled to false")
	if key := w.server.PublicKey(n.org); key != "" {
		t.Errorf("a public key was published: %.40s", key)
	}
}

func newKey(t *testing.T) *e2e.PrivateKey {
	t.Helper()
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writeKey(t *testing.T, w *world, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(w.dir, name+"-key.pem")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func foreignKey(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	before := w.server.PublicKey(n.org)
	if before == "" {
		t.Fatal("the node has published no key")
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(n.Config), "private_key.pem"), newKey(t).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	n.exits(t, exitEncryption, "private_key.pem", "is not the one of organization", "encryption.private_key")
	if w.server.PublicKey(n.org) != before {
		t.Error("the organization's public key was replaced")
	}
}

// badKeys are private keys that cannot be used.
func badKeys() []scenario {
	list := []scenario{{"a private key that is not there", func(t *testing.T, w *world) {
		n := w.configure(t, nodeOptions{Sealed: true})
		file := filepath.Join(filepath.Dir(n.Config), "private_key.pem")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		n.exits(t, exitEncryption, file, "no such file", "encryption.private_key")
	}}}
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"is a text":                         {[]byte("-----BEGIN CERTIFICATE-----\n"), "no PEM block with an RSA private key"},
		"is damaged":                        {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("damaged")}), "damaged"},
		"has a passphrase":                  {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")}), "passphrase"},
		"has a passphrase in the old form":  {[]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n"), "passphrase"},
		"is of OpenSSH's kind":              {pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("secret")}), "not an RSA private key"},
		"is the public one instead of both": {[]byte("-----BEGIN PUBLIC KEY-----\nc2VjcmV0\n-----END PUBLIC KEY-----\n"), "no PEM block with an RSA private key"},
	} {
		list = append(list, scenario{"a private key that " + name, func(t *testing.T, w *world) {
			n := w.configure(t, nodeOptions{Sealed: true})
			file := filepath.Join(filepath.Dir(n.Config), "private_key.pem")
			if err := os.WriteFile(file, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			words := n.exits(t, exitEncryption, file, c.says)
			if strings.Contains(words, "secret") || strings.Contains(words, "c2Vj") {
				t.Errorf("the message shows what is in the file: %s", words)
			}
		}})
	}
	return list
}

// badConfigs are configurations that are refused with the place of the mistake.
func badConfigs() []scenario {
	var list []scenario
	for name, c := range map[string]struct {
		line string // appended to a good configuration
		says []string
	}{
		"a label that is not an identifier":       {`databases: [{label: "my-data", uri: /tmp/x.csv, type: csv}]`, []string{"databases[0].label", `"my-data"`, "not an identifier"}},
		"an unknown key":                          {`databses: []`, []string{`"databses"`, `"databases"`}},
		"a value of the wrong type":               {`limits: {pids: many}`, []string{"limits.pids"}},
		"an algorithm variable with another name": {`algorithm_env: {PKG_NAME: mine}`, []string{"PKG_NAME"}},
	} {
		list = append(list, scenario{"a configuration with " + name, func(t *testing.T, w *world) {
			n := w.configure(t, nodeOptions{Extra: map[string]any{"databases": nil}})
			good, err := os.ReadFile(n.Config)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(n.Config, append(good, c.line+"\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
			place := fmt.Sprintf("%s:%d: ", n.Config, strings.Count(string(good), "\n")+1)
			n.exits(t, exitUsage, append(c.says, place)...)
		}})
	}
	return append(list, scenario{"a configuration that is not there", func(t *testing.T, w *world) {
		n := w.configure(t, nodeOptions{})
		if err := os.Remove(n.Config); err != nil {
			t.Fatal(err)
		}
		n.exits(t, exitUsage, n.Config, "no such file")
	}})
}

// badEndpoints are CRI endpoints that are none.
func badEndpoints() []scenario {
	refused := func(name string, says []string, endpoint func(t *testing.T, path string) string) scenario {
		return scenario{"an endpoint that " + name, func(t *testing.T, w *world) {
			path := filepath.Join(w.dir, fmt.Sprintf("e%d.sock", w.number()))
			n := w.configure(t, nodeOptions{Endpoint: endpoint(t, path)})
			n.exits(t, exitRuntime, says...)
		}}
	}
	unixOf := func(path string) string { return "unix://" + path }
	return []scenario{
		refused("does not exist", []string{"nothing exists at this path", "check that the runtime is running"},
			func(_ *testing.T, path string) string { return unixOf(path) }),
		refused("is a file", []string{"regular file, not a socket"}, func(t *testing.T, path string) string {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return unixOf(path)
		}),
		refused("is a folder", []string{"directory, not a socket"}, func(t *testing.T, path string) string { return unixOf(filepath.Dir(path)) }),
		refused("nobody listens on", []string{"nothing listens", "start the runtime"}, func(t *testing.T, path string) string {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return unixOf(path)
		}),
		refused("speaks HTTP", []string{"does not speak", "CRI"}, func(t *testing.T, path string) string {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.NotFoundHandler()}
			done := make(chan struct{})
			go func() { defer close(done); _ = srv.Serve(l) }() // until Close
			t.Cleanup(func() { _ = srv.Close(); <-done })
			return unixOf(path)
		}),
		refused("hangs up", []string{"CRI"}, func(t *testing.T, path string) string {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := l.Accept()
					if err != nil {
						return // closed
					}
					_ = c.Close()
				}
			}()
			t.Cleanup(func() { _ = l.Close(); <-done })
			return unixOf(path)
		}),
		refused("has another scheme", []string{"tcp://", "write unix:///"}, func(*testing.T, string) string { return "tcp://127.0.0.1:1234" }),
		refused("is relative", []string{"not absolute", "three slashes"}, func(*testing.T, string) string { return "unix://containerd.sock" }),
	}
}

func secondNode(t *testing.T, w *world) {
	first := w.start(t, nodeOptions{})
	second := w.configure(t, nodeOptions{Extra: map[string]any{"state_dir": first.StateDir}})
	second.exits(t, exitInUse, first.StateDir, "another v6node runs", "state directory of its own")
	if done := first.call(t, "noop", nil); done.Status != standin.StatusCompleted {
		t.Errorf("a run on the first node ended as %q: %s", done.Status, done.Text)
	}
}

func badStateDirs(t *testing.T, w *world) {
	file := filepath.Join(w.dir, "statefile")
	if err := os.WriteFile(file, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.configure(t, nodeOptions{Extra: map[string]any{"state_dir": file}}).exits(t, exitFailure, file, "not a directory", "choose another", "state_dir")
	below := filepath.Join(file, "below")
	w.configure(t, nodeOptions{Extra: map[string]any{"state_dir": below}}).exits(t, exitFailure, below, "not a directory", "choose another", "state_dir")

	sealed := filepath.Join(w.dir, "readonly")
	mount(t, sealed, unix.MS_RDONLY, "")
	w.configure(t, nodeOptions{Extra: map[string]any{"state_dir": sealed}}).exits(t, exitFailure, sealed, "read-only file system", "choose another", "state_dir")
}

// mount mounts a tmpfs for the time of the test.
func mount(t *testing.T, path string, flags uintptr, options string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

// reconfigure makes a node of the same organization with another configuration.
func (w *world) reconfigure(t *testing.T, n *node, extra map[string]any) *node {
	t.Helper()
	again, err := w.addNode(n.org, n.collab, nodeOptions{Extra: extra})
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// TestTheSecondSignalEndsTheNodeAtOnce: the first waits for what is under way,
// the second for nothing.
func TestTheSecondSignalEndsTheNodeAtOnce(t *testing.T) {
	w := newWorld(t, externalKind)
	n := w.start(t, nodeOptions{})
	g := n.hold(t)
	// The node's end waits for the algorithm's request, which the server holds.
	held := w.server.Fault(standin.Fault{Method: http.MethodGet, Path: "/organization", Who: n.ID(), Delay: patience})
	g.release(t)
	if err := held.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	signal := func() {
		if err := syscall.Kill(n.PID(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	eventually(t, func() error {
		if !strings.Contains(n.Log(5), "a second signal ends") {
			return fmt.Errorf("the node does not say that it stops:\n%s", n.Log(5))
		}
		return nil
	})
	signal()
	code, err := n.Wait(within(t))
	if err != nil || code != -1 { // no exit code: the signal has ended it
		t.Errorf("exit code %d after the second signal (%v)", code, err)
	}
	// The next start goes on with the run.
	held.Remove()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if done := n.finish(t, g.task); done.Status != standin.StatusCompleted {
		t.Errorf("the run ended as %q: %s", done.Status, done.Text)
	}
	n.gone(t, g.run)
}
