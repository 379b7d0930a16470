//go:build integration

package integration

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
)

// TestFaultsOfTheServerAndTheDisk: what happens between node and server and on
// the node's own disk is the same on every runtime.
func TestFaultsOfTheServerAndTheDisk(t *testing.T) {
	// Short pings, so that a socket is soon known to be dead.
	w := newWorld(t, externalKind, standin.Options{PingInterval: time.Second, PingTimeout: time.Second})
	other := w.start(t, nodeOptions{}).hold(t)
	for _, s := range []scenario{
		{"502 to everything that a run needs", badGateway},
		{"the reply to the result is lost", lostReply},
		{"429 with Retry-After", tooManyRequests},
		{"an expired token", expiredToken},
		{"an expired session", expiredSession},
		{"a socket that is dead and does not know", deadSocket},
		{"events that never come", lostEvents},
		{"an input that cannot be decrypted", undecryptable},
		{"an input that is not base64", notBase64},
		{"an input that is no JSON", notJSON},
		{"a result of 200 MB", largeResult},
		{"a disk that is full", fullDisk},
		{"a new secret of the server", newSecret},
		{"a server that is away at the start", awayAtStart},
		{"a server that is restarted and loses events", restartedServer},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(t, w) }) // one after the other: the faults are the server's
	}
	// The algorithm that ran through all of it has not noticed.
	other.release(t)
	if err := other.n.login(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := completed[gated](t, other.n.well(t, other.task)); got.Executed != 1 {
		t.Errorf("the algorithm that ran meanwhile was executed %d times", got.Executed)
	}
}

// onlySocket makes a node to which only events bring work.
func (w *world) onlySocket(t *testing.T) *node {
	t.Helper()
	return w.start(t, nodeOptions{Extra: map[string]any{"poll_interval": "1h"}})
}

// well checks that a run of this node has ended well, once, and is gone.
func (n *node) well(t *testing.T, task int64) ended {
	t.Helper()
	done := n.finish(t, task)
	if done.Status != standin.StatusCompleted {
		t.Errorf("run %d ended as %q: %s", done.ID, done.Status, done.Text)
	}
	n.onceDelivered(t, done.ID)
	n.gone(t, done.ID)
	return done
}

func badGateway(t *testing.T, w *world) {
	n := w.onlySocket(t)
	var faults []*standin.Injected
	for _, f := range []standin.Fault{
		{Method: http.MethodGet, Path: "/run", Times: 1},
		{Method: http.MethodPatch, Path: "/run/*", Times: 2},          // started_at
		{Method: http.MethodPatch, Path: "/run/*", Skip: 1, Times: 2}, // what comes after it
		{Method: http.MethodPost, Path: "/token/container", Times: 1},
		{Method: http.MethodDelete, Path: "/port", Times: 1},
	} {
		f.Who, f.Status, f.Body = n.ID(), http.StatusBadGateway, "<html>502</html>"
		faults = append(faults, n.w.server.Fault(f))
	}
	task, _ := n.post(t, "noop", nil)
	n.well(t, task)
	for i, f := range faults {
		if f.Remove(); f.Hits() == 0 && i != len(faults)-1 {
			t.Errorf("fault %d was never met", i)
		}
	}
}

func lostReply(t *testing.T, w *world) {
	n := w.onlySocket(t)
	g := n.hold(t)
	lost := n.w.server.Fault(standin.Fault{Method: http.MethodPatch, Path: fmt.Sprintf("/run/%d", g.run), Times: 1, DropAfter: true})
	g.release(t)
	done := n.well(t, g.task)
	if lost.Remove(); lost.Hits() != 1 {
		t.Errorf("the fault was met %d times", lost.Hits())
	}
	rec, _ := n.w.server.Run(done.ID)
	if refused := rec.Count(standin.RunPatchRefused); refused > 1 {
		t.Errorf("%d more deliveries after the one that counted", refused)
	}
}

func tooManyRequests(t *testing.T, w *world) {
	n := w.onlySocket(t)
	const pause = 2 * time.Second
	g := n.hold(t)
	path := fmt.Sprintf("/run/%d", g.run)
	busy := n.w.server.Fault(standin.Fault{Method: http.MethodPatch, Path: path, Times: 1,
		Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"2"}}})
	g.release(t)
	n.well(t, g.task)
	busy.Remove()
	var tries []time.Time
	for _, r := range n.w.server.Requests(func(r standin.Request) bool { return r.Method == http.MethodPatch && r.Path == path }) {
		tries = append(tries, r.At)
	}
	if k := len(tries); k < 2 || tries[k-1].Sub(tries[k-2]) < pause {
		t.Errorf("the node did not wait for the %v that the server asked for: %v", pause, tries)
	}
}

func expiredToken(t *testing.T, w *world) {
	n := w.onlySocket(t)
	n.w.server.ExpireTokens(n.ID(), false)
	task, _ := n.post(t, "noop", nil)
	n.well(t, task)
}

func expiredSession(t *testing.T, w *world) {
	n := w.onlySocket(t)
	g := n.hold(t)
	n.w.server.ExpireTokens(n.ID(), true)
	n.w.server.CloseSockets(n.ID())
	g.release(t)
	if got := completed[gated](t, n.well(t, g.task)); got.Proxy != http.StatusOK {
		t.Errorf("the algorithm's request was answered %d", got.Proxy)
	}
}

// newSecret: a server without a configured secret forgets all tokens when it is
// restarted, those of running algorithms too.
func newSecret(t *testing.T, w *world) {
	n := w.onlySocket(t)
	g := n.hold(t)
	n.w.server.RotateSecret()
	n.w.server.CloseSockets(0)
	g.release(t)
	if err := n.login(within(t)); err != nil {
		t.Fatal(err)
	}
	// The algorithm's own token is refused by the server, and it may know that.
	if got := completed[gated](t, n.well(t, g.task)); got.Proxy != http.StatusUnprocessableEntity {
		t.Errorf("the algorithm's request after the change was answered %d %s", got.Proxy, got.Error)
	}
	task, _ := n.post(t, "noop", nil)
	n.well(t, task)
}

func deadSocket(t *testing.T, w *world) {
	n := w.onlySocket(t)
	n.w.server.FreezeSockets(n.ID())
	task, _ := n.post(t, "noop", nil)
	n.well(t, task)
}

func restartedServer(t *testing.T, w *world) {
	n := w.onlySocket(t)
	g := n.hold(t)
	n.w.server.LoseEvents(true)
	task, _ := n.post(t, "noop", nil)
	n.w.server.Stop()
	g.release(t)
	// The algorithm ends while there is nobody to tell.
	eventually(t, func() error {
		if !strings.Contains(n.Log(1000), fmt.Sprintf("algorithm ended\" run=%d", g.run)) {
			return fmt.Errorf("run %d goes on", g.run)
		}
		return nil
	})
	if err := n.w.server.Start(); err != nil {
		t.Fatal(err)
	}
	n.w.server.LoseEvents(false)
	n.well(t, g.task)
	n.well(t, task)
}

func lostEvents(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"poll_interval": "1s"}})
	n.w.server.LoseEvents(true)
	defer n.w.server.LoseEvents(false)
	task, _ := n.post(t, "noop", nil)
	n.well(t, task)
	// A kill that nobody announces is noticed too.
	g := n.hold(t)
	if err := n.researcher.Kill(within(t), g.task); err != nil {
		t.Fatal(err)
	}
	n.gone(t, g.run)
}

func awayAtStart(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{})
	n.w.server.Stop()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if !strings.Contains(n.Log(20), "the server cannot be reached, trying again") {
			return errors.New("the node does not say that it waits")
		}
		return nil
	})
	if err := n.w.server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.WaitOnline(within(t)), n.login(within(t))); err != nil {
		t.Fatal(err)
	}
	task, _ := n.post(t, "noop", nil)
	n.well(t, task)
}

func undecryptable(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	foreign, err := newKey(t).Public().Encrypt([]byte(`{"method":"noop"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, input := range []string{foreign, "a$b$c", "$$"} {
		done := n.call(t, "noop", nil, func(s *standin.TaskSpec) { s.RawInputs = map[int64]string{n.org: input} })
		n.failed(t, done, standin.StatusStartFailed, "the input cannot be decrypted", "encrypted for the organization's current public key")
	}
}

func notJSON(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	for _, input := range []string{"no JSON", `["method"]`, ""} {
		done := n.call(t, "noop", nil, func(s *standin.TaskSpec) {
			s.RawInputs = map[int64]string{n.org: base64.StdEncoding.EncodeToString([]byte(input))}
		})
		n.failed(t, done, standin.StatusStartFailed, "not a JSON object", "send the task again")
	}
}

// notBase64: the server itself refuses such an input, so its list of runs is
// falsified.
func notBase64(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"poll_interval": "1s"}})
	hidden := n.w.server.Fault(standin.Fault{Method: http.MethodGet, Path: "/run", Who: n.ID(), Status: http.StatusServiceUnavailable})
	task, run := n.post(t, "noop", nil)
	object := func(id int64) map[string]any { return map[string]any{"id": id} }
	list, err := json.Marshal(map[string]any{"links": map[string]any{"self": "/api/run"}, "data": []any{map[string]any{
		"id": run, "status": "pending", "input": "not base64!", "organization": object(n.org), "node": object(n.ID()),
		"task": map[string]any{
			"id": task, "job_id": 1, "image": n.w.testalgo.Tag, "databases": []any{}, "collaboration": object(n.collab),
			"init_org": object(n.org), "init_user": object(1), "parent": nil,
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	falsified := n.w.server.Fault(standin.Fault{Method: http.MethodGet, Path: "/run", Who: n.ID(), Status: http.StatusOK,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: string(list), Times: 1})
	hidden.Remove()
	done := n.finish(t, task)
	falsified.Remove()
	n.failed(t, done, standin.StatusStartFailed, "the input is not base64", "send the task again")
}

// largeOutput is a result larger than the default of limits.output_size.
const largeOutput = 200_000_000

func largeResult(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true, Extra: map[string]any{"limits": map[string]any{"output_size": "256m"}}})
	if done := n.call(t, "noop", nil); done.Status != standin.StatusCompleted {
		t.Fatalf("a first run ended as %q: %s", done.Status, done.Text)
	}
	before := n.peakReset(t)
	done := n.call(t, "big_output", kwargs{"bytes": largeOutput})
	if done.Status != standin.StatusCompleted || len(done.Data) != largeOutput+2 {
		t.Fatalf("it ended as %q with %d bytes: %s", done.Status, len(done.Data), done.Text)
	}
	if body := done.Data[1 : len(done.Data)-1]; strings.Trim(string(body), "0123456789abcdef") != "" || string(body[:16]) != "0123456789abcdef" || string(body[largeOutput-16:]) != "0123456789abcdef" {
		t.Error("the result is damaged")
	}
	if peak := n.memory(t, "VmHWM:"); peak > before+64<<20 {
		t.Errorf("the node took %d MiB for a result of %d MB, and has %d MiB without", peak>>20, largeOutput/1_000_000, before>>20)
	}
	n.goesOn(t, done.ID)
}

// peakReset makes memory("VmHWM:") begin anew and returns what the node has now.
func (n *node) peakReset(t *testing.T) int64 {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", n.PID()), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	return n.memory(t, "VmRSS:")
}

// memory reads a number of bytes from the status of the node's process.
func (n *node) memory(t *testing.T, field string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if rest, ok := strings.CutPrefix(line, field); ok {
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

// fullDisk: a node whose disk is full fails the runs that need it with that
// reason, and works again once there is room.
func fullDisk(t *testing.T, w *world) {
	state := filepath.Join(w.dir, "small")
	mount(t, state, 0, "size=2m,mode=0700")
	n := w.start(t, nodeOptions{Extra: map[string]any{"state_dir": state, "poll_interval": "1s"}})
	roomy := n.call(t, "noop", nil)
	if roomy.Status != standin.StatusCompleted {
		t.Fatalf("with room a run ended as %q: %s", roomy.Status, roomy.Text)
	}
	n.gone(t, roomy.ID)
	makeRoom := fill(t, state)
	done := n.call(t, "noop", nil)
	if done.Status == standin.StatusCompleted || done.FinishedAt == nil {
		t.Errorf("with a full disk it ended as %q", done.Status)
	}
	t.Log(done.sentence(t))
	oneSentence(t, done.sentence(t), "no space left on device", "ask the node's administrator")
	makeRoom()
	n.goesOn(t, done.ID)
}
