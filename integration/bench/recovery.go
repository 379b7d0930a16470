package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/runtime"
)

const (
	recoverySandboxes = 100
	recoveryBatch     = 10
	// recoveryRuns are in the ledger, and their entries in the audit log.
	recoveryRuns = 10_000
	firstOldRun  = 1_000_000 // no number that the server gives
	// proxyListens is a socket that listens at the proxy's address, 127.0.0.2:8080,
	// as /proc/PID/net/tcp has it.
	proxyListens = " 0200007F:1F90 00000000:0000 0A "
)

// recovery measures (h): a node that is killed with many sandboxes alive and much
// in its ledger, from its next start until all proxies are open again.
func (b *bench) recovery(ctx context.Context) (err error) {
	l, endpoint, end, err := b.open(ctx, "recovery")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	w := &world{lab: l, cri: endpoint, org: l.Server.AddOrganization("recovery")}
	w.collab = l.Server.AddCollaboration("recovery", false, w.org)
	if w.image, err = l.Push("bench/testalgo", b.programs.Algorithm("testalgo")); err != nil {
		return err
	}
	l.Server.AddUser(w.org, "user", "password")
	if w.user, err = standin.NewResearcher(ctx, l.Server.URL(), "user", "password", nil); err != nil {
		return err
	}
	defer w.user.Close()
	w.node, err = l.Configure(lab.NodeSpec{Name: "recovery", APIKey: l.Server.AddNode(w.org, w.collab), Endpoint: endpoint,
		Extra: map[string]any{"resources": map[string]any{"budget": map[string]any{"runs": 2 * recoverySandboxes, "memory": "1t", "pids": 1_000_000}}},
	})
	if err != nil {
		return err
	}
	if err := past(ctx, w.node.StateDir); err != nil {
		return fmt.Errorf("make a past: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, w.node.Stop(end))
	}()
	if err := errors.Join(w.node.Start(), w.node.WaitOnline(ctx)); err != nil {
		return err
	}
	tasks, err := w.sleepers(ctx)
	if err != nil {
		return err
	}
	processes, err := w.processes(ctx)
	if err != nil {
		return err
	}
	var open, told []time.Duration
	for round := range b.times(5) {
		w.node.Kill()
		if n, err := listening(processes); err != nil || n > 0 {
			return fmt.Errorf("%d proxies are open without a node: %w", n, err)
		}
		if err := l.Server.WaitNode(ctx, w.node.ID(), false); err != nil {
			return err
		}
		began := time.Now()
		if err := w.node.Start(); err != nil {
			return err
		}
		if err := allListen(ctx, processes); err != nil {
			return err
		}
		open = append(open, time.Since(began))
		if err := w.toldActive(ctx, tasks, round+2); err != nil {
			return err
		}
		told = append(told, time.Since(began))
		if err := w.node.WaitOnline(ctx); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("kill -9 with %d sandboxes, %d runs in the ledger: start to all proxies open", recoverySandboxes, recoveryRuns)
	b.seconds("h", what, open)
	b.rows[len(b.rows)-1].Note += "; aim: under 2000"
	b.seconds("h", "  until the server knows that all are active", told)
	return w.endAll(ctx, tasks)
}

// past gives a node that was never started a ledger and an audit log with many
// runs that are over.
func past(ctx context.Context, stateDir string) (err error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	memory, err := ledger.Open(filepath.Join(stateDir, "ledger.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, memory.Close()) }()
	record, _, err := audit.Open(filepath.Join(stateDir, audit.DirName), audit.Options{Node: "bench"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, record.Close()) }()
	now := time.Now().UTC()
	image := "registry.example/organization/algorithm"
	pinned := image + "@sha256:" + strings.Repeat("1", 64)
	var all []*ledger.Record
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(256) // they share writes to the disk
	yes := true
	for i := range int64(recoveryRuns) {
		all = append(all, &ledger.Record{
			RunID: firstOldRun + i, TaskID: firstOldRun + i, JobID: firstOldRun + i, OrganizationID: 1, CollaborationID: 1, InitOrganizationID: 1, InitUserID: 1,
			Image: image, Pinned: pinned, Databases: []string{"default"}, Function: "partial", State: ledger.Done, Attempt: 1,
			SandboxID: strings.Repeat("a", 64), ContainerID: strings.Repeat("b", 64), Limits: &limits.Limits{Memory: 1 << 30, Pids: 2048},
			Use: &ledger.Use{CPU: time.Second, PeakMemory: 1 << 20}, Status: "completed", Reason: "completed", HasOutput: true,
			ReceivedAt: now, AdmittedAt: now, StartedAt: now, EndedAt: now, FinishedAt: now, DeliveredAt: now,
		})
		g.Go(func() error {
			for _, kind := range []audit.Event{audit.Decided, audit.Started, audit.Ended, audit.Delivered} {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := record.Append(audit.Entry{
					Event: kind, Run: firstOldRun + i, Task: firstOldRun + i, Collaboration: 1, Organization: 1, User: 1, Allowed: &yes,
					Image: image, Pinned: pinned, Function: "partial", Databases: []string{"default"}, Reason: "the image is in allowed_algorithms",
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = memory.InsertNew(all)
	return err
}

// sleepers starts the sandboxes, a few at a time.
func (w *world) sleepers(ctx context.Context) (tasks []int64, err error) {
	for len(tasks) < recoverySandboxes {
		for range recoveryBatch {
			id, err := w.task(ctx, "sleep", map[string]any{"seconds": 3600})
			if err != nil {
				return nil, err
			}
			tasks = append(tasks, id)
		}
		if err := w.toldActive(ctx, tasks, 1); err != nil {
			return nil, err
		}
	}
	return tasks, nil
}

// toldActive waits until the server has heard so often of each that it is active.
func (w *world) toldActive(ctx context.Context, tasks []int64, times int) error {
	for _, task := range tasks {
		run := w.lab.Server.RunsOf(task)[0]
		if _, err := w.lab.Server.WaitRunFor(ctx, run.ID, func(r standin.RunRecord) bool {
			told := 0
			for _, e := range r.History {
				if e.Field("status") == standin.StatusActive {
					told++
				}
			}
			return told >= times || r.FinishedAt != nil
		}); err != nil {
			return err
		}
		if r, _ := w.lab.Server.Run(run.ID); r.FinishedAt != nil {
			return fmt.Errorf("run %d ended as %q", r.ID, r.Status)
		}
	}
	return nil
}

// processes are those of the living algorithms, each in its own network namespace.
func (w *world) processes(ctx context.Context) (pids []int, err error) {
	rt, err := runtime.Dial(ctx, w.cri, runtime.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	list, err := rt.ListContainers(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		st, err := rt.ContainerStatus(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		pids = append(pids, st.PID)
	}
	if len(pids) != recoverySandboxes {
		return nil, fmt.Errorf("%d containers live", len(pids))
	}
	return pids, nil
}

// listening counts the proxies that are open.
func listening(pids []int) (open int, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
		if err != nil {
			return 0, err
		}
		if strings.Contains(string(b), proxyListens) {
			open++
		}
	}
	return open, nil
}

// allListen waits until all proxies are open. Nobody announces that.
func allListen(ctx context.Context, pids []int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		open, err := listening(pids)
		if err != nil || open == len(pids) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d proxies are open: %w", open, len(pids), ctx.Err())
		}
	}
}
