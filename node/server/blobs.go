package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// bytesType is the content type of blobs, and of what is asked about them.
const bytesType = "application/octet-stream"

// isBytes tells a blob from what something before the server may answer instead, such as a page
// of a gateway.
func isBytes(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == bytesType
}

// BlobStore implements API.
func (v *V4) BlobStore(ctx context.Context) (bool, error) {
	var answer struct {
		Enabled bool `json:"blob_store_enabled"`
	}
	err := v.do(ctx, call{method: http.MethodGet, path: "/blobstream/status", accept: bytesType, out: into(&answer)})
	var se *StatusError
	if errors.As(err, &se) && se.Code == http.StatusNotFound {
		return false, nil // servers before the blob store do not know the question
	}
	return answer.Enabled, err
}

// ReadBlob implements API.
func (v *V4) ReadBlob(ctx context.Context, id string, out func(io.Reader) error) error {
	id = strings.Trim(id, `'"`) // as the reference node does
	if !isBlobID(id) {
		return fmt.Errorf("%w: %.60q", ErrNoBlobID, id)
	}
	return v.do(ctx, call{method: http.MethodGet, path: "/blobstream/" + id, accept: bytesType, large: true, bytes: true, out: func(r io.Reader) error {
		if err := out(r); err != nil {
			return &sourceError{err}
		}
		return nil
	}})
}

// WriteBlob implements API. The body has no length, as the reference node's has none: given one, the
// server takes all of it into its memory.
func (v *V4) WriteBlob(ctx context.Context, source func() (io.ReadCloser, error)) (string, error) {
	b := &body{size: -1, kind: bytesType, open: func() (io.ReadCloser, error) {
		r, err := source()
		if err != nil {
			return nil, &sourceError{err}
		}
		return &localReader{r}, nil
	}}
	var answer struct {
		ID string `json:"uuid"`
	}
	var id string
	err := v.do(ctx, call{method: http.MethodPost, path: "/blobstream", body: b, large: true, out: func(r io.Reader) error {
		if err := into(&answer)(r); err != nil {
			return err
		}
		if id = answer.ID; !isBlobID(id) {
			return fmt.Errorf("%w: %.60q", ErrNoBlobID, id)
		}
		return nil
	}})
	var local *sourceError
	if errors.As(err, &local) {
		return "", local.err
	}
	return id, err
}

// isBlobID tells whether s is a UUID in the one form that the server writes: it becomes part of a path.
func isBlobID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch dash := i == 8 || i == 13 || i == 18 || i == 23; {
		case dash != (c == '-'):
			return false
		case !dash && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f'):
			return false
		}
	}
	return true
}

// localReader marks errors of this machine in the middle of a request.
type localReader struct{ io.ReadCloser }

func (r *localReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}
