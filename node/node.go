package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/cdi"
	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/health"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/metrics"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/proxy"
	"github.com/v6node/v6node/proxy/e2e"
	"github.com/v6node/v6node/proxy/tunnel"
	"github.com/v6node/v6node/runtime"
)

// Options are the parts that a node is made of.
type Options struct {
	Config   *config.Config
	State    *State
	API      server.API
	Engine   engine.Engine
	Images   Images
	Resolver image.Source
	// Version is that of this program, for the audit log.
	Version string
	// Stop is what becomes of living runs when Run is asked to stop.
	Stop StopMode
	// Caches keep what can be made again; they may be none.
	Caches []Cache
	// Reload reads the configuration again and tells whether this machine can do what it wants; nil where there is
	// no file. Applied is told of a configuration that holds from now on; it may be nil.
	Reload  func() (*config.Config, []config.Warning, error)
	Applied func(*config.Config)
	// Health learns of the node's loops and conditions.
	Health *health.Monitor
	Log    *slog.Logger
}

// Node is one vantage6 node.
type Node struct {
	cfg      *config.Config
	api      server.API
	engine   engine.Engine
	images   Images
	resolver image.Source
	log      *slog.Logger

	settings  atomic.Pointer[settings]
	reload    func() (*config.Config, []config.Warning, error)
	applied   func(*config.Config)
	reloading sync.Mutex
	answering sync.Mutex // held while an approval is given or denied

	ledger *ledger.Ledger
	audit  *audit.Log
	files  workspace.Root
	spool  string // where the proxies keep what is too long for memory
	hub    *taskHub
	// follower follows the logs of all runs.
	follower *runtime.Follower
	keys     *proxy.KeyCache
	tunnels  map[string]*tunnel.Tunnel // by where runs find them
	work     *worklist

	caches     []Cache
	using      imageGuard
	seen       sightings
	collecting chan struct{} // holds the collection under way
	judging    chan struct{} // holds those who read a blob for the policies
	space      func(dir string) (collect.Space, error)
	disks      disks

	devices   sync.Mutex // held while devices are chosen
	inventory func() (map[string][]string, error)

	health  *health.Monitor
	loops   loops
	metrics *metrics.Recorder

	gate     *admission.Controller
	journal  *admin.Journal
	senders  *organizations
	session  sessionState
	instance string
	stateDir string
	version  string
	stopMode StopMode
	winding  atomic.Int64 // runs that a node that was asked to stop waits for

	// set by Run before anything else uses them
	identity *server.Identity
	key      *e2e.PrivateKey // nil where the collaboration is not encrypted

	mu     sync.Mutex
	active map[int64]*activeRun
	// carried is what the connections of runs have carried that have files here.
	carried map[int64]*traffic
	// interrupted are runs whose record says less than their end and that
	// nobody drives: they go on when the server offers them again.
	interrupted map[int64]*ledger.Record
	doomed      doomed
	absent      absences
	// orphaned are jobs whose first task ended here before its subtasks.
	orphaned map[int64]struct{}
	runs     sync.WaitGroup
	// unserved counts the runs that an earlier start began and that have no proxy
	// yet. served is closed when there are none: what is not urgent begins then.
	unserved sync.WaitGroup
	served   chan struct{}
}

// activeRun is a run that a goroutine of this node drives.
type activeRun struct {
	id, taskID, jobID int64
	since             time.Time
	rec               ledger.Record // as it was in the beginning
	cancel            context.CancelCauseFunc
	own               context.Context // the node's, which outlives a kill
	killing           atomic.Bool     // it was said that the run is killed
	// running is set while the algorithm runs; ran ends when it no longer does.
	running atomic.Bool
	// doing is what is being done for its input or its image, while that takes long.
	doing atomic.Pointer[image.Progress]
	ran   context.Context
	ended context.CancelFunc
	// What the run's goroutine has found out and conclude writes down.
	admittedAt, endedAt time.Time
	use                 *ledger.Use
	again               bool // the run begins anew
	// function is the method that the input names, nil before the input was read; judged is the SHA-256 of the input
	// that the policies were asked about, nil where they were not.
	function *string
	judged   []byte
	// decided is what the policies said of the run, and limit what it is to be held to; nil before that.
	decided atomic.Pointer[ledger.Decision]
	limit   atomic.Pointer[limits.Limits]
	// askInput is set when the input was let go while the run waits.
	askInput bool
	// halted is set when the runtime has confirmed that the algorithm does not run
	// any more; exit is how it ended, nil where it does not tell.
	halted bool
	exit   *engine.Exit
	// left is set before the run's room is given back: its devices are free then,
	// whatever its record says yet.
	left atomic.Bool
	// scratchless is set, under the node's lock, when the run has no more use for
	// its job's scratch, and is over but for its record.
	scratchless bool
	// held is set while the run waits for the administrator's approval; word makes it look whether it still has to.
	held atomic.Bool
	word chan struct{}
	// dropped ends when the run's outcome is not wanted any more: the server no longer has the run.
	dropped context.Context
	drop    context.CancelFunc
	// arrived tells those that arrived with the run that it is in the queue.
	arrived func()
}

// New makes a node. Run starts it, Close releases its ledger.
func New(o Options) (*Node, error) {
	now, err := newSettings(o.Config)
	if err != nil {
		return nil, err
	}
	spool := filepath.Join(o.State.Dir, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool directory: %w", err)
	}
	tunnels, err := newTunnels(o.Config, o.Log)
	if err != nil {
		return nil, err
	}
	l, err := openLedger(o)
	if err != nil {
		return nil, err
	}
	follower, err := runtime.NewFollower()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	gate, err := newGate(o.Config.Budget, o.Config.Admission)
	if err != nil {
		return nil, errors.Join(err, follower.Close(), l.Close())
	}
	record, err := openAudit(o)
	if err != nil {
		gate.Close()
		return nil, errors.Join(err, follower.Close(), l.Close())
	}
	if _, err := os.Stat(filepath.Join(o.State.Dir, pausedFile)); err == nil {
		gate.Pause()
	}
	recorder := metrics.NewRecorder(metricKinds())
	n := &Node{
		health: o.Health, loops: newLoops(o.Health, o.Config.PollInterval), metrics: recorder,
		gate: gate, journal: admin.NewJournal(admin.JournalSize), senders: newOrganizations(o.API.OrganizationName), instance: o.State.Instance, stateDir: o.State.Dir,
		follower: follower,
		cfg:      o.Config, api: o.API, engine: &timedEngine{o.Engine, recorder}, images: &timedImages{o.Images, recorder}, resolver: o.Resolver, log: o.Log,
		reload: o.Reload, applied: o.Applied, ledger: l, audit: record, version: o.Version, stopMode: o.Stop,
		files:   filesOf(o),
		spool:   spool,
		hub:     newTaskHub(),
		keys:    proxy.NewKeyCache(proxy.KeyCacheOptions{}),
		tunnels: tunnels,
		work:    newWorklist(),
		served:  make(chan struct{}),
		caches:  o.Caches, seen: sightings{}, collecting: make(chan struct{}, 1), judging: make(chan struct{}, readers), space: collect.SpaceOf,
		inventory: func() (map[string][]string, error) { return cdi.Devices(cdi.Dirs()...) },
		active:    make(map[int64]*activeRun), carried: make(map[int64]*traffic), interrupted: make(map[int64]*ledger.Record), doomed: doomed{by: make(map[int64]int64)},
		orphaned: make(map[int64]struct{}),
	}
	n.settings.Store(now)
	n.requireConditions()
	return n, nil
}

// filesOf is where the files of runs are: in the state directory, or else in a
// directory of this node in the configured one, which others may use too.
func filesOf(o Options) workspace.Root {
	if o.Config.TaskDir == "" {
		return workspace.Root{Dir: filepath.Join(o.State.Dir, "work")}
	}
	return workspace.Root{Dir: filepath.Join(o.Config.TaskDir, o.State.Instance)}
}

// Close releases the ledger, the audit log and the log follower, after Run has returned.
func (n *Node) Close() error {
	n.gate.Close()
	return errors.Join(n.follower.Close(), n.audit.Close(), n.ledger.Close())
}

// Run connects to the server and works until ctx ends or a permanent error
// makes work impossible. What becomes of living runs then Options.Stop says.
// Sandboxes that live when it returns go on living and are taken over by the
// next Run.
func (n *Node) Run(ctx context.Context) (err error) {
	if err := n.auditNode(ctx, audit.NodeStarted); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.auditNode(context.WithoutCancel(ctx), audit.NodeStopped)) }()
	if err := n.connect(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop
		}
		return err
	}
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, gctx := errgroup.WithContext(work)
	g.Go(func() error {
		select {
		case <-ctx.Done():
			n.windDown(gctx)
			end()
		case <-gctx.Done():
		}
		return nil
	})
	g.Go(n.loop(gctx, "watching the runtime", n.engine.Run))
	for _, t := range n.tunnels {
		g.Go(n.loop(gctx, "keeping an SSH tunnel", t.Run))
	}
	g.Go(func() error {
		// The node is online when its living runs have their proxies back and
		// it is known which jobs are in work.
		if err := n.adopt(gctx); err != nil {
			return fmt.Errorf("take over what an earlier start left: %w", err)
		}
		n.runs.Go(func() { n.unserved.Wait(); close(n.served) })
		n.session.takenOver()
		n.loops.session.Beat()
		g.Go(n.loop(gctx, "the session with the server", func(ctx context.Context) error { return n.api.Listen(ctx, n.handle) }))
		g.Go(n.loop(gctx, "cleaning", n.janitor))
		g.Go(n.safe(gctx, func() error { return n.examineAudit(gctx) }))
		if n.cfg.Prometheus.Enabled {
			g.Go(n.loop(gctx, "reporting to the server", n.reportMachine))
		}
		return n.loop(gctx, "taking runs", n.reconcile)()
	})
	err = g.Wait()
	n.loops.rest()
	n.runs.Wait()
	n.stopTraffic()
	if ctx.Err() != nil {
		return nil // asked to stop
	}
	return err
}

// loop makes an error of a loop's end while the node is meant to live, also of
// one by panic, so that no loop dies silently.
func (n *Node) loop(ctx context.Context, what string, run func(context.Context) error) func() error {
	return func() error {
		err := n.safe(ctx, func() error { return run(ctx) })()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			return fmt.Errorf("%s ended unexpectedly: report this as a defect", what)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
}

// handle receives the server's events. It must not block.
func (n *Node) handle(ctx context.Context, e server.Event) {
	n.loops.session.Beat()
	switch e.Kind {
	case server.Synced:
		n.session.now(true)
		n.tell(admin.EventConnected, nil, "")
		n.hub.all()
		n.announceNode(ctx)
		n.work.all()
	case server.Disconnected:
		n.session.now(false)
		n.tell(admin.EventDisconnected, nil, "")
	case server.Poll:
		n.work.all()
	case server.NewTask:
		n.work.task(e.TaskID)
	case server.RunChanged:
		n.hub.changed(e.TaskID)
	case server.Kill:
		n.kill(ctx, e.Kill)
	}
}

func (n *Node) activeRuns() []*activeRun {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*activeRun, 0, len(n.active))
	for _, a := range n.active {
		out = append(out, a)
	}
	return out
}

// driver takes a run through a part of its life. own is the node's context; ctx
// is the run's, which ends earlier when the run is killed.
type driver func(own, ctx context.Context, a *activeRun)

// launch drives a run in a goroutine of its own, unless one does already.
func (n *Node) launch(own context.Context, rec *ledger.Record, drive driver) {
	n.launchWith(own, rec, func() {}, drive)
}

// launchWith is launch for a run that arrives with others.
func (n *Node) launchWith(own context.Context, rec *ledger.Record, arrived func(), drive driver) {
	runCtx, cancel := context.WithCancelCause(own)
	a := &activeRun{id: rec.RunID, taskID: rec.TaskID, jobID: rec.JobID, since: time.Now(), rec: *rec, cancel: cancel, own: own, arrived: arrived, word: make(chan struct{}, 1)}
	a.ran, a.ended = context.WithCancel(context.Background())
	a.dropped, a.drop = context.WithCancel(context.Background())
	n.mu.Lock()
	if _, ok := n.active[a.id]; ok {
		n.mu.Unlock()
		cancel(nil)
		a.ended()
		a.drop()
		arrived()
		return
	}
	n.active[a.id] = a
	delete(n.interrupted, a.id)
	by, orphan := n.doomed.parentOf(rec)
	if orphan {
		n.doomed.add(a.taskID, by)
	}
	n.mu.Unlock()
	switch {
	case rec.KillWanted:
		a.killing.Store(true)
		cancel(killCause(rec.KillWhy))
	case orphan && !rec.State.Final():
		n.killRun(own, a, killedWithParent)
	}
	if n.senders.known(rec.InitOrganizationID) == "" {
		n.runs.Go(func() { n.senders.learn(own, rec.InitOrganizationID) })
	}
	n.runs.Go(func() {
		defer func() {
			arrived()
			a.ended()
			a.drop()
			n.mu.Lock()
			delete(n.active, a.id)
			n.mu.Unlock()
			cancel(nil)
			if a.again {
				n.interrupt(rec)
				n.work.all()
			}
		}()
		n.runSafely(own, runCtx, a, drive)
	})
}

// interrupt remembers a run that nobody drives any more.
func (n *Node) interrupt(rec *ledger.Record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.interrupted[rec.RunID] = rec
}

// over returns the interrupted runs that the server does not offer any more.
func (n *Node) over(listed map[int64]bool) []*ledger.Record {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*ledger.Record
	for id, rec := range n.interrupted {
		if _, driven := n.active[id]; !driven && !listed[id] {
			out = append(out, rec)
		}
	}
	return out
}

// killed reports whether a run's context ended because of a kill, and not
// because the node stops.
func killed(ctx context.Context) bool {
	var k killCause
	return errors.As(context.Cause(ctx), &k)
}
