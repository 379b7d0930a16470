package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/hostport"
)

func quick() times {
	return times{connect: 20 * time.Second, alive: 10 * time.Millisecond, answer: 20 * time.Second, wait: 20 * time.Second, retry: backoff.Policy{Min: time.Millisecond, Max: 10 * time.Millisecond}}
}

// server is an SSH server that forwards connections, and what it may do wrong.
type server struct {
	t    *testing.T
	keys []ssh.Signer
	l    net.Listener

	mu    sync.Mutex
	conns []net.Conn
	mute  bool // takes questions and answers none
	all   sync.WaitGroup
	user  ssh.PublicKey
}

func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s, pem.EncodeToMemory(block)
}

func newServer(t *testing.T, user ssh.PublicKey) *server {
	t.Helper()
	ed, _ := newKey(t)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := ssh.NewSignerFromKey(r)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, keys: []ssh.Signer{ed, rs}, user: user}
	if s.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.all.Go(func() {
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.all.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() { s.l.Close(); s.cut(); s.all.Wait() })
	return s
}

func (s *server) serve(raw net.Conn) {
	defer raw.Close()
	config := &ssh.ServerConfig{PublicKeyCallback: func(m ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if m.User() != "tunneller" || string(k.Marshal()) != string(s.user.Marshal()) {
			return nil, errors.New("unknown")
		}
		return nil, nil
	}}
	for _, k := range s.keys {
		config.AddHostKey(k)
	}
	c, channels, requests, err := ssh.NewServerConn(raw, config)
	if err != nil {
		return
	}
	defer c.Close()
	var inner sync.WaitGroup
	defer inner.Wait()
	inner.Go(func() {
		for r := range requests {
			s.mu.Lock()
			mute := s.mute
			s.mu.Unlock()
			if !mute {
				_ = r.Reply(false, nil)
			}
		}
	})
	for ch := range channels {
		var to struct {
			Host  string
			Port  uint32
			From  string
			FPort uint32
		}
		if ch.ChannelType() != "direct-tcpip" || ssh.Unmarshal(ch.ExtraData(), &to) != nil {
			_ = ch.Reject(ssh.Prohibited, "no")
			continue
		}
		out, err := net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
		if err != nil {
			_ = ch.Reject(ssh.ConnectionFailed, err.Error())
			continue
		}
		in, rest, err := ch.Accept()
		if err != nil {
			out.Close()
			continue
		}
		go ssh.DiscardRequests(rest)
		inner.Go(func() {
			defer in.Close()
			defer out.Close()
			go func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() }()
			_, _ = io.Copy(in, out)
		})
	}
}

// cut breaks every connection there is.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func pair(t *testing.T, l net.Listener) hostport.Pair {
	t.Helper()
	p, err := hostport.Parse(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// world is a server, a destination behind it, and the configuration of a tunnel.
func world(t *testing.T) (*server, Config) {
	t.Helper()
	user, private := newKey(t)
	s := newServer(t, user.PublicKey())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				fmt.Fprintf(c, "far heard %s", b)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := ParseHostKey(ssh.FingerprintSHA256(s.keys[0].PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	return s, Config{Name: "far", Server: pair(t, s.l), HostKey: known, User: "tunneller", KeyFile: file, Dest: pair(t, l)}
}

// run keeps a tunnel until the test ends.
func run(t *testing.T, c Config, times times) *Tunnel {
	t.Helper()
	tun, err := newTunnel(c, slog.New(slog.DiscardHandler), times)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tun.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return tun
}

func hear(t *testing.T, tun *Tunnel) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := tun.Dial(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		return "", err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestConnectionsPassAndTheTunnelComesBack(t *testing.T) {
	s, c := world(t)
	tun := run(t, c, quick())
	for range 3 {
		if text, err := hear(t, tun); err != nil || text != "far heard hello" {
			t.Fatalf("%q, %v", text, err)
		}
		client, _, changed := tun.now()
		s.cut()
		if client != nil {
			<-changed // it is noticed without anybody dialling
		}
	}
	if err := Check(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	s, c := world(t)
	times := quick()
	times.answer = 50 * time.Millisecond
	s.mu.Lock()
	s.mute = true
	s.mu.Unlock()
	tun := run(t, c, times)
	seen := 0
	for seen < 2 { // connected, given up, and connected again
		client, why, changed := tun.now()
		if client == nil && why != nil && strings.Contains(why.Error(), "has not answered") {
			seen++
		}
		<-changed
	}
}

func TestTheHostKeyDecides(t *testing.T) {
	s, c := world(t)
	other, _ := newKey(t)
	line := func(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }
	for text, ok := range map[string]bool{
		ssh.FingerprintSHA256(s.keys[0].PublicKey()):       true,
		ssh.FingerprintSHA256(s.keys[0].PublicKey()) + "=": true,
		ssh.FingerprintSHA256(s.keys[1].PublicKey()):       true,
		line(s.keys[0].PublicKey()):                        true,
		line(s.keys[1].PublicKey()):                        true, // RSA, which the server would not show by itself
		"host.example.org " + line(s.keys[1].PublicKey()):  true,
		"[10.0.0.1]:22 " + line(s.keys[0].PublicKey()):     true,
		ssh.FingerprintSHA256(other.PublicKey()):           false,
		line(other.PublicKey()):                            false,
	} {
		known, err := ParseHostKey(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		c := c
		c.HostKey = known
		err = Check(t.Context(), c)
		if (err == nil) != ok || !ok && !errors.Is(err, ErrHostKey) {
			t.Errorf("%s: %v", text, err)
		}
	}
	c.HostKey = HostKey{}
	if err := Check(t.Context(), c); !errors.Is(err, ErrHostKey) {
		t.Errorf("without a known key: %v", err)
	}
	for _, text := range []string{"", "SHA256:", "SHA256:abc", "MD5:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff", "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa ..."} {
		if k, err := ParseHostKey(text); err == nil || !k.IsZero() || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFailuresSayWhatIsWrong(t *testing.T) {
	_, c := world(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for want, change := range map[string]func(*Config){
		"did not come to terms": func(c *Config) { c.User = "somebody" },
		"does not connect to":   func(c *Config) { c.Dest = pair(t, gone) },
		"cannot be reached":     func(c *Config) { c.Server = pair(t, gone) },
	} {
		c := c
		change(&c)
		if err := Check(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, wanted %q", err, want)
		}
	}
	// A dial while there is no connection says why there is none.
	c.Server = pair(t, gone)
	times := quick()
	times.wait = 50 * time.Millisecond
	if _, err := run(t, c, times).Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "is not connected") {
		t.Error(err)
	}
	// A server that takes the connection and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.Server = pair(t, l)
	tun := &Tunnel{c: c, t: times}
	tun.t.connect = 50 * time.Millisecond
	if _, err := tun.connect(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestPrivateKeysThatMayNotBeUsed(t *testing.T) {
	dir := t.TempDir()
	_, private := newKey(t)
	write := func(name string, content []byte, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("hush"))
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		write("group", private, 0o640):                     "chmod 600",
		write("others", private, 0o604):                    "chmod 600",
		write("locked", pem.EncodeToMemory(locked), 0o600): PassphraseVariable,
		write("nonsense", []byte("hush"), 0o600):           "not a private key",
		dir:                                                "is not a file",
		filepath.Join(dir, "none"):                         "no such file",
		"/dev/null":                                        "is not a file",
	} {
		if _, err := New(Config{Name: "far", KeyFile: file}, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, wanted one that says %q", file, err, want)
		}
	}
	if os.Geteuid() == 0 {
		file := write("foreign", private, 0o600)
		if err := os.Chown(file, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := readKey(file, ""); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Error(err)
		}
	}
	if _, err := readKey(write("good", private, 0o400), ""); err != nil {
		t.Error(err)
	}
}

func TestAKeyIsOpenedWithItsPassphrase(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file, []byte(content), 0o600), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("hush hush"))
	if err != nil {
		t.Fatal(err)
	}
	locked := write("locked", string(pem.EncodeToMemory(block)), 0o600)
	for _, c := range []struct{ name, file, variable, fault string }{
		{"of a file", write("right", "hush hush\n", 0o600), "", ""},
		{"of the environment", "", "hush hush", ""},
		{"of the file before the environment", write("wrong", "hush", 0o600), "hush hush", "the passphrase does not open"},
		{"wrong", "", "hush", "the passphrase does not open"},
		{"that others may read", write("open", "hush hush\n", 0o644), "hush hush", "chmod 600"},
		{"of two lines", write("lines", "hush\nhush\n", 0o600), "", "in one line"},
		{"that is empty", write("empty", "\n", 0o600), "", "in one line"},
		{"that is missing", filepath.Join(dir, "none"), "", "no such file"},
	} {
		t.Setenv(PassphraseVariable, c.variable)
		_, err := readKey(locked, c.file)
		if c.fault == "" && err != nil || c.fault != "" && (!errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "hush")) {
			t.Errorf("a passphrase %s: %v", c.name, err)
		}
	}
}
