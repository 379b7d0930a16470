package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// socketMode lets the node's group connect. Who may enter the socket's
// directory is its administrator's to say.
const socketMode = 0o660

// Address is where metrics are served: a port on a loopback address, or a unix
// socket. The zero value is nowhere.
type Address struct {
	network, address string
}

// IsZero tells whether metrics are served at all.
func (a Address) IsZero() bool { return a.address == "" }

// String is the address as it is configured.
func (a Address) String() string {
	if a.network == "unix" {
		return "unix://" + a.address
	}
	return a.address
}

// ParseAddress reads "127.0.0.1:9464", "[::1]:9464", "localhost:9464" or
// "unix:///run/v6node/metrics.sock". An address that other machines can reach is
// refused: the metrics tell who computes when, and nobody is asked for a
// password.
func ParseAddress(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return Address{}, fmt.Errorf("%q is not a unix socket: write unix:// and the whole path, such as unix:///run/v6node/metrics.sock", text)
		}
		if len(path) > 107 { // sun_path of unix(7)
			return Address{}, fmt.Errorf("the path %s has %d bytes, and a socket's may have 107: choose a shorter one", path, len(path))
		}
		return Address{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an address: write one such as 127.0.0.1:9464 or unix:///run/v6node/metrics.sock", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Address{}, fmt.Errorf("%q is not a port number: use 1 to 65535, such as 9464", port)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an IP address of this machine's loopback: use 127.0.0.1, [::1] or a unix socket", host)
	}
	if !ip.Unmap().IsLoopback() || ip.Zone() != "" {
		return Address{}, fmt.Errorf("%s can be reached from other machines, and the metrics are served without encryption and login: use 127.0.0.1, [::1] or a unix socket, and a reverse proxy with both for a Prometheus elsewhere", ip)
	}
	return Address{"tcp", net.JoinHostPort(ip.String(), port)}, nil
}

// Listen binds the address. A socket that nobody listens on any more is
// replaced; its directory must exist. The caller closes the listener, which
// removes the socket.
func Listen(a Address) (net.Listener, error) {
	if a.network == "unix" {
		if err := clearSocket(a.address); err != nil {
			return nil, fmt.Errorf("serve metrics at %s: %w", a, err)
		}
	}
	l, err := net.Listen(a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics at %s: %w: correct metrics.listen, or end what listens there", a, err)
	}
	if a.network == "unix" {
		if err := os.Chmod(a.address, socketMode); err != nil {
			return nil, errors.Join(fmt.Errorf("serve metrics at %s: %w", a, err), l.Close())
		}
	}
	return l, nil
}

// clearSocket removes the socket that an earlier process left.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something that is not a socket is there: move it away, or change metrics.listen")
	}
	if c, err := net.Dial("unix", path); err == nil {
		return errors.Join(errors.New("another process listens there: change metrics.listen, or end it"), c.Close())
	}
	return os.Remove(path)
}
