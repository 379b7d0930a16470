package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/newfile"
)

// ErrStateInUse: another node runs with the same state directory.
var ErrStateInUse = errors.New("the state directory is in use")

// State is a node's state directory, held by this process.
type State struct {
	Dir string
	// Instance names this node among all that share a runtime. It is made
	// once and kept, so that sandboxes are recognised after any restart.
	Instance string
	lock     *os.File
}

var instanceForm = regexp.MustCompile(`^v6[a-z2-7]{8}$`)

// OpenState makes the directory where it is missing, locks it and reads or
// makes the instance name. The caller closes it.
func OpenState(dir string) (_ *State, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory %s: %w: choose another with --state-dir or state_dir", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write to the state directory %s: %w: choose another with --state-dir or state_dir", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another v6node runs with %s: stop it, or give this one a state directory of its own", ErrStateInUse, dir)
		}
		return nil, fmt.Errorf("lock the state directory %s: %w", dir, err)
	}
	name, err := instanceName(filepath.Join(dir, "instance"))
	if err != nil {
		return nil, err
	}
	return &State{Dir: dir, Instance: name, lock: lock}, nil
}

// Close releases the directory.
func (s *State) Close() error { return s.lock.Close() }

func instanceName(path string) (string, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return "", fmt.Errorf("read the node's instance name: %w", err)
	default:
		name := strings.TrimSpace(string(b))
		if !instanceForm.MatchString(name) {
			return "", fmt.Errorf("the instance name in %s is damaged: restore the file, or remove it when no sandbox of this node lives", path)
		}
		return name, nil
	}
	name := "v6" + strings.ToLower(rand.Text()[:8])
	if err := keep(path, name+"\n"); err != nil {
		return "", fmt.Errorf("keep the node's instance name: %w", err)
	}
	return name, nil
}

// keep writes a small file that is on the disk, whole, when it is there at all.
func keep(path, content string) (err error) {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return newfile.SyncDir(filepath.Dir(path))
}
