package node

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/proxy/e2e"
)

func TestInputAndResultGoThroughTheBlobStore(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	s.srv.SetBlobStore(true)
	n := s.start()
	task := s.task(map[string]any{"x": strings.Repeat("y", 1<<20)})
	r := s.result(task)
	if r.Status != standin.StatusCompleted || !strings.Contains(string(r.Data), `"x":"yyy`) || len(r.Data) < 1<<20 {
		t.Fatalf("status %s, %d bytes: %s", r.Status, len(r.Data), r.Log)
	}
	rec := s.srv.RunsOf(task)[0]
	if b, err := os.ReadFile(s.srv.BlobFile(*rec.Result)); err != nil || string(b) != base64.StdEncoding.EncodeToString(r.Data) {
		t.Errorf("the result is not in the blob store: %v", err)
	}
	s.clean(n)
	if kept, err := n.node.ledger.Get(rec.ID); err != nil || !kept.BlobStored || kept.ResultBlob != *rec.Result {
		t.Errorf("the ledger says %+v, %v", kept, err)
	}
}

func TestARunThatWaitsKeepsNoLongInputInMemory(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	if err := n.view().Pause(s.ctx); err != nil {
		t.Fatal(err)
	}
	task, short := s.task(map[string]any{"x": strings.Repeat("y", longInput)}), s.task(nil)
	var waiting []admin.Waiting
	s.eventually("a queue of two", func() bool {
		var err error
		waiting, err = n.view().Queue(s.ctx)
		return err == nil && len(waiting) == 2
	})
	run := s.srv.RunsOf(task)[0].ID
	asked := func(run int64) int {
		return len(s.srv.Requests(func(r standin.Request) bool {
			return r.Method == http.MethodGet && r.Path == fmt.Sprintf("/run/%d", run)
		}))
	}
	if a := n.node.activeRun(run); !a.askInput {
		t.Error("the run waits with its input")
	}
	if err := n.view().Resume(s.ctx); err != nil {
		t.Fatal(err)
	}
	if r := s.result(task); r.Status != standin.StatusCompleted || len(r.Data) < longInput {
		t.Errorf("status %s, %d bytes: %s", r.Status, len(r.Data), r.Log)
	}
	if r := s.result(short); r.Status != standin.StatusCompleted {
		t.Errorf("status %s: %s", r.Status, r.Log)
	}
	if asked(run) == 0 || asked(s.srv.RunsOf(short)[0].ID) != 0 {
		t.Errorf("the long input was asked for again %d times, the short one %d times", asked(run), asked(s.srv.RunsOf(short)[0].ID))
	}
	s.clean(n)
}

func TestABlobIsNotAskedForForEver(t *testing.T) {
	answer := func(code int, own bool) error {
		return fmt.Errorf("wrapped: %w", &server.StatusError{Code: code, Own: own, Msg: "words", RetryAfter: time.Second})
	}
	for name, c := range map[string]struct {
		err   error
		times int // it is asked for in all; -1 is for ever
	}{
		"unusable":             {&unusable{e2e.ErrDecrypt}, badBlobs},
		"too long":             {&unusable{errInputSize}, 1},
		"the store fails":      {answer(500, true), failedBlobs},
		"a gateway fails":      {answer(500, false), -1},
		"a gateway is away":    {answer(502, false), -1},
		"the server is busy":   {answer(503, true), -1},
		"a gateway's 404":      {answer(404, false), -1},
		"no such blob":         {answer(404, true), 1},
		"not permitted":        {answer(401, true), 1},
		"no blob store":        {answer(501, true), 1},
		"unreachable":          {fmt.Errorf("%w: no route", server.ErrUnreachable), -1},
		"no name":              {server.ErrNoBlobID, 1},
		"an error of the disk": {os.ErrPermission, 1},
	} {
		var bad, failed int
		times := 1
		for ; times < 1000; times++ {
			if again, _ := blobAgain(c.err, &bad, &failed); !again {
				break
			}
		}
		if times == 1000 {
			times = -1
		}
		if times != c.times {
			t.Errorf("%s: asked for %d times, not %d", name, times, c.times)
		}
	}
}

func TestAnInputIsReadInEachForm(t *testing.T) {
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	const plain = `{"method":"central","kwargs":{"a":"é"}}`
	sealed, err := key.Public().Encrypt([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	blobOf := func(text string) string {
		r, err := key.Public().EncryptBlob(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(plain))
	for name, c := range map[string]struct {
		key  *e2e.PrivateKey
		blob bool
		text string
		says string // "" is a good input
	}{
		"open":                               {text: encoded},
		"open, with line ends":               {text: encoded[:20] + "\r\n" + encoded[20:]},
		"open blob":                          {blob: true, text: encoded},
		"encrypted":                          {key: key, text: sealed},
		"encrypted blob":                     {key: key, blob: true, text: blobOf(plain)},
		"encrypted blob of base64":           {key: key, blob: true, text: blobOf(encoded)},
		"open blob that is not encoded":      {blob: true, text: plain, says: "not base64"},
		"open, not base64":                   {text: "$", says: "not base64"},
		"open, cut":                          {text: encoded[:len(encoded)-2], says: "not base64"},
		"open blob, cut":                     {blob: true, text: encoded[:40], says: "ends before one does"},
		"open, empty":                        {text: "", says: "ends before one does"},
		"open, another text":                 {text: base64.StdEncoding.EncodeToString([]byte("[1]")), says: "not a JSON object"},
		"encrypted, wrong form":              {key: key, text: encoded, says: "cannot be decrypted"},
		"encrypted blob, empty":              {key: key, blob: true, text: "", says: "cannot be decrypted"},
		"encrypted blob, cut":                {key: key, blob: true, text: blobOf(plain)[:len(blobOf(plain))-3], says: "ends before one does"},
		"encrypted blob, another text in it": {key: key, blob: true, text: blobOf("7"), says: "not a JSON object"},
		"encrypted blob, too long":           {key: key, blob: true, text: blobOf(plain + " "), says: "limits.input_size"},
	} {
		n := &Node{key: c.key}
		var got bytes.Buffer
		in, err := n.copyInput(strings.NewReader(c.text), c.blob, int64(len(plain)), &got)
		var useless *unusable
		switch {
		case c.says == "":
			if err != nil || got.String() != plain || in.Method != "central" || in.Size != int64(len(plain)) {
				t.Errorf("%s: %q, %+v, %v", name, got.String(), in, err)
			}
		case !errors.As(err, &useless) || !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v", name, err)
		}
	}
}
