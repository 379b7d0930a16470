// Command soak keeps tasks of all kinds going on three nodes while nodes, their
// containerds, the server and the connections between them are killed at random.
// At the end every run must have had exactly one final report and its own
// outcome, and nothing may be left on the machine. It needs root and what `make`
// builds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/integration/faultproxy"
	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

const (
	nodes   = 3
	workers = 4 // tasks that are open at the same time
	// patience bounds one task, and everything after the last one. It is more
	// than the longest wait between two tries of a node.
	patience = 3 * time.Minute
)

type soak struct {
	programs lab.Programs
	lab      *lab.Lab
	nodes    []*member
	wires    []*faultproxy.Proxy
	orgs     []int64
	collab   int64
	user     *standin.Researcher
	testalgo imagekit.Ref
	average  imagekit.Ref

	mu      sync.Mutex
	dice    *rand.Rand
	tasks   []task
	struck  map[string]int
	slowest time.Duration // from a node's death until it is online again
}

// member is a node. lock is held while it is killed and started.
type member struct {
	*lab.Node
	wire *faultproxy.Proxy // its way to the server
	lock sync.Mutex
	use  usage
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var (
		root = flag.String("root", ".", "the checkout, after `make`")
		span = flag.Duration("for", 20*time.Minute, "how long tasks are sent and things killed")
		seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what is chosen; the machine's timing is not repeated")
		keep = flag.Bool("keep", false, "keep the directory with the nodes' logs")
	)
	flag.Parse()
	abs, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	s := &soak{dice: rand.New(rand.NewPCG(*seed, 0)), struck: map[string]int{}}
	if s.programs, err = lab.Find(filepath.Join(abs, "bin", "v6node"), []string{filepath.Join(abs, "bundle")}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "v6soak-")
	if err != nil {
		return err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "the nodes are in", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if err := s.open(ctx, dir); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "seed %d, for %v\n", *seed, *span)
	err = s.play(ctx, *span)
	err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
	err = errors.Join(err, s.judge(), s.left(dir))
	s.report()
	return err
}

// open starts the stand-in server and the nodes, each with its own containerd.
func (s *soak) open(ctx context.Context, dir string) (err error) {
	if s.lab, err = lab.New(ctx, dir, s.programs, standin.Options{}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	for i := range nodes {
		s.orgs = append(s.orgs, s.lab.Server.AddOrganization(fmt.Sprintf("organization %d", i)))
	}
	s.collab = s.lab.Server.AddCollaboration("soak", false, s.orgs...)
	if s.testalgo, err = s.lab.Push("soak/testalgo", s.programs.Algorithm("testalgo")); err != nil {
		return err
	}
	if s.average, err = s.lab.Push("soak/average", s.programs.Algorithm("average")); err != nil {
		return err
	}
	data := filepath.Join(dir, "data.csv")
	if err := os.WriteFile(data, []byte("age\n40\n50\n60\n"), 0o600); err != nil {
		return err
	}
	s.lab.Server.AddUser(s.orgs[0], "user", "password")
	if s.user, err = standin.NewResearcher(ctx, s.lab.Server.URL(), "user", "password", nil); err != nil {
		return err
	}
	for i, org := range s.orgs {
		wire, err := faultproxy.New(fmt.Sprintf("127.0.0.1:%d", s.lab.Server.Port()), nil)
		if err != nil {
			return err
		}
		s.wires = append(s.wires, wire)
		n, err := s.lab.StartNode(ctx, lab.NodeSpec{
			Name: fmt.Sprintf("n%d", i), APIKey: s.lab.Server.AddNode(org, s.collab), Databases: map[string]string{"default": data},
			Extra: map[string]any{"stop_grace": "1s", "port": wire.Port()}, Args: []string{"--drain"},
		})
		if n != nil {
			s.nodes = append(s.nodes, &member{Node: n, wire: wire})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// play sends tasks and strikes until the time is over, and waits for the last
// task to end.
func (s *soak) play(ctx context.Context, span time.Duration) error {
	g, gctx := errgroup.WithContext(ctx)
	over, end := context.WithTimeout(gctx, span)
	defer end()
	for range workers {
		g.Go(func() error {
			for over.Err() == nil {
				if err := s.one(gctx); err != nil {
					return err
				}
			}
			return gctx.Err()
		})
	}
	g.Go(func() error { return s.strikes(gctx, over) })
	g.Go(func() error { return s.measure(over) })
	return g.Wait()
}

// close lets the nodes finish what they have, and ends everything.
func (s *soak) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var g errgroup.Group
	for _, n := range s.nodes {
		g.Go(func() error { return n.Stop(ctx) })
	}
	err := g.Wait()
	for _, w := range s.wires {
		w.Shut()
	}
	if s.user != nil {
		s.user.Close()
	}
	return errors.Join(err, s.lab.Close())
}

// number is below n.
func (s *soak) number(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dice.IntN(n)
}
