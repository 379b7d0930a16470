package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Finish implements API.
func (v *V4) Finish(ctx context.Context, runID int64, f Final) error {
	return v.FinishFrom(ctx, runID, f, int64(len(f.Result)), func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(f.Result)), nil
	})
}

// FinishFrom implements API. The server overwrites what a request does not mention, so that
// everything has to be in this one. Only an answer in the API's form means that it has it: a
// gateway's page with status 200 does not. The log is all of it, so that pieces that still wait
// are not sent after it, and those that are on their way are waited for. The body has a length: servers behind WSGI may take a
// body of unknown length for an empty one.
func (v *V4) FinishFrom(ctx context.Context, runID int64, f Final, size int64, source func() (io.ReadCloser, error)) error {
	at := f.FinishedAt
	if at.IsZero() {
		at = v.now()
	}
	head, err := json.Marshal(struct {
		Status     Status `json:"status"`
		FinishedAt string `json:"finished_at"`
		Log        string `json:"log"`
	}{f.Status, formatTime(at), cleanLog(f.Log)})
	if err != nil {
		return err
	}
	head = append(bytes.TrimSuffix(head, []byte("}")), `,"result":"`...)
	const tail = `"}`
	v.out.forgetLogs(runID) // f.Log is the whole
	v.out.landed(ctx, runID, v.timing.Echo)
	b := &body{
		size: int64(len(head)) + size + int64(len(tail)),
		open: func() (io.ReadCloser, error) {
			r, err := source()
			if err != nil {
				return nil, &sourceError{fmt.Errorf("the result cannot be read: %w", err)}
			}
			return struct {
				io.Reader
				io.Closer
			}{io.MultiReader(bytes.NewReader(head), &resultReader{r: r, left: size}, strings.NewReader(tail)), r}, nil
		},
	}
	err = aboutRun(runID, v.do(ctx, call{method: http.MethodPatch, path: fmt.Sprintf("/run/%d", runID), body: b, large: true, out: isObject}))
	var local *sourceError
	if errors.As(err, &local) {
		return local.err
	}
	return err
}

// cleanLog removes what the server's database cannot store in a text.
func cleanLog(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

// sourceError marks an error of this machine in the middle of a request.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// resultReader passes on exactly left bytes that need no escaping in a JSON string.
type resultReader struct {
	r    io.Reader
	left int64
}

func (s *resultReader) Read(p []byte) (int, error) {
	if s.left == 0 {
		var one [1]byte
		if n, err := io.ReadFull(s.r, one[:]); n > 0 {
			return 0, &sourceError{errors.New("the result is longer than announced")}
		} else if err != io.EOF {
			return 0, &sourceError{fmt.Errorf("the result cannot be read: %w", err)}
		}
		return 0, io.EOF
	}
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.r.Read(p)
	for _, c := range p[:n] {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return 0, &sourceError{fmt.Errorf("the result contains the byte 0x%02x, which base64 and encrypted text do not", c)}
		}
	}
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		return n, &sourceError{errors.New("the result is shorter than announced")}
	}
	if err != nil && err != io.EOF {
		return n, &sourceError{fmt.Errorf("the result cannot be read: %w", err)}
	}
	return n, nil
}
