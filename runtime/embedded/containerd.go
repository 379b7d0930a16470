package embedded

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/v6node/v6node/internal/pidfd"
	"github.com/v6node/v6node/internal/userns"
)

const (
	// startTimeout bounds how long a containerd may take until its CRI API is
	// ready. A tenth of a second is usual; many sandboxes to find again on a
	// slow disk make it longer.
	startTimeout = time.Minute
	// stopGrace is how long containerd may take to end by itself.
	stopGrace = 10 * time.Second
	// A containerd that lived for calmAfter starts again at once after it died,
	// others after a delay that doubles up to maxRestartDelay.
	calmAfter       = time.Minute
	minRestartDelay = 100 * time.Millisecond
	maxRestartDelay = 30 * time.Second
	logCheckPeriod  = time.Minute
)

// Containerd is a running containerd of our own. Its methods may be called
// from several goroutines. After use, exactly one of Stop (which ends
// containerd if no sandbox lives) or Detach (which leaves it running) should
// give the directories back; the end of the process does as well.
type Containerd struct {
	cfg    Config
	layout *layout
	pause  *pauseImage
	client *client
	differ *differ // nil where containerd unpacks layers itself

	mu      sync.Mutex // held while a process is started or ended
	proc    *process
	since   time.Time
	logFrom int64
	locks   []*os.File
	closed  chan struct{} // closed by Stop and Detach
}

// Start returns a containerd whose CRI API answers. It adopts one that an
// earlier node with the same State left running; if that one was started from
// other programs or with another configuration, it is replaced, unless
// sandboxes live in it. The error wraps ErrInUse when another node uses Root or
// State, ErrPrivileges when this process may not mount filesystems. When ctx
// ends first nothing is left running that Start has started.
func Start(ctx context.Context, cfg Config) (*Containerd, error) {
	if err := cfg.normalize(); err != nil {
		return nil, err
	}
	l, err := newLayout(cfg.Root, cfg.State)
	if err != nil {
		return nil, err
	}
	if err := l.create(); err != nil {
		return nil, fmt.Errorf("cannot create the directories of the embedded containerd: %w", err)
	}
	d := &Containerd{cfg: cfg, layout: l, closed: make(chan struct{})}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.Detach())
	}
	return d, nil
}

func (d *Containerd) start(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, path := range []string{d.layout.stateLock, d.layout.rootLock} {
		f, err := lock(path)
		if err != nil {
			return err
		}
		d.locks = append(d.locks, f)
	}
	config, want, err := d.plan(ctx)
	if err != nil {
		return err
	}
	if d.client, err = newClient(d.layout.socket); err != nil {
		return err
	}
	if err := installCNI(d.layout, &d.cfg); err != nil {
		return fmt.Errorf("cannot install the network configuration of the embedded containerd: %w", err)
	}
	if err := linkRegistries(d.layout.registries, CertsDirs(d.cfg.Root, d.cfg.CertsDirs)...); err != nil {
		return fmt.Errorf("cannot tell the embedded containerd of the machine's registries: %w", err)
	}
	if userns.OneID() {
		if err := d.unpackHere(ctx); err != nil {
			return fmt.Errorf("cannot unpack images for the embedded containerd: %w", err)
		}
	}
	adopted, err := d.adopt(ctx, want)
	if err != nil || adopted {
		return err
	}
	return d.run(ctx, config, want)
}

// unpackHere makes what only a containerd with one user id needs.
func (d *Containerd) unpackHere(ctx context.Context) (err error) {
	if err := os.Remove(d.layout.groupedRunc); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(d.cfg.Bundle.looseRunc(), d.layout.groupedRunc); err != nil {
		return err
	}
	d.differ, err = serveDiffer(ctx, d.layout.differ, d.client)
	return err
}

// plan looks at the host and the bundle and decides what is to run.
func (d *Containerd) plan(ctx context.Context) (config []byte, want *record, err error) {
	h, err := probeHost(d.layout.root)
	if err != nil {
		return nil, nil, err
	}
	h.log(ctx, d.cfg.Log)
	if h.userNamespace {
		if err := ownCNICache(d.layout.cniCache); err != nil {
			return nil, nil, err
		}
	}
	user := pauseUser
	if h.oneID {
		user = 0
	}
	if d.pause, err = readPauseImage(d.cfg.Bundle.Pause, user); err != nil {
		return nil, nil, fmt.Errorf("cannot make the pause image: %w", err)
	}
	if config, err = renderConfig(d.layout, d.cfg.Bundle, h, d.pause.ref(), d.cfg.Handlers, d.cfg.NoCgroups); err != nil {
		return nil, nil, err
	}
	build, err := d.cfg.Bundle.build()
	if err != nil {
		return nil, nil, err
	}
	return config, &record{Build: build, Config: fmt.Sprintf("%x", sha256.Sum256(config))}, nil
}

// adopt takes over a living containerd, or ends it where it is outdated and
// idle.
func (d *Containerd) adopt(ctx context.Context, want *record) (bool, error) {
	have, err := readRecord(d.layout.record)
	if err != nil {
		return false, err
	}
	p, err := findProcess(d.layout, have)
	if err != nil || p == nil {
		return false, err
	}
	d.proc, d.since, d.logFrom = p, time.Now(), logSize(d.layout.log)
	ready := d.ready(ctx)
	outdated := have == nil || have.Build != want.Build || have.Config != want.Config
	log := d.cfg.Log.With(slog.Int("pid", p.pid))
	switch {
	case ctx.Err() != nil:
		return false, ready
	case ready != nil:
		log.WarnContext(ctx, "containerd of an earlier start does not get ready, it is replaced", slog.Any("error", ready))
	case outdated:
		n, err := d.client.living(ctx)
		if err != nil {
			return false, fmt.Errorf("cannot ask containerd for its sandboxes: %w", err)
		}
		if n > 0 {
			log.WarnContext(ctx, "containerd of an earlier start is outdated; it stays because sandboxes live in it, the new one starts when it ends",
				slog.Int("living", n))
			return true, nil
		}
		log.InfoContext(ctx, "containerd of an earlier start is outdated, it is replaced")
	default:
		log.InfoContext(ctx, "found containerd of an earlier start")
		return true, d.client.installPause(ctx, d.pause)
	}
	if err := p.end(ctx, stopGrace); err != nil {
		return false, err
	}
	p.release()
	d.proc = nil
	return false, nil
}

// run starts a new process with the configuration and waits until it is ready.
// On failure the process is ended again.
func (d *Containerd) run(ctx context.Context, config []byte, r *record) error {
	began := time.Now()
	var err error
	if r.Boot, err = bootID(); err != nil {
		return err
	}
	if err := d.forgetBoot(r.Boot); err != nil {
		return err
	}
	if err := writeHandlers(d.layout, d.cfg.Handlers); err != nil {
		return err
	}
	if err := replaceFile(d.layout.config, config, 0o600); err != nil {
		return err
	}
	if err := capLog(d.layout.log, maxLog); err != nil {
		return err
	}
	from := logSize(d.layout.log)
	// None of these can be one that the new process is about to start.
	shims, err := d.layout.shims()
	if err != nil {
		return err
	}
	namespaces, err := d.layout.namespaces()
	if err != nil {
		return err
	}
	p, err := launch(d.layout, d.cfg.Bundle, d.cfg.LogLevel)
	if err != nil {
		return err
	}
	d.proc, d.since, d.logFrom = p, began, from
	r.PID = p.pid
	if r.Start, err = startTime(p.pid); err == nil {
		err = r.write(d.layout.record)
	}
	if err == nil {
		err = d.ready(ctx)
	}
	if err == nil {
		err = d.client.installPause(ctx, d.pause)
	}
	if err == nil {
		err = d.endStrays(ctx, shims)
	}
	if err != nil {
		// Shims, if there are any, do not mind.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopGrace)
		defer cancel()
		ended := p.end(end, stopGrace)
		if errors.Is(err, pidfd.ErrEnded) {
			err = d.obituary()
		}
		err = errors.Join(err, ended)
		p.release()
		d.proc = nil
		return err
	}
	d.removeStrays(ctx, namespaces)
	d.cfg.Log.InfoContext(ctx, "containerd started", slog.Int("pid", p.pid), slog.String("endpoint", d.Endpoint()),
		slog.Duration("took", time.Since(began).Round(time.Millisecond)))
	return nil
}

// ready waits until the current process answers, or has ended.
func (d *Containerd) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("containerd was not ready after %v, see %s", startTimeout, d.layout.log))
	defer cancel()
	ctx, died := context.WithCancelCause(ctx)
	p, answered := d.proc, make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.exited:
			died(pidfd.ErrEnded)
		case <-answered:
		}
	})
	err := d.client.waitReady(ctx)
	close(answered)
	watch.Wait()
	died(nil)
	if err != nil {
		if !p.alive() {
			return d.obituary()
		}
		return fmt.Errorf("containerd does not get ready: %w", err)
	}
	// The socket's directory is private already; this keeps the promise for
	// whoever moves it.
	return errors.Join(os.Chmod(d.layout.socket, 0o600), os.Chmod(d.layout.ttrpc, 0o600))
}

func (d *Containerd) obituary() error {
	if last := lastWords(d.layout.log, d.logFrom); last != "" {
		return fmt.Errorf("containerd ended, the last line in %s is: %s", d.layout.log, last)
	}
	return fmt.Errorf("containerd ended and wrote nothing to %s", d.layout.log)
}

// forgetBoot removes what containerd kept for the life of sandboxes when the
// machine was booted since: no process and no mount of then can exist.
func (d *Containerd) forgetBoot(now string) error {
	old, err := readRecord(d.layout.record)
	if err != nil || old == nil || old.Boot == now {
		return err
	}
	for _, dir := range []string{d.layout.runc, d.layout.shimSocks} {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(d.layout.state), d.layout.createState())
}

// Endpoint is where CRI, and containerd's own API, are served.
func (d *Containerd) Endpoint() string { return "unix://" + d.layout.socket }

// Run starts containerd again whenever it dies, with a growing delay if it
// dies soon, and keeps its log small. It returns nil when ctx ends or after
// Stop or Detach, and leaves containerd running. Call it once.
func (d *Containerd) Run(ctx context.Context) error {
	tick := time.NewTicker(logCheckPeriod)
	defer tick.Stop()
	delay := minRestartDelay
	for {
		d.mu.Lock()
		p, since := d.proc, d.since
		d.mu.Unlock()
		if p != nil && p.alive() {
			select {
			case <-ctx.Done():
				return nil
			case <-d.closed:
				return nil
			case <-p.exited:
			case <-tick.C:
				if err := capLog(d.layout.log, maxLog); err != nil {
					d.cfg.Log.WarnContext(ctx, "cannot shorten containerd's log", slog.Any("error", err))
				}
			}
			continue
		}
		if p != nil {
			if time.Since(since) >= calmAfter {
				delay = minRestartDelay
			}
			d.cfg.Log.ErrorContext(ctx, "containerd died, it is started again", slog.Int("pid", p.pid),
				slog.Duration("delay", delay), slog.Any("error", d.obituary()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.closed:
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, maxRestartDelay)
		if err := d.restart(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.ErrorContext(ctx, "containerd does not start", slog.Duration("next_try_in", delay), slog.Any("error", err))
		}
	}
}

// restart starts a new process in the place of one that has ended.
func (d *Containerd) restart(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isClosed() || d.proc != nil && d.proc.alive() {
		return nil
	}
	if d.proc != nil {
		d.proc.release()
		d.proc = nil
	}
	config, r, err := d.plan(ctx)
	if err != nil {
		return err
	}
	return d.run(ctx, config, r)
}

// Stop ends containerd if no sandbox and no container lives, and reports
// whether it did. If it did, no process, no mount and no socket is left and the
// directories are free for another node; if not, containerd keeps running under
// supervision. Stopping twice is not an error.
func (d *Containerd) Stop(ctx context.Context) (stopped bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isClosed() {
		return true, nil
	}
	if d.proc != nil && d.proc.alive() {
		n, err := d.client.living(ctx)
		if err != nil {
			return false, fmt.Errorf("containerd is not stopped, because it does not say whether sandboxes live: %w", err)
		}
		if n > 0 {
			return false, nil
		}
		if err := d.client.releaseDead(ctx); err != nil {
			d.cfg.Log.WarnContext(ctx, "sandboxes that ended could not be cleaned up", slog.Any("error", err))
		}
		if err := d.proc.end(ctx, stopGrace); err != nil {
			return false, err
		}
	}
	d.differ.close() // it has its socket there
	err = d.layout.removeTransient()
	return true, errors.Join(err, d.close())
}

// Detach gives the directories back and leaves containerd and all sandboxes
// running, for the next Start to find. Detaching twice, or after Stop, is not
// an error.
func (d *Containerd) Detach() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.close()
}

func (d *Containerd) isClosed() bool {
	select {
	case <-d.closed:
		return true
	default:
		return false
	}
}

func (d *Containerd) close() error {
	if d.isClosed() {
		return nil
	}
	close(d.closed)
	d.differ.close()
	var errs []error
	if d.proc != nil {
		d.proc.release()
		d.proc = nil
	}
	if d.client != nil {
		errs = append(errs, d.client.close())
		d.client = nil
	}
	for _, f := range d.locks {
		errs = append(errs, f.Close())
	}
	d.locks = nil
	return errors.Join(errs...)
}

// PID is containerd's process, for diagnosis; 0 while none runs.
func (d *Containerd) PID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.proc == nil || !d.proc.alive() {
		return 0
	}
	return d.proc.pid
}
