package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"

	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/runtime"
)

// UserMode says whose root the root of an algorithm is.
type UserMode string

const (
	// UsersHost: the machine's, without any capability.
	UsersHost UserMode = "host"
	// UsersAuto: nobody's, in a user namespace of the run, where runtime and
	// file systems allow it; else as with UsersHost.
	UsersAuto UserMode = "auto"
	// UsersRequired: nobody's, or the run is refused.
	UsersRequired UserMode = "required"
)

// AnnotationUsers of a sandbox is the range of its user namespace.
const AnnotationUsers = "ai.vantage6.userns"

// SubIDName has the ids of algorithms in /etc/subuid and /etc/subgid.
const SubIDName = "v6node"

// Users hands out user namespaces, to each living run another one.
type Users struct {
	mode  UserMode
	first uint32
	slots int64
	start int64 // where the runs of this node begin to look for a slot
	probe *runtime.MapProbe
	log   *slog.Logger
	// privileged tells whether this process has CAP_SYS_RESOURCE. A runtime
	// has no less, for it sets limits.
	privileged bool

	mu     sync.Mutex
	taken  map[int64]int64 // run to slot
	broken bool            // this runtime has failed to make one
}

// NewUsers prepares user namespaces for the runs of one node. It returns nil
// where there are none; in UsersAuto it logs why.
func NewUsers(mode UserMode, instance string, log *slog.Logger) (*Users, error) {
	if mode == UsersHost {
		return nil, nil
	}
	if !userns.MachineRoot() {
		if mode == UsersAuto {
			return nil, nil
		}
		return nil, errors.New("runtime.userns: a node without root is in one user namespace with all its runs, whose root is the user who runs the node: write `userns: auto`")
	}
	u, err := newUsers(mode, instance, log)
	if err != nil && mode == UsersAuto {
		log.Warn("algorithms get no user namespaces of their own", "reason", err)
		return nil, nil
	}
	return u, err
}

func newUsers(mode UserMode, instance string, log *slog.Logger) (*Users, error) {
	first, count, err := userns.SubIDs(SubIDName)
	if err != nil {
		return nil, fmt.Errorf("runtime.userns: %w", err)
	}
	probe, err := runtime.NewMapProbe()
	if err != nil {
		return nil, fmt.Errorf("runtime.userns: %w: the kernel needs user namespaces (sysctl user.max_user_namespaces), or write `userns: host`", err)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(instance)) // never fails
	slots := int64(count / runtime.IDMapSize)
	return &Users{mode: mode, first: first, slots: slots, start: int64(h.Sum32()) % slots, probe: probe, log: log, privileged: Machine().Privileged, taken: make(map[int64]int64)}, nil
}

// Close gives back what NewUsers has taken. A nil one has taken nothing.
func (u *Users) Close() error {
	if u == nil {
		return nil
	}
	return u.probe.Close()
}

// of returns the namespace of a run, nil for the machine's own.
func (u *Users) of(runID int64) *runtime.IDMap {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	slot, ok := u.taken[runID]
	if !ok {
		return nil
	}
	return &runtime.IDMap{First: u.first + uint32(slot)*runtime.IDMapSize}
}

// take gives a run a namespace if it can have one. The error says why a run that
// must have one cannot; it is ErrLimit.
func (u *Users) take(info runtime.Info, handler string, s *Spec) error {
	if u == nil {
		return nil
	}
	err := u.possible(info, handler, s)
	if err == nil {
		err = u.reserve(s.RunID)
	}
	if err == nil || u.mode == UsersRequired {
		return err
	}
	u.log.Debug("a run gets no user namespace of its own", "run", s.RunID, "reason", err)
	return nil
}

func (u *Users) possible(info runtime.Info, handler string, s *Spec) error {
	u.mu.Lock()
	broken := u.broken
	u.mu.Unlock()
	if broken {
		return fmt.Errorf("%w: the runtime has failed to make a user namespace", ErrLimit)
	}
	switch {
	case len(s.Devices) > 0:
		return fmt.Errorf("%w: a device keeps its owner, whom a user namespace does not know", ErrLimit)
	case len(s.Rlimits) > 0 && !u.privileged:
		return fmt.Errorf("%w: ulimits for a process in a user namespace need CAP_SYS_RESOURCE, which the node does not have", ErrLimit)
	case !info.UserNamespaces(handler):
		return fmt.Errorf("%w: the runtime makes no user namespaces with this handler (containerd 2.0 or CRI-O 1.25, runc 1.2 and Linux 6.3 do)", ErrLimit)
	}
	for _, m := range s.Mounts {
		if err := u.probe.Try(m.HostPath); err != nil {
			return fmt.Errorf("%w: %w", ErrLimit, err)
		}
	}
	return nil
}

// reserve finds a slot that no living run of this node has.
func (u *Users) reserve(runID int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.taken[runID]; ok {
		return nil
	}
	if int64(len(u.taken)) >= u.slots {
		return fmt.Errorf("%w: all %d ranges of ids for user namespaces are in use; give %s more in /etc/subuid and /etc/subgid", ErrLimit, u.slots, SubIDName)
	}
	used := make(map[int64]bool, len(u.taken))
	for _, slot := range u.taken {
		used[slot] = true
	}
	slot := (u.start + runID) % u.slots
	for used[slot] {
		slot = (slot + 1) % u.slots
	}
	u.taken[runID] = slot
	return nil
}

// found remembers the namespace of a sandbox that was made before this start of
// the node. One from another range is nothing to avoid.
func (u *Users) found(runID int64, sb *runtime.Sandbox) {
	text := sb.Annotations[AnnotationUsers]
	if u == nil || text == "" {
		return
	}
	m, err := runtime.ParseIDMap(text)
	if err != nil || m.First < u.first || int64(m.First-u.first)/runtime.IDMapSize >= u.slots {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.taken[runID] = int64(m.First-u.first) / runtime.IDMapSize
}

// release gives a run's slot back.
func (u *Users) release(runID int64) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.taken, runID)
}

// runSandbox starts the run's sandbox, in a user namespace where it has one. A
// runtime that says it makes them may not: because of its kernel, its file
// system, or a directory above its state that only root may pass. Where a
// namespace is not required, the sandbox then starts without one, and so do all
// later ones.
func (e *CRI) runSandbox(ctx context.Context, s *Spec) (string, error) {
	id, err := e.rt.RunSandbox(ctx, e.sandboxSpec(s))
	if err == nil || e.users.of(s.RunID) == nil || e.users.mode == UsersRequired || ctx.Err() != nil || errors.Is(err, runtime.ErrNotReady) {
		return id, err
	}
	e.users.release(s.RunID)
	id, again := e.rt.RunSandbox(ctx, e.sandboxSpec(s))
	if again != nil {
		return "", again // so it is not for the namespace
	}
	e.users.mu.Lock()
	e.users.broken = true
	e.users.mu.Unlock()
	e.log.Warn("algorithms get no user namespaces of their own, because the runtime cannot make one; `v6node check --run-tests` tells more", "reason", err)
	return id, nil
}
