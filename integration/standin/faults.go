package standin

import (
	"bytes"
	"context"
	"net/http"
	"path"
	"strings"
	"time"
)

// Fault is a disturbance of requests that match. The effects combine: a Delay comes
// first, then one of DropBefore, Status or processing, then one of DropAfter,
// DropMidBody or SlowBody.
type Fault struct {
	// Method and Path select requests: "" is any. Path is a path.Match pattern
	// beneath the API path, "/run/*"; the socket is "/socket.io/".
	Method, Path string
	// Who selects the requests of one node or user, 0 is any. A container counts as
	// its node.
	Who int64
	// Skip lets so many matching requests pass first.
	Skip int
	// Times is how many requests are disturbed; 0 is all until Remove.
	Times int

	// Delay holds the request before anything else is done.
	Delay time.Duration
	// Status answers with this code instead of processing, with Header and Body.
	Status int
	Header http.Header
	Body   string
	// DropBefore closes the connection without processing the request.
	DropBefore bool
	// DropAfter processes the request and closes the connection without an answer.
	DropAfter bool
	// DropMidBody processes the request, sends half of the answer and closes.
	DropMidBody bool
	// SlowBody spreads the answer's body over this time.
	SlowBody time.Duration
}

// Injected is a fault at work.
type Injected struct {
	s    *Server
	f    Fault
	seen int // matching requests
	hits int // disturbed requests
	gone bool
}

// Fault starts to disturb requests. Faults are asked in the order of their
// injection; the first that applies acts alone.
func (s *Server) Fault(f Fault) *Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &Injected{s: s, f: f}
	s.faults = append(s.faults, in)
	return in
}

// Hits returns how many requests were disturbed.
func (in *Injected) Hits() int {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	return in.hits
}

// Wait waits until n requests were disturbed (their delays may still be running).
func (in *Injected) Wait(ctx context.Context, n int) error {
	return in.s.wait(ctx, func() bool { return in.hits >= n })
}

// Remove ends the fault; requests that it holds already are held on.
func (in *Injected) Remove() {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	in.gone = true
}

// pick returns the fault for a request, nil for none. Callers hold the lock.
func (s *Server) pick(method, p string, who int64) *Fault {
	for _, in := range s.faults {
		f := &in.f
		if in.gone || (f.Method != "" && f.Method != method) || (f.Who != 0 && f.Who != who) {
			continue
		}
		if f.Path != "" {
			if match, err := path.Match(f.Path, p); err != nil || !match {
				continue
			}
		}
		in.seen++
		if in.seen <= f.Skip || (f.Times > 0 && in.hits >= f.Times) {
			continue
		}
		in.hits++
		s.changedLocked()
		return f
	}
	return nil
}

// injectFaults wraps the routes: it logs each request and disturbs some.
func (s *Server) injectFaults(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		s.work.Add(1)
		entry := Request{At: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
		if !strings.HasPrefix(r.URL.Path, "/socket.io/") {
			entry.Path = strings.TrimPrefix(r.URL.Path, s.api)
		}
		// Whoever the token names, also if it is of the other type or has expired.
		for _, typ := range []string{"access", "refresh"} {
			if who, err := s.verify(r.Header.Get("Authorization"), typ); err == nil {
				entry.Who = who.id
			}
		}
		f := s.pick(r.Method, entry.Path, entry.Who)
		s.mu.Unlock()
		defer s.work.Done()
		defer func() {
			entry.Took = time.Since(entry.At)
			s.opt.Log.Debug("request", "method", entry.Method, "path", entry.Path, "status", entry.Status, "took", entry.Took)
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.reqLog) == requestLimit {
				s.reqLog = append(s.reqLog[:0:0], s.reqLog[requestLimit/2:]...)
			}
			s.reqLog = append(s.reqLog, entry)
			s.changedLocked()
		}()
		if strings.HasPrefix(r.URL.Path, "/socket.io/") && (f == nil || !f.needsAnswer()) {
			if f != nil && !s.pause(r.Context(), f.Delay) {
				return
			}
			entry.Status = http.StatusSwitchingProtocols
			next.ServeHTTP(w, r) // the connection is taken over: no wrapper around w
			return
		}
		if f == nil {
			cw := &codeWriter{ResponseWriter: w}
			next.ServeHTTP(cw, r)
			entry.Status = cw.code
			return
		}
		entry.Status = s.disturb(f, next, w, r)
		if entry.Status == 0 {
			panic(http.ErrAbortHandler) // closes the connection, logs nothing
		}
	})
}

// needsAnswer tells whether the fault replaces or spoils the answer, which for a
// socket means that it is not accepted.
func (f *Fault) needsAnswer() bool {
	return f.Status != 0 || f.DropBefore || f.DropAfter || f.DropMidBody
}

// disturb runs a request under a fault and returns the status that was sent, 0 when
// the connection is to be dropped.
func (s *Server) disturb(f *Fault, next http.Handler, w http.ResponseWriter, r *http.Request) int {
	if !s.pause(r.Context(), f.Delay) || f.DropBefore {
		return 0
	}
	answer := &bufferedWriter{header: http.Header{}, code: http.StatusOK}
	if f.Status != 0 {
		answer.code = f.Status
		for k, v := range f.Header {
			answer.header[http.CanonicalHeaderKey(k)] = v
		}
		answer.body.WriteString(f.Body)
	} else {
		next.ServeHTTP(answer, r)
	}
	if f.DropAfter {
		return 0
	}
	for k, v := range answer.header {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.code)
	body := answer.body.Bytes()
	flush := http.NewResponseController(w)
	if f.DropMidBody {
		w.Write(body[:len(body)/2])
		_ = flush.Flush()
		return 0
	}
	pieces := 1
	if f.SlowBody > 0 {
		pieces = max(1, min(20, len(body)))
	}
	for i := range pieces {
		if !s.pause(r.Context(), f.SlowBody/time.Duration(pieces)) {
			return 0
		}
		if _, err := w.Write(body[i*len(body)/pieces : (i+1)*len(body)/pieces]); err != nil {
			return 0
		}
		if pieces > 1 {
			_ = flush.Flush()
		}
	}
	return answer.code
}

// pause waits; false means that the client or the server went away meanwhile.
func (s *Server) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// codeWriter remembers the status.
type codeWriter struct {
	http.ResponseWriter
	code int
}

func (w *codeWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController through.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bufferedWriter holds an answer back.
type bufferedWriter struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *bufferedWriter) Header() http.Header         { return w.header }
func (w *bufferedWriter) WriteHeader(code int)        { w.code = code }
func (w *bufferedWriter) Write(p []byte) (int, error) { return w.body.Write(p) }

// CloseSockets cuts the sockets of a node or user (0 = all), without a goodbye.
func (s *Server) CloseSockets(who int64) {
	for _, sock := range s.socketsOf(who) {
		sock.conn.Drop()
	}
}

// FreezeSockets makes the sockets of a node or user (0 = all) half open: the TCP
// connection stands, nothing is read and nothing sent any more, not even pings. New
// connections are not affected.
func (s *Server) FreezeSockets(who int64) {
	for _, sock := range s.socketsOf(who) {
		sock.conn.Freeze()
	}
}

func (s *Server) socketsOf(who int64) []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*socket
	for sock := range s.sockets {
		if who == 0 || (sock.in && sock.who.id == who) {
			list = append(list, sock)
		}
	}
	return list
}

// SilentSockets makes new sockets connect and then hear nothing at all, not even
// sync, as with a garbage token.
func (s *Server) SilentSockets(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = on
}

// LoseEvents makes the server send no events to rooms: tasks, kills and status
// changes go unannounced, as when a server's message queue is broken.
func (s *Server) LoseEvents(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = on
}

// Sockets returns how many sockets of a node or user (0 = all, identified or not)
// are connected.
func (s *Server) Sockets(who int64) int { return len(s.socketsOf(who)) }

// WaitSockets waits until a node or user (0 = all) has exactly n sockets.
func (s *Server) WaitSockets(ctx context.Context, who int64, n int) error {
	return s.wait(ctx, func() bool {
		count := 0
		for sock := range s.sockets {
			if who == 0 || (sock.in && sock.who.id == who) {
				count++
			}
		}
		return count == n
	})
}
