//go:build integration

package integration

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"testing"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
)

// TestTheQueueInRealContainers is about runs that wait for room.
func TestTheQueueInRealContainers(t *testing.T) {
	onRuntime(t, embeddedKind, []scenario{
		{"parents that fill the slots and wait for subtasks here all end", func(t *testing.T, w *world) {
			parentsWait(t, w, 3, map[string]any{"runs": 3, "memory": "1t", "pids": 1_000_000})
		}},
		{"parents that fill the memory and wait for subtasks here all end", func(t *testing.T, w *world) {
			parentsWait(t, w, 3, map[string]any{"runs": 50, "memory": "288m", "pids": 1_000_000})
		}},
		{"a killed node keeps its queue and whose turn it is", queueOutlivesNode},
		{"organizations take turns and no more runs than slots are in work", floodOfRuns},
	})
}

// queue returns the waiting runs in the order of their turns.
func (n *node) queue(t *testing.T) []admin.Waiting {
	t.Helper()
	q := show[[]admin.Waiting](t, n, "queue")
	for i, w := range q {
		if w.Position != i+1 {
			t.Errorf("run %d is listed at %d with position %d", w.Run, i+1, w.Position)
		}
	}
	return q
}

// queued waits until so many runs wait, and returns them in the order of their turns.
func (n *node) queued(t *testing.T, length int) []int64 {
	t.Helper()
	var runs []int64
	eventually(t, func() error {
		runs = nil
		for _, w := range n.queue(t) {
			runs = append(runs, w.Run)
		}
		if len(runs) != length {
			return fmt.Errorf("%d runs are in the queue, wanted %d", len(runs), length)
		}
		return nil
	})
	return runs
}

// parentsWait posts more central runs than the budget has room for. Each waits
// for a subtask on this very node.
func parentsWait(t *testing.T, w *world, room int, budget map[string]any) {
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"limits": map[string]any{"memory": "96m"}, "resources": map[string]any{"budget": budget},
	}})
	// While subtasks are held at their start, their parents hold the room.
	held := w.server.Fault(standin.Fault{Method: http.MethodPost, Path: "/token/container", Who: n.ID(), Skip: room - 1, Status: http.StatusServiceUnavailable})
	var tasks []int64
	for range 2 * room {
		task, _ := n.post(t, "central", kwargs{"column": "age"}, image(w.average.Tag), databases("default"))
		tasks = append(tasks, task)
	}
	if err := held.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	var q []admin.Waiting
	eventually(t, func() error {
		if q = n.queue(t); len(q) != room+2 {
			return fmt.Errorf("queue shows %+v", q)
		}
		return nil
	})
	// What is not held by waiting parents is held by the subtask of one of them;
	// the others' subtasks are next.
	parents := 0
	for _, r := range show[[]admin.Run](t, n, "ps") {
		if slices.Contains(tasks, r.Task) {
			parents++
		}
	}
	if parents != room-1 || slices.Contains(tasks, q[0].Task) || !slices.Contains(tasks, q[1].Task) {
		t.Errorf("%d parents run, and queue shows %+v", parents, q)
	}
	held.Remove()
	for _, task := range tasks {
		got := completed[struct {
			Average float64 `json:"average"`
		}](t, n.finish(t, task))
		if math.Abs(got.Average-40) > 1e-9 {
			t.Errorf("average %v", got.Average)
		}
		if children := w.server.Children(task); len(children) != 1 {
			t.Errorf("task %d has %d subtasks", task, len(children))
		}
	}
}

// oneAtATime leaves one slot to runs without a parent.
var oneAtATime = map[string]any{"resources": map[string]any{"budget": map[string]any{"runs": 2, "memory": "1t", "pids": 1_000_000}}}

func queueOutlivesNode(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Guests: 1, Extra: oneAtATime})
	first := n.hold(t)
	var tasks []int64
	post := func(who *standin.Researcher, method string) (task, run int64) {
		task, run = n.postAs(t, who, method, nil)
		tasks = append(tasks, task)
		return task, run
	}
	for range 4 {
		post(n.researcher, "count")
	}
	n.queued(t, 4)
	post(n.guests[0], "count")
	second := &gate{n: n}
	second.task, second.run = post(n.guests[0], "gate")
	post(n.guests[0], "count")

	want := n.queued(t, 7)
	if slices.IsSorted(want) {
		t.Errorf("the organizations do not take turns: %v", want)
	}
	n.killedAndBack(t, want)
	n.attended(t, first)
	first.release(t)
	n.active(t, second.run)
	// Its own organization and the other have had turns that only the node knew of.
	n.killedAndBack(t, want[slices.Index(want, second.run)+1:])
	n.attended(t, second)
	second.release(t)

	type once struct {
		Count    int `json:"count"`
		Executed int `json:"executed"`
	}
	var done []ended
	for _, task := range append([]int64{first.task}, tasks...) {
		e := n.finish(t, task)
		done = append(done, e)
		if got := completed[once](t, e); got.Count+got.Executed != 1 {
			t.Errorf("run %d was executed %d times", e.ID, got.Count+got.Executed)
		}
		n.onceDelivered(t, e.ID)
	}
	slices.SortFunc(done, func(a, b ended) int { return a.StartedAt.Compare(*b.StartedAt) })
	var got []int64
	for _, e := range done[1:] {
		got = append(got, e.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("started %v, the queue was %v", got, want)
	}
}

// killedAndBack ends the node with SIGKILL and starts it: its queue is the same.
func (n *node) killedAndBack(t *testing.T, want []int64) {
	t.Helper()
	if got := n.queued(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("before the kill the queue is %v, wanted %v", got, want)
	}
	n.Kill()
	n.restart(t)
	if got := n.queued(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("after the restart the queue is %v, wanted %v", got, want)
	}
}

func floodOfRuns(t *testing.T, w *world) {
	const each, slots = 8, 4
	n := w.start(t, nodeOptions{Guests: 2, Extra: map[string]any{
		"resources": map[string]any{"budget": map[string]any{"runs": slots, "memory": "1t", "pids": 1_000_000}},
	}})
	n.command(t, "pause")
	sender := map[int64]int{}
	var tasks []int64
	for i, who := range append(n.guests, n.researcher) {
		for range each {
			task, run := n.postAs(t, who, "noop", nil)
			tasks = append(tasks, task)
			sender[run] = i
		}
	}
	turns := n.queued(t, len(tasks))
	var served [3]int
	last := [3]int64{}
	for at, run := range turns {
		i := sender[run]
		served[i]++
		if run < last[i] {
			t.Errorf("run %d is behind run %d of the same organization", run, last[i])
		}
		last[i] = run
		if slices.Max(served[:])-slices.Min(served[:]) > 1 {
			t.Fatalf("after %d turns the organizations have had %v", at+1, served)
		}
	}
	n.command(t, "resume")
	for _, task := range tasks {
		if status, err := w.server.WaitTask(within(t), task); err != nil || status != standin.StatusCompleted {
			t.Fatalf("task %d: %q (%v)", task, status, err)
		}
	}
	var runs []admin.Run
	eventually(t, func() error { // the last are being removed
		runs = show[[]admin.Run](t, n, "ps", "-a")
		if slices.ContainsFunc(runs, func(r admin.Run) bool { return r.State != admin.Done }) {
			return fmt.Errorf("ps -a shows %+v", runs)
		}
		return nil
	})
	if len(runs) != len(tasks) {
		t.Fatalf("%d runs of %d are known", len(runs), len(tasks))
	}
	slices.SortFunc(runs, func(a, b admin.Run) int { return a.AdmittedAt.Compare(b.AdmittedAt) })
	for at, r := range runs {
		// Those that are admitted at the same moment note it in any order.
		if turn := slices.Index(turns, r.ID); turn < at-slots || turn > at+slots {
			t.Errorf("run %d had turn %d and was admitted as number %d", r.ID, turn, at)
		}
	}
	if most := lab.SideBySide(runs); most > slots {
		t.Errorf("%d algorithms ran side by side on %d slots", most, slots)
	}
}
