package userns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable carries a Passport through nsenter.
const variable = "_V6NODE_USERNS"

// Passport is what a process knows after Enter of the time before.
type Passport struct {
	// WorkDir is where the process was: entering a mount namespace leads to /.
	WorkDir string `json:"workdir"`
	// Node is whatever the caller of Enter wants to find again.
	Node map[string]string `json:"node,omitempty"`

	Lock  int    `json:"lock,omitempty"`  // the open file of the lock
	State string `json:"state,omitempty"` // RootlessKit's files
	Fresh bool   `json:"fresh,omitempty"` // the namespace was made for this process
}

// Enter replaces this process by another start of the same program with the same
// environment and the given arguments, inside the namespace. It returns only
// when that fails. node is what Arrive will find.
func (n *Namespace) Enter(args []string, node map[string]string) error {
	// The lock goes on with the process.
	if _, err := unix.FcntlInt(n.lock.Fd(), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keep %s locked: %w", n.lock.Name(), err)
	}
	return enter(n.pid, args, Passport{Node: node, Lock: int(n.lock.Fd()), State: n.state, Fresh: n.fresh})
}

// Join is Enter for the namespaces of a process that somebody else made.
func Join(pid int, args []string, node map[string]string) error {
	return enter(pid, args, Passport{Node: node})
}

func enter(pid int, args []string, p Passport) error {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return unable("the program nsenter is missing: as root, run `apt-get install util-linux`")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if p.WorkDir, err = os.Getwd(); err != nil {
		return err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	argv := append([]string{nsenter, "--target=" + strconv.Itoa(pid), "--user", "--mount", "--preserve-credentials", "--", self}, args...)
	return fmt.Errorf("enter the user namespace of process %d: %w", pid, syscall.Exec(nsenter, argv, append(os.Environ(), variable+"="+string(b))))
}

// Arrive is called first thing by a program that may have been entered with: it
// returns nil when it was not. It restores what a new program loses.
func Arrive() (*Passport, error) {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	var p Passport
	if err := errors.Join(os.Unsetenv(variable), json.Unmarshal([]byte(text), &p)); err != nil {
		return nil, fmt.Errorf("read the environment variable %s: %w", variable, err)
	}
	if !Inside() {
		return nil, fmt.Errorf("the environment variable %s is for v6node's own use: unset it", variable)
	}
	if p.Lock > 2 {
		// Not for the processes that are started here.
		syscall.CloseOnExec(p.Lock)
	}
	return &p, os.Chdir(p.WorkDir)
}

// Abandon is End for a program that could not begin what it is for. It leaves a
// namespace that was there before: something may still run in it.
func (p *Passport) Abandon(ctx context.Context) error {
	if !p.Fresh {
		return nil
	}
	return p.End(ctx)
}

// End ends what keeps the namespace, for a program that leaves nothing running
// in it. It does nothing in a namespace that somebody else made.
func (p *Passport) End(ctx context.Context) error {
	if p.State == "" {
		return nil
	}
	return end(ctx, filepath.Clean(p.State))
}
