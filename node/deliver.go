package node

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/failpoint"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/proxy/e2e"
)

// lastTry is how long a delivery under way may still take when the node stops:
// once the server has acknowledged, nothing of the run has to stay.
const lastTry = 5 * time.Second

// lasting returns a context that ends so much later than ctx, or by cancel.
func lasting(ctx context.Context, longer time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		end := time.NewTimer(longer)
		defer end.Stop()
		select {
		case <-end.C:
			cancel()
		case <-out.Done():
		}
	})
	return out, func() { stop(); cancel() }
}

// deliver sends a run's final status with its result and log, and repeats it
// until the server has acknowledged. It returns an error only when own ends, or
// errGone when the server no longer has the run; the try that is under way then is finished.
func (n *Node) deliver(own context.Context, a *activeRun, rec *ledger.Record) error {
	ctx, end := a.wanted(own)
	defer end()
	log := n.log.With("run", rec.RunID)
	retry := backoff.New(backoff.Server)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		try, cancel := lasting(ctx, lastTry)
		err := n.send(try, rec)
		cancel()
		switch {
		case err == nil:
			log.InfoContext(ctx, "result delivered", "status", rec.Status, "after", time.Since(rec.FinishedAt).Round(time.Millisecond))
		case errors.Is(err, server.ErrAlreadyFinished):
			// Our own earlier PATCH whose reply was lost, or a kill.
			log.InfoContext(ctx, "the server has this run as finished already", "status", rec.Status)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			again, wait := server.Passing(err)
			if !again && rec.Reason != string(ReasonUndelivered) {
				log.ErrorContext(ctx, "the result cannot be delivered, reporting that instead", "error", err)
				changed, writeErr := n.undeliverable(rec, err)
				if writeErr == nil {
					rec = changed
					continue
				}
				err = errors.Join(err, writeErr)
			}
			n.metrics.DeliveryFailed()
			wait = max(wait, retry.Next())
			log.WarnContext(ctx, "the result could not be delivered, trying again", "error", err, "wait", wait)
			if backoff.Sleep(ctx, wait) != nil {
				return context.Cause(ctx)
			}
			continue
		}
		failpoint.Reached(failpoint.Acknowledged)
		n.emitStatus(rec.RunID, server.Status(rec.Status))
		n.tell(admin.EventDelivered, rec, rec.Status)
		_, err = n.ledger.Update(rec.RunID, func(r *ledger.Record) error {
			r.State, r.DeliveredAt = ledger.Delivered, time.Now().UTC()
			return nil
		})
		if err != nil {
			log.ErrorContext(ctx, "the delivery could not be written down; it is repeated after a restart, which is harmless", "error", err)
		}
		failpoint.Reached(failpoint.Delivered)
		return nil
	}
}

// undeliverable replaces a run's outcome by the report that its result cannot
// be delivered.
func (n *Node) undeliverable(rec *ledger.Record, why error) (*ledger.Record, error) {
	return n.ledger.Update(rec.RunID, func(r *ledger.Record) error {
		r.Reason, r.Status, r.HasOutput, r.ResultBlob = string(ReasonUndelivered), string(statusOf[ReasonUndelivered]), false, ""
		r.Message = fmt.Sprintf("the result cannot be delivered: %v", why)
		return nil
	})
}

// send makes the one final PATCH, for a result that goes to the blob store after
// its upload.
func (n *Node) send(ctx context.Context, rec *ledger.Record) error {
	ws := n.files.Open(rec.RunID)
	f := server.Final{Status: server.Status(rec.Status), FinishedAt: rec.FinishedAt, Log: n.finalLog(ws.LogFile(), rec.Message)}
	if !rec.HasOutput {
		return n.api.Finish(ctx, rec.RunID, f)
	}
	if rec.ResultBlob != "" {
		f.Result = rec.ResultBlob // the files may be gone
		return n.api.Finish(ctx, rec.RunID, f)
	}
	out, size, err := ws.Output()
	if err != nil {
		return fmt.Errorf("read the result again: %w", err)
	}
	if err := out.Close(); err != nil {
		return err
	}
	enc, err := n.resultEncoding(ctx, rec.InitOrganizationID)
	if err != nil {
		return err
	}
	if rec.BlobStored {
		if f.Result, err = n.store(ctx, rec, ws, size, enc); err != nil {
			return err
		}
		return n.api.Finish(ctx, rec.RunID, f)
	}
	return n.api.FinishFrom(ctx, rec.RunID, f, enc.length(size), func() (io.ReadCloser, error) {
		out, _, err := ws.Output()
		if err != nil {
			return nil, err
		}
		return encoding(out, enc.writer), nil
	})
}

// store puts a run's result into the server's blob store and returns its name
// there. What the ledger knows is not stored again, also after a crash: the
// server has no way to remove a blob that no run names.
func (n *Node) store(ctx context.Context, rec *ledger.Record, ws *workspace.Run, size int64, enc *resultEncoding) (string, error) {
	began := time.Now()
	n.log.InfoContext(ctx, "the result goes to the server's blob store", "run", rec.RunID, "bytes", size)
	id, err := n.api.WriteBlob(ctx, func() (io.ReadCloser, error) {
		out, now, err := ws.Output()
		if err != nil {
			return nil, fmt.Errorf("read the result again: %w", err)
		}
		if now != size {
			return nil, errors.Join(fmt.Errorf("the result had %d bytes and has %d", size, now), out.Close())
		}
		content, err := enc.blob(out)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		return struct {
			io.Reader
			io.Closer
		}{content, out}, nil
	})
	if err != nil {
		return "", err
	}
	failpoint.Reached(failpoint.Stored)
	n.log.InfoContext(ctx, "the result is in the server's blob store", "run", rec.RunID, "blob", id, "took", time.Since(began).Round(time.Millisecond))
	// Also where the ledger cannot be written: the next try needs no upload.
	rec.ResultBlob = id
	if _, err := n.ledger.Update(rec.RunID, func(r *ledger.Record) error {
		r.ResultBlob = id
		return nil
	}); err != nil {
		n.log.ErrorContext(ctx, "where the result is could not be written down; after a crash it is stored once more", "run", rec.RunID, "error", err)
	}
	failpoint.Reached(failpoint.Noted)
	return id, nil
}

// resultEncoding is the form in which a result travels: in a string of the PATCH,
// of so many bytes, or as a blob.
type resultEncoding struct {
	length func(plain int64) int64
	writer func(io.Writer) (io.WriteCloser, error)
	blob   func(io.Reader) (io.Reader, error)
}

// resultEncoding gives the form that the initiating organization can read:
// encrypted for it, or plain base64.
func (n *Node) resultEncoding(ctx context.Context, organization int64) (*resultEncoding, error) {
	if n.key == nil {
		return &resultEncoding{
			length: func(plain int64) int64 { return (plain + 2) / 3 * 4 },
			writer: func(w io.Writer) (io.WriteCloser, error) {
				return base64.NewEncoder(base64.StdEncoding, w), nil
			},
			blob: func(r io.Reader) (io.Reader, error) { return e2e.EncodeBlob(r), nil },
		}, nil
	}
	b64, err := n.api.OrganizationKey(ctx, organization)
	if err != nil {
		return nil, fmt.Errorf("get the public key of organization %d: %w", organization, err)
	}
	key, err := e2e.ParsePublicKey(b64)
	if err != nil {
		return nil, fmt.Errorf("the public key of organization %d cannot be used, so its result cannot be encrypted: %w", organization, err)
	}
	return &resultEncoding{length: key.EncryptedLen, writer: key.NewEncrypter, blob: key.EncryptBlob}, nil
}

// encoding reads a file through an encoder. Closing it ends the encoder's
// goroutine and closes the file.
func encoding(f io.ReadCloser, encoder func(io.Writer) (io.WriteCloser, error)) io.ReadCloser {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w, err := encoder(pw)
		if err == nil {
			_, err = io.Copy(w, f)
			err = errors.Join(err, w.Close())
		}
		_ = pw.CloseWithError(err) // never fails
	}()
	return &encodingReader{PipeReader: pr, file: f, done: done}
}

type encodingReader struct {
	*io.PipeReader
	file io.Closer
	done <-chan struct{}
}

func (r *encodingReader) Close() error {
	err := r.PipeReader.Close()
	<-r.done
	return errors.Join(err, r.file.Close())
}
