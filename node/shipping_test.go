package node

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/runtime"
)

// flood adds lines of 1 KiB to a shipper for so many seconds, 256 KiB a second, and returns
// what it would have sent.
func flood(s *shipper, now time.Time, seconds int) (out []byte) {
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 2 * seconds {
		for range 128 {
			s.add(line, runtime.LogPos{}, false)
		}
		now = now.Add(shipEvery)
		out = append(out, s.take(now)...)
		if s.over() {
			break
		}
	}
	return out
}

func TestALogIsShippedAtAPaceThatServersBear(t *testing.T) {
	now := time.Now()
	s := newShipper(now, shipment{})
	out := flood(s, now, 60)
	if most := shipBurst + 61*shipRate; len(out) > most || len(out) < shipBurst+50*shipRate {
		t.Errorf("%d bytes were sent in a minute, more or much less than %d", len(out), most)
	}
	if n := bytes.Count(out, []byte("came too fast to be shown here")); n < 100 {
		t.Errorf("%d times it is said that lines are missing", n)
	}
}

func TestALogThatGrowsForEverIsNotShippedForEver(t *testing.T) {
	now := time.Now()
	s := newShipper(now, shipment{})
	out := flood(s, now, 24*3600)
	if !s.over() || int64(len(out)) > shipTotal+shipChunk+300 || !strings.HasSuffix(string(out), "the final log has its beginning and its end]\n") {
		t.Errorf("%d bytes were sent", len(out))
	}
	if again := newShipper(now, s.at); !again.over() {
		t.Error("after a restart of the node more is sent")
	}
}

func TestALineIsShippedOnceAndAGapIsSaid(t *testing.T) {
	now := time.Now()
	s := newShipper(now, shipment{})
	s.add([]byte("one\n"), runtime.LogPos{}, false)
	s.add(nil, runtime.LogPos{}, true)
	s.add([]byte("two\n"), runtime.LogPos{}, false)
	if got := string(s.take(now)); !strings.HasPrefix(got, "one\ntwo\n[v6node: 1 lines or more") {
		t.Errorf("sent %q", got)
	}
	if got := s.take(now); len(got) != 0 {
		t.Errorf("sent %q again", got)
	}
}
