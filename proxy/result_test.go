package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/v6node/v6node/proxy/internal/jsonstream"
)

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func rewriteTask(a *API, r io.Reader, w io.Writer) error {
	t := &taskBody{a: a, ctx: bg, c: jsonstream.New(r, w)}
	return t.rewrite()
}

func mustEncrypt(t testing.TB, key, plain string) string {
	t.Helper()
	enc, err := keyOf(key).Public().Encrypt([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return enc
}

func serveBody(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Etag", `"x"`)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestEachResultOfAPageIsDecrypted(t *testing.T) {
	uuid := "0f0e0d0c-0b0a-0908-0706-050403020100"
	page := fmt.Sprintf(`{"data":[{"id":3,"result":%q,"run":{"id":3,"result":"not ours"}},{"id":2,"result":null},{"id":1,"result":""},{"id":0,"result":%q},{"result":%q}],
		"links":{"first":"/api/result?task_id=1&page=1","next":"/api/result?task_id=1&page=2","result":"x"}}`,
		mustEncrypt(t, "own", `{"average":41.5}`), uuid, strings.ReplaceAll(mustEncrypt(t, "own", b64of(`{"ui":1}`)), "/", `/`))
	page = strings.ReplaceAll(page, "$", `\u0024`) // another way to write the same string
	f := newFixture(t, serveBody(200, page), encrypted)
	r := f.do("GET", "/result?task_id=1&page=1", "", "Accept-Encoding: gzip")
	if r.Status != 200 || r.Header.Get("Etag") != "" || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%+v", r)
	}
	want := fmt.Sprintf(`{"data":[{"id":3,"result":%q,"run":{"id":3,"result":"not ours"}},{"id":2,"result":null},{"id":1,"result":""},{"id":0,"result":%q},{"result":%q}],"links":{"first":"/api/result?task_id=1&page=1","next":"/api/result?task_id=1&page=2","result":"x"}}`,
		b64of(`{"average":41.5}`), uuid, b64of(`{"ui":1}`))
	if r.Body != want {
		t.Errorf("got  %s\nwant %s", r.Body, want)
	}
	if got := f.requests(); len(got) != 1 || got[0].URI != "/api/result?task_id=1&page=1" || got[0].Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("the server saw %+v", got)
	}
}

func TestASingleResultIsDecrypted(t *testing.T) {
	f := newFixture(t, serveBody(200, fmt.Sprintf(`{"id":3,"result":%q}`, mustEncrypt(t, "own", `17`))), encrypted)
	if r := f.do("GET", "/result/3", ""); r.Status != 200 || r.Body != `{"id":3,"result":"MTc="}` {
		t.Fatalf("%+v", r)
	}
	list := newFixture(t, serveBody(200, fmt.Sprintf(`[{"id":3,"result":%q},null]`, mustEncrypt(t, "own", `17`))), encrypted)
	if r := list.do("GET", "/result?task_id=1", ""); r.Body != `[{"id":3,"result":"MTc="},null]` {
		t.Fatalf("%+v", r)
	}
}

func TestResultsArePassedOnWithoutEncryption(t *testing.T) {
	body := `{"data": [{"result": "e30="}]}`
	f := newFixture(t, serveBody(200, body))
	for _, path := range []string{"/result?task_id=1", "/result/1"} {
		if r := f.do("GET", path, ""); r.Status != 200 || r.Body != body || r.Header.Get("Etag") == "" {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

func TestResultsWithoutATaskAreRefused(t *testing.T) {
	for _, options := range [][]option{nil, {encrypted}} {
		f := newFixture(t, mustNotBeAsked(t), options...)
		for _, path := range []string{"/result", "/result/", "/result?task_id=", "/result?page=1"} {
			if r := f.do("GET", path, ""); r.Status != 400 || !strings.Contains(r.msg(), "task_id") {
				t.Errorf("%s: %+v", path, r)
			}
		}
	}
}

func TestEveryResultThatCannotBeDecryptedGetsTheSameAnswer(t *testing.T) {
	// Long, because what was changed decrypts to anything, a few letters too.
	plain := `{"a":"` + strings.Repeat("long ", 50) + `"}`
	good := mustEncrypt(t, "own", plain)
	var first reply
	for name, result := range map[string]string{
		"another organization's": mustEncrypt(t, "b", plain),
		"damaged":                "A" + good[:40] + "!" + good[41:],
		"changed":                good[:50] + string([]byte{good[50] ^ 1}) + good[51:],
		"plain":                  b64of(`{"a":1, "no": "encryption at all, and long enough"}`),
		"cut":                    good[:len(good)-1],
	} {
		f := newFixture(t, serveBody(200, fmt.Sprintf(`{"data":[{"result":%q},{"result":%q}]}`, good, result)), encrypted)
		r := f.do("GET", "/result?task_id=1", "")
		if first.Body == "" {
			first = r
		}
		if r.Status != 500 || r.Body != first.Body || !strings.Contains(r.msg(), "cannot be decrypted") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestAnAnswerThatIsNoJSONIsTheServersFault(t *testing.T) {
	for _, body := range []string{``, `{"data":[{"result":"`, `<html>`, `{} {}`} {
		f := newFixture(t, serveBody(200, body), encrypted)
		if r := f.do("GET", "/result?task_id=1", ""); r.Status != 502 {
			t.Errorf("%q: %+v", body, r)
		}
	}
	f := newFixture(t, serveBody(404, `{"msg":"no such task"}`), encrypted)
	if r := f.do("GET", "/result?task_id=1", ""); r.Status != 404 || r.msg() != "no such task" {
		t.Errorf("%+v", r)
	}
}

func TestALongResultIsDecryptedWhileItPasses(t *testing.T) {
	plain := `{"values":"` + strings.Repeat("very-secret ", 1<<20) + `"}`
	body := fmt.Sprintf(`{"data":[{"id":1,"result":%q},{"id":2,"result":%q}]}`, mustEncrypt(t, "own", plain), mustEncrypt(t, "own", "2"))
	f := newFixture(t, serveBody(200, body), encrypted)
	r := f.do("GET", "/result?task_id=1", "")
	var page struct{ Data []struct{ Result []byte } }
	if err := json.Unmarshal([]byte(r.Body), &page); err != nil || len(page.Data) != 2 || string(page.Data[0].Result) != plain || string(page.Data[1].Result) != "2" {
		t.Fatalf("%d bytes, %v", len(r.Body), err)
	}
}

func FuzzResultBody(f *testing.F) {
	key := keyOf("own")
	enc := mustEncrypt(f, "own", `{"a":1}`)
	f.Add(`{"data":[{"result":"` + enc + `"}]}`)
	f.Add(`{"result":"` + enc + `"}`)
	f.Add(`[{"result":"x"},1,{"result":null}]`)
	f.Add(`{"data":{"result":"` + enc + `"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var out bytes.Buffer
		b := &resultBody{key: key, c: jsonstream.New(strings.NewReader(text), &out)}
		if b.rewrite() == nil && !json.Valid(out.Bytes()) {
			t.Fatalf("%s became %s", text, &out)
		}
	})
}
