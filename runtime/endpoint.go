package runtime

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// sockPathMax is what fits into sockaddr_un with its closing zero.
const sockPathMax = 107

// parseEndpoint returns the socket's path of "unix:///run/x.sock" or of a bare
// absolute path.
func parseEndpoint(endpoint string) (string, error) {
	op := "use the CRI endpoint " + oneLine(endpoint)
	path := endpoint
	if scheme, rest, ok := strings.Cut(endpoint, "://"); ok {
		if scheme != "unix" {
			return "", &Error{Op: op, Kind: ErrEndpoint,
				text: "the scheme is " + oneLine(scheme) + "://, but CRI is only spoken over a unix socket; write unix:///path/to/the.sock"}
		}
		path = rest
	} else if rest, ok := strings.CutPrefix(endpoint, "unix:"); ok {
		path = rest
	}
	switch {
	case path == "":
		return "", &Error{Op: op, Kind: ErrEndpoint, text: "no path is given; write unix:///path/to/the.sock"}
	case !filepath.IsAbs(path):
		return "", &Error{Op: op, Kind: ErrEndpoint, text: "the path is not absolute; write unix:///path/to/the.sock with three slashes"}
	case strings.ContainsRune(path, 0):
		return "", &Error{Op: op, Kind: ErrEndpoint, text: "the path contains a zero byte"}
	case len(path) > sockPathMax:
		return "", &Error{Op: op, Kind: ErrEndpoint, text: "the path is longer than the 107 bytes that a unix socket address can hold; use a shorter one"}
	}
	return filepath.Clean(path), nil
}

// checkEndpoint says precisely why path cannot be connected to, before gRPC
// would hide the reason behind its own retries.
func checkEndpoint(ctx context.Context, path string) error {
	op := "use the CRI endpoint unix://" + path
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return &Error{Op: op, Kind: ErrEndpointMissing, Cause: err,
			text: "nothing exists at this path; check that the runtime is running and that the path is that of its CRI socket"}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Op: op, Kind: ErrPermission, Cause: err,
			text: "a directory on the way to it may not be entered by this user; run as the user that owns the runtime"}
	case err != nil:
		return &Error{Op: op, Cause: err}
	case fi.Mode()&fs.ModeSocket == 0:
		return &Error{Op: op, Kind: ErrNotSocket, text: "it is a " + kindOfFile(fi.Mode()) + ", not a socket; name the runtime's CRI socket"}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		http1 := answersHTTP1(conn)
		if err := conn.Close(); err != nil {
			return &Error{Op: op, Cause: err}
		}
		if http1 {
			return &Error{Op: op, Kind: ErrNotCRI, text: notGRPC}
		}
		return nil
	case ctx.Err() != nil:
		return &Error{Op: op, Cause: ctx.Err()}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Op: op, Kind: ErrPermission, Cause: err,
			text: "this user may not connect to the socket; run as root or as the user that owns the runtime"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Error{Op: op, Kind: ErrNotReady, Cause: err,
			text: "the socket exists but nothing listens on it; start the runtime"}
	case errors.Is(err, syscall.EPROTOTYPE):
		return &Error{Op: op, Kind: ErrNotCRI, Cause: err,
			text: "it is a datagram socket, not a CRI socket; name the runtime's CRI socket"}
	}
	return &Error{Op: op, Kind: ErrNotReady, Cause: err}
}

// notGRPC is said of a socket that speaks something else.
const notGRPC = "what listens there does not speak gRPC (is it the Docker socket?); name the runtime's CRI socket, such as unix:///run/containerd/containerd.sock or unix:///run/crio/crio.sock"

// greetingTime is how long a server may take to answer the greeting. One that is
// slower is left to gRPC, which is patient.
const greetingTime = 500 * time.Millisecond

// http2Greeting is what every HTTP/2 client sends first: the preface and an
// empty SETTINGS frame (RFC 9113, 3.4). A server answers with a frame of its
// own; one of HTTP/1 takes it for a bad request and says so in its own words.
const http2Greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// answersHTTP1 tells whether the server at the other end speaks HTTP/1, as the
// Docker socket does.
func answersHTTP1(conn net.Conn) bool {
	if err := conn.SetDeadline(time.Now().Add(greetingTime)); err != nil {
		return false
	}
	if _, err := io.WriteString(conn, http2Greeting); err != nil {
		return false
	}
	answer := make([]byte, len("HTTP/1."))
	_, err := io.ReadFull(conn, answer)
	return err == nil && string(answer) == "HTTP/1."
}

func kindOfFile(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m.IsRegular():
		return "regular file"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	}
	return "device"
}
