package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/v6node/v6node/proxy/e2e"
)

// putBlob is POST /blobstream: the body goes to the server's blob store, in the
// form that blobs have there: where the collaboration is encrypted, encrypted for
// the key in X-Public-Key. It is not kept anywhere on the way, and has no length:
// given one, the server takes all of it into its memory.
func (a *API) putBlob(w *answer, r *http.Request) error {
	if err := unencoded(r); err != nil {
		return err
	}
	c := call{method: http.MethodPost, path: "/blobstream", query: r.URL.RawQuery, header: outgoing(r), length: -1}
	content := e2e.EncodeBlob(r.Body)
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

// getBlob is GET /blobstream/UUID: the blob is decrypted, or decoded where the
// collaboration is not encrypted, while it passes.
func (a *API) getBlob(w *answer, r *http.Request) error {
	c := call{method: http.MethodGet, path: r.URL.Path, query: r.URL.RawQuery, header: outgoing(r)}
	c.header.Del("Accept-Encoding")
	resp, err := a.ask(r.Context(), c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	ok, err := plainOK(resp)
	if err != nil {
		return err
	}
	if !ok {
		return a.relay(w, r, resp)
	}
	length := int64(-1)
	plain := e2e.DecodeBlob(resp.Body)
	if a.key != nil {
		if plain, err = a.key.DecryptBlob(resp.Body); errors.Is(err, e2e.ErrDecrypt) {
			err = fmt.Errorf("%w (%w)", errUndecryptable, err)
		}
		if err != nil {
			return err
		}
		length = resp.ContentLength - int64(a.key.Public().BlobOverhead())
	}
	if err := a.relayHeader(w, resp); err != nil {
		return err
	}
	transformed(w.Header())
	if length >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	}
	err = copyTo(w, plain, resp.ContentLength)
	if errors.Is(err, e2e.ErrEncoding) {
		err = fmt.Errorf("%w (a blob %w)", errOdd, err)
	}
	return err
}
