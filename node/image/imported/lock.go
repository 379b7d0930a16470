package imported

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// poll is how often a lock that another process holds is tried.
const poll = 50 * time.Millisecond

// errBusy: somebody else holds the lock.
var errBusy = errors.New("in use")

// lock locks a file, which it makes: together with others who want it so, or alone. It
// waits, unless it is not to.
func lock(ctx context.Context, path string, alone, wait bool) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH | unix.LOCK_NB
	if alone {
		how = unix.LOCK_EX | unix.LOCK_NB
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return f.Close, nil
		case errors.Is(err, unix.EWOULDBLOCK) && !wait:
			return nil, errors.Join(errBusy, f.Close())
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(err, f.Close())
		}
		t := time.NewTimer(poll)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-t.C:
		}
	}
}
