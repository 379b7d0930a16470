package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/internal/plainfile"
)

// Errors that callers tell apart.
var (
	// ErrHostKey: the server is not the one that the configuration means.
	ErrHostKey = errors.New("the SSH server has another key than it should")
	// ErrKey: the private key cannot be used.
	ErrKey = errors.New("the private key cannot be used")
)

// PassphraseVariable is where the passphrase of a key is looked for if no file is named.
const PassphraseVariable = "V6NODE_TUNNEL_PASSPHRASE"

// Config says where a tunnel goes. All fields but PassphraseFile are required.
type Config struct {
	Name    string        // in the log
	Server  hostport.Pair // the SSH server
	HostKey HostKey
	User    string
	KeyFile string // the private key
	// PassphraseFile has the key's passphrase in one line. Without it PassphraseVariable of the
	// environment is used, where the key has one.
	PassphraseFile string
	Dest           hostport.Pair // as the SSH server sees it
}

// times are those of a tunnel; tests have shorter ones.
type times struct {
	connect time.Duration // for TCP, handshake and login together
	alive   time.Duration // between two questions whether the server is there
	answer  time.Duration // for its answer
	wait    time.Duration // of Dial for a connection that is being made
	retry   backoff.Policy
}

func defaultTimes() times {
	return times{
		connect: 20 * time.Second, alive: 15 * time.Second, answer: 15 * time.Second, wait: 20 * time.Second,
		retry: backoff.Policy{Min: time.Second, Max: 30 * time.Second},
	}
}

// Tunnel is one SSH connection that is made again whenever it breaks. It is safe
// for concurrent use.
type Tunnel struct {
	c   Config
	log *slog.Logger
	t   times

	mu      sync.Mutex
	client  *ssh.Client   // nil while there is none
	why     error         // why not
	changed chan struct{} // closed when the two above change
}

// New checks the private key and returns a tunnel, which Run makes.
func New(c Config, log *slog.Logger) (*Tunnel, error) { return newTunnel(c, log, defaultTimes()) }

func newTunnel(c Config, log *slog.Logger, t times) (*Tunnel, error) {
	if _, err := readKey(c.KeyFile, c.PassphraseFile); err != nil {
		return nil, fmt.Errorf("the tunnel %s cannot be made: %w", c.Name, err)
	}
	return &Tunnel{c: c, log: log.With("tunnel", c.Name, "server", c.Server.String()), t: t, changed: make(chan struct{}), why: errors.New("it is not connected yet")}, nil
}

// Check makes the connection once, and through it one to the destination.
func Check(ctx context.Context, c Config) error {
	t := &Tunnel{c: c, t: defaultTimes()}
	client, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	conn, err := t.through(ctx, client)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Run keeps the connection until ctx ends, whose error it returns.
func (t *Tunnel) Run(ctx context.Context) error {
	retry := backoff.New(t.t.retry)
	for ctx.Err() == nil {
		client, err := t.connect(ctx)
		if err == nil {
			t.log.InfoContext(ctx, "the SSH tunnel is connected")
			t.set(client, nil)
			began := time.Now()
			err = t.attend(ctx, client)
			if time.Since(began) > t.t.retry.Max {
				retry.Reset() // it was good; one that breaks at once is not
			}
		}
		if ctx.Err() != nil {
			break
		}
		t.set(nil, err)
		wait := retry.Next()
		t.log.WarnContext(ctx, "the SSH tunnel is not connected, trying again", "error", err, "wait", wait.Round(time.Millisecond))
		if backoff.Sleep(ctx, wait) != nil {
			break
		}
	}
	t.set(nil, errors.New("the node stops"))
	return ctx.Err()
}

func (t *Tunnel) set(client *ssh.Client, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.client, t.why = client, why
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *Tunnel) now() (*ssh.Client, error, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.client, t.why, t.changed
}

// connect makes the SSH connection.
func (t *Tunnel) connect(ctx context.Context) (*ssh.Client, error) {
	signer, err := readKey(t.c.KeyFile, t.c.PassphraseFile) // anew: it may have been replaced
	if err != nil {
		return nil, err
	}
	var wrong error
	for _, algorithms := range t.c.HostKey.attempts() {
		client, err := t.login(ctx, signer, algorithms)
		var shown *hostKeyError
		var none *ssh.AlgorithmNegotiationError
		switch {
		case err == nil:
			return client, nil
		case errors.As(err, &shown) && wrong == nil:
			wrong = shown // the words of the first, which it would show to others
		case !errors.As(err, &shown) && !(errors.As(err, &none) && none.What == "host key"):
			return nil, err
		}
	}
	if wrong == nil {
		wrong = &hostKeyError{"it has none of the kind that is configured"}
	}
	return nil, wrong
}

// login connects with one choice of host keys.
func (t *Tunnel) login(ctx context.Context, signer ssh.Signer, algorithms []string) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, t.t.connect)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.c.Server.String())
	if err != nil {
		return nil, fmt.Errorf("the SSH server cannot be reached: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, t.c.Server.String(), &ssh.ClientConfig{
		User: t.c.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: t.c.HostKey.verify, HostKeyAlgorithms: algorithms,
	})
	if !stop() && err == nil {
		c.Close()
		err = ctx.Err()
	}
	switch {
	case err == nil:
		return ssh.NewClient(c, channels, requests), nil
	case ctx.Err() != nil:
		conn.Close()
		return nil, fmt.Errorf("the SSH server did not answer in time: %w", ctx.Err())
	}
	conn.Close()
	return nil, fmt.Errorf("the SSH server and the node did not come to terms: %w", err)
}

// attend asks again and again whether the server is there, and returns why the
// connection is over, which it is then.
func (t *Tunnel) attend(ctx context.Context, client *ssh.Client) error {
	over := make(chan error, 1)
	go func() { over <- client.Wait() }()
	ended := false
	defer func() {
		client.Close()
		if !ended {
			<-over
		}
	}()
	tick := time.NewTicker(t.t.alive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-over:
			ended = true
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("the SSH server has closed the connection")
			}
			return err
		case <-tick.C:
		}
		if err := t.ping(client); err != nil {
			return err
		}
	}
}

// ping asks for an answer, whatever it is.
func (t *Tunnel) ping(client *ssh.Client) error {
	answered := make(chan error, 1)
	go func() {
		_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
		answered <- err
	}()
	limit := time.NewTimer(t.t.answer)
	defer limit.Stop()
	select {
	case err := <-answered:
		return err
	case <-limit.C:
		client.Close() // which ends the question too
		<-answered
		return fmt.Errorf("the SSH server has not answered for %v", t.t.answer)
	}
}

// Dial opens a connection through the tunnel. While that is not connected it
// waits for a moment.
func (t *Tunnel) Dial(ctx context.Context) (net.Conn, error) {
	wait := time.NewTimer(t.t.wait)
	defer wait.Stop()
	for {
		client, why, changed := t.now()
		if client != nil {
			return t.through(ctx, client)
		}
		select {
		case <-changed:
		case <-wait.C:
			return nil, fmt.Errorf("the SSH tunnel %s is not connected: %w", t.c.Name, why)
		case <-ctx.Done():
			return nil, fmt.Errorf("the SSH tunnel %s is not connected: %w", t.c.Name, errors.Join(why, ctx.Err()))
		}
	}
}

// through opens a connection to the destination.
func (t *Tunnel) through(ctx context.Context, client *ssh.Client) (net.Conn, error) {
	c, err := client.DialContext(ctx, "tcp", t.c.Dest.String())
	if err != nil {
		return nil, fmt.Errorf("the SSH server %s does not connect to %s: %w", t.c.Server, t.c.Dest, err)
	}
	return c, nil
}

// maxKey is far more than a private key or a passphrase has.
const maxKey = 64 << 10

// readKey reads a private key, with its passphrase if it has one.
func readKey(path, passphraseFile string) (ssh.Signer, error) {
	b, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(b)
	if locked := (*ssh.PassphraseMissingError)(nil); errors.As(err, &locked) {
		var passphrase []byte
		if passphrase, err = readPassphrase(path, passphraseFile); err != nil {
			return nil, err
		}
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(b, passphrase); err != nil {
			return nil, fmt.Errorf("%w: the passphrase does not open %s, or that is damaged: ssh-keygen -y -f %s tries it", ErrKey, path, path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not a private key that is known here; make one with ssh-keygen -t ed25519", ErrKey, path)
	}
	return signer, nil
}

func readPassphrase(key, file string) ([]byte, error) {
	if file == "" {
		if text := os.Getenv(PassphraseVariable); text != "" {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("%w: %s is protected by a passphrase; name a file with it as ssh.identity.passphrase_file, set %s, or name a key without one that is for this tunnel only", ErrKey, key, PassphraseVariable)
	}
	b, err := readSecret(file)
	if err != nil {
		return nil, err
	}
	line := bytes.TrimRight(b, "\r\n")
	if len(line) == 0 || bytes.ContainsAny(line, "\r\n") {
		return nil, fmt.Errorf("%w: the file %s must hold the passphrase of %s in one line and nothing else", ErrKey, file, key)
	}
	return line, nil
}

// readSecret reads a file that nobody else can read.
func readSecret(path string) ([]byte, error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: others than its owner may use %s (mode %04o); run: chmod 600 %s", ErrKey, path, mode, path)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%w: %s belongs to user %d, who is neither root nor the node's; run: chown %d %s", ErrKey, path, owner.Uid, os.Geteuid(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return b, nil
}
