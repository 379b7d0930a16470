package standin

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// fetch makes a request and returns the answer with its body read.
func (w *actor) fetch(method, path string, body io.Reader) (*http.Response, string, error) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(within(w.t), method, w.s.URL()+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

func TestABlobIsReadThroughTheRunThatNamesItAndTellsNoLength(t *testing.T) {
	sc := newScene(t, false, Options{BlobStore: true})
	r, err := NewResearcher(within(t), sc.s.URL(), "ada", "secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	id, err := r.StoreBlob(within(t), nil, func() io.Reader { return strings.NewReader(`{"method":"noop"}`) })
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(sc.s.BlobFile(id)); err != nil || string(b) != base64.StdEncoding.EncodeToString([]byte(`{"method":"noop"}`)) {
		t.Errorf("the blob of an open collaboration is %q, %v", b, err)
	}
	sc.nodeA.must(404, "GET", "/blobstream/"+id, nil)
	task, err := r.CreateTask(within(t), TaskSpec{Image: "reg/algo:1", Collaboration: sc.collab, Organizations: []int64{sc.a}, RawInputs: map[int64]string{sc.a: id}})
	if err != nil {
		t.Fatal(err)
	}
	run := sc.s.RunsOf(task)[0].ID
	if o := sc.nodeA.must(200, "GET", runPath(run), nil); o["input"] != id || o["blob_storage_used"] != true {
		t.Errorf("the run: %v", o)
	}
	resp, text, err := sc.nodeA.fetch("GET", "/blobstream/"+id, nil)
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != -1 || resp.Header.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(text, "ey") {
		t.Errorf("%v %+v %q", err, resp, text)
	}
	sc.nodeA.must(200, "PATCH", runPath(run), object{"result": id, "status": "completed", "finished_at": when})
	if list, err := r.Results(within(t), task); err != nil || string(list[0].Data) != `{"method":"noop"}` {
		t.Errorf("%+v, %v", list, err)
	}
	sc.s.SetBlobStore(false)
	sc.nodeA.must(http.StatusNotImplemented, "GET", "/blobstream/"+id, nil)
	sc.s.SetBlobStore(true)
	if err := os.Remove(sc.s.BlobFile(id)); err != nil {
		t.Fatal(err)
	}
	sc.nodeA.must(500, "GET", "/blobstream/"+id, nil)
}

func TestABlobThatBreaksOffOrFindsNoRoomIsNotStored(t *testing.T) {
	sc := newScene(t, false, Options{BlobStore: true})
	if _, _, err := sc.nodeA.fetch("POST", "/blobstream", io.MultiReader(strings.NewReader("half"), brokenReader{})); err == nil {
		t.Error("an upload that broke off had an answer")
	}
	sc.s.LimitBlobs(3)
	if resp, text, err := sc.nodeA.fetch("POST", "/blobstream", strings.NewReader("four")); err != nil || resp.StatusCode != 500 || !strings.Contains(text, "Error uploading result!") {
		t.Errorf("%v %+v %q", err, resp, text)
	}
	sc.s.LimitBlobs(0)
	sc.nodeA.must(201, "POST", "/blobstream", "four")
	dir := sc.s.blobs.dir
	if err := sc.s.wait(within(t), func() bool { // the handler of the first may still be at its end
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 1
	}); err != nil {
		t.Error(err)
	}
	sc.s.Close()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the blobs are left: %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }
