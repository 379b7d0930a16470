package cni

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kinds of interface that eth0 may be. Neither passes a packet on.
const (
	typeDummy  = "dummy"
	typeBridge = "bridge"
)

// errLinkExists is returned by setUp when the interface is there already; the
// CNI specification wants ADD to fail then.
var errLinkExists = errors.New("the interface exists already")

// setUp makes our network in the namespace: lo up, and an interface of the
// given name with our address and nothing behind it. If it fails, what it made
// is gone again. It returns the interface as the kernel has it.
func (n *Netns) setUp(name string) (netlink.Link, error) {
	h, err := n.netlink()
	if err != nil {
		return nil, err
	}
	defer h.Close()

	lo, err := h.LinkByName(loName)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", loName, err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("bring up %s: %w", loName, err)
	}
	link, err := addLink(h, name)
	if err != nil {
		return nil, err
	}
	if err := n.configure(h, link); err != nil {
		return nil, errors.Join(err, h.LinkDel(link))
	}
	return link, nil
}

// addLink creates the interface: a dummy, or a bridge where the kernel knows no
// dummy. One that DEL left behind is taken again.
func addLink(h *netlink.Handle, name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err := h.LinkAdd(&netlink.Dummy{LinkAttrs: attrs})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, errors.New("the kernel has neither the dummy nor the bridge network driver; load one of them (modprobe dummy)")
		}
	}
	exists := errors.Is(err, unix.EEXIST)
	if err != nil && !exists {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if exists {
		unused, err := released(h, link)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", name, err)
		}
		if !unused {
			return nil, fmt.Errorf("create %s: %w", name, errLinkExists)
		}
	}
	return link, nil
}

// configure gives the interface its address and brings it up.
func (n *Netns) configure(h *netlink.Handle, link netlink.Link) error {
	name := link.Attrs().Name
	// Before it is up, lest the kernel give it a link-local address.
	if err := n.withoutIPv6(h, link); err != nil {
		return fmt.Errorf("switch off IPv6 on %s: %w", name, err)
	}
	if err := h.AddrAdd(link, ourAddress()); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, podAddress, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// withoutIPv6 keeps the interface free of IPv6. The address generation mode is
// what matters, and can be set wherever a link can be made; the sysctl also
// keeps out what would be added by hand, but /proc/sys may be read-only.
func (n *Netns) withoutIPv6(h *netlink.Handle, link netlink.Link) error {
	err := h.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // a kernel without IPv6, or with ipv6.disable=1
	}
	if err != nil {
		return err
	}
	return n.Do(func() error {
		path := "/proc/sys/net/ipv6/conf/" + link.Attrs().Name + "/disable_ipv6"
		err := os.WriteFile(path, []byte("1"), 0)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
			return nil
		}
		return err
	})
}

// release undoes setUp as far as a living namespace can see: the interface loses
// its address, so that the network is not ours any more (see Verify). That it is
// absent, or somebody else's, is no error.
//
// The interface itself stays. Removing it makes the kernel wait for grace
// periods under its global network lock: 50 ms, and 800 ms when twenty sandboxes
// end at once, during which no other sandbox gets a network. The runtime removes
// the namespace next, and the interface goes with it, in the background.
func (n *Netns) release(name string) error {
	h, err := n.netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if !leadsNowhere(link) {
		return nil
	}
	err = h.AddrDel(link, ourAddress())
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("take the address from %s: %w", name, err)
	}
	return nil
}

// released tells whether an interface is one that release left behind.
func released(h *netlink.Handle, link netlink.Link) (bool, error) {
	if !leadsNowhere(link) {
		return false, nil
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	return len(addrs) == 0, err
}

func leadsNowhere(link netlink.Link) bool {
	return link.Type() == typeDummy || link.Type() == typeBridge
}

func ourAddress() *netlink.Addr {
	p := podPrefix()
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}
}
