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
	// Gap means that this is no line: at this place a part of the log was taken
	// away to keep it small (Rotator). Dropped is how many bytes of text it had,
	// newlines included, 0 where that is not known. Time is that of its end.
	Gap     bool
	Dropped int64
}

// LogPos is a place in a log, from which reading goes on without loss or
// repetition. The zero value is the beginning. The two streams have places of
// their own, because one may have a line open while the other goes on.
type LogPos struct {
	Stdout LogOffset `json:"stdout,omitzero"`
	Stderr LogOffset `json:"stderr,omitzero"`
}

// LogOffset is a place in one of a log's files.
type LogOffset struct {
	File int64 `json:"file,omitempty"` // files count from 1 in the order of their rotation; 0 is the beginning of the log
	Byte int64 `json:"byte,omitempty"`
}

// Before tells whether o comes earlier than p.
func (o LogOffset) Before(p LogOffset) bool {
	return o.File < p.File || o.File == p.File && o.Byte < p.Byte
}

// first is where reading begins so that both streams lose nothing.
func (p LogPos) first() LogOffset {
	if p.Stderr.Before(p.Stdout) {
		return p.Stderr
	}
	return p.Stdout
}

// last is up to where both streams have been read.
func (p LogPos) last() LogOffset {
	if p.Stderr.Before(p.Stdout) {
		return p.Stdout
	}
	return p.Stderr
}

// ReadLog reads a CRI log file to its end and calls fn for each line. An error
// of fn or of r is returned. Memory use does not depend on the input. Records
// that are not in CRI's form are handed on as they are, with an empty Stream.
func ReadLog(r io.Reader, fn func(LogLine) error) error {
	p := newLogParser(LogPos{}, func(l LogLine, _ LogPos) error { return fn(l) })
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
	fn   func(l LogLine, next LogPos) error
	from LogPos // what comes before it was handed on by somebody else

	record []byte // the begun record, or the begun rest of a long one
	file   int64  // number of the file that is read
	off    int64  // offset of record in the file
	start  int64  // offset of the record's beginning
	inside bool   // the header of this record was taken off before
	skip   bool   // this record was handed on by somebody else
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
	start LogOffset // the first record that is not handed on yet
}

var logStreams = [2]string{"stdout", "stderr"}

func newLogParser(from LogPos, fn func(LogLine, LogPos) error) *logParser {
	at := from.first()
	return &logParser{fn: fn, from: from, file: at.File, off: at.Byte, start: at.Byte}
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

// finish hands on what is left at the end of the log: a record that was cut
// off, and lines without an end.
func (p *logParser) finish() error {
	if err := p.endRecord(); err != nil {
		return err
	}
	for i := range p.open {
		if !p.open[i].begun {
			continue
		}
		p.open[i].start = p.at(p.off)
		if len(p.open[i].text) > 0 {
			if err := p.emit(i, true, p.off); err != nil {
				return err
			}
		}
		p.open[i].begun = false
	}
	return nil
}

// nextFile begins another file. A line that is open goes on in it.
func (p *logParser) nextFile(number int64) error {
	err := p.endRecord()
	p.file, p.off, p.start = number, 0, 0
	return err
}

// endRecord ends a record that has no newline.
func (p *logParser) endRecord() error {
	var err error
	if len(p.record) > 0 {
		err = p.piece(p.record, false)
		p.record = p.record[:0]
	}
	p.inside = false
	return err
}

// rewind makes the parser expect the beginning of the file.
func (p *logParser) rewind() {
	p.record, p.inside = p.record[:0], false
	p.off, p.start = 0, 0
	for i := range p.open {
		if p.open[i].start.File == p.file {
			p.open[i].start.Byte = 0
		}
	}
	p.from = LogPos{}
}

func (p *logParser) at(off int64) LogOffset { return LogOffset{File: p.file, Byte: off} }

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
		p.skip = p.at(p.start).Before(p.known())
	}
	if p.skip {
		p.off, p.inside = end, !ended
		return nil
	}
	err := p.body(text, ended, end)
	p.off, p.inside = end, !ended
	return err
}

// known is up to where the record's stream was handed on before.
func (p *logParser) known() LogOffset {
	switch p.head.stream {
	case 0:
		return p.from.Stdout
	case 1:
		return p.from.Stderr
	}
	return p.from.last()
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
		o.begun, o.time, o.start = true, p.head.time, p.at(p.start)
	}
	for {
		n := min(len(text), MaxLogText-len(o.text))
		o.text = append(o.text, text[:n]...)
		text = text[n:]
		if len(text) == 0 {
			break
		}
		o.start = p.at(p.start)
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

// next is where a reader has to begin again so as to lose and repeat nothing.
func (p *logParser) next(end int64) LogPos {
	at := [2]LogOffset{p.at(end), p.at(end)}
	for i := range p.open {
		if p.open[i].begun {
			at[i] = p.open[i].start
		}
		if known := [2]LogOffset{p.from.Stdout, p.from.Stderr}[i]; at[i].Before(known) {
			at[i] = known
		}
	}
	return LogPos{Stdout: at[0], Stderr: at[1]}
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
	stream, _, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return bad, 0
	}
	h := logHeader{time: t, stream: -1}
	for i, name := range logStreams {
		if string(stream) == name {
			h.stream = i
		}
	}
	if h.stream < 0 {
		return bad, 0
	}
	begin := len(stamp) + 1 + len(stream) + 1
	full, n := parseLogTag(b[begin:])
	if n < 0 {
		return bad, 0
	}
	h.full = full
	return h, begin + n
}

// parseLogTag reads what stands between the stream and the text, and returns how
// many bytes it takes with the space after it, or -1. The tag may be followed by
// others, separated by colons.
func parseLogTag(b []byte) (full bool, n int) {
	if len(b) == 0 || b[0] != 'F' && b[0] != 'P' {
		return false, -1
	}
	full = b[0] == 'F'
	if len(b) == 1 {
		return full, 1
	}
	if b[1] != ' ' && b[1] != ':' {
		return false, -1
	}
	if i := bytes.IndexByte(b[1:min(len(b), 65)], ' '); i >= 0 {
		return full, i + 2
	}
	return false, -1
}
