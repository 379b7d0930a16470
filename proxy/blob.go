package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/v6node/v6node/proxy/e2e"
)

// putBlob is POST /blobstream: the body goes to the server's blob store, and
// where the collaboration is encrypted, encrypted for the key in X-Public-Key.
// It is not kept anywhere on the way.
func (a *API) putBlob(w *answer, r *http.Request) error {
	c := call{method: http.MethodPost, path: "/blobstream", query: r.URL.RawQuery, header: outgoing(r), length: r.ContentLength}
	var content io.Reader = r.Body
	if a.key != nil {
		text := r.Header.Get("X-Public-Key")
		if text == "" {
			return refuse(http.StatusBadRequest, "Missing header X-Public-Key: the collaboration is encrypted, so the public key of the receiving organization is needed.")
		}
		key, err := e2e.ParsePublicKey(text)
		if err != nil {
			return refuse(http.StatusBadRequest, fmt.Sprintf("The key in X-Public-Key cannot be used: %s.", err))
		}
		if content, err = key.EncryptBlob(r.Body); err != nil {
			return err
		}
		if c.length >= 0 {
			c.length += int64(key.BlobOverhead())
		}
	}
	c.body = func() io.Reader { return content }
	// The server may answer before it has taken everything: then the rest is
	// not waited for.
	defer r.Body.Close()
	resp, err := a.ask(r.Context(), c)
	if err != nil {
		if b, ok := r.Body.(*body); ok && b.fault() != nil {
			return b.fault()
		}
		return err
	}
	defer resp.Body.Close()
	return a.relay(w, r, resp)
}

// getBlob is GET /blobstream/UUID: where the collaboration is encrypted, the
// blob is decrypted while it passes.
func (a *API) getBlob(w *answer, r *http.Request) error {
	c := call{method: http.MethodGet, path: r.URL.Path, query: r.URL.RawQuery, header: outgoing(r)}
	if a.key != nil {
		c.header.Del("Accept-Encoding")
	}
	resp, err := a.ask(r.Context(), c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	ok, err := plainOK(resp)
	if err != nil {
		return err
	}
	if a.key == nil || !ok {
		return a.relay(w, r, resp)
	}
	plain, err := a.key.DecryptBlob(resp.Body)
	if err != nil {
		if errors.Is(err, e2e.ErrDecrypt) {
			err = fmt.Errorf("%w (%w)", errUndecryptable, err)
		}
		return err
	}
	if err := a.relayHeader(w, resp); err != nil {
		return err
	}
	transformed(w.Header())
	if n := resp.ContentLength - int64(a.key.Public().BlobOverhead()); n >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	}
	return copyTo(w, plain, resp.ContentLength)
}
