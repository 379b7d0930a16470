package node

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
)

// oneAtATime is a budget for one run beside its subtask.
const oneAtATime = "resources: {budget: {runs: 2}}\n"

// startOrder is an algorithm that notes which runs were started, in their order.
type startOrder struct {
	mu   sync.Mutex
	runs []int64
	then func(*fakeRun) int
}

func (o *startOrder) run(r *fakeRun) int {
	o.mu.Lock()
	o.runs = append(o.runs, r.spec.RunID)
	o.mu.Unlock()
	return o.then(r)
}

// queue waits until so many runs wait and returns them in the order of their turns.
func (s *station) queue(n *running, length int) []int64 {
	s.t.Helper()
	for s.ctx.Err() == nil {
		q, err := n.view().Queue(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(q) == length {
			var runs []int64
			for _, w := range q {
				runs = append(runs, w.Run)
			}
			return runs
		}
		time.Sleep(time.Millisecond)
	}
	s.t.Fatalf("there are never %d runs in the queue", length)
	return nil
}

func TestRunsThatArriveTogetherBeginInTheirOrder(t *testing.T) {
	seen := startOrder{then: echo}
	s := newStation(t, newFakeEngine(seen.run), oneAtATime)
	var tasks, want []int64
	for range 25 {
		task := s.task(nil)
		tasks, want = append(tasks, task), append(want, s.srv.RunsOf(task)[0].ID)
	}
	n := s.start() // and finds them all
	for _, task := range tasks {
		s.ends(task, standin.StatusCompleted)
	}
	s.clean(n)
	if !slices.Equal(seen.runs, want) {
		t.Errorf("started %v, arrived %v", seen.runs, want)
	}
}

func TestARestartKeepsTheQueueAndWhoseTurnItIs(t *testing.T) {
	open := make(chan struct{})
	seen := startOrder{then: until(open)}
	s := newStation(t, newFakeEngine(seen.run), oneAtATime)
	n := s.start()
	tasks := []int64{s.task(nil)}
	s.waitActive(tasks[0]) // its organization has had its turn
	for range 4 {
		tasks = append(tasks, s.task(nil))
	}
	s.queue(n, 4)
	other := s.srv.AddOrganization("university")
	s.srv.AddUser(other, "guest", "password")
	s.srv.JoinCollaboration(other, s.collab)
	guest, err := standin.NewResearcher(s.ctx, s.srv.URL(), "guest", "password", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	s.user, guest = guest, s.user
	for range 4 {
		tasks = append(tasks, s.task(nil))
	}
	before := s.queue(n, 8)
	if slices.IsSorted(before) {
		t.Errorf("the organizations do not take turns: %v", before)
	}
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	n = s.start()
	if after := s.queue(n, 8); !slices.Equal(after, before) {
		t.Errorf("the queue was %v and is %v", before, after)
	}
	close(open)
	for _, task := range tasks {
		s.ends(task, standin.StatusCompleted)
	}
	if !slices.Equal(seen.runs[1:], before) {
		t.Errorf("started %v, the queue was %v", seen.runs[1:], before)
	}
}
