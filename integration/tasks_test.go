//go:build integration

package integration

import (
	"math"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

func taskScenarios() []scenario {
	return []scenario{
		{"a task of an open collaboration comes back completed", openTask},
		{"a federated average over an encrypted collaboration is right", federatedAverage},
	}
}

func openTask(t *testing.T, w *world) {
	alpha := w.alpha(t)
	done := alpha.call(t, "echo", kwargs{"text": "grüße"}, databases("default"))
	got := completed[struct {
		Method string            `json:"method"`
		Kwargs map[string]string `json:"kwargs"`
	}](t, done)
	if got.Method != "echo" || got.Kwargs["text"] != "grüße" {
		t.Errorf("the algorithm read %+v", got)
	}
	if done.StartedAt == nil || done.FinishedAt == nil || done.FinishedAt.Before(*done.StartedAt) {
		t.Errorf("started %v, finished %v", done.StartedAt, done.FinishedAt)
	}
	alpha.gone(t, done.ID)
}

// share of the ages in the trio's databases.
const trioMean, trioCount = (10 + 20 + 30 + 40 + 50 + 60) / 6.0, 6

func federatedAverage(t *testing.T, w *world) {
	nodes := w.trio(t)
	first := nodes[0]
	task, _ := first.post(t, "central", kwargs{"column": "age"}, image(w.average.Tag), databases("default"))
	got := completed[struct {
		Average float64 `json:"average"`
		Count   int     `json:"count"`
	}](t, first.finish(t, task))
	if math.Abs(got.Average-trioMean) > 1e-9 || got.Count != trioCount {
		t.Errorf("average %v over %d, wanted %v over %d", got.Average, got.Count, trioMean, trioCount)
	}
	children := w.server.Children(task)
	if len(children) != 1 {
		t.Fatalf("the central part made %d subtasks", len(children))
	}
	runs := w.server.RunsOf(children[0])
	if len(runs) != len(nodes) {
		t.Errorf("%d partial runs on %d nodes", len(runs), len(nodes))
	}
	for _, r := range runs {
		if r.Status != standin.StatusCompleted || r.Result == nil {
			t.Errorf("partial run %d ended as %q", r.ID, r.Status)
		}
	}
}
