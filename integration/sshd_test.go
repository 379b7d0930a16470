//go:build integration

package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// sshKey makes a key pair in a file, which has the mode, and returns its public
// half. An empty passphrase is none.
func sshKey(t *testing.T, file string, mode os.FileMode, passphrase string) ssh.PublicKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// tunnelPassphrase protects the key of the user at the sshd.
const tunnelPassphrase = "sesame-of-the-tunnel"

// sshServer is an sshd of the test's own.
type sshServer struct {
	dir, address string
	print        string // of its key
	end          func()
	cmd          *exec.Cmd
}

func newSSHServer(t *testing.T, w *world) *sshServer {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Fatal("sshd is not installed: apt-get install openssh-server")
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // it insists on it
		t.Fatal(err)
	}
	s := &sshServer{dir: filepath.Join(w.dir, fmt.Sprintf("sshd%d", w.number())), address: "127.0.0.1:" + freePort(t, "127.0.0.1")}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.print = ssh.FingerprintSHA256(sshKey(t, filepath.Join(s.dir, "host"), 0o600, ""))
	user := sshKey(t, filepath.Join(s.dir, "user"), 0o600, tunnelPassphrase)
	_, port, _ := net.SplitHostPort(s.address) // made above
	config := []string{
		"Port " + port, "ListenAddress 127.0.0.1", "HostKey " + filepath.Join(s.dir, "host"), "AuthorizedKeysFile " + filepath.Join(s.dir, "authorized"),
		"PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no", "PermitRootLogin prohibit-password", "AllowTcpForwarding local", "LogLevel VERBOSE",
	}
	for name, content := range map[string][]byte{"config": []byte(strings.Join(config, "\n") + "\n"), "authorized": ssh.MarshalAuthorizedKey(user), "passphrase": []byte(tunnelPassphrase + "\n")} {
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if w.user != nil {
		if err := w.user.own(s.dir); err != nil {
			t.Fatal(err)
		}
	}
	s.start(t)
	return s
}

func (s *sshServer) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.dir, "config"))
	s.end = daemon(t, s.cmd, syscall.SIGTERM)
	takesConnections(t, s.address)
}

// stop ends it with its sessions, which would outlive it.
func (s *sshServer) stop(t *testing.T) {
	t.Helper()
	var sessions []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var pid, parent int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(status), "\nPPid:")
		if _, err := fmt.Sscan(rest, &parent); err == nil && parent == s.cmd.Process.Pid {
			sessions = append(sessions, pid)
		}
	}
	if len(sessions) == 0 {
		t.Error("the sshd has no session: the node is not connected")
	}
	s.end()
	for _, pid := range sessions {
		_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
	}
}

// tunnel is a tunnel of a configuration.
func (s *sshServer) tunnel(name, print, key, dest string) map[string]any {
	_, port, _ := net.SplitHostPort(s.address) // made above
	_, destPort, _ := net.SplitHostPort(dest)
	return map[string]any{
		"hostname": name,
		"ssh": map[string]any{"host": "127.0.0.1", "port": port, "fingerprint": print, "identity": map[string]any{
			"username": "root", "key": filepath.Join(s.dir, key), "passphrase_file": filepath.Join(s.dir, "passphrase"),
		}},
		"tunnel": map[string]any{"bind": map[string]any{"ip": "0.0.0.0", "port": 5432}, "dest": map[string]any{"ip": "127.0.0.1", "port": destPort}},
	}
}

func realSSHD(t *testing.T, w *world) {
	s := newSSHServer(t, w)
	port := says(t, "127.0.0.1:0", "warehouse")
	wrong := ssh.FingerprintSHA256(sshKey(t, filepath.Join(s.dir, "other"), 0o644, ""))
	if w.user != nil {
		if err := w.user.own(s.dir); err != nil {
			t.Fatal(err)
		}
	}
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"databases":   []map[string]any{sqlDatabase("db", "warehouse", "5432")},
		"ssh-tunnels": []any{s.tunnel("warehouse", s.print, "user", "127.0.0.1:"+port), s.tunnel("impostor", wrong, "user", "127.0.0.1:"+port)},
	}})
	ask := kwargs{"address": "warehouse:5432", "send": "select"}
	if got := completed[talked](t, n.call(t, "talk", ask, databases("db"))); got.Text != "warehouse heard select" {
		t.Errorf("behind the tunnel there is %+v", got)
	}
	if got := completed[talked](t, n.call(t, "talk", ask)); got.Error == "" {
		t.Errorf("a run that does not ask for the database reaches it: %+v", got)
	}
	held := n.hold(t, databases("db"))
	s.stop(t)
	s.start(t)
	if got := completed[talked](t, n.call(t, "talk", ask, databases("db"))); got.Text != "warehouse heard select" {
		t.Errorf("after the restart of the sshd there is %+v", got)
	}
	held.undisturbed(t)
	if log := n.Log(1 << 20); !strings.Contains(log, "the SSH server has another key than it should") || strings.Contains(log, `msg="the SSH tunnel is connected" tunnel=impostor`) {
		t.Errorf("the log does not tell of the server with another key:\n%s", n.Log(30))
	}

	// A key that others can read is not used.
	w.configure(t, nodeOptions{Extra: map[string]any{"ssh-tunnels": []any{s.tunnel("warehouse", s.print, "other", "127.0.0.1:"+port)}}}).
		exits(t, exitUsage, "ssh-tunnels", "chmod 600")
	s.stop(t)
}
