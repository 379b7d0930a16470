package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestConnectLogsInAndLearnsWhoTheNodeIs(t *testing.T) {
	f := newFake(t).start()
	v := f.node(func(c *Config) { c.Version = "1.2.3" })
	id, err := v.Connect(within(t))
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{NodeID: nodeID, OrganizationID: orgID, CollaborationID: collab, NodeName: "alpha",
		OrganizationName: "Alpha hospital", CollaborationName: "study", Encrypted: true}
	if *id != want {
		t.Errorf("got %+v", *id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	order := []string{`POST /token/node {"api_key":"` + goodKey + `"}`, "GET /node/6", "GET /organization/2", "GET /collaboration/1"}
	if got := strings.Join(f.seen, "\n"); got != strings.Join(order, "\n") {
		t.Errorf("requests:\n%s", got)
	}
	if f.headers[0].Get("Authorization") != "" {
		t.Error("the login carries a token")
	}
	for _, h := range f.headers {
		if h.Get("User-Agent") != "v6node/1.2.3" || h.Values("Idempotency-Key") != nil {
			t.Errorf("headers %v", h)
		}
	}
}

func TestABadKeyIsPermanentAndOtherRefusalsAreNot(t *testing.T) {
	f := newFake(t).start()
	_, err := f.node(func(c *Config) { c.APIKey = "wrong" }).Connect(within(t))
	if !errors.Is(err, ErrBadAPIKey) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("got %v", err)
	}
	if again, _ := Retryable(err); again {
		t.Error("a bad key is retryable")
	}
	f.on("POST /token/node", msg(401, "gateway: log in first"))
	if _, err = f.node(nil).Connect(within(t)); err == nil || errors.Is(err, ErrBadAPIKey) {
		t.Errorf("a gateway's refusal is taken for a bad key: %v", err)
	}
	f.on("POST /token/node", msg(503, "starting"))
	_, err = f.node(nil).Connect(within(t))
	if again, _ := Retryable(err); !again || errors.Is(err, ErrBadAPIKey) {
		t.Errorf("got %v", err)
	}
}

func TestAServerThatIsAwayIsUnreachable(t *testing.T) {
	f := newFake(t).start()
	v := f.node(nil)
	f.srv.Close()
	_, err := v.Connect(within(t))
	if !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	if again, _ := Retryable(err); !again {
		t.Error("not retryable")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = v.Connect(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("the end of the context is reported as %v", err)
	}
}

func TestWhatIsNotTheAPIIsNamed(t *testing.T) {
	f := newFake(t).start()
	f.on("POST /token/node", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome</html>") })
	_, err := f.node(nil).Connect(within(t))
	if err == nil || !strings.Contains(err.Error(), "api_path") {
		t.Errorf("got %v", err)
	}
	_, err = f.node(func(c *Config) { c.APIPath = "/wrong" }).Connect(within(t))
	if err == nil || !strings.Contains(err.Error(), "check server_url, port and api_path") {
		t.Errorf("got %v", err)
	}
	f.on("POST /token/node", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://other.example/api/token/node", http.StatusMovedPermanently)
	})
	_, err = f.node(nil).Connect(within(t))
	if err == nil || !strings.Contains(err.Error(), "redirected to https://other.example") {
		t.Errorf("got %v", err)
	}
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestTheTokenIsRefreshedTenMinutesBeforeItExpires(t *testing.T) {
	f := newFake(t).start()
	v := f.node(nil)
	c := &clock{t: time.Now().Add(1000 * time.Hour)} // a clock that is wrong by far
	v.now = c.now
	if _, err := v.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	c.add(6*time.Hour - 601*time.Second)
	if _, err := v.OrganizationKey(within(t), orgID); err != nil {
		t.Fatal(err)
	}
	if l, r := f.count(); l != 1 || r != 0 {
		t.Fatalf("too early: %d logins, %d refreshs", l, r)
	}
	c.add(2 * time.Second)
	if _, err := v.OrganizationKey(within(t), orgID); err != nil {
		t.Fatal(err)
	}
	if l, r := f.count(); l != 1 || r != 1 {
		t.Fatalf("%d logins, %d refreshs", l, r)
	}
}

func TestADeadRefreshTokenLeadsToALoginWithTheKey(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("POST /token/refresh", msg(401, "Token has expired"))
	old, err := v.tokens.get(within(t), "", false)
	if err != nil {
		t.Fatal(err)
	}
	f.revoke(old.access)
	if _, err := v.OrganizationKey(within(t), orgID); err != nil {
		t.Fatal(err)
	}
	if l, _ := f.count(); l != 2 {
		t.Fatalf("%d logins", l)
	}
	if n := len(f.asked("POST /token/refresh")); n != 1 {
		t.Fatalf("%d refreshs", n)
	}
}

func TestARefusedCallIsRepeatedOnceWithANewToken(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	for _, code := range []int{401, 422} {
		refuse := true
		before, refreshsBefore := f.count()
		f.on("PATCH /run/9", func(w http.ResponseWriter, r *http.Request) {
			if refuse {
				refuse = false
				msg(code, "Signature verification failed")(w, r)
				return
			}
			reply(w, 200, map[string]any{"id": 9})
		})
		if err := v.MarkActive(within(t), 9); err != nil {
			t.Fatalf("%d: %v", code, err)
		}
		if l, r := f.count(); l != before || r != refreshsBefore+1 {
			t.Fatalf("%d: %d logins, %d refreshs", code, l-before, r-refreshsBefore)
		}
	}
	f.on("PATCH /run/10", msg(401, "You lack the permission to do that!"))
	err := v.MarkActive(within(t), 10)
	var se *StatusError
	if !errors.As(err, &se) || se.Code != 401 || se.Retryable() {
		t.Fatalf("got %v", err)
	}
	if n := len(f.asked("PATCH /run/10")); n != 2 {
		t.Fatalf("%d tries", n)
	}
}

func TestAValidTokenIsUsedOnWhileTheServerCannotRenewIt(t *testing.T) {
	f := newFake(t).start()
	v := f.node(nil)
	c := &clock{t: time.Now()}
	v.now = c.now
	if _, err := v.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	f.on("POST /token/refresh", msg(502, ""))
	c.add(6*time.Hour - 5*time.Minute)
	for range 3 {
		if _, err := v.OrganizationKey(within(t), orgID); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.asked("POST /token/refresh")); n != 1 {
		t.Fatalf("%d tries to refresh within half a minute", n)
	}
	c.add(10 * time.Minute)
	if _, err := v.OrganizationKey(within(t), orgID); err == nil {
		t.Fatal("an expired token is used")
	}
}

func TestOneCallerFetchesTheTokenForAll(t *testing.T) {
	for _, outcome := range []error{nil, fmt.Errorf("%w: away", ErrUnreachable)} {
		synctest.Test(t, func(t *testing.T) {
			logins := 0
			tk := newTokens(func(context.Context) (token, error) {
				logins++
				time.Sleep(time.Second) // virtual time: all callers are waiting then
				return token{access: "a", node: 1, expires: time.Now().Add(time.Hour), renew: time.Now().Add(time.Hour)}, outcome
			}, nil, time.Now, slog.New(slog.DiscardHandler))
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := tk.get(t.Context(), "", false); !errors.Is(err, outcome) {
						t.Errorf("got %v, want %v", err, outcome)
					}
				})
			}
			wg.Wait()
			if logins != 1 {
				t.Errorf("%d logins for 20 callers", logins)
			}
		})
	}
}

func TestACallerThatGivesUpDoesNotSpoilTheTokenForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		tk := newTokens(func(ctx context.Context) (token, error) {
			if first {
				first = false
				<-ctx.Done()
				return token{}, ctx.Err()
			}
			return token{access: "a", renew: time.Now().Add(time.Hour)}, nil
		}, nil, time.Now, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := tk.get(ctx, "", false); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got, err := tk.get(t.Context(), "", false); err != nil || got.access != "a" {
				t.Errorf("got %v, %v", got, err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

func TestTokensThatAreNotAnIntegerNodesAreRefused(t *testing.T) {
	enc := func(claims string) string { return "e30." + b64(claims) + ".c2ln" }
	for _, bad := range []string{"", "a.b", "a.!.c", enc(`[]`), enc(`{"sub":{"node_id":1}}`), enc(`{"sub":0}`), enc(`{}`)} {
		if _, err := newToken(bad, "", time.Now(), time.Minute); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	start := time.Unix(1000, 0)
	got, err := newToken(enc(`{"sub":6,"iat":50,"exp":650}`), "r", start, 600*time.Second)
	if err != nil || got.node != 6 || !got.expires.Equal(start.Add(600*time.Second)) || !got.renew.Equal(start.Add(300*time.Second)) {
		t.Errorf("a token that lives no longer than the margin is renewed at half its life: got %+v, %v", got, err)
	}
}
