package cni

import (
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// addLoopback is ADD of the plugin LoopbackName: it brings up lo and nothing
// else, whatever network the sandbox gets besides.
func addLoopback(args *skel.CmdArgs, conf *pluginConf) error {
	err := withLoopback(args, func(h *netlink.Handle, lo netlink.Link) error {
		return h.LinkSetUp(lo)
	})
	if err != nil {
		return err
	}
	result := conf.Prev // in a chain, the result is that of the one before
	if result == nil {
		result = &types100.Result{
			CNIVersion: types100.ImplementedSpecVersion,
			Interfaces: []*types100.Interface{{Name: args.IfName, Mac: "00:00:00:00:00:00", Sandbox: args.Netns}},
			IPs: []*types100.IPConfig{{
				Interface: types100.Int(0),
				Address:   net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(8, 32)},
			}},
		}
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// checkLoopback is CHECK of the plugin LoopbackName.
func checkLoopback(args *skel.CmdArgs) error {
	return withLoopback(args, func(_ *netlink.Handle, lo netlink.Link) error {
		if lo.Attrs().Flags&net.FlagUp == 0 {
			return types.NewError(codeNetwork, fmt.Sprintf("%s of sandbox %s is down", loName, args.ContainerID), "")
		}
		return nil
	})
}

func withLoopback(args *skel.CmdArgs, fn func(*netlink.Handle, netlink.Link) error) error {
	if args.IfName != loName {
		return types.NewError(types.ErrInvalidEnvironmentVariables,
			fmt.Sprintf("the plugin %s sets up %s, not %q", LoopbackName, loName, args.IfName), "")
	}
	n, err := OpenNetns(args.Netns)
	if err != nil {
		return types.NewError(codeNetns, err.Error(), "")
	}
	defer n.Close()
	return n.withLo(fn)
}
