package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6node/v6node/proxy/e2e"
)

var abc = map[string]string{"2": "b", "3": "c", "4": ""}

func taskServer(w http.ResponseWriter, r *http.Request) {
	if !organizations(w, r, abc) {
		answerJSON(w, 201, map[string]any{"id": 9, "status": "pending"})
	}
}

type sentTask struct {
	Organizations []struct {
		ID    int64
		Input *string
		Extra any
	}
}

// posted returns the body of the one POST /task that the server saw.
func (f *fixture) posted() string {
	f.t.Helper()
	var bodies []string
	for _, s := range f.requests() {
		if s.Method == "POST" {
			if s.URI != "/api/task" || s.Auth != "Bearer "+token || s.Length != int64(len(s.Body)) {
				f.t.Errorf("the server saw %s, length %d of %d", s.URI, s.Length, len(s.Body))
			}
			bodies = append(bodies, s.Body)
		}
	}
	if len(bodies) != 1 {
		f.t.Fatalf("%d tasks were posted", len(bodies))
	}
	return bodies[0]
}

// The proxy has encrypted such an input when it was uploaded.
func TestAnInputInTheBlobStoreStaysItsName(t *testing.T) {
	const name = "9d4ab5f2-0f0c-4d3c-9a43-0e5f1d1f6a10"
	f := newFixture(t, taskServer, encrypted)
	body := fmt.Sprintf(`{"organizations":[{"id":4,"input":%q},{"input":%q,"id":3},{"id":2,"input":%q}]}`, name, name, b64of(name))
	if r := f.do("POST", "/task", body, "Content-Type: application/json"); r.Status != 201 {
		t.Fatalf("%+v", r)
	}
	var sent sentTask
	if err := json.Unmarshal([]byte(f.posted()), &sent); err != nil || len(sent.Organizations) != 3 {
		t.Fatalf("%v: %+v", err, sent)
	}
	for i, o := range sent.Organizations[:2] {
		if *o.Input != name {
			t.Errorf("input %d became %q", i, *o.Input)
		}
	}
	if plain, err := keyOf("b").Decrypt(*sent.Organizations[2].Input); err != nil || string(plain) != name {
		t.Errorf("an input that only says the name of a blob became %q, %v", plain, err)
	}
	for _, no := range []string{name + "0", name[:35], "9d4ab5f2_0f0c-4d3c-9a43-0e5f1d1f6a10"} {
		if r := f.do("POST", "/task", fmt.Sprintf(`{"organizations":[{"id":3,"input":%q}]}`, no), "Content-Type: application/json"); r.Status != 400 {
			t.Errorf("%q, which is no name: %+v", no, r)
		}
	}
}

func TestEachInputIsEncryptedForItsOrganization(t *testing.T) {
	f := newFixture(t, taskServer, encrypted)
	body := fmt.Sprintf(`{"name":"sub","image":"img","databases":[{"label":"default"}],"unknown":{"a":[1.50,null,"\u00e9"]},
		"organizations":[{"id":2,"input":%q,"extra":{"id":7,"input":"x"}},{"input":%q,"id":3},{"id":1,"input":%q},{"id":2},{"id":3,"input":null},{"id":2,"input":""}],"study_id":null}`,
		b64of(`{"for":2}`), b64of(`{"for":3}`), b64of(`{"for":1}`))
	r := f.do("POST", "/task", body, "Content-Type: application/json")
	if r.Status != 201 || !strings.Contains(r.Body, `"id":9`) {
		t.Fatalf("%+v", r)
	}
	posted := f.posted()
	var sent sentTask
	if err := json.Unmarshal([]byte(posted), &sent); err != nil || len(sent.Organizations) != 6 {
		t.Fatalf("%v: %s", err, posted)
	}
	for i, want := range []struct{ key, plain string }{{"b", `{"for":2}`}, {"c", `{"for":3}`}, {"own", `{"for":1}`}, {}, {}, {"b", ""}} {
		got := sent.Organizations[i].Input
		if want.key == "" {
			if got != nil {
				t.Errorf("organization %d: input %q appeared", i, *got)
			}
			continue
		}
		plain, err := keyOf(want.key).Decrypt(*got)
		if err != nil || string(plain) != want.plain {
			t.Errorf("organization %d: decrypts to %q, %v", i, plain, err)
		}
	}
	if sent.Organizations[0].Extra == nil {
		t.Error("an unknown field of an organization is lost")
	}
	var in, out map[string]any
	if json.Unmarshal([]byte(body), &in) != nil || json.Unmarshal([]byte(posted), &out) != nil {
		t.Fatal("no JSON")
	}
	delete(in, "organizations")
	delete(out, "organizations")
	if !reflect.DeepEqual(in, out) {
		t.Errorf("the rest of the task changed: %s", posted)
	}
}

func TestInputsAreLeftAloneWithoutEncryption(t *testing.T) {
	f := newFixture(t, taskServer)
	body := fmt.Sprintf(`{"name":"sub","organizations":[{"id":2,"input":%q}]}`, b64of(`{}`))
	if r := f.do("POST", "/task", body); r.Status != 201 || f.posted() != body {
		t.Fatalf("%+v, the server saw %s", r, f.posted())
	}
	if len(f.requests()) != 1 {
		t.Fatalf("%d requests", len(f.requests()))
	}
}

func TestTasksWithAMistakeAreRefusedAndNotSent(t *testing.T) {
	in := b64of("{}")
	for _, o := range []struct {
		name    string
		options []option
	}{{"plain", nil}, {"encrypted", []option{encrypted}}} {
		f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
			if !organizations(w, r, abc) {
				t.Errorf("%s: the server was asked %s %s", o.name, r.Method, r.RequestURI)
			}
		}, o.options...)
		refused := func(body, says string, headers ...string) {
			t.Helper()
			r := f.do("POST", "/task", body, headers...)
			if r.Status/100 != 4 || !strings.Contains(r.msg(), says) {
				t.Errorf("%s %.60s: status %d %s, want it to say %q", o.name, body, r.Status, r.Body, says)
			}
		}
		for _, body := range []string{`{}`, `{"name":"x"}`, `{"organizations":[]}`, `{"organizations":null}`, `{"organizations":{}}`, `{"organizations":"2"}`} {
			refused(body, "Organizations missing from input")
		}
		refused(``, "not valid JSON")
		refused(`[]`, "not a JSON object")
		refused(`{"organizations":[{"id":2}]`, "not valid JSON")
		refused(`{"organizations":[{"id":2}]} x`, "not valid JSON")
		refused(`{"organizations":[2]}`, "not an object")
		refused(`{"organizations":[{"id":2}],"organizations":[{"id":3}]}`, "twice")
		refused(`{"organizations":[{"id":2}]}`, "Content-Encoding", "Content-Encoding: gzip")
		refused(`{"`+strings.Repeat("k", 5000)+`":1}`, "too long")
		if o.options == nil {
			continue
		}
		refused(`{"organizations":[{"input":"`+in+`"}]}`, "no id")
		refused(`{"organizations":[{"id":"2","input":"`+in+`"}]}`, "not a number")
		refused(`{"organizations":[{"id":{},"input":"`+in+`"}]}`, "not a number")
		refused(`{"organizations":[{"id":2.5,"input":"`+in+`"}]}`, "not a number")
		refused(`{"organizations":[{"id":-2,"input":"`+in+`"}]}`, "not a number")
		refused(`{"organizations":[{"id":2,"id":3,"input":"`+in+`"}]}`, "id twice")
		refused(`{"organizations":[{"id":2,"input":"`+in+`","\u0069nput":"`+in+`"}]}`, "input twice")
		refused(`{"organizations":[{"id":2,"input":{"method":"x"}}]}`, "not a string")
		refused(`{"organizations":[{"id":2,"input":"{\"method\":1}"}]}`, "organization 2 is not base64")
		refused(`{"organizations":[{"id":3,"input":"abc"}]}`, "organization 3 is not base64")
		refused(`{"organizations":[{"input":"abc","id":3}]}`, "organization 3 is not base64")
		refused(`{"organizations":[{"id":2,"input":"`+in+`"},{"id":4,"input":"`+in+`"}]}`, "Organization 4 has no public key")
		refused(`{"organizations":[{"id":5,"input":"`+in+`"}]}`, "does not show organization 5")
	}
}

func TestAnInputBeforeItsIDIsHeldOnlyToALimit(t *testing.T) {
	f := newFixture(t, taskServer, encrypted, withLimits(func(l *limits) { l.heldInput = 100 }))
	long := b64of(strings.Repeat("x", 300))
	if r := f.do("POST", "/task", `{"organizations":[{"input":"`+long+`","id":2}]}`); r.Status != 400 || !strings.Contains(r.msg(), "behind the id") {
		t.Errorf("%+v", r)
	}
	if r := f.do("POST", "/task", `{"organizations":[{"id":2,"input":"`+long+`"}]}`); r.Status != 201 {
		t.Errorf("%+v", r)
	}
}

// TestFewRequestsHoldAnInputBeforeItsID: memory is the node's, whatever one algorithm does at once.
func TestFewRequestsHoldAnInputBeforeItsID(t *testing.T) {
	f := newFixture(t, taskServer, encrypted, withLimits(func(l *limits) { l.holders, l.queue = 1, 10*time.Millisecond }))
	begin, end := `{"organizations":[{"input":"e30=`, `","id":2}]}`
	early, late := begin+end, `{"organizations":[{"id":2,"input":"e30="}]}`
	body, algorithm := io.Pipe()
	first := make(chan reply)
	go func() {
		r, err := f.send("POST", "/task", body)
		if err != nil {
			t.Error(err)
		}
		first <- r
	}()
	if _, err := io.WriteString(algorithm, begin); err != nil {
		t.Fatal(err)
	}
	for len(f.api.hold) == 0 { // until it holds its input
		runtime.Gosched()
	}
	if r := f.do("POST", "/task", early); r.Status != 503 || !strings.Contains(r.msg(), "(1 are allowed)") {
		t.Errorf("one more: %+v", r)
	}
	if r := f.do("POST", "/task", late); r.Status != 201 {
		t.Errorf("an input behind its id: %+v", r)
	}
	if _, err := io.WriteString(algorithm, end); err != nil {
		t.Fatal(err)
	}
	algorithm.Close()
	if r := <-first; r.Status != 201 {
		t.Errorf("the first: %+v", r)
	}
	if r := f.do("POST", "/task", early); r.Status != 201 {
		t.Errorf("after it: %+v", r)
	}
	if r := f.do("POST", "/task", begin); r.Status != 400 {
		t.Errorf("one that breaks off: %+v", r)
	}
	if r := f.do("POST", "/task", early); r.Status != 201 {
		t.Errorf("after one that broke off: %+v", r)
	}
}

func TestTheServersRefusalOfATaskIsPassedOn(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		if !organizations(w, r, abc) {
			answerJSON(w, 401, map[string]string{"msg": "Container-based task creation failed"})
		}
	}, encrypted)
	r := f.do("POST", "/task", `{"organizations":[{"id":2,"input":"e30="}]}`)
	if r.Status != 401 || r.msg() != "Container-based task creation failed" {
		t.Fatalf("%+v", r)
	}
}

func TestKeysAreAskedForOnceAndAgainAfterAFailure(t *testing.T) {
	var mu sync.Mutex
	status := 201
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !organizations(w, r, abc) {
			answerJSON(w, status, map[string]string{"msg": "x"})
		}
	}, encrypted)
	asked := func() (n int) {
		for _, s := range f.requests() {
			if s.Method == "GET" {
				n++
			}
		}
		return n
	}
	post := func() {
		f.do("POST", "/task", `{"organizations":[{"id":2,"input":"e30="},{"id":2,"input":"e30="},{"id":3,"input":"e30="}]}`)
	}
	post()
	post()
	if n := asked(); n != 2 {
		t.Errorf("%d questions for 2 keys", n)
	}
	mu.Lock()
	status = 400
	mu.Unlock()
	post()
	post()
	if n := asked(); n != 4 {
		t.Errorf("%d questions after a failure", n)
	}
}

func TestLargeInputsAreEncryptedInBoundedMemory(t *testing.T) {
	const size = 96 << 20
	var got struct {
		sync.Mutex
		n   int64
		err error
	}
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		if organizations(w, r, abc) {
			return
		}
		n, err := decryptedInput(r.Body, keyOf("b"))
		got.Lock()
		got.n, got.err = n, err
		got.Unlock()
		w.WriteHeader(201)
	}, encrypted)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	req, err := http.NewRequest("POST", f.proxy.URL+"/task", io.MultiReader(
		strings.NewReader(`{"organizations":[{"id":2,"input":"`), io.LimitReader(letters{}, size), strings.NewReader(`"}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := f.proxy.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	runtime.ReadMemStats(&after)
	got.Lock()
	defer got.Unlock()
	if resp.StatusCode != 201 || got.err != nil || got.n != size/4*3 {
		t.Fatalf("status %d, %d bytes arrived, %v", resp.StatusCode, got.n, got.err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Fatalf("allocated %d bytes for an input of %d", used, size)
	}
}

// letters reads as base64 without end, at no cost.
type letters struct{}

var manyLetters = bytes.Repeat([]byte{'A'}, 64<<10)

func (letters) Read(p []byte) (int, error) { return copy(p, manyLetters), nil }

// decryptedInput reads a task with one input and returns the input's length.
func decryptedInput(r io.Reader, key *e2e.PrivateKey) (int64, error) {
	begin := []byte(`{"organizations":[{"id":2,"input":"`)
	head := make([]byte, len(begin))
	if _, err := io.ReadFull(r, head); err != nil || !bytes.Equal(head, begin) {
		return 0, fmt.Errorf("begins with %q, %w", head, err)
	}
	plain, err := key.NewDecrypter(&untilQuote{r: r})
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, plain)
}

type untilQuote struct {
	r    io.Reader
	done bool
}

func (u *untilQuote) Read(p []byte) (int, error) {
	if u.done {
		return 0, io.EOF
	}
	n, err := u.r.Read(p)
	if i := bytes.IndexByte(p[:n], '"'); i >= 0 {
		u.done = true
		return i, nil
	}
	if err == io.EOF {
		err = errors.New("no end of the string")
	}
	return n, err
}

func TestRequestsTooLargeForTheNodesDiskAreRefused(t *testing.T) {
	f := newFixture(t, mustNotBeAsked(t), withLimits(func(l *limits) { l.spooled = 1 << 20 }))
	body := `{"organizations":[{"id":2,"input":"` + strings.Repeat("A", 2<<20) + `"}]}`
	for range 3 { // the room is given back each time
		if r := f.do("POST", "/task", body); r.Status != 503 || !strings.Contains(r.msg(), "no room") {
			t.Fatalf("%+v", r)
		}
	}
	missing := newFixture(t, mustNotBeAsked(t), func(c *Config, _ *limits) { c.SpoolDir += "/missing" })
	if r := missing.do("POST", "/task", body); r.Status != 503 {
		t.Fatalf("%+v", r)
	}
}

// FuzzTaskBody holds that what is sent on is the task with nothing but the
// inputs changed, each to what its organization decrypts.
func FuzzTaskBody(f *testing.F) {
	for _, s := range []string{
		`{"organizations":[{"id":2,"input":"e30="}]}`, `{"organizations":[{"input":"e30=","id":2}],"x":[1,{"input":"e30="}]}`,
		`{"organizations":[{"id":2,"input":"e\u00330="},{"id":3}]}`, `{"a":{},"organizations":[{"input":null,"id":2},{}]}`, `{"organizations":[]}`, `[]`,
	} {
		f.Add(s)
	}
	key := keyOf("b")
	f.Fuzz(func(t *testing.T, text string) {
		cache := NewKeyCache(KeyCacheOptions{})
		api, err := newAPI(Config{
			Upstream: &Upstream{Base: mustURL("http://server.invalid/api"), HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				fmt.Fprintf(w, `{"public_key":%q}`, key.Public().Base64())
				return w.Result(), nil
			})}},
			Run: Run{OrganizationID: -1, Token: token}, Key: key, Keys: cache,
		}, quick)
		if err != nil {
			t.Fatal(err)
		}
		body := api.spool.new()
		defer body.Close()
		if rewriteTask(api, strings.NewReader(text), body) != nil {
			return
		}
		sent, err := io.ReadAll(body.reader())
		if err != nil {
			t.Fatal(err)
		}
		var in, out map[string]any
		if json.Unmarshal([]byte(text), &in) != nil {
			return // a number out of range
		}
		if err := json.Unmarshal(sent, &out); err != nil {
			t.Fatalf("%s became %s", text, sent)
		}
		from, to := in["organizations"].([]any), out["organizations"].([]any)
		for i := range from {
			a, b := from[i].(map[string]any), to[i].(map[string]any)
			if input, ok := a["input"].(string); ok {
				enc := b["input"].(string)
				plain, err := key.Decrypt(enc)
				if err == nil && b64of(string(plain)) != input && b64of(b64of(string(plain))) != input {
					t.Fatalf("%q decrypts to %q", input, plain)
				}
				if err == nil || errors.Is(err, e2e.ErrDecrypt) { // not text: any bytes may be an input
					b["input"] = input
				}
			}
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%s became %s", text, sent)
		}
	})
}
