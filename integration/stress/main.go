// Command stress runs algorithms that misbehave in every way at once, without
// pause, beside one that behaves, and shows whether the node stays in command:
// each run must end for its own reason and no other, the good ones must
// complete, and the administrator must be answered all the time. It prints how
// fast, and fails where a run ended otherwise than it should.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/admin"
)

// patience bounds one run: all end by themselves or by a limit much earlier.
const patience = 3 * time.Minute

// part is one kind of algorithm in the play.
type part struct {
	name, method string
	kwargs       map[string]any
	limits       map[string]any
	// status and sentence are how its runs must end.
	status, sentence string
	// broke, if set, is what its log says where the limit broke the program
	// itself, which then ends by its own.
	broke string
}

var parts = []part{
	{
		name: "fork bomb", method: "fork_bomb", kwargs: map[string]any{"seconds": 600},
		limits: map[string]any{"pids": 200, "memory": "1g", "timeout": "20s"},
		status: standin.StatusCrashed, sentence: "it had not ended after 20s", broke: "failed to create new OS thread",
	}, {
		name: "memory hog", method: "oom", kwargs: map[string]any{"bytes": 1 << 30},
		limits: map[string]any{"memory": "64m"},
		status: standin.StatusCrashed, sentence: "killed: memory limit 64 MiB reached (peak ",
	}, {
		name: "memory hog's child", method: "oom", kwargs: map[string]any{"bytes": 1 << 30, "child": true},
		limits: map[string]any{"memory": "64m"},
		status: standin.StatusCrashed, sentence: "killed: memory limit 64 MiB reached (peak ",
	}, {
		name: "disk filler", method: "hoard", kwargs: map[string]any{"path": "/mnt/tmp/fill", "bytes": 8 << 30, "seconds": 600},
		limits: map[string]any{"scratch_size": "64m", "memory": "1g"},
		status: standin.StatusCrashed, sentence: "its job's /mnt/tmp took more than 64 MiB",
	}, {
		name: "log flooder", method: "spam", kwargs: map[string]any{"lines": 1 << 40, "width": 120},
		limits: map[string]any{"timeout": "20s", "memory": "1g"},
		status: standin.StatusCrashed, sentence: "it had not ended after 20s",
	}, {
		name: "good one", method: "noop", status: standin.StatusCompleted,
	},
}

// answers are the times that the node took to answer.
type answers struct {
	mu    sync.Mutex
	times []time.Duration
}

func (a *answers) add(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times = append(a.times, d)
}

func (a *answers) at(share float64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.times) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(a.times))
	return s[min(len(s)-1, int(share*float64(len(s))))]
}

type stress struct {
	programs lab.Programs
	lab      *lab.Lab
	node     *lab.Node
	user     *standin.Researcher
	org      int64
	collab   int64
	images   map[string]imagekit.Ref

	admin *admin.Client

	runs       map[string]*answers // by part: how long its runs took
	answer, ps answers
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "stress:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var (
		root = flag.String("root", ".", "the checkout, after `make`")
		span = flag.Duration("for", 10*time.Minute, "how long")
	)
	flag.Parse()
	abs, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	s := &stress{images: map[string]imagekit.Ref{}, runs: map[string]*answers{}}
	if s.programs, err = lab.Find(filepath.Join(abs, "bin", "v6node"), []string{filepath.Join(abs, "bundle")}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "v6stress-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := s.open(ctx, dir); err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, s.node.Stop(end), s.lab.Close())
	}()
	fmt.Fprintf(os.Stderr, "%d kinds of algorithms at once for %v\n", len(parts), *span)
	playErr := s.play(ctx, *span)
	return errors.Join(playErr, s.report())
}

// open starts the stand-in server and one node with its own containerd.
func (s *stress) open(ctx context.Context, dir string) (err error) {
	if s.lab, err = lab.New(ctx, dir, s.programs, standin.Options{}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lab.Close())
		}
	}()
	s.org = s.lab.Server.AddOrganization("stress")
	s.collab = s.lab.Server.AddCollaboration("stress", false, s.org)
	var rules []map[string]any
	for _, p := range parts {
		s.runs[p.name] = &answers{}
		ref, err := s.lab.Push("stress/"+strings.NewReplacer(" ", "-", "'", "").Replace(p.name), s.programs.Algorithm("testalgo"))
		if err != nil {
			return err
		}
		s.images[p.name] = ref
		if p.limits != nil {
			rules = append(rules, map[string]any{"image": ref.Tag, "limits": p.limits})
		}
	}
	s.lab.Server.AddUser(s.org, "user", "password")
	if s.user, err = standin.NewResearcher(ctx, s.lab.Server.URL(), "user", "password", nil); err != nil {
		return err
	}
	s.node, err = s.lab.StartNode(ctx, lab.NodeSpec{
		Name: "node", APIKey: s.lab.Server.AddNode(s.org, s.collab), Extra: map[string]any{"limit_rules": rules, "stop_grace": "1s"},
		Args: []string{"--stop-runs"}, // also where one has ended as it should not
	})
	if err == nil {
		s.admin = admin.NewClient(s.node.StateDir)
	}
	return err
}

// play keeps one run of each part going, and asks the node for them all the
// time. The first run that ends otherwise than it should ends the play.
func (s *stress) play(ctx context.Context, span time.Duration) error {
	g, gctx := errgroup.WithContext(ctx)
	over := make(chan struct{})
	end := time.AfterFunc(span, func() { close(over) })
	defer end.Stop()
	for _, p := range parts {
		g.Go(func() error {
			for {
				select {
				case <-over:
					return nil
				case <-gctx.Done():
					return gctx.Err()
				default:
				}
				if err := s.once(gctx, p); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
			}
		})
	}
	g.Go(func() error {
		for tick := time.Tick(200 * time.Millisecond); ; {
			select {
			case <-over:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			case <-tick:
			}
			if err := s.ask(gctx); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// once runs one algorithm of a part to its end and holds that against what it
// should be.
func (s *stress) once(ctx context.Context, p part) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	id, err := s.user.CreateTask(ctx, standin.TaskSpec{
		Name: p.name, Image: s.images[p.name].Tag, Collaboration: s.collab, Organizations: []int64{s.org}, Method: p.method, Kwargs: p.kwargs,
	})
	if err != nil {
		return err
	}
	status, err := s.lab.Server.WaitTask(ctx, id)
	if err != nil {
		return err
	}
	s.runs[p.name].add(time.Since(began))
	text := ""
	if log := s.lab.Server.RunsOf(id)[0].Log; log != nil {
		text = *log
	}
	last := text[strings.LastIndex(text, "\n")+1:]
	if p.broke != "" && status == p.status && strings.Contains(last, "exit code") && strings.Contains(text, p.broke) {
		return nil
	}
	if status != p.status || !strings.Contains(last, p.sentence) {
		return fmt.Errorf("task %d ended as %q with %q, not as %q with %q", id, status, last, p.status, p.sentence)
	}
	return nil
}

// ask does what an administrator does: the node's own answer is timed, and
// `v6node ps` with its process around it.
func (s *stress) ask(ctx context.Context) error {
	began := time.Now()
	if err := s.admin.Runs(ctx, admin.RunQuery{}, func(*admin.Run) error { return nil }); err != nil {
		return fmt.Errorf("ask the node for its runs: %w", err)
	}
	s.answer.add(time.Since(began))
	began = time.Now()
	out, err := exec.CommandContext(ctx, s.programs.V6node, "ps", "--config", s.node.Config, "-o", "json").Output()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("v6node ps: %w", err)
	}
	s.ps.add(time.Since(began))
	if !json.Valid(out) {
		return fmt.Errorf("v6node ps printed no JSON: %.200q", out)
	}
	return nil
}

func (s *stress) report() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tCOUNT\tMEDIAN\t99 %\tLONGEST")
	line := func(what string, a *answers) {
		fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%v\n", what, len(a.times), a.at(0.5).Round(time.Millisecond), a.at(0.99).Round(time.Millisecond), a.at(1).Round(time.Millisecond))
	}
	for _, p := range parts {
		line(p.name+", posted to its end", s.runs[p.name])
	}
	line("the node's answer to ps", &s.answer)
	line("v6node ps, the whole command", &s.ps)
	return w.Flush()
}
