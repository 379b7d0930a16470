package kubelet

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Syslog's and systemd's sockets are of datagrams, and on every machine.
func TestSocketsOfOtherTypesHideNone(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for n := range 20 {
		for _, network := range []string{"unixgram", "unixpacket"} {
			address := &net.UnixAddr{Name: path(fmt.Sprint(network, n)), Net: network}
			if network == "unixgram" {
				c, err := net.ListenUnixgram(network, address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				continue
			}
			l, err := net.ListenUnix(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
		}
	}
	const connections = 20
	l, err := net.Listen("unix", path("stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range connections {
		c, err := net.Dial("unix", path("stream"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
	}
	peers, err := connected(path("stream"))
	if err != nil {
		t.Skipf("the kernel does not tell: %v", err)
	}
	if len(peers) != connections {
		t.Errorf("%d of %d connections are found", len(peers), connections)
	}
	if !(machine{root: "/", connected: connected}).holds(os.Getpid(), peers) {
		t.Error("this process is connected, and was not found")
	}
}

func FuzzSocket(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, diagHeader), 8, 0, attrPeer, 0, 1, 2, 3, 4))
	f.Add(append(make([]byte, diagHeader), 7, 0, attrName, 0, '/', 'a', 0, 0, 8, 0, attrPeer, 0, 1, 2, 3, 4))
	f.Add(append(make([]byte, diagHeader), 3, 0, attrName, 0))
	f.Add(append(make([]byte, diagHeader), 255, 255, attrName, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := parseSocket(data)
		if len(s.name) > len(data) || !ok && len(data) == diagHeader {
			t.Errorf("%v, %v", s, ok)
		}
	})
}
