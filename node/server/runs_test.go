package server

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const recordedRun = `{"id":5,"status":"pending","input":"eyJtZXRob2QiOiJjZW50cmFsIn0=","started_at":null,"finished_at":null,
"assigned_at":"2026-11-22T03:13:55.985348","log":null,"ports":[],"blob_storage_used":false,"cleanup_at":null,
"results":{"id":5,"link":"/api/result/5"},"node":{"id":6,"name":"alpha","status":"online","ip":null},"organization":{"id":2,"link":"/api/organization/2"},
"task":{"id":3,"name":"average","description":"","image":"ghcr.io/org/algo:1","status":"pending","job_id":4,
"databases":[{"label":"default","parameters":"{\"query\": \"select 1\"}"},{"label":"other","parameters":null}],
"collaboration":{"id":1},"init_org":{"id":2},"init_user":{"id":1},"parent":{"id":2,"link":"/api/task/2"},"study":null,"algorithm_store":{"id":8},
"created_at":"2026-11-22T03:13:55.985348","finished_at":null,"children":"/api/task?parent_id=1","results":"/api/result?task_id=1"}}`

func TestARecordedRunIsReadWhole(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("GET /run", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"extra":{"a":[1]},"data":[%s],"links":{"first":"x","self":"x","last":"x"}}`, recordedRun)
	})
	runs, err := v.OpenRuns(within(t), 3)
	if err != nil || len(runs) != 1 {
		t.Fatalf("got %v, %v", runs, err)
	}
	want := &Run{
		ID: 5, TaskID: 3, JobID: 4, ParentID: 2, OrganizationID: 2, CollaborationID: 1, InitOrganizationID: 2, InitUserID: 1, StoreID: 8,
		Image: "ghcr.io/org/algo:1", TaskName: "average", Status: "pending", Input: "eyJtZXRob2QiOiJjZW50cmFsIn0=",
		Databases: []Database{{"default", `{"query": "select 1"}`}, {"other", ""}},
	}
	if !reflect.DeepEqual(runs[0], want) {
		t.Errorf("got %+v", runs[0])
	}
	if got := f.asked("GET /run"); got[0] != "GET /run?include=task&node_id=6&per_page=100&state=open&task_id=3" {
		t.Errorf("asked %s", got[0])
	}
}

func TestARunWithoutItsTaskIsRead(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("GET /run/5", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"id":5,"status":"killed by user","input":null,"started_at":"2026-11-22T03:13:55.985348","finished_at":"2026-11-22T03:14:00","task":{"id":3,"link":"/api/task/3","methods":[]}}`)
	})
	r, err := v.Run(within(t), 5)
	if err != nil || r.TaskID != 3 || r.Status != "killed by user" || r.FinishedAt == nil || r.StartedAt.Nanosecond() != 985348000 {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestAllPagesAreFollowedAndNoRunComesTwice(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("GET /run", func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		page = max(page, 1)
		var data []any
		for i := range 10 {
			// Each page repeats the last run of the one before: something new came on top.
			data = append(data, map[string]any{"id": 100 - (page-1)*9 - i, "task": map[string]any{"id": 1}})
		}
		links := map[string]string{"self": "x"}
		if page < 3 {
			links["next"] = fmt.Sprintf("/api/run?page=%d", page+1)
		}
		reply(w, 200, map[string]any{"data": data, "links": links})
	})
	runs, err := v.OpenRuns(within(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(runs) != 28 || runs[0].ID != 100 || runs[27].ID != 73 {
		t.Fatalf("%d runs", len(runs))
	}
	asked := f.asked("GET /run")
	if len(asked) != 3 || strings.Contains(asked[0], "&page=") || !strings.Contains(asked[1], "&page=2&") || !strings.Contains(asked[2], "&page=3&") {
		t.Errorf("asked %q", asked)
	}
}

func TestAListThatShrinksWhileItIsReadIsNoError(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("GET /run", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("page") == "2" {
			msg(400, "there are no records present on this page")(w, r)
			return
		}
		fmt.Fprintf(w, `{"data":[%s],"links":{"next":"/api/run?page=2"}}`, recordedRun)
	})
	if runs, err := v.OpenRuns(within(t), 0); err != nil || len(runs) != 1 {
		t.Fatalf("got %v, %v", runs, err)
	}
}

func TestARunLargerThanAllowedIsRefused(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(func(c *Config) { c.MaxRun = 100_000 })
	input := ""
	f.on("GET /run", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"data": []any{map[string]any{"id": 1, "task": map[string]any{"id": 1}, "input": input}}, "links": map[string]any{}})
	})
	input = strings.Repeat("A", 50_000)
	if runs, err := v.OpenRuns(within(t), 0); err != nil || runs[0].Input != input {
		t.Fatal(err)
	}
	input = strings.Repeat("A", 500_000)
	if _, err := v.OpenRuns(within(t), 0); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	f.on("POST /token/container", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]string{"container_token": strings.Repeat("x", smallAnswer)})
	})
	if _, err := v.ContainerToken(within(t), 1, "i"); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
}

func TestATruncatedAnswerIsUnreachable(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("GET /run", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"data":[`)
	})
	if _, err := v.OpenRuns(within(t), 0); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

func TestTheCallsOfARunAreTheRecordedOnes(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	for _, route := range []string{"PATCH /run/5", "PATCH /organization/2", "DELETE /port"} {
		f.on(route, func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]any{}) })
	}
	f.on("POST /token/container", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]string{"container_token": "opaque"})
	})
	f.on("GET /blobstream/status", func(w http.ResponseWriter, r *http.Request) {
		reply(w, 200, map[string]bool{"blob_store_enabled": r.Header.Get("Content-Type") == "application/octet-stream"})
	})
	ctx := within(t)
	at := time.Date(2026, 11, 22, 3, 13, 55, 985348000, time.UTC)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(v.MarkStarted(ctx, 5, at))
	tok, err := v.ContainerToken(ctx, 3, "ghcr.io/org/algo:1")
	check(err)
	if tok != "opaque" {
		t.Errorf("token %q", tok)
	}
	check(v.MarkActive(ctx, 5))
	check(v.ReleasePorts(ctx, 5))
	blob, err := v.BlobStore(ctx)
	check(err)
	if !blob {
		t.Error("the blob store's answer is not read, or not asked for as recorded")
	}
	check(v.Finish(ctx, 5, Final{Status: StatusCompleted, Result: "eyJhIjoxfQ==", Log: "line \"1\"\n\x00<&>", FinishedAt: at}))
	check(v.SetOrganizationKey(ctx, 2, "S0VZ"))
	f.mu.Lock()
	defer f.mu.Unlock()
	want := []string{
		`PATCH /run/5 {"started_at":"2026-11-22T03:13:55.985348+00:00"}`,
		`POST /token/container {"task_id":3,"image":"ghcr.io/org/algo:1"}`,
		`PATCH /run/5 {"status":"active"}`,
		`DELETE /port?run_id=5`,
		`GET /blobstream/status`,
		`PATCH /run/5 {"status":"completed","finished_at":"2026-11-22T03:13:55.985348+00:00","log":"line \"1\"\n` + "\uFFFD" + `\u003c\u0026\u003e","result":"eyJhIjoxfQ=="}`,
		`PATCH /organization/2 {"public_key":"S0VZ"}`,
	}
	if got := strings.Join(f.seen[4:], "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestAFinalWithoutATimeIsFinishedNow(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	v.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	f.on("PATCH /run/5", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]any{}) })
	if err := v.Finish(within(t), 5, Final{Status: StatusCrashed}); err != nil {
		t.Fatal(err)
	}
	want := `PATCH /run/5 {"status":"crashed","finished_at":"2026-01-02T03:04:05.000000+00:00","log":"","result":""}`
	if got := f.asked("PATCH"); got[0] != want {
		t.Errorf("got %s", got[0])
	}
}

func TestAFinishedRunIsTold(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("PATCH /run/5", msg(400, "Cannot update an already finished algorithm run!"))
	ctx := within(t)
	for name, err := range map[string]error{
		"Finish":      v.Finish(ctx, 5, Final{Status: StatusCompleted}),
		"MarkActive":  v.MarkActive(ctx, 5),
		"MarkStarted": v.MarkStarted(ctx, 5, time.Now()),
	} {
		if !errors.Is(err, ErrAlreadyFinished) {
			t.Errorf("%s: got %v", name, err)
		}
		if again, _ := Retryable(err); again {
			t.Errorf("%s: retryable", name)
		}
	}
	f.on("PATCH /run/5", msg(400, "Request body is incorrect"))
	if err := v.Finish(ctx, 5, Final{}); err == nil || errors.Is(err, ErrAlreadyFinished) {
		t.Errorf("got %v", err)
	}
}

func TestAnAnswerThatIsLostAndASecondTryMeanDelivered(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	stored := false
	f.on("PATCH /run/5", func(w http.ResponseWriter, r *http.Request) {
		if stored {
			msg(400, "Cannot update an already finished algorithm run!")(w, r)
			return
		}
		stored = true
		msg(502, "bad gateway")(w, r)
	})
	err := v.Finish(within(t), 5, Final{Status: StatusCompleted})
	if again, _ := Retryable(err); !again {
		t.Fatalf("got %v", err)
	}
	if err := v.Finish(within(t), 5, Final{Status: StatusCompleted}); !errors.Is(err, ErrAlreadyFinished) {
		t.Fatalf("got %v", err)
	}
}

// A result is given up only for what the API itself says about it.
func TestOnlyWhatConcernsTheRequestIsLasting(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	page := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte("<html>log in first</html>"))
		}
	}
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		passing bool
	}{
		"a login page with status 200":            {page(200), true},
		"no answer with status 200":               {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }, true},
		"a gateway's 401":                         {page(401), true},
		"a gateway's 403":                         {page(403), true},
		"a gateway's 404":                         {page(404), true},
		"a gateway's 413":                         {page(413), false},
		"a gateway's 400":                         {page(400), false},
		"a fresh token that is expired":           {msg(401, "Token has expired"), true},
		"a fresh token of another server":         {msg(422, "Signature verification failed"), true},
		"a run of another organization":           {msg(401, "This is not your algorithm run to PATCH!"), false},
		"a run that does not exist":               {msg(404, "Run id=5 not found!"), true},
		"a gateway's 404 in JSON":                 {msg(404, "no route for /api/run/5"), true},
		"a body that the server does not like":    {msg(400, "Request body is incorrect"), false},
		"a server that is busy":                   {msg(429, "slow down"), true},
		"a server with an error":                  {msg(500, "Internal error"), true},
		"a run that is finished already (a kill)": {msg(400, "Cannot update an already finished algorithm run!"), false},
	} {
		f.on("PATCH /run/5", c.answer)
		err := v.Finish(within(t), 5, Final{Status: StatusCompleted, Result: "eyJhIjoxfQ=="})
		if err == nil {
			t.Errorf("%s: counts as delivered", name)
		}
		if again, _ := Passing(err); again != c.passing {
			t.Errorf("%s: passing is %t, want %t: %v", name, again, c.passing, err)
		}
	}
}

func TestOnlyTheServersOwnWordIsThatARunIsNotThere(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		gone   bool
	}{
		"the server's word": {msg(404, "Run id=5 not found!"), true},
		"about another run": {msg(404, "Run id=55 not found!"), false},
		"a gateway's JSON":  {msg(404, "no route for /api/run/5"), false},
		"a framework's JSON": {func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 404, map[string]string{"message": "Run id=5 not found!"})
		}, false},
		"a page":                  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Run id=5 not found!", 404) }, false},
		"nothing at all":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, false},
		"not the server's status": {msg(410, "Run id=5 not found!"), false},
	} {
		f.on("PATCH /run/5", c.answer)
		f.on("GET /run/5", c.answer)
		_, asked := v.Run(within(t), 5)
		for call, err := range map[string]error{
			"Run": asked, "MarkStarted": v.MarkStarted(within(t), 5, time.Now()), "MarkActive": v.MarkActive(within(t), 5),
			"Finish": v.Finish(within(t), 5, Final{Status: StatusCompleted, Result: "eyJhIjoxfQ=="}),
		} {
			if err == nil || errors.Is(err, ErrNoRun) != c.gone {
				t.Errorf("%s: %s: %v", name, call, err)
			}
		}
	}
}

func TestRetryAfterIsPassedOn(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	for value, want := range map[string]time.Duration{"7": 7 * time.Second, "": 0, "soon": 0, "-3": 0, "99999999": maxRetryAfter, "99999999999999999999": 0,
		"Sun, 22 Nov 2099 03:00:30 GMT": maxRetryAfter, "Sun, 22 Nov 1999 03:00:30 GMT": 0} {
		f.on("PATCH /run/5", func(w http.ResponseWriter, r *http.Request) {
			if value != "" {
				w.Header().Set("Retry-After", value)
			}
			msg(429, "slow down")(w, r)
		})
		again, wait := Retryable(v.MarkActive(within(t), 5))
		if !again || wait != want {
			t.Errorf("%q: got %v, %v", value, again, wait)
		}
	}
	h := http.Header{"Retry-After": {"Sun, 22 Nov 2026 03:00:30 GMT"}}
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	if d := retryAfter(h, now); d != 30*time.Second {
		t.Errorf("date: got %s", d)
	}
	// By the clock of the server, whatever this machine's says.
	h.Set("Date", "Sun, 22 Nov 2026 03:00:20 GMT")
	for _, here := range []time.Time{now, now.AddDate(1, 0, 0), now.AddDate(-1, 0, 0)} {
		if d := retryAfter(h, here); d != 10*time.Second {
			t.Errorf("at %s by this machine's clock: got %s", here, d)
		}
	}
}

func TestCallsBeforeConnectSaySo(t *testing.T) {
	f := newFake(t).start()
	if _, err := f.node(nil).OpenRuns(within(t), 0); !errors.Is(err, ErrNotConnected) {
		t.Fatalf("got %v", err)
	}
}

func TestAServerWithoutBlobStoreHasNone(t *testing.T) {
	f := newFake(t).start()
	if on, err := f.connected(nil).BlobStore(within(t)); on || err != nil {
		t.Fatalf("got %v, %v", on, err)
	}
}

func TestALargeResultIsStreamedAndSentAgainAfterARefusedToken(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	result := strings.Repeat("QUJD", 1<<18)
	tries := 0
	f.on("PATCH /run/5", func(w http.ResponseWriter, r *http.Request) {
		tries++
		if tries == 1 {
			msg(401, "Token has expired")(w, r)
			return
		}
		b, _ := io.ReadAll(r.Body)
		var got map[string]string
		if err := json.Unmarshal(b, &got); err != nil || got["result"] != result || got["status"] != "completed" || r.ContentLength != int64(len(b)) {
			msg(400, "wrong body")(w, r)
			return
		}
		reply(w, 200, map[string]any{})
	})
	opened, closed := 0, 0
	err := v.FinishFrom(within(t), 5, Final{Status: StatusCompleted, Log: "l"}, int64(len(result)), func() (io.ReadCloser, error) {
		opened++
		return closer{strings.NewReader(result), func() { closed++ }}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if opened != 2 || tries != 2 {
		t.Errorf("opened %d times for %d tries", opened, tries)
	}
}

type closer struct {
	io.Reader
	f func()
}

func (c closer) Close() error { c.f(); return nil }

func TestAResultThatIsNotWhatWasAnnouncedIsNotSent(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("PATCH /run/5", func(w http.ResponseWriter, r *http.Request) {
		var got map[string]any
		b, _ := io.ReadAll(r.Body)
		if json.Unmarshal(b, &got) == nil {
			t.Errorf("the server got a whole body: %s", b)
		}
		reply(w, 200, map[string]any{})
	})
	broken := errors.New("disk broken")
	for want, r := range map[string]io.Reader{
		"shorter than announced": strings.NewReader("AA"),
		"longer than announced":  strings.NewReader("AAAAAA"),
		"0x22":                   strings.NewReader(`AA"B`),
		"0x0a":                   strings.NewReader("AAA\n"),
		"disk broken":            io.MultiReader(bytes.NewReader([]byte("A")), failing{broken}),
	} {
		err := v.FinishFrom(within(t), 5, Final{Status: StatusCompleted}, 4, func() (io.ReadCloser, error) { return io.NopCloser(r), nil })
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	err := v.FinishFrom(within(t), 5, Final{}, 4, func() (io.ReadCloser, error) { return nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestARequestThatStandsStillIsGivenUp(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(func(c *Config) { c.Timing.Stall = 50 * time.Millisecond })
	gone := make(chan struct{})
	f.on("GET /run", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"data":[`)
		w.(http.Flusher).Flush()
		<-gone
	})
	defer close(gone)
	_, err := v.OpenRuns(within(t), 0)
	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, errStalled) {
		t.Fatalf("got %v", err)
	}
}

func TestOneConnectionServesCallAfterCall(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("PATCH /run/5", func(w http.ResponseWriter, r *http.Request) { reply(w, 200, map[string]any{}) })
	f.on("PATCH /run/6", msg(400, "no"))
	for range 5 {
		if err := v.MarkActive(within(t), 5); err != nil {
			t.Fatal(err)
		}
		if err := v.MarkActive(within(t), 6); err == nil {
			t.Fatal("a refusal is lost")
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.peers) != 1 {
		t.Errorf("%d calls over %d connections", len(f.seen), len(f.peers))
	}
}

func TestUpstreamIsTheAPIWithoutCredentials(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	base, client := v.Upstream()
	if base.String() != f.srv.URL+"/api" {
		t.Errorf("base %s", base)
	}
	resp, err := client.Get(base.JoinPath("node/6").String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("status %d without a token", resp.StatusCode)
	}
	base.Host = "changed"
	if again, _ := v.Upstream(); again.Host == "changed" {
		t.Error("the caller's copy is the session's own address")
	}
}

// zeros is an endless result.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'A'
	}
	return len(p), nil
}

func TestALargeResultTakesNoMoreMemoryThanASmallOne(t *testing.T) {
	const size = 64 << 20
	f := newFake(t)
	received := make(chan int64, 1)
	f.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPatch {
			f.ServeHTTP(w, r)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		received <- n
		reply(w, 200, map[string]any{})
	})
	v := f.start().connected(nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := v.FinishFrom(within(t), 5, Final{Status: StatusCompleted}, size, func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if n := <-received; n < size {
		t.Errorf("%d bytes arrived", n)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes allocated", used)
	}
}
