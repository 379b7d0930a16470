package forward

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const (
	// bufferSize is what is read at a time. Only who fills it has more than a question or an answer to send.
	bufferSize = 32 << 10
	// stretch is how much the kernel then carries before it is counted, and pause how long it may wait for that.
	stretch = 4 << 20
	pause   = 500 * time.Millisecond
)

// counted copies from one connection to another until the first ends, and counts what has gone. Between sockets, bytes that
// come in masses go through the kernel only (splice(2), on Linux), and are counted in stretches; others when they have gone.
// Nobody else may read from the first, or set deadlines of either.
func counted(to, from net.Conn, count func(int64)) (n int64, err error) {
	buffer := make([]byte, bufferSize)
	for {
		got, readErr := from.Read(buffer)
		if got > 0 {
			put, err := to.Write(buffer[:got])
			n += int64(put)
			count(int64(put))
			if err != nil {
				return n, err
			}
		}
		if readErr == io.EOF {
			return n, nil
		}
		if readErr != nil {
			return n, readErr
		}
		if got < len(buffer) || !spliceable(to, from) {
			continue
		}
		ended, err := masses(to.(*net.TCPConn), from, func(k int64) { n += k; count(k) })
		if ended || err != nil {
			return n, err
		}
	}
}

// spliceable tells whether bytes can go from one to the other without passing through this process.
func spliceable(to, from net.Conn) bool {
	if _, ok := to.(*net.TCPConn); !ok {
		return false
	}
	switch from.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// masses lets the kernel carry bytes as long as they come in masses, and tells whether they have ended.
func masses(to *net.TCPConn, from net.Conn, count func(int64)) (ended bool, err error) {
	for {
		// What is waited for when it passes is the next piece: none is under way then.
		if err := from.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return false, err
		}
		n, err := to.ReadFrom(&io.LimitedReader{R: from, N: stretch})
		count(n)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, from.SetReadDeadline(time.Time{})
		}
		if err != nil || n < stretch {
			return err == nil, err
		}
	}
}
