package admin

import (
	"bufio"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// flushAfter is how long an item may wait for others to travel with it.
const flushAfter = 10 * time.Millisecond

// streamWriter writes a stream of JSON lines to a client, several lines a
// packet when they come fast. Safe for concurrent use.
type streamWriter struct {
	rc    *http.ResponseController
	stall time.Duration // how long a client may read nothing

	mu     sync.Mutex
	buf    *bufio.Writer
	timer  *time.Timer
	armed  bool
	closed bool
	err    error // the first failure to write
}

func newStreamWriter(w http.ResponseWriter, stall time.Duration) *streamWriter {
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	// Armed, so that the client learns soon that its request is served.
	s := &streamWriter{rc: http.NewResponseController(w), stall: stall, buf: bufio.NewWriterSize(w, maxBody), armed: true}
	s.timer = time.AfterFunc(flushAfter, s.flushLate)
	return s
}

// send adds an item to the stream. After an error every call fails.
func (s *streamWriter) send(item any) error {
	raw, err := json.Marshal(item)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(wireLine{Item: raw}); err != nil {
		return err
	}
	if !s.armed {
		s.timer.Reset(flushAfter)
		s.armed = true
	}
	return nil
}

func (s *streamWriter) write(l wireLine) error {
	line, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if s.err != nil {
		return s.err
	}
	if s.buf.Available() <= len(line) {
		s.deadline()
	}
	if _, err := s.buf.Write(append(line, '\n')); err != nil {
		s.err = err
	}
	return s.err
}

// deadline gives the client a new while to read something.
func (s *streamWriter) deadline() {
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.stall)); err != nil && s.err == nil {
		s.err = err
	}
}

func (s *streamWriter) flushLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	if !s.closed {
		s.flush()
	}
}

func (s *streamWriter) flush() {
	s.deadline()
	if s.err == nil {
		s.err = s.buf.Flush()
	}
	if s.err == nil {
		s.err = s.rc.Flush()
	}
}

// end writes the last line. Nothing of the stream touches the connection after
// it has returned.
func (s *streamWriter) end(failure *wireError) {
	s.timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.write(wireLine{End: failure == nil, Error: failure}) == nil {
		s.flush()
	}
}
