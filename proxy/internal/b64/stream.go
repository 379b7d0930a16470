package b64

import (
	"errors"
	"io"
)

const (
	plainChunk = 48 << 10 // a multiple of 3
	textChunk  = plainChunk / 3 * 4
)

// Writer encodes what is written to it. Close writes the last characters and
// does not close the writer below. It is not safe for concurrent use.
type Writer struct {
	w    io.Writer
	move func(dst, src []byte)
	c    *codec
	n    int // bytes in plain
	err  error

	plain [plainChunk]byte
	text  [textChunk]byte
}

// NewWriter returns a Writer on w. move, when not nil, takes the place of copy
// on the way into the Writer's buffer: a stream cipher goes there without a
// pass over memory of its own. It is called with slices of equal length, in
// the order of the data.
func NewWriter(w io.Writer, move func(dst, src []byte)) *Writer {
	if move == nil {
		move = func(dst, src []byte) { copy(dst, src) }
	}
	return &Writer{w: w, move: move, c: shared()}
}

func (e *Writer) Write(p []byte) (int, error) {
	done := 0
	for len(p) > 0 && e.err == nil {
		n := min(len(p), len(e.plain)-e.n)
		e.move(e.plain[e.n:e.n+n], p[:n])
		e.n += n
		done += n
		p = p[n:]
		if e.n == len(e.plain) {
			e.flush()
		}
	}
	return done, e.err
}

// ReadFrom encodes r until its end.
func (e *Writer) ReadFrom(r io.Reader) (int64, error) {
	var done int64
	for e.err == nil {
		n, err := r.Read(e.plain[e.n:])
		fresh := e.plain[e.n : e.n+n]
		e.move(fresh, fresh)
		e.n += n
		done += int64(n)
		if e.n == len(e.plain) {
			e.flush()
		}
		if err == io.EOF {
			return done, e.err
		}
		if err != nil {
			return done, err
		}
	}
	return done, e.err
}

func (e *Writer) flush() {
	n := e.c.encode(e.text[:], e.plain[:e.n])
	e.n = 0
	_, e.err = e.w.Write(e.text[:n])
}

var errClosed = errors.New("base64 writer is closed")

// Close writes what is left, with padding. A second Close changes nothing.
func (e *Writer) Close() error {
	if e.err != nil {
		if e.err == errClosed {
			return nil
		}
		return e.err
	}
	if e.n > 0 {
		e.flush()
	}
	if e.err != nil {
		return e.err
	}
	e.err = errClosed
	return nil
}

// Reader decodes the base64 text of the reader below. Text that is not
// canonical base64 ends it with ErrCorrupt; an error of the reader below is
// passed on as it is. It is not safe for concurrent use.
type Reader struct {
	r        io.Reader
	c        *codec
	err      error // of the reader below; io.EOF included
	lo, hi   int   // text[lo:hi] is not decoded yet
	rest     []byte
	text     [textChunk]byte
	restData [3]byte
}

// NewReader returns a Reader of the base64 text in r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r, c: shared()} }

func (d *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(d.rest) > 0 {
		n := copy(p, d.rest)
		d.rest = d.rest[n:]
		return n, nil
	}
	// The last quantum may be padded, so it waits until the end is seen.
	for d.err == nil && d.hi-d.lo <= 4 {
		d.fill()
	}
	if d.err != nil && d.err != io.EOF {
		return 0, d.err
	}
	ready := d.hi - d.lo
	final := d.err == io.EOF
	if final && ready == 0 {
		return 0, io.EOF
	}
	if !final {
		ready = (ready - 1) &^ 3
	} else if ready%4 != 0 {
		d.err = ErrCorrupt
		return 0, d.err
	}
	dst := p
	if len(p) < 3 {
		dst = d.restData[:]
	}
	if fits := len(dst) / 3 * 4; fits < ready {
		ready, final = fits, false
	}
	n, err := d.c.decode(dst, d.text[d.lo:d.lo+ready], final)
	d.lo += ready
	if err != nil {
		d.err, d.lo, d.hi = err, 0, 0
		return 0, err
	}
	if len(p) < 3 {
		d.rest = dst[:n]
		n = copy(p, d.rest)
		d.rest = d.rest[n:]
	}
	return n, nil
}

func (d *Reader) fill() {
	d.hi = copy(d.text[:], d.text[d.lo:d.hi])
	d.lo = 0
	var n int
	n, d.err = d.r.Read(d.text[d.hi:])
	d.hi += n
}

// Encoder reads the base64 text of what the reader below holds; errors of that
// are passed on as they are. It is not safe for concurrent use.
type Encoder struct {
	r     io.Reader
	c     *codec
	err   error  // of the reader below; io.EOF included
	ready []byte // of text, not handed out yet
	plain [plainChunk]byte
	text  [textChunk]byte
}

// NewEncoder returns an Encoder of what r holds.
func NewEncoder(r io.Reader) *Encoder { return &Encoder{r: r, c: shared()} }

func (e *Encoder) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(e.ready) == 0 {
		if e.err != nil {
			return 0, e.err
		}
		// Only the last piece may need padding, and one that breaks off must not get it.
		n := 0
		for n < len(e.plain) && e.err == nil {
			var m int
			m, e.err = e.r.Read(e.plain[n:])
			n += m
		}
		if e.err == nil || e.err == io.EOF {
			e.ready = e.text[:e.c.encode(e.text[:], e.plain[:n])]
		}
	}
	n := copy(p, e.ready)
	e.ready = e.ready[n:]
	return n, nil
}
