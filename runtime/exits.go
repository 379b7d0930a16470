package runtime

import (
	"context"
	"strings"
	"sync"
	"time"

	containerdapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// lostWait is how long the exit code of a container is waited for that has ended
// while containerd was away: its shim repeats what it has to say after 1, 2, 3, 4
// and 5 more seconds.
const lostWait = 20 * time.Second

// ReasonUnknown is what containerd says of a container that it finds ended when
// it comes back. It throws away what its shim knows of the end; the shim's own
// event, which CRI does not pass on, is the only other source.
const ReasonUnknown = "Unknown"

// exits remembers how waited-for containers have ended by containerd's own
// events. On other runtimes it knows nothing.
type exits struct {
	mu    sync.Mutex
	codes map[string]int // by container ID
}

func (e *exits) code(id string) (code int, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	code, known = e.codes[id]
	return code, known
}

func (e *exits) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.codes, id)
}

func (e *exits) note(id string, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.codes == nil {
		e.codes = map[string]int{}
	}
	e.codes[id] = code
}

// hear listens to containerd's own events until ctx ends, or the runtime says that
// it has none.
func (w *Watcher) hear(ctx context.Context) {
	api := containerdapi.NewEventsClient(w.c.conn)
	for ctx.Err() == nil {
		stream, err := api.Subscribe(ctx, &containerdapi.SubscribeRequest{Filters: []string{`topic=="/tasks/exit"`}}, grpc.WaitForReady(true))
		for err == nil {
			var envelope *types.Envelope
			if envelope, err = stream.Recv(); err == nil {
				w.heard(envelope)
			}
		}
		if ctx.Err() != nil || status.Code(err) == codes.Unimplemented {
			return
		}
		w.c.log.Debug("containerd's own event stream ended", "error", err)
		if !pause(ctx, retryPause) {
			return
		}
	}
}

// heard notes the end of a container that somebody waits for.
func (w *Watcher) heard(envelope *types.Envelope) {
	if !strings.HasSuffix(envelope.GetEvent().GetTypeUrl(), "containerd.events.TaskExit") {
		return
	}
	container, process, code, ok := taskExit(envelope.GetEvent().GetValue())
	if !ok || process != container { // a further process in it
		return
	}
	w.mu.Lock()
	waited := len(w.waiters[container]) > 0
	w.mu.Unlock()
	if waited {
		w.exits.note(container, code)
		w.wake(container)
	}
}

// taskExit reads what matters of a containerd.events.TaskExit, whose package in
// Go brings modules along that nothing else needs.
func taskExit(b []byte) (container, process string, code int, ok bool) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", "", 0, false
		}
		b = b[n:]
		value := protowire.ConsumeFieldValue(field, kind, b)
		if value < 0 {
			return "", "", 0, false
		}
		switch {
		case field == 1 && kind == protowire.BytesType:
			v, _ := protowire.ConsumeString(b)
			container = v
		case field == 2 && kind == protowire.BytesType:
			v, _ := protowire.ConsumeString(b)
			process = v
		case field == 4 && kind == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(b)
			code = int(uint32(v))
		}
		b = b[value:]
	}
	return container, process, code, container != ""
}
