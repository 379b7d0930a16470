package jsonstream

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// stringReader reads the content of one string, up to and with its closing
// quote. It reads what the string says, or the characters as they stand (raw).
type stringReader struct {
	c    *Copier
	raw  bool
	done bool
	left []byte // of the last piece
}

func (s *stringReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(s.left) == 0 {
		var err error
		if s.left, err = s.piece(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

// piece returns the next characters, at least one, valid until the next call;
// at the end of the string, io.EOF.
func (s *stringReader) piece() ([]byte, error) {
	if s.done {
		return nil, io.EOF
	}
	c := s.c
	b, err := c.next()
	if err != nil {
		return nil, err
	}
	switch b {
	case '"':
		c.lo++
		s.done = true
		return nil, io.EOF
	case '\\':
		return s.escape()
	}
	piece := c.buf[c.lo:c.hi]
	if n := bytes.IndexByte(piece, '"'); n >= 0 {
		piece = piece[:n]
	}
	if n := bytes.IndexByte(piece, '\\'); n >= 0 {
		piece = piece[:n]
	}
	if hasControl(piece) {
		return nil, fmt.Errorf("%w: a control character in a string", ErrSyntax)
	}
	c.lo += len(piece)
	return piece, nil
}

// hasControl reports whether a byte of p is below a space, eight at a time: the
// subtraction borrows into a byte's top bit only where it, or one before it, is.
func hasControl(p []byte) bool {
	const spaces, tops = 0x2020202020202020, 0x8080808080808080
	for ; len(p) >= 8; p = p[8:] {
		v := binary.LittleEndian.Uint64(p)
		if (v-spaces)&^v&tops != 0 {
			return true
		}
	}
	for _, b := range p {
		if b < ' ' {
			return true
		}
	}
	return false
}

// escape takes one escape sequence, or two \u that belong together.
func (s *stringReader) escape() ([]byte, error) {
	text, err := s.sequence(nil)
	if err != nil {
		return nil, err
	}
	if s.raw {
		return text, nil
	}
	if len(text) == 6 && (text[2]|0x20) == 'd' && text[3] >= '8' {
		// Half of a character; the other half should follow.
		if b, err := s.c.next(); err != nil {
			return nil, err
		} else if b == '\\' {
			if text, err = s.sequence(text); err != nil {
				return nil, err
			}
		}
	}
	var plain string
	if err := json.Unmarshal(append(append([]byte{'"'}, text...), '"'), &plain); err != nil {
		return nil, fmt.Errorf("%w: an unknown escape in a string", ErrSyntax)
	}
	return []byte(plain), nil
}

func (s *stringReader) sequence(text []byte) ([]byte, error) {
	take := func() (byte, error) {
		b, err := s.c.next()
		if err == nil {
			s.c.lo++
			text = append(text, b)
		}
		return b, err
	}
	if _, err := take(); err != nil {
		return nil, err
	}
	kind, err := take()
	if err != nil {
		return nil, err
	}
	switch kind {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return text, nil
	case 'u':
		for range 4 {
			b, err := take()
			if err != nil {
				return nil, err
			}
			if !(b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'f') {
				return nil, fmt.Errorf("%w: an unknown escape in a string", ErrSyntax)
			}
		}
		return text, nil
	}
	return nil, fmt.Errorf("%w: an unknown escape in a string", ErrSyntax)
}
