package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/v6node/v6node/node/image/hosts"
)

// listed lets a registry list referrers page by page: page answers for each number, from 0 on. It returns how many were asked for.
func (f *fixture) listed(page func(w http.ResponseWriter, r *http.Request, n int)) *atomic.Int64 {
	asked := new(atomic.Int64)
	f.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		asked.Add(1)
		n, _ := strconv.Atoi(r.URL.Query().Get("last"))
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		page(w, r, n)
		return true
	})
	return asked
}

// pageOf is one page of a list.
func pageOf(t testing.TB, all ...v1.Descriptor) string {
	t.Helper()
	text, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: all})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// signedFixture is a registry with a signed image. What the registry tells of the signature, desc, is for the test to say.
func signedFixture(t testing.TB) (f *fixture, desc v1.Descriptor, check func() error) {
	t.Helper()
	key, keys := loadKey(t)
	f = newFixture(t)
	f.push(t, "org/algo:v1", testImage(t, "amd64", "algo"))
	r := newResolver(t, Options{})
	res := resolve(t, r, f.host+"/org/algo:v1")
	f.refer(t, "org/algo", res.Digest, false, func(d *v1.Descriptor) { desc = *d }, bundleOf(t, key, res.Digest, signPredicate))
	return f, desc, func() error {
		by, err := r.Signed(t.Context(), res, keys)
		if err == nil && by != "k.pub" {
			t.Errorf("signed by %q", by)
		}
		return err
	}
}

func TestASignatureOnALaterPageOfTheListCounts(t *testing.T) {
	f, desc, check := signedFixture(t)
	other := desc
	other.Digest.Hex, other.ArtifactType = strings.Repeat("0", 64), "application/spdx+json"
	for name, link := range map[string]string{
		"an absolute address":    `<http://` + f.host + `%[1]s?last=%[2]d>; rel="next"`,
		"an absolute path":       `<%[1]s?last=%[2]d>; rel="next"`,
		"a query":                `<?last=%[2]d>;rel=next`,
		"several links":          `</first>; rel="first", <%[1]s?last=%[2]d>; title="a, \"b\"; c"; rel="alternate NEXT", </last>; rel=last`,
		"the host in capitals":   `<HTTP://` + strings.ToUpper(f.host) + `%[1]s?last=%[2]d>; rel="next"`,
		"a relation given twice": `<%[1]s?last=%[2]d>; rel=next; rel=prev`,
	} {
		asked := f.listed(func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 2 {
				fmt.Fprint(w, pageOf(t, desc))
				return
			}
			w.Header().Set("Link", fmt.Sprintf(link, r.URL.Path, n+1))
			fmt.Fprint(w, pageOf(t, other))
		})
		if err := check(); err != nil || asked.Load() != 3 {
			t.Errorf("%s: %v after %d pages", name, err, asked.Load())
		}
	}
}

func TestAListOfReferrersThatIsNotReadToItsEndIsAnError(t *testing.T) {
	f, desc, check := signedFixture(t)
	foreign := newFixture(t)
	text := pageOf(t, desc) // the signature itself is on the first page: nothing of such a list counts
	more := func(w http.ResponseWriter, target string) { w.Header().Set("Link", "<"+target+`>; rel="next"`) }
	for _, c := range []struct {
		name, says string
		most       int64
		page       func(w http.ResponseWriter, r *http.Request, n int)
	}{
		{"a page that is its own next one", "lead in a circle", 1, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, r.URL.String())
		}},
		{"an empty address", "lead in a circle", 1, func(w http.ResponseWriter, r *http.Request, n int) { more(w, "") }},
		{"a circle", "lead in a circle", 4, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, fmt.Sprintf("?last=%d", n%3+1))
		}},
		{"pages without end", "more than 64 pages", maxPages, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, fmt.Sprintf("?last=%d", n+1))
		}},
		{"bytes without end", "longer than 4 MiB", 4, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, fmt.Sprintf("?last=%d", n+1))
			fmt.Fprint(w, strings.Repeat(" ", 1<<20))
		}},
		{"another host", "only those at http://" + f.host + " are read", 1, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, "http://"+foreign.host+r.URL.Path+"?last=1")
		}},
		{"another host without a scheme", "only those at", 1, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, "//registry.example.org"+r.URL.Path)
		}},
		{"another scheme", "only those at", 1, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, "https://"+f.host+r.URL.Path+"?last=1")
		}},
		{"a user", "only those at", 1, func(w http.ResponseWriter, r *http.Request, n int) {
			more(w, "http://a:b@"+f.host+r.URL.Path+"?last=1")
		}},
		{"an address that is none", "an address that cannot be read", 1, func(w http.ResponseWriter, r *http.Request, n int) { more(w, "http://[") }},
		{"a header that is none", "the header Link", 1, func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("Link", r.URL.Path+`?last=1; rel="next"`)
		}},
		{"a redirect", "page 2: HTTP 307", 2, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				http.Redirect(w, r, "http://"+foreign.host+"/", http.StatusTemporaryRedirect)
			}
			more(w, "?last=1")
		}},
		{"a page that is not there", "page 2: HTTP 404", 2, func(w http.ResponseWriter, r *http.Request, n int) {
			if more(w, "?last=1"); n == 1 {
				w.WriteHeader(http.StatusNotFound)
			}
		}},
		{"a page that fails", "HTTP 500", 2, func(w http.ResponseWriter, r *http.Request, n int) {
			if more(w, "?last=1"); n == 1 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}},
		{"a page that is no list", "page 3 is no image index", 3, func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 2 {
				fmt.Fprint(w, "<html>")
				return
			}
			more(w, fmt.Sprintf("?last=%d", n+1))
		}},
	} {
		asked := f.listed(func(w http.ResponseWriter, r *http.Request, n int) {
			c.page(w, r, n)
			fmt.Fprint(w, text)
		})
		if err := check(); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), c.says) || asked.Load() != c.most {
			t.Errorf("%s: %v, after %d pages", c.name, err, asked.Load())
		}
	}
	if n := foreign.requests.Load(); n != 0 {
		t.Errorf("the other host was asked %d times", n)
	}
}

func TestPagesOfAListAreReadWithTheLoginOfTheFirst(t *testing.T) {
	f, desc, _ := signedFixture(t)
	const secret = "Basic YWxpY2U6cHc="
	f.listed(func(w http.ResponseWriter, r *http.Request, n int) {
		if got := r.Header.Get("X-Mirror") + " " + r.Header.Get("Authorization") + " " + r.URL.Query().Get("ns"); got != "yes "+secret+" registry.example.org" {
			t.Errorf("page %d: %s", n, got)
		}
		if n == 0 {
			w.Header().Set("Link", `<`+r.URL.Path+`?last=1>; rel="next"`)
		}
		fmt.Fprint(w, pageOf(t, desc))
	})
	at := addressed{&place{Host: hosts.Host{Scheme: "http", Host: f.host, Path: "/v2/under", Mirror: true, Header: http.Header{"X-Mirror": {"yes"}}},
		domain: "registry.example.org", inner: paged{http.DefaultTransport}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.host+"/v2/org/algo/referrers/"+desc.Digest.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", secret)
	resp, err := at.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	list, err := v1.ParseIndexManifest(resp.Body)
	if err != nil || len(list.Manifests) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestOnlyListsOfReferrersHavePages(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Link", `</v2/x/referrers/y?last=1>; rel="next"`)
		fmt.Fprint(w, "{}")
	}))
	defer s.Close()
	for _, p := range []string{"/v2/referrers/manifests/latest", "/v2/a/referrers/b/manifests/latest", "/v2/referrers/blobs/x", "/v2/", "/"} {
		asked.Store(0)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+p, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := paged{http.DefaultTransport}.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(text) != "{}" || asked.Load() != 1 {
			t.Errorf("%s: %s, %v, %d requests", p, text, err, asked.Load())
		}
	}
}

func FuzzNextLink(f *testing.F) {
	for _, s := range []string{`<a>; rel="next"`, `<a>;rel=prev, <b> ; title="\"," ; rel = "x next"`, `<`, `<>;`, `<a>;rel="`, `a`, `<a>b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, found, err := nextLink([]string{s})
		if found && (err != nil || !strings.Contains(s, "<"+target+">") || !strings.Contains(strings.ToLower(s), "next")) || !found && target != "" {
			t.Errorf("%q: %q, %v, %v", s, target, found, err)
		}
	})
}
