package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

const someBlob = "9d4ab5f2-0f0c-4d3c-9a43-0e5f1d1f6a10"

// blobAnswer sends a blob as the server does, without a length.
func blobAnswer(content string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, content)
	}
}

func readBlob(t *testing.T, v *V4, id string) (string, error) {
	t.Helper()
	var got bytes.Buffer
	err := v.ReadBlob(within(t), id, func(r io.Reader) error {
		got.Reset()
		_, err := got.ReadFrom(r)
		return err
	})
	return got.String(), err
}

func TestABlobIsAskedForByItsNameAndNothingElse(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	f.on("GET /blobstream/"+someBlob, blobAnswer("content"))
	for _, id := range []string{someBlob, `"` + someBlob + `"`} {
		if got, err := readBlob(t, v, id); err != nil || got != "content" {
			t.Errorf("%s: %q, %v", id, got, err)
		}
	}
	f.mu.Lock()
	if h := f.headers[len(f.headers)-1]; h.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("asked with %v", h)
	}
	f.mu.Unlock()
	for _, id := range []string{
		"", "status", "../organization/2", strings.ToUpper(someBlob), strings.ReplaceAll(someBlob, "-", ""), someBlob + "/", someBlob[:35] + "?",
		"9d4ab5f2-0f0c-4d3c-9a43-0e5f1d1f6a1 ", "eyJtZXRob2QiOiJjZW50cmFsIn0=",
	} {
		before := len(f.asked("GET"))
		if _, err := readBlob(t, v, id); !errors.Is(err, ErrNoBlobID) {
			t.Errorf("%q: %v", id, err)
		}
		if len(f.asked("GET")) != before {
			t.Errorf("the server was asked for %q", id)
		}
	}
}

func TestWhatEndsABlobIsToldApart(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	own := errors.New("the disk is full")
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		out     func(io.Reader) error
		passing bool
		want    error
	}{
		"a gateway's page": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		}, passing: true, want: ErrNotAPI},
		"the connection breaks": {answer: func(w http.ResponseWriter, r *http.Request) {
			blobAnswer("half")(w, r)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, passing: true, want: ErrUnreachable},
		"no such blob":     {answer: msg(404, "No run found")},
		"no blob store":    {answer: msg(501, "not available")},
		"the store failed": {answer: msg(500, "Error streaming result!"), passing: true},
		"an error of ours": {answer: blobAnswer("content"), out: func(io.Reader) error { return own }, want: own},
		"an end of ours":   {answer: blobAnswer("content"), out: func(io.Reader) error { return io.ErrUnexpectedEOF }, want: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			f.on("GET /blobstream/"+someBlob, c.answer)
			out := c.out
			if out == nil {
				out = func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
			}
			err := v.ReadBlob(within(t), someBlob, out)
			if again, _ := Passing(err); err == nil || again != c.passing || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("passing %v: %v", again, err)
			}
		})
	}
}

func TestABlobIsStoredWithoutALengthAndOnceMoreAfterANewToken(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	var stored, opened, closed int
	f.on("POST /blobstream", func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != -1 || r.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("length %d, header %v", r.ContentLength, r.Header)
		}
		b, _ := io.ReadAll(r.Body)
		if string(b) != strings.Repeat("x", 3<<20) {
			t.Errorf("%d bytes arrived", len(b))
		}
		stored++
		reply(w, 201, map[string]string{"uuid": someBlob})
	})
	source := func() (io.ReadCloser, error) {
		opened++
		return closing{strings.NewReader(strings.Repeat("x", 3<<20)), &closed}, nil
	}
	for want := 1; want <= 2; want++ {
		id, err := v.WriteBlob(within(t), source)
		if err != nil || id != someBlob || stored != want {
			t.Fatalf("%q, %v, stored %d times", id, err, stored)
		}
		tok, err := v.tokens.get(within(t), "", false)
		if err != nil {
			t.Fatal(err)
		}
		f.revoke(tok.access)
	}
	if opened != 3 || closed != opened {
		t.Errorf("opened %d times, closed %d times", opened, closed)
	}
}

type closing struct {
	io.Reader
	n *int
}

func (c closing) Close() error { *c.n++; return nil }

func TestABlobThatIsNotStoredHasNoName(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	own := errors.New("the result is gone")
	text := func(r io.Reader) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(r), nil }
	}
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		source  func() (io.ReadCloser, error)
		passing bool
		want    error
	}{
		"full":             {answer: msg(500, "Error uploading result!"), passing: true},
		"no blob store":    {answer: msg(501, "not available")},
		"no name":          {answer: func(w http.ResponseWriter, _ *http.Request) { reply(w, 201, map[string]string{"uuid": "../x"}) }, want: ErrNoBlobID},
		"a page":           {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, passing: true, want: ErrNotAPI},
		"no source":        {source: func() (io.ReadCloser, error) { return nil, own }, want: own},
		"a broken source":  {source: text(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(own))), want: own},
		"a source cut off": {source: text(iotest.ErrReader(io.ErrUnexpectedEOF)), want: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			f.on("POST /blobstream", func(w http.ResponseWriter, r *http.Request) {
				if c.answer == nil {
					t.Error("the server took half a blob for a whole one")
					return
				}
				c.answer(w, r)
			})
			source := c.source
			if source == nil {
				source = text(strings.NewReader("content"))
			}
			id, err := v.WriteBlob(within(t), source)
			if again, _ := Passing(err); err == nil || id != "" && c.want != ErrNoBlobID || again != c.passing || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%q, passing %v: %v", id, again, err)
			}
		})
	}
}
