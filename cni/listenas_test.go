package cni

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// from dials inside the namespace.
func (n *Netns) from(t *testing.T, address string) (net.Conn, error) {
	t.Helper()
	var c net.Conn
	err := n.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", address, 3*time.Second)
		return err
	})
	return c, err
}

func TestAListenerStandsForAnotherMachine(t *testing.T) {
	n := newSandbox(t)
	addresses := []string{"10.77.1.2:80", "10.77.1.2:5432", "198.51.100.7:443", "127.0.0.3:389"}
	if _, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		addresses = append(addresses, "[2001:db8:77::1]:5432")
	}
	for _, address := range addresses {
		l, err := n.ListenAs(netip.MustParseAddrPort(address))
		if errors.Is(err, unix.ENETUNREACH) && address[0] == '[' {
			t.Logf("not tested with IPv6, to which this machine does not lead: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		served := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, err = io.WriteString(c, address)
				err = errors.Join(err, c.Close())
			}
			served <- err
		}()
		c, err := n.from(t, address)
		for range 5 { // an IPv6 address is not complete at once, and an algorithm comes later
			if !errors.Is(err, unix.ENETUNREACH) {
				break
			}
			c, err = n.from(t, address)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err := errors.Join(err, c.Close(), <-served); err != nil || string(got) != address {
			t.Errorf("%s answered %q, %v", address, got, err)
		}
	}
	// The neighbours of these addresses are as far away as before.
	for _, address := range []string{"10.77.1.1:80", "10.77.1.3:80", "198.51.100.8:443", "10.77.1.2:81"} {
		if c, err := n.from(t, address); err == nil {
			t.Errorf("%s answers from %s", address, c.RemoteAddr())
			c.Close()
		}
	}
	// A node that was restarted serves them again.
	if _, err := n.ListenAs(netip.MustParseAddrPort("10.77.1.2:80")); !errors.Is(err, unix.EADDRINUSE) {
		t.Error(err)
	}
	if l, err := n.ListenAs(netip.MustParseAddrPort("10.77.1.2:82")); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	if err := n.Verify(); !errors.Is(err, ErrForeignNetwork) {
		t.Errorf("Verify says %v of a namespace that had an address added", err)
	}
}

func TestNoListenerStandsForWhatIsNoMachine(t *testing.T) {
	n := newSandbox(t)
	for _, address := range []string{
		"0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "169.254.169.254:80", "192.0.2.2:80", "[::]:80", "[ff02::1]:80", "[fe80::1]:80",
		"[fe80::1%lo]:80", "[::ffff:10.1.2.3]:80",
	} {
		if l, err := n.ListenAs(netip.MustParseAddrPort(address)); err == nil {
			t.Errorf("listens on %s", l.Addr())
			l.Close()
		} else {
			oneSentence(t, err)
		}
	}
	if l, err := n.ListenAs(netip.AddrPort{}); err == nil {
		t.Errorf("listens on %s", l.Addr())
		l.Close()
	}
	if err := n.Verify(); err != nil {
		t.Errorf("a refused address changed the network: %v", err)
	}
}
