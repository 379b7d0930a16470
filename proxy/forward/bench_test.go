package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

const benchSize = 1 << 30

// BenchmarkForward carries 1 GiB from a server to an algorithm over loopback connections, all in this process: as runs
// have it, counted, by io.Copy between the connections, which is splice(2) on Linux, and by io.Copy through the process's
// memory. One after the other in each round, so that they meet the same machine. It reports the throughput of the first, and
// its part of what the two others reach.
func BenchmarkForward(b *testing.B) {
	var m Meter
	ways := []struct {
		name  string
		carry func(inner, outer *net.TCPConn) int64
	}{
		{"counted", func(inner, outer *net.TCPConn) int64 {
			_, received := Relay(context.Background(), inner, outer, &m)
			return received
		}},
		{"splice", func(inner, outer *net.TCPConn) int64 {
			n, _ := io.Copy(inner, outer)
			return n
		}},
		{"memory", func(inner, outer *net.TCPConn) int64 {
			n, _ := io.Copy(struct{ io.Writer }{inner}, struct{ io.Reader }{outer})
			return n
		}},
	}
	took := make([]time.Duration, len(ways))
	for b.Loop() {
		for i, w := range ways {
			d, err := carryOnce(w.carry)
			if err != nil {
				b.Fatal(w.name, err)
			}
			took[i] += d
		}
	}
	if got, want := m.Count().Received, int64(b.N)*benchSize; got != want {
		b.Fatalf("%d bytes were counted, and %d carried", got, want)
	}
	b.ReportMetric(float64(b.N)*benchSize/1e6/took[0].Seconds(), "MB/s")
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "of-splice")
	b.ReportMetric(took[2].Seconds()/took[0].Seconds(), "of-memory")
}

// carryOnce has carry connect a server that sends benchSize bytes with an algorithm that reads them.
func carryOnce(carry func(inner, outer *net.TCPConn) int64) (time.Duration, error) {
	algorithm, inner, err := pair()
	if err != nil {
		return 0, err
	}
	defer algorithm.Close()
	defer inner.Close()
	outer, server, err := pair()
	if err != nil {
		return 0, err
	}
	defer outer.Close()
	defer server.Close()
	began := time.Now()
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{server}, io.LimitReader(zeros{}, benchSize), make([]byte, 256<<10))
		sent <- errors.Join(err, server.CloseWrite())
	}()
	carried := make(chan int64, 1)
	go func() {
		n := carry(inner, outer)
		inner.Close()
		carried <- n
	}()
	// A relay is over when both directions are.
	err = algorithm.CloseWrite()
	n, readErr := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{algorithm}, make([]byte, 256<<10))
	took := time.Since(began)
	err = errors.Join(err, readErr, <-sent)
	if c := <-carried; err == nil && (c != benchSize || n != benchSize) {
		err = fmt.Errorf("%d bytes were carried and %d arrived", c, n)
	}
	return took, err
}

// pair makes the two ends of a connection.
func pair() (near, far *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	a, err := l.Accept()
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c.(*net.TCPConn), a.(*net.TCPConn), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
