package forward

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// relayed carries what comes from "far" to "near" and back until the test ends, and returns both ends. end cuts it off and
// returns what it has counted.
func relayed(t *testing.T, far, outer net.Conn, m *Meter) (near *net.TCPConn, end func() (sent, received int64)) {
	t.Helper()
	near, inner, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var sent, received int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		sent, received = Relay(ctx, inner, outer, m)
	}()
	end = func() (int64, int64) { cancel(); <-done; return sent, received }
	t.Cleanup(func() { end(); near.Close(); far.Close() })
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return near, end
}

// sockets are pairs of each kind that a target has.
func sockets(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	outer, far, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][2]net.Conn{"tcp": {far, outer}, "unix": {b, a}}
}

// reaches waits until what was counted is that many bytes, on a connection that is open and silent.
func reaches(t *testing.T, count func() int64, want int64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for count() != want {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d bytes are counted, wanted %d", count(), want)
		}
	}
}

func manyBytes() []byte {
	b := make([]byte, 3*stretch+bufferSize+12345)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(b) // never fails
	return b
}

func TestBytesInMassesArriveWholeAndAreCountedWhileTheConnectionLives(t *testing.T) {
	text := manyBytes()
	for kind, c := range sockets(t) {
		far := c[0]
		var m Meter
		near, end := relayed(t, far, c[1], &m)
		received := func() int64 { return m.Count().Received }
		sent := func() int64 { return m.Count().Sent }
		send := func(to, from net.Conn, b []byte) {
			t.Helper()
			failed := make(chan error, 1)
			go func() { _, err := to.Write(b); failed <- err }()
			got := make([]byte, len(b))
			if _, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%s: what arrives is something else, or %v", kind, err)
			}
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
		n := int64(len(text))
		send(far, near, text)
		reaches(t, received, n)
		send(near, far, []byte("a question"))
		reaches(t, sent, 10)
		send(far, near, []byte("an answer"))
		reaches(t, received, n+9)
		send(near, far, text)
		send(far, near, text)
		reaches(t, received, 2*n+9)
		reaches(t, sent, n+10)
		if c := m.Count(); c.Open != 1 || c.Connections != 1 {
			t.Errorf("%s: %+v", kind, c)
		}
		if s, r := end(); s != n+10 || r != 2*n+9 {
			t.Errorf("%s: in the end %d and %d", kind, s, r)
		}
	}
}

func TestTheEndOfOneDirectionPassesWhileTheOtherCarriesMasses(t *testing.T) {
	text := manyBytes()
	for kind, c := range sockets(t) {
		far := c[0]
		var m Meter
		near, _ := relayed(t, far, c[1], &m)
		go func() {
			// Only after the end of what comes.
			if b, err := io.ReadAll(far); err == nil {
				_, _ = far.Write(b)
			}
			far.Close()
		}()
		if _, err := near.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := near.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(near)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d bytes came back, %v", kind, len(got), err)
		}
		reaches(t, func() int64 { return m.Count().Open }, 0)
		if c := m.Count(); c.Sent != int64(len(text)) || c.Received != int64(len(text)) {
			t.Errorf("%s: %+v", kind, c)
		}
	}
}

func TestARelayInMassesEndsWithItsContextOrWithOneEnd(t *testing.T) {
	for name, cut := range map[string]func(far, near net.Conn, cancel func()){
		"the context":           func(_, _ net.Conn, cancel func()) { cancel() },
		"the algorithm is gone": func(_, near net.Conn, _ func()) { Reset(near) },
		"the server resets": func(far, near net.Conn, _ func()) {
			Reset(far)
			_, _ = io.Copy(io.Discard, near) // until it ends, however that is
		},
	} {
		outer, far, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		near, inner, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var m Meter
		done := make(chan struct{})
		go func() { defer close(done); Relay(ctx, inner, outer, &m) }()
		stopped := make(chan struct{})
		go func() { // without end, and after a while nobody reads
			defer close(stopped)
			b := make([]byte, 1<<20)
			for {
				if _, err := far.Write(b); err != nil {
					return
				}
			}
		}()
		if _, err := io.CopyN(io.Discard, near, 2*stretch); err != nil {
			t.Fatal(err)
		}
		cut(far, near, cancel)
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the relay goes on", name)
		}
		far.Close()
		near.Close()
		<-stopped
		cancel()
	}
}
