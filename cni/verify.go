package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Verify reads the namespace back from the kernel and returns nil only if it is
// exactly what the plugin makes:
//
//   - two interfaces: lo, up, with 127.0.0.1/8 and perhaps ::1/128, and eth0, a
//     dummy or a bridge without ports, with no peer, master or lower device;
//   - one address on eth0, 192.0.2.2/32, and no IPv6 address;
//   - in no routing table a route but those that the kernel keeps for these
//     addresses.
//
// Otherwise the error is a *ForeignNetworkError, which wraps ErrForeignNetwork
// and names each deviation. What cannot be read is an error too, without
// ErrForeignNetwork: in either case the run must not start.
//
// It is a look at one moment. It stays true because nobody inside can change it
// without CAP_NET_ADMIN, which an algorithm never has.
func (n *Netns) Verify() error {
	h, err := n.netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	found, err := inspectNetwork(h, ifName)
	if err != nil {
		return fmt.Errorf("read back the network namespace %q: %w", n.path, err)
	}
	if len(found) > 0 {
		return &ForeignNetworkError{Path: n.path, Found: found}
	}
	return nil
}

// netlink opens a route netlink socket inside the namespace. The socket stays
// inside, and so can be used from any goroutine. The caller closes it.
func (n *Netns) netlink() (*netlink.Handle, error) {
	var h *netlink.Handle
	err := n.Do(func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink in the network namespace %q: %w", n.path, err)
	}
	return h, nil
}

// withLo calls fn with the namespace's own lo.
func (n *Netns) withLo(fn func(*netlink.Handle, netlink.Link) error) error {
	h, err := n.netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName(loName)
	if err != nil {
		return fmt.Errorf("find %s: %w", loName, err)
	}
	return fn(h, lo)
}

// maxFindings bounds an error message: a host's namespace has hundreds of
// interfaces and routes.
const maxFindings = 6

// findings collects phrases, each a deviation from what the plugin makes.
type findings struct {
	list    []string
	dropped int
}

func (f *findings) add(format string, args ...any) {
	if len(f.list) == maxFindings {
		f.dropped++
		return
	}
	f.list = append(f.list, fmt.Sprintf(format, args...))
}

func (f *findings) phrases() []string {
	if f.dropped > 0 {
		return append(f.list, fmt.Sprintf("and %d more deviations", f.dropped))
	}
	return f.list
}

// inspectNetwork returns what deviates from our network, in which the interface
// is called name; nothing if all is as the plugin made it.
func inspectNetwork(h *netlink.Handle, name string) ([]string, error) {
	links, err := dump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var f findings
	byIndex := make(map[int]string, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs().Name
	}
	var haveLo, haveEth bool
	for _, l := range links {
		switch l.Attrs().Name {
		case loName:
			haveLo = true
			inspectLo(l, &f)
		case name:
			haveEth = true
			inspectEth(l, &f)
		default:
			f.add("there is a further interface %q of type %s", l.Attrs().Name, l.Type())
		}
	}
	if !haveLo {
		f.add("there is no %s", loName)
	}
	if !haveEth {
		f.add("there is no %s", name)
	}
	if err := inspectAddresses(h, byIndex, name, &f); err != nil {
		return nil, err
	}
	if err := inspectRoutes(h, byIndex, name, &f); err != nil {
		return nil, err
	}
	return f.phrases(), nil
}

func inspectLo(l netlink.Link, f *findings) {
	a := l.Attrs()
	if a.Flags&net.FlagLoopback == 0 {
		f.add("%s is not a loopback interface but of type %s", loName, l.Type())
	}
	if a.Flags&net.FlagUp == 0 {
		f.add("%s is down", loName)
	}
	if a.MasterIndex != 0 {
		f.add("%s is a port of another interface", loName)
	}
}

func inspectEth(l netlink.Link, f *findings) {
	a := l.Attrs()
	// A bridge has no ports here: a port would be a third interface, since it
	// must be in the bridge's namespace, or lo, which inspectLo looks at.
	if t := l.Type(); t != typeDummy && t != typeBridge {
		f.add("%s is of type %s, which can lead out of the sandbox", a.Name, t)
	}
	if a.ParentIndex != 0 || a.NetNsID >= 0 {
		f.add("%s is connected to an interface outside", a.Name)
	}
	if a.MasterIndex != 0 {
		f.add("%s is a port of another interface", a.Name)
	}
	if a.Flags&net.FlagUp == 0 {
		f.add("%s is down", a.Name)
	}
}

func inspectAddresses(h *netlink.Handle, names map[int]string, eth string, f *findings) error {
	var haveLo, haveEth bool
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		addrs, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, family) })
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range addrs {
			name := names[a.LinkIndex]
			p := prefixOf(a.IPNet)
			switch {
			case name == loName && p == netip.MustParsePrefix("127.0.0.1/8"):
				haveLo = true
			case name == loName && p == netip.MustParsePrefix("::1/128"):
			case name == eth && p == podPrefix() && (a.Peer == nil || prefixOf(a.Peer) == podPrefix()):
				haveEth = true
			default:
				f.add("%s has the address %s", name, a.IPNet)
			}
		}
	}
	if !haveLo {
		f.add("%s has no address 127.0.0.1/8", loName)
	}
	if !haveEth {
		f.add("%s has no address %s", eth, podAddress)
	}
	return nil
}

func inspectRoutes(h *netlink.Handle, names map[int]string, eth string, f *findings) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if !harmlessRoute(&r, names[r.LinkIndex], eth) {
				f.add("there is a route %s", describeRoute(&r, family, names))
			}
		}
	}
	return nil
}

// harmlessRoute tells whether a route is one that the kernel makes by itself
// for the addresses of our network, or one that only refuses packets.
func harmlessRoute(r *netlink.Route, dev, eth string) bool {
	switch r.Type {
	case unix.RTN_UNREACHABLE, unix.RTN_BLACKHOLE, unix.RTN_PROHIBIT:
		return true
	}
	if r.Gw != nil || r.Via != nil || r.Encap != nil || len(r.MultiPath) > 0 || r.MPLSDst != nil {
		return false
	}
	if dev != loName && dev != eth {
		return false
	}
	dst := prefixOf(r.Dst)
	switch r.Type {
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST:
		// Delivered within the namespace.
		return r.Table == unix.RT_TABLE_LOCAL && (isOwnAddress(dst) || isLoopback(dst))
	case unix.RTN_MULTICAST:
		// An interface with IPv6 has one for ff00::/8; the only thing at the
		// other end of eth0 is nothing.
		return r.Table == unix.RT_TABLE_LOCAL && dst == netip.MustParsePrefix("ff00::/8")
	case unix.RTN_UNICAST:
		return dev == loName && isLoopback(dst)
	}
	return false
}

func isOwnAddress(p netip.Prefix) bool { return p == podPrefix() }

func isLoopback(p netip.Prefix) bool {
	return p == netip.MustParsePrefix("::1/128") ||
		p.IsValid() && p.Addr().Is4() && p.Addr().IsLoopback() && p.Bits() >= 8
}

func describeRoute(r *netlink.Route, family int, names map[int]string) string {
	dst := "default"
	if family == unix.AF_INET6 {
		dst = "default (IPv6)"
	}
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones > 0 {
			dst = r.Dst.String()
		}
	}
	if r.Gw != nil {
		dst += " via " + r.Gw.String()
	}
	if name := names[r.LinkIndex]; name != "" {
		dst += " on " + name
	}
	if r.Table != unix.RT_TABLE_MAIN {
		dst += fmt.Sprintf(" in table %d", r.Table)
	}
	return dst
}

// prefixOf returns the invalid prefix, which equals none of ours, for nil.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, bits := n.Mask.Size()
	if bits == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones)
}

// dump repeats a netlink listing that a concurrent change made inconsistent.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	const attempts = 5
	for i := 1; ; i++ {
		got, err := list()
		if err == nil || i == attempts || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
}
