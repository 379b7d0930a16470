package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admission"
)

// What measurement (g) sends to one node.
const (
	queueSenders = 5
	queueEach    = 100
	queueSlots   = 8
)

// queue measures (g): many more open runs than slots, of several organizations.
// It fails when they do not take turns.
func (b *bench) queue(ctx context.Context) (err error) {
	l, endpoint, end, err := b.open(ctx, "queue")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	w := &world{lab: l, cri: endpoint, org: l.Server.AddOrganization("the node's")}
	w.collab = l.Server.AddCollaboration("queue", false, w.org)
	if w.image, err = l.Push("bench/testalgo", b.programs.Algorithm("testalgo")); err != nil {
		return err
	}
	senders := make([]*standin.Researcher, queueSenders)
	for i := range senders {
		org, name := l.Server.AddOrganization(fmt.Sprintf("sender %d", i)), fmt.Sprintf("user %d", i)
		l.Server.JoinCollaboration(org, w.collab)
		l.Server.AddUser(org, name, "password")
		if senders[i], err = standin.NewResearcher(ctx, l.Server.URL(), name, "password", nil); err != nil {
			return err
		}
		defer senders[i].Close()
	}
	w.node, err = l.StartNode(ctx, lab.NodeSpec{Name: "queue", APIKey: l.Server.AddNode(w.org, w.collab), Endpoint: endpoint,
		Extra: map[string]any{"resources": map[string]any{"budget": map[string]any{"runs": queueSlots, "memory": "1t", "pids": 1_000_000}}},
	})
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, w.node.Stop(end))
	}()
	idle, err := memory(w.node.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.flood(ctx, w, senders); err != nil {
		return err
	}
	took := time.Since(began)
	peak, err := peakMemory(w.node.PID())
	if err != nil {
		return err
	}
	if err := w.empty(ctx); err != nil {
		return err
	}
	runs, err := w.node.Runs()
	if err != nil {
		return err
	}
	if err := inTurns(runs, queueSenders*b.times(queueEach)); err != nil {
		return fmt.Errorf("the queue of %d runs: %w", len(runs), err)
	}
	b.add("g", fmt.Sprintf("%d noop runs of %d organizations at once, %d slots", len(runs), queueSenders, queueSlots), took.Seconds(), "s",
		fmt.Sprintf("%.1f runs a second, at most %d side by side", float64(len(runs))/took.Seconds(), lab.SideBySide(runs)))
	b.add("g", "node, peak resident memory meanwhile", peak, "MiB", fmt.Sprintf("%.1f idle; aim: under 60", idle))
	return b.decisions(queueSenders * queueEach)
}

// flood posts everything at once and waits until all is completed.
func (b *bench) flood(ctx context.Context, w *world, senders []*standin.Researcher) error {
	var g errgroup.Group
	for _, who := range senders {
		g.Go(func() error {
			var tasks []int64
			for range b.times(queueEach) {
				id, err := who.CreateTask(ctx, standin.TaskSpec{
					Name: "queue", Image: w.image.Pinned, Collaboration: w.collab, Organizations: []int64{w.org}, Method: "noop",
				})
				if err != nil {
					return err
				}
				tasks = append(tasks, id)
			}
			for _, id := range tasks {
				if status, err := w.lab.Server.WaitTask(ctx, id); err != nil || status != standin.StatusCompleted {
					return fmt.Errorf("task %d ended as %q: %w", id, status, errors.Join(err, ctx.Err()))
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// inTurns checks that all runs were executed, first come first served within
// each organization and turn by turn between them, in no more slots than there are.
func inTurns(runs []admin.Run, want int) error {
	if len(runs) != want {
		return fmt.Errorf("%d of %d are known", len(runs), want)
	}
	if most := lab.SideBySide(runs); most > queueSlots {
		return fmt.Errorf("%d ran side by side", most)
	}
	arrived := map[int64][]admin.Run{}
	slices.SortFunc(runs, func(a, b admin.Run) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	last := runs[len(runs)-1].ReceivedAt
	for _, r := range runs {
		arrived[r.Organization] = append(arrived[r.Organization], r)
	}
	slices.SortFunc(runs, func(a, b admin.Run) int { return a.AdmittedAt.Compare(b.AdmittedAt) })
	admitted, served, level := map[int64]int{}, map[int64]int{}, true
	for _, r := range runs {
		all := arrived[r.Organization]
		// Those that are admitted at the same moment note it in any order.
		at, turn := admitted[r.Organization], slices.IndexFunc(all, func(o admin.Run) bool { return o.ID == r.ID })
		if turn < at-queueSlots || turn > at+queueSlots {
			return fmt.Errorf("run %d came as number %d of its organization and was admitted as number %d", r.ID, turn, at)
		}
		admitted[r.Organization]++
		if r.AdmittedAt.Before(last) || !level {
			continue
		}
		served[r.Organization]++
		least, most := want, 0
		for org, all := range arrived {
			least, most = min(least, served[org]), max(most, served[org])
			level = level && admitted[org] < len(all) // from then on others have more turns
		}
		if most-least > 1+queueSlots/2 {
			return fmt.Errorf("the organizations were served unequally: %v", served)
		}
	}
	return nil
}

// decisions times what one end of a run costs the admission, with the choice of
// the next among so many.
func (b *bench) decisions(queued int64) error {
	const rounds = 5000
	var running []int64
	gate, err := admission.New(admission.Budget{Runs: queueSlots}, admission.Options{OnEvent: func(e admission.Event) {
		if e.Kind == admission.Admitted {
			running = append(running, e.RunID)
		}
	}})
	if err != nil {
		return err
	}
	defer gate.Close()
	next := int64(0)
	enqueue := func() error {
		next++
		return gate.Enqueue(admission.Request{RunID: next, TaskID: next, OrganizationID: next % queueSenders})
	}
	for range queued + queueSlots - 1 { // one slot is kept for subtasks
		if err := enqueue(); err != nil {
			return err
		}
	}
	began, err := cpuTime(os.Getpid())
	if err != nil {
		return err
	}
	for range rounds {
		if err := enqueue(); err != nil {
			return err
		}
		gate.Leave(running[0])
		running = running[1:]
	}
	ended, err := cpuTime(os.Getpid())
	if err != nil {
		return err
	}
	b.add("g", fmt.Sprintf("a decision of the admission, %d runs queued", queued), (ended-began).Seconds()*1e6/(2*rounds), "us of CPU", "aim: under 1000")
	return nil
}
