package layer

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/v6node/v6node/sif/squashfs"
)

const (
	batchSize = 256 << 10 // headers and small files go together into pieces of this size
	batches   = 6
	direct    = 16 << 10 // content from this size on is passed on without a copy
	waiting   = 16       // pieces that a sink may be behind
)

// queue hands the bytes of the tar, in order, to every sink, each of which runs on
// its own goroutine, so that hashing and writing overlap with making them.
type queue struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	size   int64 // bytes so far
	batch  []byte
	free   chan []byte
	made   int
	sinks  []chan *segment
	wg     sync.WaitGroup
}

// segment is a run of bytes on its way; the last sink to use it gives it back.
type segment struct {
	data  []byte
	zeros int64
	uses  atomic.Int32
	done  func()
}

func newQueue(ctx context.Context, cancel context.CancelCauseFunc, sinks []io.Writer) *queue {
	q := &queue{ctx: ctx, cancel: cancel, free: make(chan []byte, batches)}
	for _, w := range sinks {
		ch := make(chan *segment, waiting)
		q.sinks = append(q.sinks, ch)
		q.wg.Go(func() { q.drain(w, ch) })
	}
	return q
}

// drain writes to one sink until the channel is closed. After a failure, which ends
// the whole, it only gives segments back.
func (q *queue) drain(w io.Writer, ch <-chan *segment) {
	failed := false
	for s := range ch {
		if !failed {
			if err := s.writeTo(w); err != nil {
				failed = true
				q.cancel(&sinkError{err})
			}
		}
		s.release()
	}
}

// sinkError tells the failure of a sink from the end of the caller's context.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return "write the layer: " + e.err.Error() }
func (e *sinkError) Unwrap() error { return e.err }

func (s *segment) writeTo(w io.Writer) error {
	if s.data != nil {
		_, err := w.Write(s.data)
		return err
	}
	for n := s.zeros; n > 0; {
		k := min(n, int64(len(zeroBytes)))
		if _, err := w.Write(zeroBytes[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

func (s *segment) release() {
	if s.uses.Add(-1) == 0 && s.done != nil {
		s.done()
	}
}

// close ends the sinks, waits for them, and gives the first failure of one.
func (q *queue) close() error {
	q.flush()
	for _, ch := range q.sinks {
		close(ch)
	}
	q.wg.Wait()
	if err, ok := context.Cause(q.ctx).(*sinkError); ok {
		return err
	}
	return nil
}

// write copies p into the tar.
func (q *queue) write(p []byte) error {
	q.size += int64(len(p))
	for len(p) > 0 {
		if q.batch == nil {
			if err := q.newBatch(); err != nil {
				return err
			}
		}
		n := copy(q.batch[len(q.batch):cap(q.batch)], p)
		q.batch = q.batch[:len(q.batch)+n]
		p = p[n:]
		if len(q.batch) == cap(q.batch) {
			q.flush()
		}
	}
	return nil
}

func (q *queue) newBatch() error {
	select {
	case q.batch = <-q.free:
		return nil
	default:
	}
	if q.made < batches {
		q.made++
		q.batch = make([]byte, 0, batchSize)
		return nil
	}
	select {
	case q.batch = <-q.free:
		return nil
	case <-q.ctx.Done():
		return context.Cause(q.ctx)
	}
}

// chunk puts a part of a file into the tar and sees to its release.
func (q *queue) chunk(c squashfs.Chunk) error {
	if c.Len() < direct {
		p := c.Data
		if p == nil {
			p = zeroBytes[:c.Zeros]
		}
		err := q.write(p)
		c.Release()
		return err
	}
	q.size += c.Len()
	q.flush()
	q.send(&segment{data: c.Data, zeros: c.Zeros, done: c.Release})
	return nil
}

// flush sends what has been gathered.
func (q *queue) flush() {
	if len(q.batch) == 0 {
		return
	}
	b := q.batch
	q.batch = nil
	q.send(&segment{data: b, done: func() { q.free <- b[:0] }})
}

// send gives a segment to all sinks. Sinks always drain, so it never waits for long.
func (q *queue) send(s *segment) {
	s.uses.Store(int32(len(q.sinks)))
	for _, ch := range q.sinks {
		ch <- s
	}
}
