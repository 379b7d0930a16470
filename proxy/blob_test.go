package proxy

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
)

func TestBlobsAreEncryptedThereAndDecryptedBack(t *testing.T) {
	var mu sync.Mutex
	var stored []byte
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch r.Method + r.URL.Path {
		case "POST/api/blobstream":
			stored, _ = io.ReadAll(r.Body)
			answerJSON(w, 201, map[string]string{"uuid": "u"})
		case "GET/api/blobstream/u":
			w.Header().Set("Content-Length", strconv.Itoa(len(stored)))
			_, _ = w.Write(stored)
		case "GET/api/blobstream/status":
			answerJSON(w, 200, map[string]bool{"blob_store_enabled": true})
		default:
			answerJSON(w, 404, map[string]string{"msg": "not there"})
		}
	}, encrypted)
	content := make([]byte, 3<<20+17)
	rand.Read(content)
	r := f.do("POST", "/blobstream", string(content), "X-Public-Key: "+keyOf("own").Public().Base64(), "Content-Type: application/octet-stream")
	if r.Status != 201 {
		t.Fatalf("%+v", r)
	}
	if sent := f.requests()[0]; sent.Length != -1 || sent.Header.Get("X-Public-Key") != "" || sent.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("the server saw length %d, which makes it take all into its memory, headers %v", sent.Length, sent.Header)
	}
	mu.Lock()
	if bytes.Contains(stored, content[:64]) {
		t.Error("the blob is stored in plain")
	}
	plain, err := keyOf("own").DecryptBlob(bytes.NewReader(stored))
	mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the stored blob decrypts to something else, %v", err)
	}
	if r := f.do("GET", "/blobstream/u", ""); r.Status != 200 || r.Body != string(content) || r.Header.Get("Content-Length") != "3145745" {
		t.Errorf("back: status %d, %d bytes, header %v", r.Status, len(r.Body), r.Header)
	}
	if r := f.do("GET", "/blobstream/status", ""); r.Status != 200 || r.Body != "{\"blob_store_enabled\":true}\n" {
		t.Errorf("status: %+v", r)
	}
	if r := f.do("GET", "/blobstream/v", ""); r.Status != 404 || r.msg() != "not there" {
		t.Errorf("missing: %+v", r)
	}
}

// In an open collaboration the reference node's proxy, its node and its clients all keep blobs as base64.
func TestBlobsOfAnOpenCollaborationAreBase64AtTheServer(t *testing.T) {
	var mu sync.Mutex
	var stored []byte
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/octet-stream")
		if r.Method == "POST" {
			stored, _ = io.ReadAll(r.Body)
		}
		_, _ = w.Write(stored)
	})
	for _, size := range []int{0, 1, 2, 3, 48 << 10, 3<<20 + 17} {
		content := make([]byte, size)
		rand.Read(content)
		if r := f.do("POST", "/blobstream", string(content)); r.Status != 200 {
			t.Fatalf("%d bytes: %+v", size, r)
		}
		if want := base64.StdEncoding.EncodeToString(content); string(stored) != want {
			t.Fatalf("%d bytes are stored as %.60q, not as %.60q", size, stored, want)
		}
		if r := f.do("GET", "/blobstream/u", ""); r.Status != 200 || r.Body != string(content) {
			t.Errorf("%d bytes come back as status %d, %d bytes", size, r.Status, len(r.Body))
		}
	}
	stored = []byte("{\"not\": \"base64\"}")
	if r := f.do("GET", "/blobstream/u", ""); r.Status != 502 {
		t.Errorf("what is not base64: %+v", r)
	}
}

func TestABlobIsNotTakenWithContentEncoding(t *testing.T) {
	for _, o := range [][]option{nil, {encrypted}} {
		f := newFixture(t, mustNotBeAsked(t), o...)
		if r := f.do("POST", "/blobstream", "x", "Content-Encoding: gzip", "X-Public-Key: "+keyOf("own").Public().Base64()); r.Status != 415 {
			t.Errorf("%+v", r)
		}
	}
}

func TestABlobNeedsAKeyInAnEncryptedCollaboration(t *testing.T) {
	f := newFixture(t, mustNotBeAsked(t), encrypted)
	for _, headers := range [][]string{nil, {"X-Public-Key: bm8ga2V5"}} {
		if r := f.do("POST", "/blobstream", "content", headers...); r.Status != 400 || r.msg() == "" {
			t.Errorf("%v: %+v", headers, r)
		}
	}
}

func TestABlobThatIsNoMessageIsRefused(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 1000)) }, encrypted)
	if r := f.do("GET", "/blobstream/u", ""); r.Status != 500 {
		t.Errorf("%+v", r)
	}
}

func TestAnEarlyAnswerToABlobIsPassedOnAtOnce(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // or Go's server would wait for the body
		answerJSON(w, 401, map[string]string{"msg": "no"})
	}, encrypted)
	more, feed := io.Pipe()
	req, err := http.NewRequest("POST", f.proxy.URL+"/blobstream", more)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Public-Key", keyOf("b").Public().Base64())
	go func() { _, _ = feed.Write([]byte("the beginning, and nothing more")) }()
	resp, err := f.proxy.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	feed.Close()
	if resp.StatusCode != 401 {
		t.Fatalf("status %d", resp.StatusCode)
	}
}

func TestABlobThatBreaksOffIsNotStoredAsAWhole(t *testing.T) {
	for _, options := range [][]option{nil, {encrypted}} {
		ended := make(chan error, 1)
		f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			ended <- err
		}, options...)
		broken, feed := io.Pipe()
		req, err := http.NewRequest("POST", f.proxy.URL+"/blobstream", broken)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("X-Public-Key", keyOf("b").Public().Base64())
		go func() {
			_, _ = feed.Write(make([]byte, 1<<20))
			feed.CloseWithError(io.ErrUnexpectedEOF)
		}()
		if resp, err := f.proxy.Client().Do(req); err == nil {
			resp.Body.Close()
		}
		if err := <-ended; err == nil {
			t.Fatal("the server took half a blob for a whole one")
		}
	}
}
