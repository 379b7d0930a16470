package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/runtime"
)

// Log lines are shipped while the algorithm runs, joined so that a flood costs few
// messages, and bounded: at first as much as a start has to say, then as much as somebody
// can follow, and altogether no more than the final log has. Servers read and
// write the whole of a run's log for each piece that they add. What is over these only
// appears in the final log.
const (
	shipEvery = 500 * time.Millisecond
	shipChunk = 64 << 10
	shipBurst = 256 << 10
	shipRate  = 16 << 10 // a second
	shipTotal = logHead + logTail
)

// errShippedEnough ends the reading of a log of which no more is shipped.
var errShippedEnough = errors.New("no more of this log is sent while the algorithm runs")

// shipLog sends an algorithm's log as it grows, until ctx ends, then the rest.
// A run that is taken over goes on where it was.
func (n *Node) shipLog(ctx context.Context, a *activeRun, ws *workspace.Run) error {
	begin := shipped(ws)
	s := newShipper(time.Now(), begin)
	type sent struct {
		text []byte
		next runtime.LogPos
		gap  bool
	}
	lines := make(chan sent)
	enough := make(chan struct{})
	follow := make(chan error, 1)
	go func() {
		defer close(lines)
		follow <- n.follower.Follow(ctx, ws.LogFile(), begin.LogPos, func(l runtime.LogLine, next runtime.LogPos) error {
			text := bytes.Clone(l.Text)
			if !l.Partial {
				text = append(text, '\n')
			}
			select {
			case lines <- sent{text, next, l.Gap}:
				return nil
			case <-enough:
				return errShippedEnough
			}
		})
	}()
	warned := false
	flush := func() {
		text := s.take(time.Now())
		if len(text) == 0 {
			return
		}
		n.api.EmitLog(server.LogChunk{RunID: a.id, TaskID: a.taskID, Log: clean(text)})
		if err := noteShipped(ws, s.at); err != nil && !warned {
			warned = true
			n.log.WarnContext(ctx, "it cannot be noted how far a run's log was sent: a restart of the node sends it again", "run", a.id, "error", err)
		}
	}
	tick := time.NewTicker(shipEvery)
	defer tick.Stop()
	for !s.over() {
		select {
		case line, ok := <-lines:
			if !ok {
				flush()
				return <-follow
			}
			s.add(line.text, line.next, line.gap)
		case <-tick.C:
			flush()
		}
	}
	close(enough)
	for range lines {
	}
	if err := <-follow; !errors.Is(err, errShippedEnough) {
		return err
	}
	return nil
}

// shipper joins lines into chunks, as many as may be sent. Not for concurrent use.
type shipper struct {
	at      shipment
	chunk   []byte
	skipped int // lines, or gaps, since the last chunk
	room    int // bytes that may be sent now
	filled  time.Time
}

func newShipper(now time.Time, from shipment) *shipper {
	return &shipper{at: from, room: shipBurst, filled: now}
}

// add takes a line, after which the log goes on at next.
func (s *shipper) add(line []byte, next runtime.LogPos, gap bool) {
	s.at.LogPos = next
	if gap || len(s.chunk)+len(line) > min(shipChunk, s.room) {
		s.skipped++
		return
	}
	s.chunk = append(s.chunk, line...)
}

// take returns what is to be sent now, and is valid until the next add.
func (s *shipper) take(now time.Time) []byte {
	text := s.chunk
	if s.skipped > 0 {
		text = fmt.Appendf(text, "[v6node: %d lines or more came too fast to be shown here; the final log has them, or the count of what it leaves out]\n", s.skipped)
	}
	if s.at.Sent += int64(len(text)); s.over() {
		text = append(text, "[v6node: this is as much of the log as is shown while the algorithm runs; the final log has its beginning and its end]\n"...)
	}
	s.room = min(shipBurst, max(0, s.room-len(text))+int(shipRate*now.Sub(s.filled).Seconds()))
	s.chunk, s.skipped, s.filled = s.chunk[:0], 0, now
	return text
}

// over tells whether no more is to be sent.
func (s *shipper) over() bool { return s.at.Sent >= shipTotal }
