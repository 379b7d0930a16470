package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

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
	var keep headTail
	err := runtime.ReadWholeLog(path, func(l runtime.LogLine) error {
		if l.Gap {
			keep.gap(l.Dropped)
			return nil
		}
		keep.write(l.Text)
		if !l.Partial {
			keep.write([]byte{'\n'})
		}
		return nil
	})
	return keep.String(), err
}

// headTail keeps the first logHead and the last logTail bytes written to it.
type headTail struct {
	head, tail []byte
	dropped    int64
	past       bool // the head is over
}

// gap leaves out what is missing, with what has come between it and the head.
func (h *headTail) gap(missing int64) {
	h.dropped += missing + int64(len(h.tail))
	h.tail, h.past = h.tail[:0], true
}

func (h *headTail) write(p []byte) {
	if room := logHead - len(h.head); room > 0 && !h.past {
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
		out = append(append(append(out, '\n'), gapText(dropped)...), '\n')
	}
	out = append(out, tail...)
	return clean(out)
}

// gapText stands where a part of a log is missing; 0 bytes are an unknown number.
func gapText(bytes int64) string {
	if bytes == 0 {
		return "[... a part of the log left out by v6node ...]"
	}
	return fmt.Sprintf("[... %d bytes of log left out by v6node ...]", bytes)
}

// clean makes text of whatever an algorithm printed.
func clean(b []byte) string {
	return string(bytes.ReplaceAll(bytes.ToValidUTF8(b, []byte("\uFFFD")), []byte{0}, []byte("\uFFFD")))
}
