package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/runtime/embedded"
)

// What a node finds again in its passport after Enter.
const (
	passStateDir = "state_dir"
	passTaskDir  = "task_dir"
	passCgroup   = "cgroup" // "" for none
	passWhy      = "why"    // why there is none
	passOneID    = "one_id" // why there is one user id only, "" where there are more
)

// Enter takes a node that a normal user starts to where it can work: into a
// control group in which runs can be limited, and into the user namespace in
// which its runtime is or is to be. When that is done this program begins anew
// there, with the arguments args and a passport. Enter returns nil when there
// is nothing to do, and otherwise why it cannot be done.
func Enter(ctx context.Context, o Options, args []string) error {
	if o.Passport != nil || userns.Inside() {
		return nil
	}
	if os.Geteuid() == 0 && o.Config.Runtime.Endpoint == "" {
		return nil
	}
	if o.Config.Runtime.Endpoint != "" {
		return join(o, args)
	}
	bundle, err := embedded.FindBundle(o.BundleDirs...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRuntime, err)
	}
	kit, err := bundle.RootlessKit()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRuntime, err)
	}
	if err := userns.Require(); err != nil {
		return fmt.Errorf("%w: %w", ErrRuntime, err)
	}
	ids := userns.RequireIDs()
	ns, err := userns.Open(userns.Config{Dir: o.Config.StateDir, RootlessKit: kit, Hold: bundle.Pause, OneID: ids != nil})
	if err != nil {
		return inUse(err)
	}
	pass, err := passFor(o, args, ns.PID())
	if err != nil {
		return err
	}
	if ids != nil {
		pass[passOneID] = strings.ReplaceAll(ids.Error(), "\n", "; ")
	}
	if err := ns.Make(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrRuntime, err)
	}
	return fmt.Errorf("%w: %w", ErrRuntime, ns.Enter(args, pass))
}

// join takes the node to a runtime that runs without root.
func join(o Options, args []string) error {
	socket, _ := strings.CutPrefix(o.Config.Runtime.Endpoint, "unix://")
	pid, err := userns.Listener(socket)
	if err != nil {
		return nil // Dial says it better
	}
	if pid == 0 && os.Geteuid() == 0 {
		return nil // in a container, the runtime outside is not seen
	}
	if pid == 0 {
		return fmt.Errorf("%w: it runs in a PID namespace that this process cannot see: start the node inside it too", ErrRuntime)
	}
	apart, err := userns.Apart(pid)
	if errors.Is(err, userns.ErrForeign) {
		return fmt.Errorf("%w: %w: run the node as the user who runs that, or start it inside: nsenter -t %d -U -m -p --preserve-credentials -- v6node run ...", ErrRuntime, err, pid)
	}
	if err != nil {
		return fmt.Errorf("%w: look at its process %d: %w", ErrRuntime, pid, err)
	}
	if !apart {
		return nil
	}
	pass, err := passFor(o, args, pid)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRuntime, userns.Join(pid, args, pass))
}

func inUse(err error) error {
	if errors.Is(err, userns.ErrInUse) {
		return fmt.Errorf("%w: %w", node.ErrStateInUse, err)
	}
	return fmt.Errorf("%w: %w", ErrRuntime, err)
}

// passFor finds the control group for the runs: that of the process beside, when
// there is one, so that a node that comes back limits new runs where the old
// ones are.
func passFor(o Options, args []string, beside int) (map[string]string, error) {
	pass := map[string]string{passStateDir: o.Config.StateDir, passTaskDir: o.Config.TaskDir}
	if beside == 0 {
		beside = os.Getpid()
	}
	if o.Config.Cgroup == "" {
		if err := intoScope(args); err != nil {
			return nil, err
		}
	}
	d, err := runtime.FindDelegation(o.Config.Cgroup, beside)
	if err == nil {
		err = d.Settle()
	}
	switch {
	case err == nil:
		pass[passCgroup] = d.Base
	case !errors.Is(err, runtime.ErrNotDelegated):
		return nil, fmt.Errorf("%w: %w", ErrRuntime, err)
	case o.Config.Enforce == config.EnforceStrict:
		return nil, fmt.Errorf("%w: the limits of runs cannot be enforced without root: %w: %s; or set resources.enforce to %s to run without limits",
			ErrRuntime, err, delegate(), config.EnforceBestEffort)
	default:
		pass[passWhy] = err.Error()
	}
	return pass, nil
}

// delegate says what to do where no control group is delegated.
func delegate() string {
	if !unified() {
		return fmt.Sprintf("have root make a control group for user %d, and name it as resources.cgroup (docs/rootless.md has the commands)", os.Geteuid())
	}
	return "have root delegate the controllers (Delegate=cpu cpuset io memory pids in /etc/systemd/system/user@.service.d/delegate.conf), log in again, and start the node with `systemd-run --user --scope -p Delegate=yes v6node run ...` or as a unit of the user (docs/rootless.md)"
}

func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// scopeVariable says that this process was started by systemd-run.
const scopeVariable = "_V6NODE_SCOPE"

// intoScope replaces this process by one in a scope of the user's systemd, which
// delegates control groups to it, where there is such a systemd and the process
// is not in a scope that is delegated already. A service would do as well, but
// systemd before 254 cannot start one again while runs have their groups in it.
func intoScope(args []string) error {
	if _, ok := os.LookupEnv(scopeVariable); ok {
		return os.Unsetenv(scopeVariable)
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if !unified() || dir == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "systemd", "private")); err != nil {
		return nil
	}
	if text, err := os.ReadFile("/proc/self/cgroup"); err == nil && strings.HasSuffix(strings.TrimSpace(string(text)), ".scope") {
		if _, err := runtime.FindDelegation("", os.Getpid()); err == nil {
			return nil
		}
	}
	run, err := exec.LookPath("systemd-run")
	if err != nil {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append([]string{run, "--user", "--scope", "--quiet", "--collect", "--unit=v6node-" + strconv.Itoa(os.Getpid()), "--property=Delegate=yes", "--", self}, args...)
	return fmt.Errorf("%w: start systemd-run: %w", ErrRuntime, syscall.Exec(run, argv, append(os.Environ(), scopeVariable+"=1")))
}

// Restore gives a configuration that was read inside the namespace what it was
// outside of it: there the user is root and would have other directories.
func Restore(cfg *config.Config, p *userns.Passport) {
	if p != nil {
		cfg.StateDir, cfg.TaskDir = p.Node[passStateDir], p.Node[passTaskDir]
	}
}

// cgroups says where the runs' control groups go.
func (o *Options) cgroups(ctx context.Context) runtime.Options {
	out := runtime.Options{Log: o.Log, CgroupBase: o.Config.Cgroup}
	if o.Passport == nil {
		return out
	}
	if why := o.Passport.Node[passOneID]; why != "" {
		o.Log.WarnContext(ctx, "all algorithms run as this one user, and all files in their images are this user's", "reason", why)
	}
	out.CgroupBase = o.Passport.Node[passCgroup]
	if out.NoCgroups = out.CgroupBase == ""; out.NoCgroups {
		o.Log.WarnContext(ctx, "runs have no limits of memory, CPU and processes, and no count of what they use", "reason", o.Passport.Node[passWhy])
	}
	return out
}

// abandon ends the namespace of a node whose runtime did not start.
func abandon(o Options) error {
	if o.Passport == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	return o.Passport.Abandon(ctx)
}
