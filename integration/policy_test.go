//go:build integration

package integration

import (
	"regexp"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

func policyScenarios() []scenario {
	return []scenario{
		{"only images that a rule allows run", allowedImages},
		{"an image is resolved once and stays what was checked", resolvedOnce},
	}
}

func allowedImages(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	refs := map[string]imagekit.Ref{}
	for _, name := range []string{"listed", "other", "pass", "passport"} {
		refs[name] = w.pack(t, registry, "suite/"+name, name)
	}
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": map[string]any{"allowed_algorithms": []string{
		refs["listed"].Digest,
		regexp.QuoteMeta(registry.Host()) + "/suite/pas[s]",
	}}}})
	mark := func(e ended) string { return completed[environment](t, e).Raw["IMAGE_MARK"] }
	for name, ref := range map[string]string{"listed": refs["listed"].Tag, "pass": refs["pass"].Tag} {
		if got := mark(n.call(t, "env", nil, image(ref))); got != name {
			t.Errorf("%s ran the image %q", ref, got)
		}
	}
	if got := mark(n.call(t, "env", nil, image(refs["listed"].Pinned))); got != "listed" {
		t.Errorf("by digest the image %q ran", got)
	}
	for _, ref := range []string{refs["other"].Tag, refs["other"].Pinned, refs["passport"].Tag} {
		done := n.call(t, "env", nil, image(ref))
		if done.Status != standin.StatusNotAllowed || done.FinishedAt == nil || done.Data != nil {
			t.Errorf("%s ended as %q, finished %v, result %q", ref, done.Status, done.FinishedAt, done.Data)
		}
		if !strings.Contains(done.Text, "v6node: ") {
			t.Errorf("%s: the log gives no reason: %q", ref, done.Text)
		}
		n.gone(t, done.ID)
	}
}

func resolvedOnce(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	checked := w.pack(t, registry, "suite/moving", "checked")
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": map[string]any{"allowed_algorithms": []string{checked.Digest}}}})
	release := registry.HoldBlobs()
	defer release()
	task, _ := n.post(t, "env", nil, image(checked.Tag))
	if err := registry.WaitHeld(within(t), 1); err != nil {
		t.Fatal(err)
	}
	moved := w.pack(t, registry, "suite/moving", "moved")
	if moved.Tag != checked.Tag || moved.Digest == checked.Digest {
		t.Fatalf("the tag was not moved: %+v, %+v", checked, moved)
	}
	release()
	if got := completed[environment](t, n.finish(t, task)).Raw["IMAGE_MARK"]; got != "checked" {
		t.Errorf("the image %q ran", got)
	}
	if done := n.call(t, "env", nil, image(moved.Pinned)); done.Status != standin.StatusNotAllowed {
		t.Errorf("the other image ended as %q", done.Status)
	}
}
