package userns

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestANamespaceBelongsToOneProcess(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n.PID() != 0 {
		t.Errorf("a new namespace is kept by process %d", n.PID())
	}
	if _, err := Open(cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	if err := n.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err != nil {
		t.Errorf("after the first: %v", err)
	}
}

// A number in a file is worth nothing after a crash: another process may have
// it. The lock tells whether RootlessKit lives.
func TestOnlyALivingKeeperIsFound(t *testing.T) {
	n := &Namespace{state: t.TempDir()}
	if err := os.WriteFile(filepath.Join(n.state, "child_pid"), []byte("4711"), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(n.state, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := n.keeper(); pid != 0 || err != nil {
		t.Errorf("nobody has the lock: %d, %v", pid, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if pid, err := n.keeper(); pid != 4711 || err != nil {
		t.Errorf("somebody has the lock: %d, %v", pid, err)
	}
	if err := os.WriteFile(filepath.Join(n.state, "child_pid"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, err := n.keeper(); pid != 0 || err == nil {
		t.Errorf("the keeper cannot be process 1: %d, %v", pid, err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestALongNameGetsAShortDirectory(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	long := filepath.Join("/home/alice", strings.Repeat("x", 100))
	at, err := stateDir(long)
	if err != nil || filepath.Dir(at) != run {
		t.Fatalf("%q, %v", at, err)
	}
	if again, err := stateDir(long); again != at || err != nil {
		t.Errorf("%q, then %q, %v", at, again, err)
	}
	if err := os.Chmod(at, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := stateDir(long); err == nil {
		t.Error("a directory that anyone may write to was taken")
	}
}

func TestSecretsStayOutOfTheKeeper(t *testing.T) {
	got := environment([]string{"PATH=/bin", "V6NODE_API_KEY=secret", "HOME=/home/alice", "A=b"})
	if !slices.Equal(got, []string{"PATH=/bin", "HOME=/home/alice"}) {
		t.Errorf("%q", got)
	}
}
