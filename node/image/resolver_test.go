package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestATagBecomesTheDigestThatRunsHere(t *testing.T) {
	f := newFixture(t)
	digest := f.push(t, "org/algo:v1", testImage(t, "amd64", "one"))
	r := newResolver(t, Options{})
	ref := f.host + "/org/algo:v1"
	want := Resolved{Reference: ref, Repository: f.host + "/org/algo", Digest: digest, Pinned: f.host + "/org/algo@" + digest}
	if got := resolve(t, r, ref); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	byDigest := f.host + "/org/algo@" + digest
	if got := resolve(t, r, byDigest); got.Digest != digest || got.Pinned != byDigest {
		t.Errorf("by digest: %+v", got)
	}
	// The tag beside a digest means nothing.
	if got := resolve(t, r, f.host+"/org/algo:other@"+digest); got.Pinned != byDigest {
		t.Errorf("by tag and digest: %+v", got)
	}
}

func TestAnIndexNeedsAPartForThisPlatform(t *testing.T) {
	f := newFixture(t)
	good := f.push(t, "multi:latest", testIndex(t, "amd64", "linux/arm64", "linux/amd64", "unknown/unknown"))
	unlabelled := f.push(t, "unlabelled:latest", testIndex(t, "amd64", ""))
	f.push(t, "arm:latest", testIndex(t, "arm64", "linux/arm64", "windows/amd64"))
	f.push(t, "armunlabelled:latest", testIndex(t, "arm64", ""))
	f.push(t, "armsingle:latest", testImage(t, "arm64", ""))
	f.push(t, "empty:latest", testIndex(t, "amd64"))
	r := newResolver(t, Options{})
	for repo, want := range map[string]string{"multi": good, "unlabelled": unlabelled} {
		if got := resolve(t, r, f.host+"/"+repo); got.Digest != want {
			t.Errorf("%s: %+v, want the index's digest %s", repo, got, want)
		}
	}
	for _, repo := range []string{"arm", "armunlabelled", "armsingle", "empty"} {
		_, err := r.Resolve(t.Context(), f.host+"/"+repo)
		if !errors.Is(err, ErrWrongPlatform) || !strings.Contains(err.Error(), "linux/amd64") {
			t.Errorf("%s: %v, want ErrWrongPlatform that names linux/amd64", repo, err)
		}
	}
}

func TestWhatIsNoContainerImageIsInvalid(t *testing.T) {
	f := newFixture(t)
	f.push(t, "artifact:latest", mutate.ConfigMediaType(testImage(t, "amd64", ""), "application/vnd.example+json"))
	f.push(t, "artifacts:latest", mutate.AppendManifests(testIndex(t, "amd64"), mutate.IndexAddendum{Add: mutate.ConfigMediaType(testImage(t, "amd64", ""), types.MediaType("application/x"))}))
	r := newResolver(t, Options{})
	for _, ref := range []string{f.host + "/artifact", f.host + "/artifacts", "FOO/bar", "", "a b", "x@sha256:12"} {
		if _, err := r.Resolve(t.Context(), ref); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", ref, err)
		}
	}
}

func TestWhatIsNoReferenceIsInvalidWithoutAsking(t *testing.T) {
	for _, ref := range []string{"FOO/bar", "", "a b", "x@sha256:12"} {
		if err := Check(ref); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", ref, err)
		}
	}
	if err := Check("nobody.invalid/algo:v1"); err != nil {
		t.Error(err)
	}
}

func TestFailuresHaveKindsAndSentences(t *testing.T) {
	f := newFixture(t)
	digest := f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	status := func(code int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v2/" {
				return false
			}
			w.WriteHeader(code)
			fmt.Fprint(w, body)
			return true
		}
	}
	ok := func(http.ResponseWriter, *http.Request) bool { return false }
	for _, c := range []struct {
		name   string
		ref    string
		answer func(http.ResponseWriter, *http.Request) bool
		want   error
	}{
		{"missing tag", f.host + "/org/algo:v2", ok, ErrNotFound},
		{"missing repository", f.host + "/org/other", ok, ErrNotFound},
		{"missing digest", f.host + "/org/algo@sha256:" + strings.Repeat("0", 64), ok, ErrNotFound},
		{"denied", f.host + "/org/algo:v1", status(403, `{"errors":[{"code":"DENIED","message":"no"}]}`), ErrDenied},
		{"login needed", f.host + "/org/algo:v1", status(401, ``), ErrDenied},
		{"server error", f.host + "/org/algo:v1", status(500, `oops`), ErrUnreachable},
		{"down for a while", f.host + "/org/algo:v1", status(503, ``), ErrUnreachable},
		{"too many requests", f.host + "/org/algo:v1", status(429, ``), ErrUnreachable},
		{"name invalid", f.host + "/org/algo:v1", status(400, `{"errors":[{"code":"NAME_INVALID"}]}`), ErrInvalid},
		{"nobody listens", closed.Addr().String() + "/org/algo:v1", ok, ErrUnreachable},
		{"rubbish", f.host + "/org/algo:v1", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			fmt.Fprint(w, "<html>captive portal</html>")
			return true
		}, ErrInvalid},
		{"other bytes than the digest", f.host + "/org/algo@" + digest, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			fmt.Fprint(w, "{}")
			return true
		}, ErrInvalid},
		{"endless answer", f.host + "/org/algo@" + digest, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return true
				}
			}
			return true
		}, ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.answer(c.answer)
			r := newResolver(t, Options{})
			_, err := r.Resolve(t.Context(), c.ref)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if s := err.Error(); !strings.Contains(s, "algo") && !strings.Contains(s, "other") || !strings.Contains(s, "; ") || strings.Contains(s, "\n") {
				t.Errorf("%q is not one sentence that names the image and what to do", s)
			}
		})
	}
}

func TestARegistryIsAskedWithItsOwnLoginOnly(t *testing.T) {
	f := newFixture(t)
	digest := f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	f.requireLogin("alice", "s3cret")
	ref := f.host + "/org/algo:v1"
	for _, c := range []struct {
		name   string
		logins []Login
		want   error
	}{
		{"right", []Login{login(f.host, "alice", "s3cret")}, nil},
		{"right for the path", []Login{login(f.host, "x", "y"), login(f.host+"/org", "alice", "s3cret")}, nil},
		{"wrong password", []Login{login(f.host, "alice", "guess")}, ErrDenied},
		{"none", nil, ErrDenied},
		{"another path", []Login{login(f.host+"/or", "alice", "s3cret")}, ErrDenied},
		{"another host", []Login{login("localhost:1", "alice", "s3cret")}, ErrDenied},
	} {
		r := newResolver(t, Options{Access: withLogins(c.logins...)})
		got, err := r.Resolve(t.Context(), ref)
		if !errors.Is(err, c.want) || err == nil && got.Digest != digest {
			t.Errorf("%s: %+v, %v, want %v", c.name, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "guess") {
			t.Errorf("%s: the error shows the password: %v", c.name, err)
		}
	}
}

func TestThePullGetsTheSameLogin(t *testing.T) {
	r := newResolver(t, Options{Access: withLogins(login("docker.io", "hub", "1"), login("ghcr.io", "all", "2"), login("ghcr.io/org", "org", "3"), login("Index.docker.io/team", "team", "4"))})
	for ref, want := range map[string]string{
		"python": "hub", "index.docker.io/u/x": "hub", "team/x:1": "team", "ghcr.io/a/b": "all", "GHCR.io/org/b:1": "org", "ghcr.io/organ/b": "all",
		"quay.io/a": "", "ghcr.io:443/org/b": "", "FOO/bar": "",
	} {
		a, err := r.Auth(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if a == nil && want == "" {
			continue
		}
		if a == nil || a.Username != want {
			t.Errorf("%s is pulled as %v, want %q", ref, a, want)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", login("h", "u", "pw"), login("h", "u", "pw"), login("h", "u", "pw")); strings.Contains(s, "pw") {
		t.Errorf("a login shows its password: %s", s)
	}
}

func TestManyRunsAtOnceCostOneLookUp(t *testing.T) {
	f := newFixture(t)
	digest := f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	release := make(chan struct{})
	f.answer(func(w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return false
	})
	r := newResolver(t, Options{CacheFor: time.Hour})
	ref := f.host + "/org/algo:v1"
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := r.Resolve(t.Context(), ref); err != nil || got.Digest != digest {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	waitFor(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		fl := r.flights[ref]
		return fl != nil && fl.waiting == 20
	})
	close(release)
	wg.Wait()
	first := f.requests.Load()
	if first > 5 { // TLS is tried without reaching the handler; then ping, HEAD, GET, configuration
		t.Errorf("20 runs cost %d requests", first)
	}
	resolve(t, r, ref)
	if n := f.requests.Load(); n != first {
		t.Errorf("a cached answer cost %d requests", n-first)
	}
}

func TestAKnownDigestCostsOneRequest(t *testing.T) {
	f := newFixture(t)
	f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	r := newResolver(t, Options{CacheFor: -1})
	resolve(t, r, f.host+"/org/algo:v1")
	f.requests.Store(0)
	resolve(t, r, f.host+"/org/algo:v1")
	if n := f.requests.Load(); n != 1 {
		t.Errorf("a tag whose digest is known cost %d requests, want one HEAD", n)
	}
	moved := f.push(t, "org/algo:v1", testImage(t, "amd64", "moved"))
	if got := resolve(t, r, f.host+"/org/algo:v1"); got.Digest != moved {
		t.Errorf("the tag moved to %s, got %s", moved, got.Digest)
	}
}

func TestOneCallerGivingUpDoesNotDisturbTheOthers(t *testing.T) {
	f := newFixture(t)
	f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	release, reached, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	f.answer(func(w http.ResponseWriter, r *http.Request) bool {
		once.Do(func() { close(reached) })
		select {
		case <-release:
		case <-r.Context().Done():
			end.Do(func() { close(ended) })
		}
		return false
	})
	r := newResolver(t, Options{})
	ref := f.host + "/org/algo:v1"

	impatient, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := r.Resolve(impatient, ref); first <- err }()
	<-reached
	second := make(chan error, 1)
	go func() { _, err := r.Resolve(t.Context(), ref); second <- err }()
	waitFor(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.flights[ref].waiting == 2 })
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient caller got %v", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the patient caller got %v", err)
	}

	// When the last one gives up, the look-up itself ends.
	release, reached = make(chan struct{}), make(chan struct{})
	once = sync.Once{}
	impatient, cancel = context.WithCancel(t.Context())
	go func() { _, err := r.Resolve(impatient, f.host+"/org/algo:v9"); first <- err }()
	<-reached
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the only caller got %v", err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the request goes on although nobody waits")
	}
}

func TestASlowRegistryIsUnreachableInTime(t *testing.T) {
	f := newFixture(t)
	f.answer(func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	r := newResolver(t, Options{Timeout: 200 * time.Millisecond})
	start := time.Now()
	_, err := r.Resolve(t.Context(), f.host+"/org/algo:v1")
	if !errors.Is(err, ErrUnreachable) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestCloseEndsLookUps(t *testing.T) {
	f := newFixture(t)
	reached := make(chan struct{})
	var once sync.Once
	f.answer(func(w http.ResponseWriter, r *http.Request) bool {
		once.Do(func() { close(reached) })
		<-r.Context().Done()
		return true
	})
	r := newResolver(t, Options{})
	got := make(chan error, 1)
	go func() { _, err := r.Resolve(t.Context(), f.host+"/org/algo:v1"); got <- err }()
	<-reached
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, ErrUnreachable) {
		t.Errorf("the caller got %v", err)
	}
	if _, err := r.Resolve(t.Context(), f.host+"/org/algo:v1"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestLocalImagesAreUsedOnlyWhereTheyMayBe(t *testing.T) {
	f := newFixture(t)
	pushed := f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	here, other := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	local := func(digest string, fits, found bool) LocalFunc {
		return func(context.Context, string) (string, bool, bool) { return digest, fits, found }
	}
	for _, c := range []struct {
		name    string
		ref     string
		local   LocalFunc
		require bool
		want    string
		err     error
		network bool
	}{
		{"a digest that the runtime has", "/org/gone@" + here, local(here, true, true), true, here, nil, false},
		{"a digest of another platform", "/org/gone@" + here, local(here, false, true), true, "", ErrWrongPlatform, false},
		{"another digest than asked", "/org/gone@" + here, local(other, true, true), false, "", ErrNotFound, true},
		{"the registry goes first for a tag", "/org/algo:v1", local(here, true, true), false, pushed, nil, true},
		{"a tag that was never pushed", "/org/mine:dev", local(here, true, true), false, here, nil, true},
		{"a tag that was never pushed, pull required", "/org/mine:dev", local(here, true, true), true, "", ErrNotFound, true},
		{"nothing local", "/org/mine:dev", local("", false, false), false, "", ErrNotFound, true},
		{"nothing with a digest", "/org/mine:dev", local("image-id", true, true), false, "", ErrNotFound, true},
		{"no runtime", "/org/mine:dev", nil, false, "", ErrNotFound, true},
	} {
		f.requests.Store(0)
		r := newResolver(t, Options{Local: c.local, RequirePull: c.require})
		got, err := r.Resolve(t.Context(), f.host+c.ref)
		if !errors.Is(err, c.err) || got.Digest != c.want {
			t.Errorf("%s: %+v, %v, want %q, %v", c.name, got, err, c.want, c.err)
		}
		if asked := f.requests.Load() > 0; asked != c.network {
			t.Errorf("%s: network asked: %v, want %v", c.name, asked, c.network)
		}
	}
}

func TestAnUnreachableRegistryLeavesTheLocalImage(t *testing.T) {
	f := newFixture(t)
	f.answer(func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	here := "sha256:" + strings.Repeat("1", 64)
	r := newResolver(t, Options{Timeout: 100 * time.Millisecond, Local: func(context.Context, string) (string, bool, bool) { return here, true, true }})
	if got := resolve(t, r, f.host+"/org/algo:v1"); got.Digest != here || !got.Local {
		t.Errorf("%+v", got)
	}
}

func TestARegistryWithoutHEADIsAskedWithGET(t *testing.T) {
	f := newFixture(t)
	digest := f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	for name, answer := range map[string]func(w http.ResponseWriter){
		"405":        func(w http.ResponseWriter) { w.WriteHeader(http.StatusMethodNotAllowed) },
		"no headers": func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
	} {
		f.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead {
				return false
			}
			answer(w)
			return true
		})
		if got := resolve(t, newResolver(t, Options{}), f.host+"/org/algo:v1"); got.Digest != digest {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestPlainHTTPAndOwnServicesAreForLoopbackRegistriesOnly(t *testing.T) {
	reached := false
	inner := roundTripper(func(r *http.Request) (*http.Response, error) {
		reached = true
		return httptest.NewRecorder().Result(), nil
	})
	for _, c := range []struct {
		url      string
		loopback bool
		want     bool
	}{
		{"https://ghcr.io/v2/", false, true},
		{"http://ghcr.io/v2/", false, false},
		{"http://10.0.0.5:5000/v2/", false, false},
		{"http://127.0.0.1:5000/v2/", true, true},
		{"http://[::1]:5000/v2/", true, true},
		{"http://localhost:5000/v2/", true, true},
		{"http://127.0.0.1.example.org/v2/", true, false},
		{"https://127.0.0.1:6443/", false, false},
		{"https://localhost/", false, false},
		{"http://10.0.0.5/", true, false},
		{"https://cdn.example.org/", true, true},
	} {
		reached = false
		req := httptest.NewRequest(http.MethodGet, c.url, nil)
		resp, err := guard{inner: inner, plain: c.loopback, loopback: c.loopback}.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if (err == nil) != c.want || reached != c.want {
			t.Errorf("%s (loopback registry: %v): %v, reached %v, want %v", c.url, c.loopback, err, reached, c.want)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// waitFor polls a condition that nothing announces.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := testContext(t)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("the condition never came true")
		case <-tick.C:
		}
	}
}
