package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

// world is what one measurement works in.
type world struct {
	lab    *lab.Lab
	node   *lab.Node
	user   *standin.Researcher
	org    int64
	collab int64
	image  imagekit.Ref
	cri    string
}

// runs measures (a), (b), (c) and (e) with one node.
func (b *bench) runs(ctx context.Context) (err error) {
	d, err := lab.Containerd(ctx, filepath.Join(b.dir, "runs"), b.programs.Bundle, b.plugin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.EndContainerd(d)) }()
	w, err := b.oneNode(ctx, d.Endpoint())
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, w.node.Stop(end), w.lab.Close())
	}()
	if _, err := w.noop(ctx); err != nil { // fetches the image
		return err
	}
	bare, err := b.bare(ctx, w)
	if err != nil {
		return fmt.Errorf("bare CRI: %w", err)
	}
	if err := b.single(ctx, w, bare); err != nil {
		return err
	}
	if err := b.many(ctx, w); err != nil {
		return err
	}
	return b.footprint(ctx, w)
}

func (b *bench) oneNode(ctx context.Context, endpoint string) (*world, error) {
	l, err := lab.New(ctx, b.dir, b.programs, standin.Options{})
	if err != nil {
		return nil, err
	}
	w := &world{lab: l, cri: endpoint}
	w.org = l.Server.AddOrganization("bench")
	w.collab = l.Server.AddCollaboration("bench", false, w.org)
	if w.image, err = l.Push("bench/testalgo", b.programs.Algorithm("testalgo")); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.Server.AddUser(w.org, "user", "password")
	if w.user, err = standin.NewResearcher(ctx, l.Server.URL(), "user", "password", nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	w.node, err = l.StartNode(ctx, lab.NodeSpec{Name: "node", APIKey: l.Server.AddNode(w.org, w.collab), Endpoint: endpoint,
		// More sandboxes are held alive at once than the default budget admits.
		Extra: map[string]any{"resources": map[string]any{"budget": map[string]any{"runs": 100, "memory": "1t", "pids": 1_000_000}}},
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return w, nil
}

// task posts a task and returns its number.
func (w *world) task(ctx context.Context, method string, kwargs map[string]any) (int64, error) {
	return w.user.CreateTask(ctx, standin.TaskSpec{
		Name: method, Image: w.image.Pinned, Collaboration: w.collab, Organizations: []int64{w.org}, Method: method, Kwargs: kwargs,
	})
}

// noopTimes are the moments of one noop run.
type noopTimes struct{ posted, started, finished time.Time }

// noop runs the empty algorithm once, from the post to the readable result.
func (w *world) noop(ctx context.Context) (noopTimes, error) {
	t := noopTimes{posted: time.Now()}
	id, err := w.task(ctx, "noop", nil)
	if err != nil {
		return t, err
	}
	status, err := w.lab.Server.WaitTask(ctx, id)
	if err != nil {
		return t, err
	}
	t.finished = time.Now()
	results, err := w.user.Results(ctx, id)
	if err != nil {
		return t, err
	}
	if status != standin.StatusCompleted {
		return t, fmt.Errorf("noop ended as %q: %s", status, results[0].Log)
	}
	var r struct {
		Started int64 `json:"started"`
	}
	if err := json.Unmarshal(results[0].Data, &r); err != nil {
		return t, err
	}
	t.started = time.Unix(0, r.Started)
	return t, nil
}

func (b *bench) single(ctx context.Context, w *world, bare time.Duration) error {
	n := b.times(20)
	var whole, before, after []time.Duration
	began := time.Now()
	for range n {
		t, err := w.noop(ctx)
		if err != nil {
			return err
		}
		whole = append(whole, t.finished.Sub(t.posted))
		before = append(before, t.started.Sub(t.posted))
		after = append(after, t.finished.Sub(t.started))
	}
	b.add("c", fmt.Sprintf("%d noop runs one after the other", n), time.Since(began).Seconds(), "s", "")
	b.seconds("b", "noop run, posted to result at the server", whole)
	first := b.seconds("b", "  posted to the algorithm's first instruction", before)
	b.seconds("b", "  first instruction to final status at the server", after)
	b.add("b", "  before the start, over bare CRI", (first-bare).Seconds()*1000, "ms", "aim: 30 or less")
	return nil
}

func (b *bench) many(ctx context.Context, w *world) error {
	const n = 20
	var g errgroup.Group
	began := time.Now()
	for range n {
		g.Go(func() error { _, err := w.noop(ctx); return err })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b.add("c", fmt.Sprintf("%d noop runs at once", n), time.Since(began).Seconds(), "s", "aim: under 5")
	return nil
}

// footprint measures memory and CPU of the node's process.
func (b *bench) footprint(ctx context.Context, w *world) error {
	idle := 30 * time.Second
	if b.quick {
		idle = 5 * time.Second
	}
	before, err := cpuTime(w.node.PID())
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idle):
	}
	after, err := cpuTime(w.node.PID())
	if err != nil {
		return err
	}
	rss, err := memory(w.node.PID())
	if err != nil {
		return err
	}
	b.add("e", "node, resident memory idle", rss, "MiB", "aim: under 40")
	b.add("e", "node, CPU idle", 100*(after-before).Seconds()/idle.Seconds(), "%", fmt.Sprintf("over %v", idle))
	const sandboxes = 50
	ids := make([]int64, sandboxes)
	for i := range ids {
		if ids[i], err = w.task(ctx, "sleep", map[string]any{"seconds": 600}); err != nil {
			return err
		}
	}
	for _, id := range ids {
		run := w.lab.Server.RunsOf(id)[0]
		if _, err := w.lab.Server.WaitRun(ctx, run.ID, standin.StatusActive); err != nil {
			return err
		}
	}
	if rss, err = memory(w.node.PID()); err != nil {
		return err
	}
	b.add("e", fmt.Sprintf("node, resident memory with %d sandboxes", sandboxes), rss, "MiB", "")
	return w.endAll(ctx, ids)
}

// endAll kills the tasks and waits until nothing of them is left.
func (w *world) endAll(ctx context.Context, tasks []int64) error {
	var g errgroup.Group
	for _, id := range tasks {
		g.Go(func() error {
			if err := w.user.Kill(ctx, id); err != nil {
				return err
			}
			_, err := w.lab.Server.WaitTask(ctx, id)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return w.empty(ctx)
}

// memory is a process's resident set in MiB.
func memory(pid int) (float64, error) { return status(pid, "VmRSS:") }

// peakMemory is the largest that its resident set has been, in MiB.
func peakMemory(pid int) (float64, error) { return status(pid, "VmHWM:") }

func status(pid int, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d shows no memory", pid)
}

// cpuTime is the CPU time that a process has used.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; fields are counted after it.
	rest := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	const user, system, ticksPerSecond = 11, 12, 100
	var ticks int64
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(rest[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// empty waits until nothing of the runs is left at the runtime, so that the
// containerd of the measurement can end.
func (w *world) empty(ctx context.Context) error {
	conn, err := grpc.NewClient(w.cri, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	client := cri.NewRuntimeServiceClient(conn)
	for {
		list, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
