// Package payload reads what a run's input says while the input passes: it is a JSON object that may be
// gigabytes long, so that nobody holds it whole. Nothing that knows where inputs come from may enter.
package payload

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotObject: the text is not a JSON object.
	ErrNotObject = errors.New("not a JSON object")
	// ErrCut: the text is the beginning of a JSON object and ends before it does.
	ErrCut = errors.New("a JSON object that ends too early")
)

const (
	maxDepth  = 10_000   // as encoding/json has it
	maxMethod = 64 << 10 // of the text of the method's name
	maxKey    = 64       // of the text of a key that is looked at: "kwargs", each letter as an escape, is shorter
)

// Object is what an input says of itself. Of a key that is there more than once the last one counts, as for the
// algorithm's own JSON reader.
type Object struct {
	// Method is the function that the input names, "" where it names none by a string.
	Method string
	// Args and Kwargs are where the values of "args" and "kwargs" stand in the text.
	Args, Kwargs Span
	// Size of the text in bytes.
	Size int64
}

// Span is a part of the text, from byte Start up to and without End; the zero Span is none.
type Span struct{ Start, End int64 }

// Len is the length in bytes.
func (s Span) Len() int64 { return s.End - s.Start }

// Scanner takes the text of an input piece by piece, in constant memory. Not safe for concurrent use.
type Scanner struct {
	state state
	off   int64 // of the next byte
	err   error
	open  []byte // the objects and arrays that are open, by their first characters
	rest  string // of a literal
	hex   int    // digits of an escape that are missing
	isKey bool   // the string is a key

	key   []byte // text of a key of the outermost object
	name  string // what it says, "" where it is not looked at
	value []byte // text of the method's name
	start int64  // of the value of a member of the outermost object
	out   Object
}

// state is what may come next.
type state int

const (
	atStart   state = iota // the object
	atValue                // a value
	atElement              // a value, or the end of the array that has just begun
	atMember               // a key, or the end of the object that has just begun
	atKey                  // a key
	atColon                // what divides key and value
	atNext                 // a comma, or the end of an object or array
	atEnd                  // space
	inString
	inEscape
	inHex
	inLiteral
	numMinus // a digit of a number
	numZero  // no more digits before the point
	numInt
	numPoint // a digit behind the point
	numFrac
	numE // a sign or a digit of the exponent
	numSign
	numExp
)

// Write takes the next piece. The error is ErrNotObject, with what is wrong, and stays.
func (s *Scanner) Write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		if s.err != nil {
			return i, s.err
		}
		if s.state == inString {
			i += s.stringPiece(p[i:])
			continue
		}
		if s.step(p[i]) {
			s.off++
			i++
		}
	}
	return len(p), s.err
}

// Close ends the text and returns what it says. The error is ErrCut or ErrNotObject.
func (s *Scanner) Close() (*Object, error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case s.state != atEnd:
		return nil, ErrCut
	}
	s.out.Size = s.off
	return &s.out, nil
}

func (s *Scanner) fail(format string, a ...any) {
	s.err = fmt.Errorf("%w: %s at byte %d", ErrNotObject, fmt.Sprintf(format, a...), s.off)
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// step looks at one byte outside of strings. It is not taken where false is returned: it
// is looked at again in the state that is now.
func (s *Scanner) step(b byte) (taken bool) {
	if s.state <= atEnd && isSpace(b) {
		return true
	}
	switch s.state {
	case atStart:
		if b != '{' {
			s.fail("%q where { should be", b)
			return true
		}
		s.begin(b)
	case atElement:
		if b == ']' {
			s.close()
			return true
		}
		s.beginValue(b)
	case atValue:
		s.beginValue(b)
	case atMember, atKey:
		switch {
		case b == '"':
			s.state, s.isKey = inString, true
			s.key = s.key[:0]
			s.keep(b)
		case b == '}' && s.state == atMember:
			s.close()
		default:
			s.fail("%q where a key should be", b)
		}
	case atColon:
		if b != ':' {
			s.fail("%q where : should be", b)
			return true
		}
		s.state = atValue
	case atNext:
		s.next(b)
	case atEnd:
		s.fail("%q behind the object", b)
	case inEscape:
		s.keep(b)
		switch {
		case b == 'u':
			s.state, s.hex = inHex, 4
		case strings.IndexByte(`"\/bfnrt`, b) >= 0:
			s.state = inString
		default:
			s.fail("an unknown escape")
		}
	case inHex:
		s.keep(b)
		if !(b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'f') {
			s.fail("an unknown escape")
		} else if s.hex--; s.hex == 0 {
			s.state = inString
		}
	case inLiteral:
		if b != s.rest[0] {
			s.fail("%q in a word that is neither true, false nor null", b)
		} else if s.rest = s.rest[1:]; s.rest == "" {
			s.off++
			s.ended()
			s.off--
		}
	default:
		return s.number(b)
	}
	return true
}

// number looks at the next byte of a number, which ends with the byte behind it.
func (s *Scanner) number(b byte) (taken bool) {
	digit := b >= '0' && b <= '9'
	switch {
	case s.state == numMinus && b == '0':
		s.state = numZero
	case (s.state == numMinus || s.state == numInt) && digit:
		s.state = numInt
	case (s.state == numZero || s.state == numInt) && b == '.':
		s.state = numPoint
	case (s.state == numPoint || s.state == numFrac) && digit:
		s.state = numFrac
	case (s.state == numZero || s.state == numInt || s.state == numFrac) && b|0x20 == 'e':
		s.state = numE
	case s.state == numE && (b == '+' || b == '-'):
		s.state = numSign
	case (s.state == numE || s.state == numSign || s.state == numExp) && digit:
		s.state = numExp
	case s.state == numMinus || s.state == numPoint || s.state == numE || s.state == numSign:
		s.fail("%q where a digit should be", b)
	default:
		s.ended()
		return false
	}
	return true
}

func (s *Scanner) beginValue(b byte) {
	if len(s.open) == 1 {
		s.start, s.value = s.off, s.value[:0]
		if s.name == "method" {
			s.out.Method = ""
		}
	}
	switch {
	case b == '{' || b == '[':
		s.begin(b)
	case b == '"':
		s.state, s.isKey = inString, false
		s.keep(b)
	case b == 't':
		s.state, s.rest = inLiteral, "rue"
	case b == 'f':
		s.state, s.rest = inLiteral, "alse"
	case b == 'n':
		s.state, s.rest = inLiteral, "ull"
	case b == '-':
		s.state = numMinus
	case b == '0':
		s.state = numZero
	case b >= '1' && b <= '9':
		s.state = numInt
	default:
		s.fail("%q where a value should be", b)
	}
}

func (s *Scanner) begin(b byte) {
	if len(s.open) == maxDepth {
		s.fail("more than %d levels", maxDepth)
		return
	}
	s.open = append(s.open, b)
	s.state = atMember
	if b == '[' {
		s.state = atElement
	}
}

// close ends the innermost object or array, with the byte that is looked at.
func (s *Scanner) close() {
	s.open = s.open[:len(s.open)-1]
	s.off++
	s.ended()
	s.off--
}

func (s *Scanner) next(b byte) {
	in := s.open[len(s.open)-1]
	switch {
	case b == ',' && in == '{':
		s.state = atKey
	case b == ',':
		s.state = atValue
	case b == in+2: // { and }, [ and ]
		s.close()
	default:
		s.fail("%q where a comma or the end should be", b)
	}
}

// ended notes the end of a value, which is off.
func (s *Scanner) ended() {
	switch len(s.open) {
	case 0:
		s.state = atEnd
		return
	case 1:
		span := Span{s.start, s.off}
		switch s.name {
		case "args":
			s.out.Args = span
		case "kwargs":
			s.out.Kwargs = span
		case "method":
			var method string
			if json.Unmarshal(s.value, &method) == nil { // one that is no string is none
				s.out.Method = strings.TrimSpace(method)
			}
		}
	}
	s.state = atNext
}

// stringPiece takes what there is of a string, up to and with its closing quote or a backslash.
func (s *Scanner) stringPiece(p []byte) int {
	n := 0
	for n < len(p) && p[n] != '"' && p[n] != '\\' && p[n] >= ' ' {
		n++
	}
	s.keep(p[:n]...)
	s.off += int64(n)
	if n == len(p) || s.err != nil {
		return n
	}
	switch p[n] {
	case '\\':
		s.keep(p[n])
		s.state = inEscape
	case '"':
		s.keep(p[n])
		s.endString()
	default:
		s.fail("a control character in a string")
	}
	s.off++
	return n + 1
}

func (s *Scanner) endString() {
	if !s.isKey {
		s.off++
		s.ended()
		s.off--
		return
	}
	s.state = atColon
	if len(s.open) == 1 {
		s.name = ""
		_ = json.Unmarshal(s.key, &s.name) // one that was too long to be kept is none of those looked at
	}
}

// keep holds on to the text of a string that is looked at.
func (s *Scanner) keep(p ...byte) {
	switch {
	case len(s.open) != 1:
	case s.isKey:
		s.key = append(s.key, p[:min(len(p), maxKey-len(s.key))]...)
	case s.name != "method":
	case len(s.value)+len(p) > maxMethod:
		s.fail("the name of a method that is longer than %d bytes", maxMethod)
	default:
		s.value = append(s.value, p...)
	}
}
