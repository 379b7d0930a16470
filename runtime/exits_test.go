package runtime

import (
	"testing"

	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// exitEvent is a containerd.events.TaskExit.
func exitEvent(container, process string, code uint64) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), container)
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), process)
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), 4711)
	return protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), code)
}

func TestAnEndThatContainerdDidNotSeeIsLearnedFromTheShim(t *testing.T) {
	f, w, id := listening(t, neverRelist)
	out := wait(t.Context(), w, id)
	f.await(t, "ContainerStatus", 1)
	f.mu.Lock()
	f.containers[id].why = ReasonUnknown
	f.mu.Unlock()
	f.end(id, lostExit)
	f.await(t, "ContainerStatus", 2) // it is known by now that nobody knows
	for _, e := range []struct {
		kind, process string
		code          uint64
	}{{"containerd.events.TaskExit", "a further process", 3}, {"containerd.events.TaskStart", id, 4}, {"containerd.events.TaskExit", id, 5}} {
		w.heard(&types.Envelope{Event: &anypb.Any{TypeUrl: e.kind, Value: exitEvent(id, e.process, e.code)}})
	}
	if r := <-out; r.err != nil || r.c.State != StateExited || r.c.ExitCode != 5 || r.c.Reason == ReasonUnknown {
		t.Fatalf("got %+v, %v", r.c, r.err)
	}
	if _, known := w.exits.code(id); known {
		t.Error("the end is remembered although nobody waits")
	}
	w.heard(&types.Envelope{Event: &anypb.Any{TypeUrl: "containerd.events.TaskExit", Value: exitEvent(id, id, 5)}})
	if _, known := w.exits.code(id); known {
		t.Error("the end of a container is remembered for which nobody waits")
	}
}

func TestWhatIsNoExitIsNone(t *testing.T) {
	good := exitEvent("container", "container", 7)
	if id, process, code, ok := taskExit(good); !ok || id != "container" || process != id || code != 7 {
		t.Fatalf("%q %q %d %t", id, process, code, ok)
	}
	for n := range len(good) {
		if _, _, code, ok := taskExit(good[:n]); ok && code == 7 {
			t.Errorf("%d of %d bytes tell the whole", n, len(good))
		}
	}
}
