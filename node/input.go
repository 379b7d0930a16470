package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/failpoint"
	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/payload"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/proxy/e2e"
)

const (
	// longInput is the length from which on a run that waits does not keep its
	// input in memory.
	longInput = 64 << 10
	// badBlobs is how often a blob is read whose content cannot be used: it may
	// have been cut short on the way without a trace.
	badBlobs = 3
	// failedBlobs is how often a server is asked that says it cannot hand out a
	// blob, which may be over soon or never. With the pauses that is some eight minutes,
	// during which the run keeps its room.
	failedBlobs = 20
	// readers is how many blobs are read at the same time for the policies.
	readers = 8
)

// unusable is an input that the algorithm could make nothing of.
type unusable struct{ err error }

func (u *unusable) Error() string { return u.err.Error() }
func (u *unusable) Unwrap() error { return u.err }

// errInputSize says that an input is longer than this node takes.
var errInputSize = errors.New("too long")

// shorten lets go of an input that would wait in memory for the run's turn: it is
// asked for again. One in the blob store was never there.
func (a *activeRun) shorten(r *server.Run) {
	if !r.BlobStored && len(r.Input) > longInput {
		a.askInput, r.Input = true, ""
	}
}

// reading is how an input is read.
type reading struct {
	limit int64 // the longest in bytes, 0 is none
	// begin gives where it goes, and empties that where it is called again: what
	// broke off begins anew, for the server cannot go on in the middle.
	begin func() (io.Writer, error)
	// slots has a place for each that reads a blob at the same time; nil for any
	// number. Who waits to try again has none.
	slots chan struct{}
}

// readInput passes a run's input, as the algorithm reads it, to a writer, and says
// what is in it. Memory is constant but for an input that is not in the blob
// store.
func (n *Node) readInput(ctx context.Context, a *activeRun, r *server.Run, how reading) (*payload.Object, error) {
	if r.BlobStored {
		return n.readBlob(ctx, r, how)
	}
	text := r.Input
	if a.askInput {
		if err := n.persist(ctx, "ask for the run's input again", func() error {
			now, err := n.api.Run(ctx, r.ID)
			if err == nil {
				text = now.Input
			}
			return err
		}); err != nil {
			return nil, refuse(ReasonInput, err)
		}
	}
	w, err := how.begin()
	if err != nil {
		return nil, err
	}
	in, err := n.copyInput(strings.NewReader(text), false, how.limit, w)
	return in, inputRefused(err)
}

func (n *Node) readBlob(ctx context.Context, r *server.Run, how reading) (*payload.Object, error) {
	retry := backoff.New(backoff.Server)
	var bad, failed int
	for {
		in, err := n.readBlobOnce(ctx, r, how)
		if err == nil {
			return in, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		again, wait := blobAgain(err, &bad, &failed)
		if !again {
			return nil, inputRefused(err)
		}
		wait = max(wait, retry.Next())
		n.log.WarnContext(ctx, "an input could not be fetched from the server's blob store, trying again", "run", r.ID, "error", err, "wait", wait)
		if err := backoff.Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (n *Node) readBlobOnce(ctx context.Context, r *server.Run, how reading) (in *payload.Object, err error) {
	if how.slots != nil {
		select {
		case how.slots <- struct{}{}:
			defer func() { <-how.slots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	err = n.api.ReadBlob(ctx, r.Input, func(content io.Reader) error {
		w, err := how.begin()
		if err == nil {
			in, err = n.copyInput(content, true, how.limit, w)
		}
		return err
	})
	return in, err
}

// blobAgain tells whether a blob is asked for once more after an error, and how
// long the server wants to be left alone before. It counts what does not happen
// for ever.
func blobAgain(err error, bad, failed *int) (again bool, wait time.Duration) {
	var useless *unusable
	if errors.As(err, &useless) {
		*bad++
		return *bad < badBlobs && !errors.Is(err, errInputSize), 0
	}
	again, wait = server.Passing(err)
	var answer *server.StatusError
	if again && errors.As(err, &answer) && answer.Own && answer.Code == http.StatusInternalServerError {
		// The server is there: it is about this blob, or about the store behind the server.
		*failed++
		again = *failed < failedBlobs
	}
	return again, wait
}

// inputRefused gives the failure of an input its reason. An error of this machine
// has another.
func inputRefused(err error) error {
	var useless *unusable
	var answer *server.StatusError
	switch {
	case errors.As(err, &useless):
		return refuse(ReasonInput, useless.err)
	case errors.As(err, &answer), errors.Is(err, server.ErrNoBlobID):
		return refuse(ReasonInput, fmt.Errorf("the server does not hand out the run's input from its blob store: %w: send the task again", err))
	}
	return err
}

// copyInput copies what is at the server to w, as the algorithm reads it. The
// error is unusable, or one of content or w.
func (n *Node) copyInput(content io.Reader, blob bool, limit int64, w io.Writer) (*payload.Object, error) {
	source := &source{r: content}
	plain, err := n.plainInput(source, blob)
	var scan payload.Scanner
	if err == nil {
		if limit > 0 {
			plain = &bounded{r: plain, left: limit}
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, &scan)}, plain, make([]byte, 128<<10))
	}
	if source.err != nil {
		return nil, source.err // whatever the reader of the content made of it
	}
	var in *payload.Object
	if err == nil {
		in, err = scan.Close()
	}
	var corrupt base64.CorruptInputError
	switch {
	case errors.Is(err, e2e.ErrDecrypt):
		err = &unusable{fmt.Errorf("the input cannot be decrypted with this organization's key: %w: send the task again, encrypted for the organization's current public key", err)}
	case errors.Is(err, e2e.ErrEncoding), errors.As(err, &corrupt), errors.Is(err, io.ErrUnexpectedEOF):
		err = &unusable{errors.New("the input is not base64: send the task again in the form that this server version wants")}
	case errors.Is(err, errInputSize):
		err = &unusable{fmt.Errorf("the input is %w, this node takes %s at most: send less, or ask the node's administrator to raise limits.input_size", err, units.FormatSize(limit))}
	case errors.Is(err, payload.ErrCut):
		err = &unusable{errors.New("the input is not a JSON object but ends before one does: send the task again")}
	case errors.Is(err, payload.ErrNotObject):
		// A message for another key may by chance look like a short text, so what
		// it says is looked at as well.
		err = &unusable{errors.New("the input is not a JSON object: send the task again with an input such as {\"method\": \"...\"}")}
	}
	return in, err
}

// plainInput reads an input in the form that it has at the server.
func (n *Node) plainInput(r io.Reader, blob bool) (io.Reader, error) {
	switch {
	case n.key == nil && blob:
		return e2e.DecodeBlob(r), nil
	case n.key == nil:
		return base64.NewDecoder(base64.StdEncoding, r), nil
	case !blob:
		return n.key.NewDecrypter(r)
	}
	plain, err := n.key.DecryptBlob(r)
	if err != nil {
		return nil, err
	}
	return e2e.NewPayloadReader(plain)
}

// source keeps the error with which reading ended.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// bounded ends with errInputSize behind so many bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), b.left+1)]
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errInputSize
	}
	return n, err
}

// functionFor is the method that a run's input names. The input, which may be long
// and encrypted, is read for that no more than once.
func (n *Node) functionFor(ctx context.Context, a *activeRun, r *server.Run) (string, error) {
	if a.function == nil {
		limit, err := n.limitsFor(ctx, r)
		if err != nil {
			return "", err
		}
		sum := sha256.New()
		in, err := n.readInput(ctx, a, r, reading{
			limit: limit.InputSize, begin: func() (io.Writer, error) { sum.Reset(); return sum, nil }, slots: n.judging,
		})
		if err != nil {
			return "", err
		}
		a.function, a.judged = &in.Method, sum.Sum(nil)
	}
	return *a.function, nil
}

// inputFile writes a run's input to its file. What the policies have judged must
// be what the algorithm gets: a server may hand out something else the second time.
func (n *Node) inputFile(ctx context.Context, a *activeRun, r *server.Run, limit int64, f *os.File) (*payload.Object, error) {
	defer a.doing.Store(nil)
	began := time.Now()
	var sum hash.Hash
	in, err := n.readInput(ctx, a, r, reading{limit: limit, begin: func() (io.Writer, error) {
		if err := f.Truncate(0); err != nil {
			return nil, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		to := []io.Writer{f}
		if a.judged != nil {
			sum = sha256.New()
			to = append(to, sum)
		}
		if r.BlobStored {
			to = append(to, &fetched{progress: n.inputProgress(ctx, a)})
		}
		return io.MultiWriter(to...), nil
	}})
	if err != nil {
		return nil, err
	}
	if sum != nil && !bytes.Equal(sum.Sum(nil), a.judged) {
		return nil, refuse(ReasonInput, errors.New("the server has handed out another input than the one that this node's policies allowed: send the task again"))
	}
	if r.BlobStored {
		n.log.InfoContext(ctx, "input fetched from the server's blob store", "run", a.id, "bytes", in.Size, "took", time.Since(began).Round(time.Millisecond))
	}
	a.function = &in.Method
	return in, nil
}

// fetched counts what arrives of an input.
type fetched struct {
	done     int64
	progress func(done int64)
}

func (f *fetched) Write(p []byte) (int, error) {
	f.done += int64(len(p))
	f.progress(f.done)
	failpoint.Reached(failpoint.Fetching)
	return len(p), nil
}

// inputProgress keeps how far an input is for the administrator, and logs it now
// and then where it takes long.
func (n *Node) inputProgress(ctx context.Context, a *activeRun) func(done int64) {
	last := time.Now()
	return func(done int64) {
		a.doing.Store(&image.Progress{Doing: "fetching the input", Done: done})
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			n.log.InfoContext(ctx, "an input is being fetched", "run", a.id, "bytes", done)
		}
	}
}
