package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/runtime"
)

// The log that goes to the server with the result is bounded: of a longer one
// the beginning and the end are sent.
const (
	logHead = 1 << 20
	logTail = 3 << 20
)

// withheld replaces an algorithm's log where share_algorithm_logs is off.
const withheld = "This node does not share the logs of algorithms."

// finalLog is what the final PATCH carries: the algorithm's own output, then
// the node's sentence if the run failed.
func (n *Node) finalLog(path, message string) string {
	var b strings.Builder
	if n.cfg.ShareAlgorithmLogs {
		text, err := readLog(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			n.log.Error("the algorithm's log could not be read", "path", path, "error", err)
		}
		b.WriteString(text)
	} else {
		b.WriteString(withheld)
	}
	if message != "" {
		if b.Len() > 0 && !strings.HasSuffix(b.String(), "\n") {
			b.WriteByte('\n')
		}
		b.WriteString("v6node: " + message)
	}
	return b.String()
}

// readLog joins a CRI log's lines into text that is valid UTF-8 without NUL
// (databases of servers refuse it), keeping head and tail of a long one.
func readLog(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	var keep headTail
	err = runtime.ReadLog(f, func(l runtime.LogLine) error {
		keep.write(l.Text)
		if !l.Partial {
			keep.write([]byte{'\n'})
		}
		return nil
	})
	return keep.String(), errors.Join(err, f.Close())
}

// headTail keeps the first logHead and the last logTail bytes written to it.
type headTail struct {
	head, tail []byte
	dropped    int64
}

func (h *headTail) write(p []byte) {
	if room := logHead - len(h.head); room > 0 {
		k := min(room, len(p))
		h.head = append(h.head, p[:k]...)
		p = p[k:]
	}
	h.tail = append(h.tail, p...)
	if len(h.tail) > 2*logTail { // cut seldom, so that each byte moves at most once
		h.dropped += int64(len(h.tail) - logTail)
		h.tail = append(h.tail[:0], h.tail[len(h.tail)-logTail:]...)
	}
}

func (h *headTail) String() string {
	tail, dropped := h.tail, h.dropped
	if over := len(tail) - logTail; over > 0 {
		tail, dropped = tail[over:], dropped+int64(over)
	}
	var out []byte
	out = append(out, h.head...)
	if dropped > 0 {
		out = fmt.Appendf(out, "\n[... %d bytes of log left out by v6node ...]\n", dropped)
	}
	out = append(out, tail...)
	return clean(out)
}

// clean makes text of whatever an algorithm printed.
func clean(b []byte) string {
	return string(bytes.ReplaceAll(bytes.ToValidUTF8(b, []byte("\uFFFD")), []byte{0}, []byte("\uFFFD")))
}

// Log lines are shipped while the algorithm runs, joined so that a flood costs
// few messages, and bounded: what is over the rate only appears in the final log.
const (
	shipEvery = 500 * time.Millisecond
	shipChunk = 64 << 10
)

// shipLog sends an algorithm's log as it grows, until ctx ends, then the rest.
func (n *Node) shipLog(ctx context.Context, a *activeRun, path string) error {
	s := &shipper{node: n, run: a}
	lines := make(chan []byte)
	follow := make(chan error, 1)
	go func() {
		defer close(lines)
		follow <- n.follower.Follow(ctx, path, 0, func(l runtime.LogLine, _ int64) error {
			lines <- append(bytes.Clone(l.Text), '\n')
			return nil
		})
	}()
	tick := time.NewTicker(shipEvery)
	defer tick.Stop()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				s.flush()
				return <-follow
			}
			s.add(line)
		case <-tick.C:
			s.flush()
		}
	}
}

// shipper joins lines into chunks. Not for concurrent use.
type shipper struct {
	node    *Node
	run     *activeRun
	chunk   []byte
	skipped int
}

func (s *shipper) add(line []byte) {
	if len(s.chunk)+len(line) > shipChunk {
		s.skipped++
		return
	}
	s.chunk = append(s.chunk, line...)
}

func (s *shipper) flush() {
	if len(s.chunk) == 0 && s.skipped == 0 {
		return
	}
	if s.skipped > 0 {
		s.chunk = fmt.Appendf(s.chunk, "[v6node: %d lines came too fast and are in the final log only]\n", s.skipped)
	}
	s.node.api.EmitLog(server.LogChunk{
		RunID: s.run.id, TaskID: s.run.taskID, Log: clean(s.chunk),
	})
	s.chunk, s.skipped = s.chunk[:0], 0
}
