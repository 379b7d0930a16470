package runtime

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// MaxLogText bounds LogLine.Text. What a container writes without a newline is
// handed on in pieces of this size.
const MaxLogText = 64 << 10

// LogLine is one line that a container wrote. The runtime cuts long lines into
// records; here they are joined again.
type LogLine struct {
	Time   time.Time // when the runtime saw the first part
	Stream string    // "stdout" or "stderr"; "" when the log file is damaged there
	Text   []byte    // any bytes, without the newline; valid only during the call
	// Partial means that the line goes on in the next LogLine of this stream,
	// or that the container ended without a newline.
	Partial bool
}

// ReadLog reads a CRI log file to its end and calls fn for each line. An error
// of fn or of r is returned. Memory use does not depend on the input. Records
// that are not in CRI's form are handed on as they are, with an empty Stream.
func ReadLog(r io.Reader, fn func(LogLine) error) error {
	p := newLogParser(0, func(l LogLine, _ int64) error { return fn(l) })
	buf := make([]byte, MaxLogText)
	for {
		n, err := r.Read(buf)
		if perr := p.write(buf[:n]); perr != nil {
			return perr
		}
		if errors.Is(err, io.EOF) {
			return p.finish()
		}
		if err != nil {
			return err
		}
	}
}

// logParser takes a CRI log apart as it comes in:
//
//	2026-01-02T15:04:05.999999999Z stdout F the text
//
// F ends a line, P says that it goes on in the stream's next record.
type logParser struct {
	fn func(l LogLine, next int64) error

	record []byte // the begun record, or the begun rest of a long one
	off    int64  // offset of record in the file
	start  int64  // offset of the record's beginning
	inside bool   // the header of this record was taken off before
	head   logHeader

	open [2]openLine
}

type logHeader struct {
	time   time.Time
	stream int // index in logStreams, or -1
	full   bool
}

// openLine is a line of one stream whose end has not come.
type openLine struct {
	text  []byte
	time  time.Time
	begun bool
	start int64 // offset of the first record that is not handed on yet
}

var logStreams = [2]string{"stdout", "stderr"}

func newLogParser(off int64, fn func(LogLine, int64) error) *logParser {
	return &logParser{fn: fn, off: off, start: off}
}

// write takes the next bytes of the file.
func (p *logParser) write(b []byte) error {
	for len(b) > 0 {
		if i := bytes.IndexByte(b, '\n'); i >= 0 && len(p.record)+i <= MaxLogText {
			record := b[:i]
			if len(p.record) > 0 {
				p.record = append(p.record, record...)
				record = p.record
			}
			b = b[i+1:]
			err := p.piece(record, true)
			p.record = p.record[:0]
			if err != nil {
				return err
			}
			continue
		}
		n := min(len(b), MaxLogText-len(p.record))
		p.record = append(p.record, b[:n]...)
		b = b[n:]
		if len(p.record) == MaxLogText {
			err := p.piece(p.record, false)
			p.record = p.record[:0]
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// finish hands on what is left at the end of the file: a record that was cut
// off, and lines without an end.
func (p *logParser) finish() error {
	if len(p.record) > 0 {
		err := p.piece(p.record, false)
		p.record = p.record[:0]
		if err != nil {
			return err
		}
	}
	for i := range p.open {
		if p.open[i].begun && len(p.open[i].text) > 0 {
			p.open[i].start = p.off
			if err := p.emit(i, true, p.off); err != nil {
				return err
			}
		}
	}
	return nil
}

// piece takes a whole record, or the part of one that fits into memory.
func (p *logParser) piece(text []byte, ended bool) error {
	end := p.off + int64(len(text))
	if ended {
		end++
	}
	if !p.inside {
		p.start = p.off
		var n int
		p.head, n = parseLogHeader(text)
		text = text[n:]
	}
	err := p.body(text, ended, end)
	p.off, p.inside = end, !ended
	return err
}

func (p *logParser) body(text []byte, ended bool, end int64) error {
	if p.head.stream < 0 {
		if len(text) == 0 {
			return nil
		}
		return p.fn(LogLine{Text: text, Partial: !ended}, p.next(end))
	}
	o := &p.open[p.head.stream]
	final := ended && p.head.full
	if !o.begun {
		if final {
			return p.fn(LogLine{Time: p.head.time, Stream: logStreams[p.head.stream], Text: text}, p.next(end))
		}
		o.begun, o.time, o.start = true, p.head.time, p.start
	}
	for {
		n := min(len(text), MaxLogText-len(o.text))
		o.text = append(o.text, text[:n]...)
		text = text[n:]
		if len(text) == 0 {
			break
		}
		o.start = p.start
		if err := p.emit(p.head.stream, true, end); err != nil {
			return err
		}
	}
	if !final {
		return nil
	}
	o.begun = false
	return p.emit(p.head.stream, false, end)
}

// emit hands on what is collected of one stream's line.
func (p *logParser) emit(stream int, partial bool, end int64) error {
	o := &p.open[stream]
	err := p.fn(LogLine{Time: o.time, Stream: logStreams[stream], Text: o.text, Partial: partial}, p.next(end))
	o.text = o.text[:0]
	return err
}

// next is where a reader has to begin again so as to lose nothing.
func (p *logParser) next(end int64) int64 {
	for i := range p.open {
		if p.open[i].begun {
			end = min(end, p.open[i].start)
		}
	}
	return end
}

// parseLogHeader returns a record's header and how many bytes it takes; the
// stream is -1 and the length 0 when it is none.
func parseLogHeader(b []byte) (logHeader, int) {
	bad := logHeader{stream: -1}
	// The longest form of the time has 35 bytes.
	stamp, rest, ok := bytes.Cut(b[:min(len(b), 64)], []byte{' '})
	if !ok {
		return bad, 0
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return bad, 0
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return bad, 0
	}
	h := logHeader{time: t, stream: -1}
	for i, name := range logStreams {
		if string(stream) == name {
			h.stream = i
		}
	}
	if h.stream < 0 || len(rest) == 0 {
		return bad, 0
	}
	// The tag may be followed by others, separated by colons.
	switch rest[0] {
	case 'F':
		h.full = true
	case 'P':
	default:
		return bad, 0
	}
	n := len(stamp) + 1 + len(stream) + 1 + 1
	if len(b) > n && b[n] != ' ' && b[n] != ':' {
		return bad, 0
	}
	if i := bytes.IndexByte(b[n:min(len(b), n+64)], ' '); i >= 0 {
		return h, n + i + 1
	}
	if len(b) > n {
		return bad, 0
	}
	return h, n
}
