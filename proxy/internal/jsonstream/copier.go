package jsonstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

var (
	// ErrSyntax says that the text is not JSON, or not of the expected shape.
	ErrSyntax = errors.New("not valid JSON")
	// ErrTooLong says that a key or a value that must be held in memory is
	// longer than its limit.
	ErrTooLong = errors.New("JSON value too long")
)

const (
	bufSize   = 64 << 10
	maxKey    = 1 << 10
	maxScalar = 4 << 10
	maxDepth  = 1000 // the server's own JSON reader gives up there
)

// Copier reads a JSON text and writes it again. Errors of the reader, the
// writer and the callbacks are returned as they are; after an error the Copier
// is of no further use. Not safe for concurrent use.
type Copier struct {
	r      io.Reader
	w      io.Writer
	lead   []byte // what goes before the next value: comma, key, colon
	rerr   error
	lo, hi int
	depth  int
	buf    [bufSize]byte
	out    outbuf
}

// outbuf gathers small writes.
type outbuf struct {
	n   int
	buf [4 << 10]byte
}

// New returns a Copier from r to w.
func New(r io.Reader, w io.Writer) *Copier { return &Copier{r: r, w: w} }

// fill reads on; it returns the reader's error when there is nothing more.
func (c *Copier) fill() error {
	if c.rerr != nil {
		return c.rerr
	}
	if c.lo == c.hi {
		c.lo, c.hi = 0, 0
	} else if c.hi == len(c.buf) {
		c.hi = copy(c.buf[:], c.buf[c.lo:c.hi])
		c.lo = 0
	}
	for tries := 0; ; tries++ {
		n, err := c.r.Read(c.buf[c.hi:])
		c.hi += n
		c.rerr = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if tries == 100 {
			c.rerr = io.ErrNoProgress
			return c.rerr
		}
	}
}

// next returns the next byte without taking it; a text that ends here is cut.
func (c *Copier) next() (byte, error) {
	if c.lo == c.hi {
		if err := c.fill(); err != nil {
			return 0, cut(err)
		}
	}
	return c.buf[c.lo], nil
}

func cut(err error) error {
	if err == io.EOF {
		return fmt.Errorf("%w: it ends too early", ErrSyntax)
	}
	return err
}

// Peek returns the first byte of the next value without taking it: one of
// { [ " t f n - 0-9 when the text is JSON.
func (c *Copier) Peek() (byte, error) {
	for {
		b, err := c.next()
		if err != nil {
			return 0, err
		}
		if b != ' ' && b != '\t' && b != '\n' && b != '\r' {
			return b, nil
		}
		c.lo++
	}
}

func (c *Copier) expect(want byte) error {
	b, err := c.Peek()
	if err != nil {
		return err
	}
	if b != want {
		return fmt.Errorf("%w: %q where %q should be", ErrSyntax, b, want)
	}
	c.lo++
	return nil
}

// Write copies p to the writer, gathering small pieces; what goes before a
// value is written first.
func (c *Copier) Write(p []byte) (int, error) {
	if len(c.lead) > 0 {
		lead := c.lead
		c.lead = c.lead[:0]
		if _, err := c.Write(lead); err != nil {
			return 0, err
		}
	}
	if len(p) > len(c.out.buf)-c.out.n {
		if err := c.flush(); err != nil {
			return 0, err
		}
		if len(p) >= len(c.out.buf) {
			return c.w.Write(p)
		}
	}
	c.out.n += copy(c.out.buf[c.out.n:], p)
	return len(p), nil
}

func (c *Copier) put(s string) error {
	_, err := c.Write([]byte(s))
	return err
}

func (c *Copier) flush() error {
	n := c.out.n
	c.out.n = 0
	if n == 0 {
		return nil
	}
	_, err := c.w.Write(c.out.buf[:n])
	return err
}

// End checks that nothing but space follows and writes what is left.
func (c *Copier) End() error {
	for {
		if c.lo == c.hi {
			err := c.fill()
			if err == io.EOF {
				return c.flush()
			}
			if err != nil {
				return err
			}
		}
		switch c.buf[c.lo] {
		case ' ', '\t', '\n', '\r':
			c.lo++
		default:
			return fmt.Errorf("%w: something follows the value", ErrSyntax)
		}
	}
}

// Object copies an object. For each member it calls field, which takes the
// value with exactly one other method; a value taken with Capture is left out
// of the copy, its key too.
func (c *Copier) Object(field func(key string) error) error {
	if err := c.open('{'); err != nil {
		return err
	}
	if b, err := c.Peek(); err != nil {
		return err
	} else if b == '}' {
		return c.close('}')
	}
	for wrote := false; ; {
		if b, err := c.Peek(); err != nil {
			return err
		} else if b != '"' {
			return fmt.Errorf("%w: %q where a key should be", ErrSyntax, b)
		}
		raw, err := c.take(maxKey)
		if err != nil {
			return err
		}
		var key string
		if err := json.Unmarshal(raw, &key); err != nil {
			return fmt.Errorf("%w: a key is no string", ErrSyntax)
		}
		if err := c.expect(':'); err != nil {
			return err
		}
		c.lead = c.lead[:0]
		if wrote {
			c.lead = append(c.lead, ',')
		}
		c.lead = append(append(c.lead, raw...), ':')
		if err := field(key); err != nil {
			return err
		}
		wrote = wrote || len(c.lead) == 0
		c.lead = c.lead[:0]
		b, err := c.Peek()
		if err != nil {
			return err
		}
		if b == '}' {
			return c.close('}')
		}
		if err := c.expect(','); err != nil {
			return err
		}
	}
}

// Extra begins one more member of the object that field is called for, after a
// member of it was written. The caller writes the value with Write.
func (c *Copier) Extra(key string) {
	c.lead = append(strconv.AppendQuote(append(c.lead[:0], ','), key), ':')
}

// Array copies an array and calls elem for each element, which takes it with
// exactly one other method (not Capture).
func (c *Copier) Array(elem func() error) error {
	if err := c.open('['); err != nil {
		return err
	}
	if b, err := c.Peek(); err != nil {
		return err
	} else if b == ']' {
		return c.close(']')
	}
	for {
		if err := elem(); err != nil {
			return err
		}
		b, err := c.Peek()
		if err != nil {
			return err
		}
		if b == ']' {
			return c.close(']')
		}
		if err := c.expect(','); err != nil {
			return err
		}
		c.lead = append(c.lead[:0], ',')
	}
}

func (c *Copier) open(b byte) error {
	if err := c.expect(b); err != nil {
		return err
	}
	if c.depth++; c.depth > maxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrSyntax, maxDepth)
	}
	_, err := c.Write([]byte{b})
	return err
}

func (c *Copier) close(b byte) error {
	c.lo++
	c.depth--
	_, err := c.Write([]byte{b})
	return err
}

// Value copies a value of any kind.
func (c *Copier) Value() error {
	b, err := c.Peek()
	if err != nil {
		return err
	}
	switch b {
	case '{':
		return c.Object(func(string) error { return c.Value() })
	case '[':
		return c.Array(c.Value)
	case '"':
		return c.String(nil)
	}
	raw, err := c.take(maxScalar)
	if err != nil {
		return err
	}
	_, err = c.Write(raw)
	return err
}

// Capture takes a string, number, true, false or null of at most max bytes and
// returns its text. Nothing is written.
func (c *Copier) Capture(max int) (json.RawMessage, error) { return c.take(max) }

func (c *Copier) take(max int) ([]byte, error) {
	b, err := c.Peek()
	if err != nil {
		return nil, err
	}
	var text []byte
	switch b {
	case '{', '[':
		return nil, fmt.Errorf("%w: an object or array where a plain value should be", ErrSyntax)
	case '"':
		s := stringReader{c: c, raw: true}
		c.lo++
		text = append(text, '"')
		for {
			piece, err := s.piece()
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, err
			}
			if len(text)+len(piece)+1 > max {
				return nil, ErrTooLong
			}
			text = append(text, piece...)
		}
		return append(text, '"'), nil
	}
	for {
		piece := c.buf[c.lo:c.hi]
		n := bytes.IndexAny(piece, " \t\r\n,]}:")
		end := n >= 0
		if end {
			piece = piece[:n]
		}
		if len(text)+len(piece) > max {
			return nil, ErrTooLong
		}
		text = append(text, piece...)
		c.lo += len(piece)
		if end {
			break
		}
		if err := c.fill(); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	if !json.Valid(text) {
		return nil, fmt.Errorf("%w: a value is neither a number nor true, false or null", ErrSyntax)
	}
	return text, nil
}

// String copies a string. change, when not nil, makes the new content: it reads
// the old one from r, without escapes and to any point, and writes the new one
// to w, which must need no escapes.
func (c *Copier) String(change func(r io.Reader, w io.Writer) error) error {
	if err := c.expect('"'); err != nil {
		return err
	}
	if err := c.put(`"`); err != nil {
		return err
	}
	s := stringReader{c: c, raw: change == nil}
	if change != nil {
		if err := change(&s, c); err != nil {
			return err
		}
	}
	for {
		piece, err := s.piece()
		if err == io.EOF {
			return c.put(`"`)
		}
		if err != nil {
			return err
		}
		if change == nil {
			if _, err := c.Write(piece); err != nil {
				return err
			}
		}
	}
}
