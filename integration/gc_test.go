//go:build integration

package integration

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/runtime"
)

func TestImagesAreCollected(t *testing.T) {
	onRuntime(t, embeddedKind, []scenario{
		{"images beyond the budget go, the least recently used first", imageBudget},
		{"a disk that is short of room is relieved at the start", diskPressure},
	})
}

// holds tells whether a node's runtime has an image.
func (n *node) holds(t *testing.T, ref imagekit.Ref) bool {
	t.Helper()
	_, err := n.runtime(t).Image(within(t), ref.Pinned)
	if err != nil && !errors.Is(err, runtime.ErrImageNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// settled waits until all runs but those are over and everything of them is
// removed.
func (n *node) settled(t *testing.T, but ...int64) {
	t.Helper()
	eventually(t, func() error {
		for _, r := range show[[]admin.Run](t, n, "ps", "-a") {
			if r.State != admin.Done && !slices.Contains(but, r.ID) {
				return fmt.Errorf("run %d is %s", r.ID, r.State)
			}
		}
		return nil
	})
}

func collected(r admin.GCReport) string {
	var out []string
	for _, i := range r.Items {
		out = append(out, i.Kind+" "+i.Name+" "+i.Error)
	}
	return strings.Join(out, "\n")
}

func imageBudget(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	images := map[string]imagekit.Ref{}
	for _, name := range []string{"pinned", "queued", "oldest", "second", "latest", "running"} {
		images[name] = w.pack(t, registry, "budget/"+name, name)
	}
	// How large such an image is, only the runtime says.
	probe := w.start(t, nodeOptions{})
	probe.call(t, "noop", nil, image(images["pinned"].Tag))
	one, err := probe.runtime(t).Image(within(t), images["pinned"].Pinned)
	if err != nil {
		t.Fatal(err)
	}
	n := w.start(t, nodeOptions{Extra: map[string]any{"gc": map[string]any{"interval": 0, "images": map[string]any{
		"max_size": strconv.FormatUint(one.Size*9/2, 10), "keep": []string{images["pinned"].Tag},
	}}}})
	for _, name := range []string{"pinned", "queued", "oldest", "second", "latest"} {
		if e := n.call(t, "noop", nil, image(images[name].Tag)); e.Status != standin.StatusCompleted {
			t.Fatalf("%s: status %s: %s", name, e.Status, e.Text)
		}
	}
	held := n.hold(t, image(images["running"].Tag))
	n.command(t, "pause")
	task, waiting := n.post(t, "noop", nil, image(images["queued"].Tag))
	eventually(t, func() error {
		if q := show[[]admin.Waiting](t, n, "queue"); len(q) != 1 {
			return fmt.Errorf("the queue is %+v", q)
		}
		return nil
	})
	n.settled(t, held.run, waiting)

	var dry admin.GCReport
	eventually(t, func() error { // when the runs' removal is written down
		if dry = show[admin.GCReport](t, n, "gc", "--dry-run"); len(dry.Items) != 2 {
			return fmt.Errorf("gc --dry-run shows %+v", dry)
		}
		return nil
	})
	for name, ref := range images {
		if !n.holds(t, ref) {
			t.Errorf("a dry run removed the image %s", name)
		}
	}
	done := show[admin.GCReport](t, n, "gc")
	if got, want := collected(done), "image "+images["oldest"].Pinned+" \nimage "+images["second"].Pinned+" "; got != want {
		t.Errorf("collected\n%s\nwanted\n%s", got, want)
	}
	if collected(dry) != collected(done) || dry.Freed != done.Freed || !dry.DryRun || done.DryRun {
		t.Errorf("the dry run said %+v, and then %+v", dry, done)
	}
	for name, ref := range images {
		if gone := name == "oldest" || name == "second"; n.holds(t, ref) == gone {
			t.Errorf("the image %s: gone should be %v", name, gone)
		}
	}
	if events := n.command(t, "events"); strings.Count(events, "all together take more than") != 2 {
		t.Errorf("events:\n%s", events)
	}

	n.command(t, "resume")
	if e := n.finish(t, task); e.Status != standin.StatusCompleted {
		t.Errorf("the queued run: status %s: %s", e.Status, e.Text)
	}
	held.release(t)
	completed[gated](t, n.finish(t, held.task))
	n.settled(t)
	// All that no run needs, but what is pinned and what every sandbox needs.
	eventually(t, func() error { // when the runs' removal is written down
		n.command(t, "gc", "--all")
		for name, ref := range images {
			if n.holds(t, ref) != (name == "pinned") {
				return fmt.Errorf("after gc --all the image %s is there: %v", name, n.holds(t, ref))
			}
		}
		return nil
	})
	if e := n.call(t, "noop", nil, image(images["oldest"].Tag)); e.Status != standin.StatusCompleted {
		t.Errorf("a collected image: status %s: %s", e.Status, e.Text)
	}
	if !n.holds(t, images["oldest"]) {
		t.Error("the image was not pulled again")
	}
}

func diskPressure(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	ref := w.pack(t, registry, "pressure/algorithm", "pressure")
	needed := w.pack(t, registry, "pressure/needed", "needed")
	// No disk of a test has so much, so this one is always short of room.
	n := w.start(t, nodeOptions{Extra: map[string]any{"gc": map[string]any{"interval": 0, "min_free": "8000t"}}})
	if e := n.call(t, "noop", nil, image(ref.Tag)); e.Status != standin.StatusCompleted {
		t.Fatalf("status %s: %s", e.Status, e.Text)
	}
	held := n.hold(t, image(needed.Tag))
	n.settled(t, held.run)
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	eventually(t, func() error {
		if n.holds(t, ref) {
			return errors.New("the image is still there")
		}
		return nil
	})
	if !n.holds(t, needed) {
		t.Error("the image of a living run went")
	}
	if log := n.Log(200); !strings.Contains(log, "stays short of room") {
		t.Error("the node does not say that its disk stays short of room")
	}
	held.release(t)
	completed[gated](t, n.finish(t, held.task))
	if e := n.call(t, "noop", nil, image(ref.Tag)); e.Status != standin.StatusCompleted {
		t.Errorf("after the collection: status %s: %s", e.Status, e.Text)
	}
}
