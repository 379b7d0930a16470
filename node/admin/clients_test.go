package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admin/admintest"
)

// asOther makes this test program a client that some other user runs: it asks
// the node in that directory for its version of info and says what came of it.
const asOther = "V6NODE_TEST_ADMIN_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asOther); dir != "" {
		_, err := admin.NewClient(dir).Info(context.Background())
		switch {
		case err == nil:
			fmt.Println("served")
		case errors.Is(err, admin.ErrRefused):
			fmt.Println("refused:", err)
		default:
			fmt.Println("failed:", err)
		}
		return
	}
	os.Exit(m.Run())
}

// askAs runs a client as another user.
func askAs(t *testing.T, uid uint32, dir string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), asOther+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ask as user %d: %v\n%s", uid, err, out)
	}
	return string(out)
}

// openToAll makes a served directory one that everybody reaches, as if the
// modes did not protect it. The test's temporary directories are otherwise.
func openToAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, admin.SocketName), 0o666); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	s := world()
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	if out := askAs(t, 65534, dir); !strings.HasPrefix(out, "refused: you may not use") {
		t.Errorf("the modes of directory and socket: %s", out)
	}
	openToAll(t, dir)
	if out := askAs(t, 65534, dir); !strings.HasPrefix(out, "refused: user 65534 may not administer this node") {
		t.Errorf("the kernel's word for it: %s", out)
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("the station was asked %q", calls)
	}
	if out := askAs(t, 0, dir); !strings.HasPrefix(out, "served") {
		t.Errorf("root: %s", out)
	}
}

// dial connects to a served directory without the client.
func dial(t *testing.T, dir string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, admin.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a request as it is and returns status and body.
func ask(t *testing.T, dir, request string) (int, string) {
	t.Helper()
	c := dial(t, dir)
	go func() { _, _ = io.WriteString(c, request) }() // a server that refuses need not read it all
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

const current = "Host: v6node\r\nV6node-Admin-Protocol: 1\r\n"

func TestRequestsThatAreNotUnderstoodDoNothing(t *testing.T) {
	s := world()
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	patch := func(body string) string {
		return fmt.Sprintf("PATCH /v1/runs/103/limits HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", current, len(body), body)
	}
	for _, c := range []struct {
		what, request string
		status        int
		says          string
	}{
		{"another version", "GET /v1/info HTTP/1.1\r\nHost: v6node\r\nV6node-Admin-Protocol: 2\r\n\r\n", 426, "speaks version 1 of the administration protocol and this program version"},
		{"no version", "POST /v1/pause HTTP/1.1\r\nHost: v6node\r\n\r\n", 426, "use the node's own program"},
		{"a path of another version", "GET /v2/info HTTP/1.1\r\n" + current + "\r\n", 426, "/v2/info"},
		{"another method", "DELETE /v1/runs/103 HTTP/1.1\r\n" + current + "\r\n", 426, "DELETE"},
		{"an argument of a newer program", "GET /v1/runs?all=true&label=x HTTP/1.1\r\n" + current + "\r\n", 400, "label"},
		{"an argument of a newer program, on an order", "POST /v1/gc?dry_run=true&only=images HTTP/1.1\r\n" + current + "\r\n", 400, "only"},
		{"a field of a newer program", patch(`{"memory":1,"bandwidth":5}`), 400, "bandwidth"},
		{"no change", patch(`{}`), 400, "no limit"},
		{"two changes", patch(`{"memory":1}{"memory":2}`), 400, "behind its end"},
		{"no JSON", patch(`memory=1`), 400, "cannot be read"},
		{"a run that is none", "POST /v1/runs/-1/kill HTTP/1.1\r\n" + current + "\r\n", 400, "id of a run"},
		{"a flag that is none", "GET /v1/events?follow=maybe HTTP/1.1\r\n" + current + "\r\n", 400, "maybe"},
		{"a time that is none", "GET /v1/events?since=now HTTP/1.1\r\n" + current + "\r\n", 400, "now"},
		{"less than no lines", "GET /v1/runs/103/logs?tail=-1 HTTP/1.1\r\n" + current + "\r\n", 400, "tail"},
		{"arguments that cannot be read", "GET /v1/runs?all=%zz HTTP/1.1\r\n" + current + "\r\n", 400, "arguments"},
		{"a huge header", "GET /v1/info HTTP/1.1\r\n" + current + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431, ""},
		{"a huge body", patch(`{"memory":` + strings.Repeat(" ", 1<<20) + `1}`), 400, "longer than 65536 bytes"},
	} {
		if status, body := ask(t, dir, c.request); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s, want %d with %q", c.what, status, body, c.status, c.says)
		}
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("the station was asked %q", calls)
	}
	if status, body := ask(t, dir, "GET /version HTTP/1.1\r\nHost: v6node\r\nV6node-Admin-Protocol: 99\r\n\r\n"); status != 200 || !strings.Contains(body, `"protocol":1`) {
		t.Errorf("the version, asked for by another one: %d %s", status, body)
	}
}

func TestAClientThatDoesNotFinishItsRequestIsCutOffAndOthersAreServed(t *testing.T) {
	s := world()
	dir := admintest.Serve(t, s, admin.ServerOptions{RequestTime: 200 * time.Millisecond})
	// A stream outlives the time for sending a request.
	follower := make(chan error, 1)
	got := make(chan admin.Event, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		follower <- admin.NewClient(dir).Events(ctx, admin.EventOptions{Follow: true}, func(e *admin.Event) error { got <- *e; return nil })
	}()
	<-got
	for _, begun := range []string{"", "GET /v1/in", "POST /v1/pause HTTP/1.1\r\n" + current, "PATCH /v1/runs/103/limits HTTP/1.1\r\n" + current + "Content-Length: 10\r\n\r\n{"} {
		c := dial(t, dir)
		if _, err := io.WriteString(c, begun); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.NewClient(dir).Info(t.Context()); err != nil {
			t.Errorf("meanwhile: %v", err)
		}
		if answer, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: not cut off: %s %v", begun, answer, err)
		}
	}
	s.Journal.Add(admin.Event{Type: admin.EventOOM})
	if e := <-got; e.Type != admin.EventOOM {
		t.Errorf("the stream brought %+v", e)
	}
	cancel()
	if err := <-follower; !errors.Is(err, context.Canceled) {
		t.Errorf("the stream ended with %v", err)
	}
	for _, c := range s.Calls() {
		if strings.HasPrefix(c, "Pause") || strings.HasPrefix(c, "Update") {
			t.Errorf("half a request did %s", c)
		}
	}
}

// endless writes log lines until the reader is gone.
func endless(ctx context.Context, _ int64, _ admin.LogOptions, fn func(*admin.LogLine) error) error {
	line := &admin.LogLine{Stream: "stdout", Text: bytes.Repeat([]byte("x"), 32<<10)}
	for {
		if err := fn(line); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func TestAClientThatDoesNotReadIsLeft(t *testing.T) {
	s := world()
	s.OnLogs = endless
	dir := admintest.Serve(t, s, admin.ServerOptions{StallTime: 2 * time.Second})
	c := dial(t, dir)
	if _, err := io.WriteString(c, "GET /v1/runs/103/logs HTTP/1.1\r\n"+current+"\r\n"); err != nil {
		t.Fatal(err)
	}
	// One that reads is served meanwhile, and for as long as it likes.
	n := 0
	if err := admin.NewClient(dir).Logs(t.Context(), 103, admin.LogOptions{}, func(*admin.LogLine) error {
		if n++; n > 100 && s.Active() == 1 {
			return errEnough
		}
		return nil
	}); err != errEnough {
		t.Error(err)
	}
	<-s.Idle()
}

var errEnough = errors.New("enough")

func TestCancelledStreamsLeakNothing(t *testing.T) {
	s := world()
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	client := admin.NewClient(dir)
	if _, err := client.Info(t.Context()); err != nil { // from now on the server's own goroutines run
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	const streams = 20
	first, ended := make(chan struct{}, 2*streams), make(chan error, 2*streams)
	for range streams {
		go func() {
			ended <- client.Events(ctx, admin.EventOptions{Follow: true}, func(*admin.Event) error { first <- struct{}{}; return nil })
		}()
		go func() {
			once := false
			ended <- client.Logs(ctx, 103, admin.LogOptions{Follow: true}, func(*admin.LogLine) error {
				if !once {
					first <- struct{}{}
				}
				once = true
				return nil
			})
		}()
	}
	for range 2 * streams {
		<-first
	}
	cancel()
	for range 2 * streams {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a stream ended with %v", err)
		}
	}
	<-s.Idle()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines before, %d after", before, n)
	}
}

func TestMoreRequestsThanAllowedAreRefusedAtOnce(t *testing.T) {
	s := world()
	dir := admintest.Serve(t, s, admin.ServerOptions{Requests: 2})
	client := admin.NewClient(dir)
	ctx, cancel := context.WithCancel(t.Context())
	first, ended := make(chan struct{}, 2), make(chan error, 2)
	for range 2 {
		go func() {
			ended <- client.Events(ctx, admin.EventOptions{Follow: true}, func(*admin.Event) error { first <- struct{}{}; return nil })
		}()
	}
	<-first
	<-first
	if _, err := client.Info(t.Context()); !errors.Is(err, admin.ErrBusy) {
		t.Errorf("the third: %v", err)
	}
	cancel()
	<-ended
	<-ended
	<-s.Idle()
	if _, err := client.Info(t.Context()); err != nil && !errors.Is(err, admin.ErrBusy) {
		t.Error(err)
	}
}

func TestTheEndOfTheNodeEndsEveryStream(t *testing.T) {
	s := world()
	s.OnLogs = endless
	dir := t.TempDir()
	stop := admintest.ServeAt(t, dir, s, admin.ServerOptions{})
	client := admin.NewClient(dir)
	first, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- client.Events(t.Context(), admin.EventOptions{Follow: true}, func(*admin.Event) error { first <- struct{}{}; return nil })
	}()
	<-first
	// One that reads nothing does not hold the node up.
	c := dial(t, dir)
	if _, err := io.WriteString(c, "GET /v1/runs/103/logs HTTP/1.1\r\n"+current+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, admin.ErrStopping) || err.Error() != "the node stops" {
		t.Errorf("the stream ended with %v", err)
	}
	if n := s.Active(); n != 0 {
		t.Errorf("%d calls go on after the end", n)
	}
}

// answers serves fixed bytes to everybody who asks, in the place of a node.
func answers(t *testing.T, response string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, admin.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, response)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return dir
}

func TestTheClientBelievesNoAnswerThatIsNotANodes(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nV6node-Admin-Protocol: 1\r\nConnection: close\r\n\r\n"
	for _, c := range []struct {
		what, response string
		kind           error
		says           string
	}{
		{"something else", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", admin.ErrProtocol, "is not a v6node"},
		{"a newer node", "HTTP/1.1 200 OK\r\nV6node-Admin-Protocol: 2\r\nV6node-Version: 9.9\r\nContent-Length: 2\r\n\r\n{}", admin.ErrProtocol, `v6node "9.9") speaks version "2"`},
		{"an end in between", ok + `{"item":{"id":5}}` + "\n", admin.ErrDown, "ended before"},
		{"half a line", ok + `{"item":{"id":5`, admin.ErrDown, "ended before"},
		{"no JSON", ok + "item\n", admin.ErrProtocol, "cannot be read"},
		{"a line without end", ok + strings.Repeat("x", 5<<20), admin.ErrProtocol, "longer than"},
		{"no answer", "", admin.ErrDown, "ended before"},
		{"a page", "HTTP/1.1 500 Oops\r\nV6node-Admin-Protocol: 1\r\nContent-Length: 4\r\n\r\nbody", admin.ErrInternal, "500"},
		{"an error of a kind to come", "HTTP/1.1 418 Tea\r\nV6node-Admin-Protocol: 1\r\nContent-Length: 43\r\n\r\n" + `{"error":{"kind":"teapot","message":"tea"}}`, admin.ErrInternal, "tea"},
	} {
		client := admin.NewClient(answers(t, c.response))
		err := client.Runs(t.Context(), admin.RunQuery{}, func(*admin.Run) error { return nil })
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v with %q", c.what, err, c.kind, c.says)
		}
	}
}
