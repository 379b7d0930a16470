//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/faultproxy"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/failpoint"
	"github.com/v6node/v6node/proxy/e2e"
)

// TestAServerWithABlobStore: inputs and results are streamed through its blob
// store, and whatever goes wrong with that, each run ends once, with its own result.
func TestAServerWithABlobStore(t *testing.T) {
	w := newWorld(t, externalKind, standin.Options{BlobStore: true})
	for _, sealed := range []bool{false, true} {
		name := "open"
		if sealed {
			name = "encrypted"
		}
		t.Run(name, func(t *testing.T) {
			for _, s := range []struct {
				name string
				run  func(*testing.T, *world, bool)
			}{
				{"an input of 64 MB comes back as the result", mirrored},
				{"an algorithm sends 32 MB to others and reads what they return", delegated},
				{"the connection breaks while the input is fetched", brokenFetch},
				{"the connection breaks while the result is stored", brokenStore},
				{"an input that was cut short on the way, once", cutOnce},
				{"an input that is cut short in the blob store", cutForGood},
			} {
				t.Run(s.name, func(t *testing.T) { s.run(t, w, sealed) })
			}
		})
	}
	for _, s := range []scenario{
		{"a federated average is right", federatedAverage},
		{"an input for another key", foreignBlob},
		{"an input that the server does not know any more", unknownBlob},
		{"a blob store that fails for a while", failingStore},
		{"a blob store without room for the result", fullStore},
		{"a blob store that is switched off before the result", vanishedStore},
		{"a blob store that is switched on before the result", newStore},
		{"the reply to the result is lost", lostBlob},
		{"a run without a result", crashedWithBlobs},
		{"an input that is longer than the node takes", longBlob},
		{"an input that changes after the policies have seen it", swappedBlob},
		{"a kill while the input is fetched", killedWhileFetching},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(t, w) }) // one after the other: the faults are the server's
	}
}

// bigBlob is the size of what is streamed, in bytes; the node may take so much more memory for it.
const bigBlob, mayTake = 64_000_000, 32 << 20

// mirror is an input of the method mirror, of n bytes and a little more.
func mirror(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"method":"mirror","kwargs":{"data":"`)
	for i := range n {
		b.WriteByte('a' + byte(i*i%26))
	}
	b.WriteString(`"}}`)
	return b.Bytes()
}

// blob puts an input into the blob store and names it in the task.
func (n *node) blob(t *testing.T, content []byte) order {
	t.Helper()
	var key *e2e.PublicKey
	if n.key != nil {
		key = n.key.Public()
	}
	id, err := n.researcher.StoreBlob(within(t), key, func() io.Reader { return bytes.NewReader(content) })
	if err != nil {
		t.Fatal(err)
	}
	return rawInput(n, id)
}

func rawInput(n *node, text string) order {
	return func(s *standin.TaskSpec) { s.RawInputs = map[int64]string{n.org: text} }
}

// inputOf is the file of a run's input at the server.
func inputOf(w *world, o order) string {
	var s standin.TaskSpec
	o(&s)
	for _, id := range s.RawInputs {
		return w.server.BlobFile(id)
	}
	return ""
}

// fetches is how often the node asked for a blob.
func (n *node) fetches() int {
	return len(n.w.server.Requests(func(r standin.Request) bool {
		return r.Who == n.ID() && r.Method == http.MethodGet && strings.HasPrefix(r.Path, "/blobstream/") && r.Path != "/blobstream/status"
	}))
}

// stores is how often the server has taken a blob of the node.
func (n *node) stores() int {
	return len(n.w.server.Requests(func(r standin.Request) bool {
		return r.Who == n.ID() && r.Method == http.MethodPost && r.Path == "/blobstream" && r.Status == http.StatusCreated
	}))
}

// storedResult checks that a run ended well, that its result is this and in the
// blob store, and that nothing is left of it.
func (n *node) storedResult(t *testing.T, done ended, want []byte) {
	t.Helper()
	if done.Status != standin.StatusCompleted {
		t.Fatalf("run %d ended as %q: %s", done.ID, done.Status, done.Text)
	}
	if !bytes.Equal(done.Data, want) {
		t.Errorf("the result has %d bytes and is not the %d that it should be", len(done.Data), len(want))
	}
	file, err := os.ReadFile(n.w.server.BlobFile(*done.Result))
	if err != nil {
		t.Fatal(err)
	}
	if encoded := base64.StdEncoding.EncodeToString(want); n.key == nil && string(file) != encoded || n.key != nil && (bytes.Contains(file, want[:40]) || bytes.Contains(file, []byte(encoded[:40]))) {
		t.Errorf("the blob of %d bytes does not have the form that the collaboration wants: %.60q", len(file), file)
	}
	n.onceDelivered(t, done.ID)
	n.gone(t, done.ID)
}

func (n *node) tookLittle(t *testing.T, before int64) {
	t.Helper()
	peak := n.memory(t, "VmHWM:")
	t.Logf("the node's peak was %d MiB, and it had %d MiB before", peak>>20, before>>20)
	if peak > before+mayTake {
		t.Errorf("the node took %d MiB for blobs of %d MB, and has %d MiB without", peak>>20, bigBlob/1_000_000, before>>20)
	}
}

var bigResults = map[string]any{"output_size": "128m"}

func mirrored(t *testing.T, w *world, sealed bool) {
	n := w.start(t, nodeOptions{Sealed: sealed, Extra: map[string]any{"limits": bigResults}})
	completed[any](t, n.call(t, "noop", nil))
	input := mirror(bigBlob)
	named := n.blob(t, input)
	before := n.peakReset(t)
	done := n.call(t, "mirror", nil, named)
	n.tookLittle(t, before)
	n.storedResult(t, done, input)
	n.goesOn(t, done.ID)
}

func delegated(t *testing.T, w *world, sealed bool) {
	options := nodeOptions{Extra: map[string]any{"limits": bigResults}}
	nodes := w.shared(sealed, options, options).use(t)
	completed[any](t, nodes[0].call(t, "noop", nil))
	before := nodes[0].peakReset(t)
	task, _ := nodes[0].post(t, "delegate", kwargs{"bytes": bigBlob / 2, "organizations": []int64{nodes[0].org, nodes[1].org}})
	got := completed[struct {
		Sent     string
		Received []string
	}](t, nodes[0].finish(t, task))
	nodes[0].tookLittle(t, before)
	if !slices.Equal(got.Received, []string{got.Sent, got.Sent}) {
		t.Errorf("the algorithm sent %s and received %q", got.Sent, got.Received)
	}
	for _, child := range w.server.Children(task) {
		for i, r := range w.server.RunsOf(child) {
			if sum := digestOf(t, w.server.BlobFile(*r.Result)); sum == got.Sent {
				t.Errorf("the result of run %d is stored as it is", r.ID)
			}
			nodes[i].onceDelivered(t, r.ID)
		}
	}
	for _, n := range nodes { // the disk is for the others
		if err := n.Stop(within(t)); err != nil {
			t.Error(err)
		}
	}
}

func digestOf(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// brokenFetch: what was fetched before counts for nothing.
func brokenFetch(t *testing.T, w *world, sealed bool) {
	n, p := w.behind(t, nil, nodeOptions{Sealed: sealed})
	input := mirror(12_000_000)
	named := n.blob(t, input)
	if err := p.Set(faultproxy.Fault{End: faultproxy.Reset, Up: faultproxy.Never, Down: 5 << 20, Times: 2}); err != nil {
		t.Fatal(err)
	}
	done := n.call(t, "mirror", nil, named)
	n.storedResult(t, done, input)
	if got := n.fetches(); got != 3 {
		t.Errorf("the input was asked for %d times", got)
	}
	n.lives(t)
}

// brokenStore: an upload that breaks off leaves no blob behind.
func brokenStore(t *testing.T, w *world, sealed bool) {
	n, p := w.behind(t, nil, nodeOptions{Sealed: sealed})
	input := mirror(12_000_000)
	named := n.blob(t, input)
	if err := p.Set(faultproxy.Fault{End: faultproxy.Reset, Up: 5 << 20, Down: faultproxy.Never, Times: 2}); err != nil {
		t.Fatal(err)
	}
	done := n.call(t, "mirror", nil, named)
	n.storedResult(t, done, input)
	if err := p.Wait(within(t), func(s faultproxy.Stats) bool { return s.Ended == 2 }); err != nil {
		t.Error(err)
	}
	if got := n.stores(); got != 1 {
		t.Errorf("%d results are stored", got)
	}
	n.lives(t)
}

// cutOnce: a gateway that hands out half an answer as a whole one.
func cutOnce(t *testing.T, w *world, sealed bool) {
	n := w.start(t, nodeOptions{Sealed: sealed})
	input := mirror(300_000)
	named := n.blob(t, input)
	whole, err := os.ReadFile(inputOf(w, named))
	if err != nil {
		t.Fatal(err)
	}
	fault := w.server.Fault(standin.Fault{
		Method: http.MethodGet, Path: "/blobstream/*", Who: n.ID(), Times: 1,
		Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/octet-stream"}}, Body: string(whole[:len(whole)/2]),
	})
	done := n.call(t, "mirror", nil, named)
	fault.Remove()
	n.storedResult(t, done, input)
	if got := n.fetches(); got != 2 {
		t.Errorf("the input was asked for %d times", got)
	}
}

func cutForGood(t *testing.T, w *world, sealed bool) {
	n := w.start(t, nodeOptions{Sealed: sealed})
	named := n.blob(t, mirror(300_000))
	if err := os.Truncate(inputOf(w, named), 200_000); err != nil {
		t.Fatal(err)
	}
	done := n.call(t, "mirror", nil, named)
	if got := n.fetches(); got != 3 {
		t.Errorf("the input was asked for %d times", got)
	}
	n.failed(t, done, standin.StatusStartFailed, "ends before one does")
}

func foreignBlob(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	other, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.researcher.StoreBlob(within(t), other.Public(), func() io.Reader { return bytes.NewReader(mirror(100_000)) })
	if err != nil {
		t.Fatal(err)
	}
	n.failed(t, n.call(t, "mirror", nil, rawInput(n, id)), standin.StatusStartFailed, "cannot be decrypted with this organization's key")
}

func unknownBlob(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	fault := w.server.Fault(standin.Fault{
		Method: http.MethodGet, Path: "/blobstream/*", Who: n.ID(), Status: http.StatusNotFound, Times: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: `{"msg":"No run found with input or result id=it"}`,
	})
	done := n.call(t, "noop", nil)
	fault.Remove()
	n.failed(t, done, standin.StatusStartFailed, "No run found", "send the task again")
}

func failingStore(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	input := mirror(1000)
	named := n.blob(t, input)
	file := inputOf(w, named)
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	task, _ := n.post(t, "mirror", nil, named)
	n.says(t, "Error streaming result!")
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	n.storedResult(t, n.finish(t, task), input)
}

func fullStore(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	input := mirror(3_000_000)
	named := n.blob(t, input)
	w.server.LimitBlobs(1_000_000)
	defer w.server.LimitBlobs(0)
	task, _ := n.post(t, "mirror", nil, named)
	n.says(t, "the result could not be delivered, trying again")
	w.server.LimitBlobs(0)
	n.storedResult(t, n.finish(t, task), input)
	if got := n.stores(); got != 1 {
		t.Errorf("%d results are stored", got)
	}
}

// vanishedStore: what cannot be delivered is reported.
func vanishedStore(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	g := n.hold(t)
	w.server.SetBlobStore(false)
	defer w.server.SetBlobStore(true)
	g.release(t)
	if _, err := w.server.WaitTask(within(t), g.task); err != nil {
		t.Fatal(err)
	}
	w.server.SetBlobStore(true)
	n.failed(t, n.finish(t, g.task), standin.StatusFailed, "cannot be delivered", "not set to blob storage")
}

// newStore: a run is delivered as it was posted, because so it is read.
func newStore(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	w.server.SetBlobStore(false)
	defer w.server.SetBlobStore(true)
	g := n.hold(t)
	w.server.SetBlobStore(true)
	stored := n.stores()
	g.release(t)
	if got := completed[gated](t, n.well(t, g.task)); got.Executed != 1 {
		t.Errorf("the algorithm was executed %d times", got.Executed)
	}
	if n.stores() != stored {
		t.Error("the result went to the blob store, where nobody looks for it")
	}
}

// lostBlob: the upload is repeated, and the server offers no way to remove the first.
func lostBlob(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	fault := w.server.Fault(standin.Fault{Method: http.MethodPost, Path: "/blobstream", Who: n.ID(), Times: 1, DropAfter: true})
	input := mirror(1000)
	done := n.call(t, "mirror", nil, n.blob(t, input))
	n.storedResult(t, done, input)
	if fault.Remove(); fault.Hits() != 1 {
		t.Errorf("the fault was met %d times", fault.Hits())
	}
	// The reply to the PATCH: nothing is stored again.
	stored := n.stores()
	lost := w.server.Fault(standin.Fault{Method: http.MethodPatch, Path: "/run/*", Who: n.ID(), Skip: 2, Times: 1, DropAfter: true})
	done = n.call(t, "mirror", nil, n.blob(t, input))
	n.storedResult(t, done, input)
	if lost.Remove(); lost.Hits() != 1 {
		t.Errorf("the fault was met %d times", lost.Hits())
	}
	if got := n.stores() - stored; got != 1 {
		t.Errorf("%d results are stored", got)
	}
}

func crashedWithBlobs(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true})
	done := n.call(t, "exit", kwargs{"code": 3})
	if done.Result != nil && *done.Result != "" {
		t.Errorf("a crashed run has the result %q", *done.Result)
	}
	n.failed(t, done, standin.StatusCrashed, "exit code 3")
}

func longBlob(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Sealed: true, Extra: map[string]any{"limits": map[string]any{"input_size": "1m"}}})
	done := n.call(t, "mirror", nil, n.blob(t, mirror(2_000_000)))
	n.failed(t, done, standin.StatusStartFailed, "limits.input_size")
	if got := n.fetches(); got != 2 { // one is of the run after it
		t.Errorf("the inputs were asked for %d times", got)
	}
}

func swappedBlob(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": map[string]any{
		"rules": []map[string]any{{"functions": []string{"mirror", "noop"}}},
	}}})
	input := mirror(1000)
	named := n.blob(t, input)
	fault := w.server.Fault(standin.Fault{
		Method: http.MethodGet, Path: "/blobstream/*", Who: n.ID(), Skip: 1, Times: 1,
		Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/octet-stream"}},
		Body: base64.StdEncoding.EncodeToString([]byte(`{"method":"noop"}`)),
	})
	done := n.call(t, "mirror", nil, named)
	fault.Remove()
	n.failed(t, done, standin.StatusStartFailed, "another input than the one that this node's policies allowed")
	n.failed(t, n.call(t, "echo", nil), standin.StatusNotAllowed, "echo")
	n.storedResult(t, n.call(t, "mirror", nil, n.blob(t, input)), input)
}

func killedWhileFetching(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	fault := w.server.Fault(standin.Fault{Method: http.MethodGet, Path: "/blobstream/*", Who: n.ID(), Times: 1, SlowBody: time.Hour})
	defer fault.Remove()
	task, run := n.post(t, "mirror", nil, n.blob(t, mirror(1_000_000)))
	if err := fault.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	n.kill(t, task)
	n.killed(t, run, false)
	completed[any](t, n.call(t, "noop", nil))
}

// The node is killed at the steps that only runs with blobs have, and started again.
func TestACrashBesideTheBlobStoreLosesAndRepeatsNothing(t *testing.T) {
	programs := programDir(t, "V6NODE_FAILPOINTS", "../bin/failpoints", "v6node", "v6node-cni")
	w := newWorld(t, externalKind, standin.Options{BlobStore: true})
	// An upload that the ledger does not know of is repeated, and another is not.
	stores := map[failpoint.Point]int{
		failpoint.Received: 1, failpoint.Fetching: 1, failpoint.Files: 1, failpoint.Started: 1, failpoint.Decided: 1,
		failpoint.Stored: 2, failpoint.Noted: 1, failpoint.Acknowledged: 1, failpoint.FilesRemoved: 1,
	}
	for _, p := range slices.Sorted(maps.Keys(stores)) {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			armed := filepath.Join(t.TempDir(), "armed")
			n := w.start(t, nodeOptions{
				Sealed: true, Program: filepath.Join(programs, "v6node"), Env: []string{"V6NODE_BUNDLE=" + w.programs.Bundle, "V6NODE_FAILPOINT=" + armed},
			})
			input := mirror(3_000_000)
			named := n.blob(t, input)
			if err := os.WriteFile(armed, []byte(p), 0o600); err != nil {
				t.Fatal(err)
			}
			task, run := n.post(t, "mirror", nil, named)
			if code, err := n.Wait(within(t)); err != nil || code != -1 {
				t.Fatalf("the node ended with %d, and was to be killed at %q: %v", code, p, err)
			}
			if p == failpoint.Fetching {
				n.halfFetched(t, run, len(input))
			}
			n.restart(t)
			done := n.finish(t, task)
			n.storedResult(t, done, input)
			if got := n.stores(); got != stores[p] {
				t.Errorf("%d results were stored", got)
			}
			n.noTraces(t, run)
			n.allOver(t)
		})
	}
}

// halfFetched checks the input of a run that the node was fetching when it was killed.
func (n *node) halfFetched(t *testing.T, run int64, whole int) {
	t.Helper()
	info, err := os.Stat(filepath.Join(n.runDir(run), "data", "input"))
	if err != nil || info.Size() == 0 || info.Size() >= int64(whole) || info.Mode().Perm() != 0o600 {
		t.Errorf("the half fetched input: %+v, %v", info, err)
	}
}
