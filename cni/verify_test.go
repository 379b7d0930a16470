package cni

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// world is a sandbox that a test may spoil.
type world struct {
	t *testing.T
	n *Netns
	*netlink.Handle
}

func newWorld(t *testing.T) *world {
	t.Helper()
	n := newSandbox(t)
	h, err := n.netlink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return &world{t, n, h}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) link(name string) netlink.Link {
	w.t.Helper()
	l, err := w.LinkByName(name)
	w.must(err)
	return l
}

func (w *world) addr(name, cidr string) {
	w.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	w.must(err)
	a.Flags = unix.IFA_F_NODAD
	w.must(w.AddrAdd(w.link(name), a))
}

func (w *world) delAddr(name, cidr string) {
	w.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	w.must(err)
	w.must(w.AddrDel(w.link(name), a))
}

func (w *world) route(r netlink.Route, cidr string) {
	w.t.Helper()
	_, dst, err := net.ParseCIDR(cidr)
	w.must(err)
	r.Dst = dst
	w.must(w.RouteAdd(&r))
}

// ipv6 switches IPv6 on eth0 on again, which the plugin switched off.
func (w *world) ipv6() {
	w.t.Helper()
	w.must(w.n.Do(func() error {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("0"), 0)
		if errors.Is(err, os.ErrNotExist) {
			w.t.Skip("this kernel has no IPv6")
		}
		return err
	}))
}

// replaceEth0 puts another interface with our address in the place of eth0.
func (w *world) replaceEth0(l netlink.Link) {
	w.t.Helper()
	w.must(w.LinkDel(w.link(ifName)))
	w.must(w.LinkAdd(l))
	w.must(w.AddrAdd(l, ourAddress()))
	w.must(w.LinkSetUp(l))
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func veth(name string) netlink.Link {
	return &netlink.Veth{LinkAttrs: attrs(name), PeerName: "peer"}
}

func TestVerifyAcceptsWhatThePluginMade(t *testing.T) {
	if err := newSandbox(t).Verify(); err != nil {
		t.Error(err)
	}
}

func TestVerifyAcceptsHarmlessDifferences(t *testing.T) {
	for name, change := range map[string]func(*world){
		"a route that only refuses": func(w *world) {
			w.route(netlink.Route{Type: unix.RTN_UNREACHABLE}, "0.0.0.0/0")
			w.route(netlink.Route{Type: unix.RTN_BLACKHOLE, Table: 100}, "10.0.0.0/8")
		},
		"a loopback without ::1": func(w *world) {
			w.must(w.n.Do(func() error {
				err := os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0)
				if errors.Is(err, os.ErrNotExist) {
					return nil
				}
				return err
			}))
		},
		// As where /proc/sys is read-only and only the address mode could be set.
		"IPv6 on, but without an address": func(w *world) {
			w.must(w.LinkSetDown(w.link(ifName)))
			w.ipv6()
			w.must(w.LinkSetIP6AddrGenMode(w.link(ifName), nl.IN6_ADDR_GEN_MODE_NONE))
			w.must(w.LinkSetUp(w.link(ifName)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			change(w)
			if err := w.n.Verify(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVerifyCatches(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*world)
		says   string
	}{
		{"lo down", func(w *world) { w.must(w.LinkSetDown(w.link(loName))) }, "lo is down"},
		{"eth0 down", func(w *world) { w.must(w.LinkSetDown(w.link(ifName))) }, "eth0 is down"},
		{"no eth0", func(w *world) { w.must(w.LinkDel(w.link(ifName))) }, "there is no eth0"},
		{"a network after DEL", func(w *world) { w.must(w.n.release(ifName)) }, "eth0 has no address 192.0.2.2/32"},
		{"a veth", func(w *world) {
			w.replaceEth0(veth(ifName))
		}, "eth0 is of type veth"},
		{"a veth to another namespace", func(w *world) {
			outside := open(w.t, newNetns(w.t))
			w.must(outside.Do(func() error {
				// The handle is inside; the peer goes where this thread is.
				self, err := os.Open(selfNetns)
				if err != nil {
					return err
				}
				defer self.Close()
				w.replaceEth0(&netlink.Veth{LinkAttrs: attrs(ifName), PeerName: "peer", PeerNamespace: netlink.NsFd(int(self.Fd()))})
				return nil
			}))
		}, "eth0 is connected to an interface outside"},
		{"an extra interface", func(w *world) {
			w.must(w.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("eth1")}))
		}, `a further interface "eth1" of type bridge`},
		{"a bridge with a port", func(w *world) {
			if w.link(ifName).Type() != typeBridge {
				w.replaceEth0(&netlink.Bridge{LinkAttrs: attrs(ifName)})
			}
			port := veth("port")
			w.must(w.LinkAdd(port))
			w.must(w.LinkSetMaster(port, w.link(ifName)))
		}, `a further interface "port" of type veth`},
		{"a default route", func(w *world) {
			w.route(netlink.Route{LinkIndex: w.link(ifName).Attrs().Index}, "0.0.0.0/0")
		}, "a route default on eth0"},
		{"a default route by a gateway", func(w *world) {
			i := w.link(ifName).Attrs().Index
			w.route(netlink.Route{LinkIndex: i, Gw: net.IPv4(192, 0, 2, 1), Flags: int(netlink.FLAG_ONLINK)}, "0.0.0.0/0")
		}, "via 192.0.2.1 on eth0"},
		{"a route to some place", func(w *world) {
			w.route(netlink.Route{LinkIndex: w.link(ifName).Attrs().Index}, "10.0.0.0/8")
		}, "a route 10.0.0.0/8 on eth0"},
		{"a route in another table", func(w *world) {
			w.route(netlink.Route{LinkIndex: w.link(ifName).Attrs().Index, Table: 1000}, "0.0.0.0/0")
		}, "default on eth0 in table 1000"},
		{"the whole world as local", func(w *world) {
			w.route(netlink.Route{LinkIndex: w.link(loName).Attrs().Index, Type: unix.RTN_LOCAL,
				Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}, "0.0.0.0/0")
		}, "default on lo in table 255"},
		{"an unexpected address on lo", func(w *world) { w.addr(loName, "10.1.2.3/32") }, "lo has the address 10.1.2.3/32"},
		{"a changed address", func(w *world) {
			w.delAddr(ifName, podAddress)
			w.addr(ifName, "192.0.2.3/32")
		}, "eth0 has the address 192.0.2.3/32"},
		{"a changed prefix length", func(w *world) {
			w.delAddr(ifName, podAddress)
			w.addr(ifName, "192.0.2.2/24")
		}, "192.0.2.2/24"},
		{"a second address", func(w *world) { w.addr(ifName, "10.1.2.3/24") }, "eth0 has the address 10.1.2.3/24"},
		{"a peer's address", func(w *world) {
			w.delAddr(ifName, podAddress)
			w.must(w.AddrAdd(w.link(ifName), &netlink.Addr{IPNet: ourAddress().IPNet,
				Peer: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(32, 32)}}))
		}, "192.0.2.1"},
		{"a global IPv6 address", func(w *world) {
			w.ipv6()
			w.addr(ifName, "2001:db8::1/64")
		}, "eth0 has the address 2001:db8::1/64"},
		{"a link-local IPv6 address", func(w *world) {
			w.ipv6()
			w.addr(ifName, "fe80::1/64")
		}, "eth0 has the address fe80::1/64"},
		{"a global IPv6 address on lo", func(w *world) {
			w.ipv6()
			w.addr(loName, "2001:db8::1/128")
		}, "lo has the address 2001:db8::1/128"},
		{"an IPv6 default route", func(w *world) {
			w.ipv6()
			w.route(netlink.Route{LinkIndex: w.link(ifName).Attrs().Index}, "::/0")
		}, "default (IPv6) on eth0"},
		{"eth0 of type macvlan", func(w *world) {
			w.must(w.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("below")}))
			l := &netlink.Macvlan{LinkAttrs: attrs(ifName), Mode: netlink.MACVLAN_MODE_BRIDGE}
			l.ParentIndex = w.link("below").Attrs().Index
			w.must(w.LinkDel(w.link(ifName)))
			if err := w.LinkAdd(l); errors.Is(err, unix.EOPNOTSUPP) {
				w.t.Skip("this kernel has no macvlan driver")
			} else {
				w.must(err)
			}
		}, "eth0 is of type macvlan"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			err := w.n.Verify()
			if !errors.Is(err, ErrForeignNetwork) {
				t.Fatalf("got %v", err)
			}
			oneSentence(t, err, c.says, `"v6node cni install --conf-dir /etc/cni/net.d --bin-dir /opt/cni/bin"`)
		})
	}
}

func TestVerifyRefusesANamespaceThatNobodySetUp(t *testing.T) {
	err := open(t, newNetns(t)).Verify()
	if !errors.Is(err, ErrForeignNetwork) {
		t.Fatal(err)
	}
	oneSentence(t, err, "lo is down", "there is no eth0")
}

func TestAForeignNetworkIsDescribedBriefly(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		w.must(w.LinkAdd(&netlink.Bridge{LinkAttrs: attrs(name)}))
	}
	err := w.n.Verify()
	if err == nil || !strings.Contains(err.Error(), "and 2 more deviations") {
		t.Error(err)
	}
}

func TestTheAdviceNamesTheRuntimesOwnDirectories(t *testing.T) {
	var foreign *ForeignNetworkError
	if err := open(t, newNetns(t)).Verify(); !errors.As(err, &foreign) {
		t.Fatal(err)
	}
	foreign.Layout = Layout{ConfDir: "/srv/net.d", BinDir: "/srv/bin"}
	oneSentence(t, foreign, `"v6node cni install --conf-dir /srv/net.d --bin-dir /srv/bin"`)
}

func BenchmarkVerify(b *testing.B) {
	n := newSandbox(b)
	for b.Loop() {
		if err := n.Verify(); err != nil {
			b.Fatal(err)
		}
	}
}
