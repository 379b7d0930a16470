package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/v6node/v6node/proxy"
	"github.com/v6node/v6node/proxy/e2e"
)

const payload = 256 << 20

// proxy measures (f): blobs of 256 MB through the proxy, encrypted one way and
// decrypted the other, against AES-CTR alone. Server and client of the blobs
// run in this process, so their cost is in the figures.
func (b *bench) proxy(ctx context.Context) (err error) {
	ctr, err := ctrAlone()
	if err != nil {
		return err
	}
	mib := float64(payload >> 20)
	b.add("f", "AES-256-CTR alone, in Go", mib/ctr.Seconds(), "MiB/s", "")
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		return err
	}
	blob := filepath.Join(b.dir, "blob")
	if err := encryptedFile(blob, key.Public()); err != nil {
		return err
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(io.Discard, r.Body) // the client reports what is wrong
			_, _ = io.WriteString(w, `{"uuid":"0"}`)
			return
		}
		f, err := os.Open(blob)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close() //nolint:errcheck // only read
		_, _ = io.Copy(struct{ io.Writer }{w}, f)
	}))
	defer upstream.Close()
	base, err := url.Parse(upstream.URL)
	if err != nil {
		return err
	}
	api, err := proxy.New(proxy.Config{
		Upstream: &proxy.Upstream{Base: base, HTTP: upstream.Client()}, Key: key, Keys: proxy.NewKeyCache(proxy.KeyCacheOptions{}), Log: slog.New(slog.DiscardHandler),
		Run: proxy.Run{RunID: 1, TaskID: 1, NodeID: 1, OrganizationID: 1, CollaborationID: 1, Token: "token"},
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- proxy.Serve(serving, l, api) }()
	defer func() { stop(); err = errors.Join(err, <-served) }()

	address := "http://" + l.Addr().String() + "/blobstream"
	before, err := memory(os.Getpid())
	if err != nil {
		return err
	}
	encrypt, err := transfer(ctx, http.MethodPost, address, key.Public().Base64(), io.LimitReader(zeros{}, payload))
	if err != nil {
		return fmt.Errorf("encrypt through the proxy: %w", err)
	}
	decrypt, err := transfer(ctx, http.MethodGet, address+"/9d4ab5f2-0f0c-4d3c-9a43-0e5f1d1f6a10", "", nil)
	if err != nil {
		return fmt.Errorf("decrypt through the proxy: %w", err)
	}
	after, err := memory(os.Getpid())
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name string
		took time.Duration
	}{{"proxy, encrypting 256 MiB", encrypt}, {"proxy, decrypting 256 MiB", decrypt}} {
		b.add("f", r.name, mib/r.took.Seconds(), "MiB/s", fmt.Sprintf("%.2f of AES-CTR alone; aim: 0.5", ctr.Seconds()/r.took.Seconds()))
	}
	b.add("f", "additional resident memory", max(0, after-before), "MiB", "client and server of the blobs included; aim: under 32")
	return nil
}

// ctrAlone times AES-256-CTR over as many bytes, in pieces that fit the cache.
func ctrAlone() (time.Duration, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return 0, err
	}
	stream := cipher.NewCTR(block, make([]byte, aes.BlockSize))
	buf := make([]byte, 64<<10)
	began := time.Now()
	for done := 0; done < payload; done += len(buf) {
		stream.XORKeyStream(buf, buf)
	}
	return time.Since(began), nil
}

func encryptedFile(path string, key *e2e.PublicKey) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := key.EncryptBlob(io.LimitReader(zeros{}, payload))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return err
}

func transfer(ctx context.Context, method, address, key string, body io.Reader) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer token")
	req.Header.Set("Content-Type", "application/octet-stream")
	if key != "" {
		req.Header.Set("X-Public-Key", key)
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, resp.Body)
	took := time.Since(began)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return 0, fmt.Errorf("%s %s answered %s", method, address, resp.Status)
	}
	if method == http.MethodGet && n != payload {
		return 0, fmt.Errorf("%d bytes came back, not %d", n, payload)
	}
	return took, nil
}

// zeros is an endless text of the digit zero.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
