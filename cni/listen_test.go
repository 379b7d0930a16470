package cni

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialInside connects from inside the namespace with one blocking call.
func dialInside(n *Netns, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = dialHere(network, addr)
		return err
	})
	return conn, err
}

// dialHere makes its socket on the calling thread, which net.Dial may not.
func dialHere(network, addr string) (net.Conn, error) {
	ip, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	typ := unix.SOCK_STREAM
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port, Addr: [16]byte(ip.To16())})
	if v4 := ip.To4(); v4 != nil {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte(v4)}
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), addr)
	defer f.Close()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

func splitAddr(addr string) (net.IP, int, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, 0, err
	}
	return a.IP, a.Port, nil
}

func TestAListenerInTheSandboxServesFromOutside(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:8080", "127.3.2.1:8080", "127.255.255.254:0", "127.0.0.1:80", "[::1]:8080"} {
		t.Run(addr, func(t *testing.T) {
			n := newSandbox(t)
			l, err := n.Listen(addr)
			if err != nil {
				if strings.HasPrefix(addr, "[") && errors.Is(err, unix.EADDRNOTAVAIL) {
					t.Skip("this kernel has no IPv6")
				}
				t.Fatal(err)
			}
			defer l.Close()
			if ap := l.Addr().String(); !strings.HasSuffix(addr, ":0") && ap != addr {
				t.Errorf("it listens on %s", ap)
			}
			served := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, err = io.Copy(c, c)
					c.Close()
				}
				served <- err
			}()
			c, err := dialInside(n, "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			sent := bytes.Repeat([]byte("through the wall "), 10000)
			go func() {
				c.Write(sent)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes came back of %d: %v", len(got), len(sent), err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestListenRefusesWhatIsNotLoopback(t *testing.T) {
	n := newSandbox(t)
	for _, addr := range []string{"", "8080", ":8080", "0.0.0.0:8080", "[::]:8080", "192.0.2.2:8080", "8.8.8.8:53",
		"localhost:8080", "[::ffff:127.0.0.1]:8080", "[::1%lo]:8080", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1"} {
		if l, err := n.Listen(addr); err == nil {
			t.Errorf("%q: listens on %s", addr, l.Addr())
			l.Close()
		} else {
			oneSentence(t, err)
		}
	}
}

func TestAPortThatIsTakenIsAnError(t *testing.T) {
	n := newSandbox(t)
	l, err := n.Listen("127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := n.Listen("127.0.0.1:8080"); !errors.Is(err, unix.EADDRINUSE) {
		t.Error(err)
	}
}

func TestAListenerOutlivesItsNetnsAndItsMount(t *testing.T) {
	path := newNetns(t)
	n, err := OpenNetns(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.setUp(ifName); err != nil {
		t.Fatal(err)
	}
	inside := open(t, path)
	l, err := n.Listen("127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n.Close()
	c, err := dialInside(inside, "tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err := l.Accept(); err != nil {
		t.Error(err)
	} else {
		s.Close()
	}
}

func TestARestartedNodeGetsItsPortBack(t *testing.T) {
	n := newSandbox(t)
	for range 3 {
		l, err := n.Listen("127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		c, err := dialInside(n, "tcp", "127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.Close() // the listener's side first: it is left in TIME_WAIT
		c.Close()
		l.Close()
	}
}

func TestSandboxesDoNotReachEachOtherOrTheHost(t *testing.T) {
	n, other := newSandbox(t), newSandbox(t)
	l, err := other.Listen("127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	host, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for what, addr := range map[string]string{
		"another sandbox's proxy": l.Addr().String(),
		"the host's loopback":     host.Addr().String(),
	} {
		if c, err := dialInside(n, "tcp", addr); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v, %v", what, c, err)
		}
	}
}

func TestNothingOutsideIsReachable(t *testing.T) {
	n := newSandbox(t)
	targets := []string{"8.8.8.8:53", "1.1.1.1:443", "192.0.2.1:80", "169.254.169.254:80", "224.0.0.1:80",
		"255.255.255.255:80", "[2001:4860:4860::8888]:53", "[fe80::1]:80"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		// This machine may itself have the address that every sandbox has;
		// inside, it is the sandbox.
		ip := a.(*net.IPNet).IP
		if ip.IsGlobalUnicast() && !ip.Equal(podPrefix().Addr().AsSlice()) {
			targets = append(targets, net.JoinHostPort(ip.String(), "22"))
		}
	}
	for _, addr := range targets {
		for _, network := range []string{"tcp", "udp"} {
			c, err := dialInside(n, network, addr)
			switch {
			case errors.Is(err, unix.ENETUNREACH):
			case strings.HasPrefix(addr, "[") && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)):
			case strings.HasPrefix(addr, "[fe80") && errors.Is(err, unix.EINVAL): // needs a zone, there is none
			case strings.HasPrefix(addr, "255.") && errors.Is(err, unix.EACCES):
			default:
				t.Errorf("%s %s: %v, %v", network, addr, c, err)
			}
		}
	}
}

// An unprivileged program may bind a socket to eth0, and the kernel then sends
// without a route. The packet must end there.
func TestAPacketForcedOutOfEth0GoesNowhere(t *testing.T) {
	n := newSandbox(t)
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.BindToDevice(fd, ifName); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10}); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{8, 8, 8, 8}, Port: 53})
	})
	// A bridge finds nobody by ARP; a dummy swallows everything.
	if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) &&
		!errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("connect: %v", err)
	}
}

func TestListenTakesLessThanAMillisecond(t *testing.T) {
	n := newSandbox(t)
	// The best of many: on a busy machine any single one may wait for a CPU.
	best := time.Hour
	for range 50 {
		start := time.Now()
		l, err := n.Listen("127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
		l.Close()
	}
	if best > time.Millisecond {
		t.Errorf("the quickest of 50 took %v", best)
	}
}

func BenchmarkListen(b *testing.B) {
	n := newSandbox(b)
	for b.Loop() {
		l, err := n.Listen("127.0.0.1:8080")
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}
