package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/v6node/v6node/proxy/e2e"
	"github.com/v6node/v6node/proxy/internal/b64"
	"github.com/v6node/v6node/proxy/internal/jsonstream"
)

// results is GET /result?task_id= and GET /result/ID: where the collaboration
// is encrypted, each result is decrypted and passed on as base64.
func (a *API) results(w *answer, r *http.Request) error {
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
	if err := a.relayHeader(w, resp); err != nil {
		return err
	}
	transformed(w.Header())
	t := &resultBody{key: a.key, c: jsonstream.New(resp.Body, w)}
	err = t.rewrite()
	switch {
	case errors.Is(err, e2e.ErrDecrypt):
		return fmt.Errorf("%w (%w)", errUndecryptable, err)
	case errors.Is(err, jsonstream.ErrSyntax), errors.Is(err, jsonstream.ErrTooLong):
		return fmt.Errorf("%w (%w)", errOdd, err)
	}
	return err
}

var errUndecryptable = refuse(http.StatusInternalServerError, "A result "+e2e.ErrDecrypt.Error()+".")

// resultBody copies one result, a page of results or a bare list of them.
type resultBody struct {
	key *e2e.PrivateKey
	c   *jsonstream.Copier
}

func (t *resultBody) rewrite() error {
	b, err := t.c.Peek()
	if err != nil {
		return err
	}
	if b == '[' {
		err = t.c.Array(t.result)
	} else {
		err = t.object(true)
	}
	if err != nil {
		return err
	}
	return t.c.End()
}

func (t *resultBody) result() error { return t.object(false) }

func (t *resultBody) object(top bool) error {
	if b, err := t.c.Peek(); err != nil || b != '{' {
		if err != nil {
			return err
		}
		return t.c.Value()
	}
	return t.c.Object(func(key string) error {
		b, err := t.c.Peek()
		switch {
		case err != nil:
			return err
		case top && key == "data" && b == '[':
			return t.c.Array(t.result)
		case key == "result" && b == '"':
			return t.c.String(t.decrypt)
		}
		return t.c.Value()
	})
}

const uuidSize = 36

// beginning reads so much of a text that isUUID can tell whether it is the name of
// a blob: base64 and encrypted messages are none. all is the whole text.
func beginning(r io.Reader) (head []byte, all io.Reader, err error) {
	head = make([]byte, uuidSize+1)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, nil, err
	}
	head = head[:n]
	return head, io.MultiReader(bytes.NewReader(head), r), nil
}

func (t *resultBody) decrypt(r io.Reader, w io.Writer) error {
	head, r, err := beginning(r)
	if err != nil || len(head) == 0 {
		return err // without one, the result is not there yet
	}
	if isUUID(head) {
		_, err := w.Write(head)
		return err
	}
	plain, err := t.key.NewDecrypter(r)
	if err != nil {
		return err
	}
	text := b64.NewWriter(w, nil)
	if _, err := io.Copy(text, plain); err != nil {
		return err
	}
	return text.Close()
}

func isUUID(p []byte) bool {
	if len(p) != uuidSize {
		return false
	}
	for i, b := range p {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (b == '-') {
			return false
		} else if !dash && !strings.ContainsRune("0123456789abcdefABCDEF", rune(b)) {
			return false
		}
	}
	return true
}
