package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/pidfd"
)

// A user without subordinate ids can make a namespace with one id, the user's own
// as 0, and needs no setuid program for it. unshare(1) makes it and becomes Hold.
// The directory has the same files as RootlessKit's: a lock that the keeper has as
// long as it lives, and its number, from when it may be entered.

// singleFile marks the directory: whoever ends the keeper removes it.
const singleFile = "one-id"

func single(state string) bool {
	_, err := os.Stat(filepath.Join(state, singleFile))
	return err == nil
}

// withOneID prepares the start of the keeper, whose number made writes down once it
// has become what it is to be.
func (n *Namespace) withOneID() (cmd *exec.Cmd, made func(pid int) error, err error) {
	// What a keeper that was killed has left, or RootlessKit.
	if err := os.RemoveAll(n.state); err != nil {
		return nil, nil, err
	}
	if err := os.Mkdir(n.state, 0o700); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(n.state, singleFile), nil, 0o600); err != nil {
		return nil, nil, err
	}
	lock, err := os.OpenFile(filepath.Join(n.state, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("lock %s: %w", lock.Name(), err), lock.Close())
	}
	hold, err := filepath.EvalSymlinks(n.cfg.Hold)
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	cmd = exec.Command("unshare", "--user", "--map-root-user", "--mount", "--propagation=slave", "--", hold)
	cmd.ExtraFiles = []*os.File{lock} // the lock is the process's from now on
	return cmd, func(pid int) error {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != hold {
			return nil // not yet, or it has ended, which is seen elsewhere
		}
		file := filepath.Join(n.state, "child_pid")
		if err := os.WriteFile(file+".new", []byte(strconv.Itoa(pid)), 0o600); err != nil {
			return err
		}
		return os.Rename(file+".new", file)
	}, nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// endSingle waits for a keeper that was asked to end, and removes its directory.
func endSingle(ctx context.Context, p *pidfd.Process, state string) error {
	if err := p.Wait(ctx); err != nil {
		return fmt.Errorf("the keeper of the user namespace does not end: %w", err)
	}
	return os.RemoveAll(state)
}
