package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// Codes of the CNI specification that its Go library has as plain numbers.
const (
	codeUnsupportedField = types.ErrUnsupportedField
	codeConfig           = types.ErrInvalidNetworkConfig
	codeNetns            = types.ErrInvalidNetNS
	codeInternal         = types.ErrInternal
	codeNotAvailable     = types.ErrPluginNotAvailable
	// codeNetwork is ours (100 and above are free for plugins): CHECK found a
	// network that is not as ADD made it.
	codeNetwork uint = 100
)

// PluginMain is the CNI plugin: a program calls it first thing when the
// environment has CNI_COMMAND. It reads the request from the environment and
// standard input, writes the answer to standard output, and returns, or ends
// the process with exit code 1 when the answer is an error. It is for a process
// of its own: it may replace os.Stdin.
func PluginMain() {
	if err := boundStdin(); err != nil {
		failPlugin(err)
	}
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:    cmdAdd,
		Del:    cmdDel,
		Check:  cmdCheck,
		Status: cmdStatus,
		GC:     cmdGC,
	}, version.PluginSupports(supportedVersions()...), "CNI plugin "+PluginName+": a sandbox with a loopback and no way out")
}

// failPlugin answers with an error before the CNI library has taken over.
func failPlugin(err *types.Error) {
	json.NewEncoder(os.Stdout).Encode(err)
	os.Exit(1)
}

// boundStdin reads the configuration under a limit and puts a memory file in
// the place of standard input, since the CNI library reads without any limit.
func boundStdin() *types.Error {
	if command := os.Getenv("CNI_COMMAND"); command == "" || command == "VERSION" {
		return nil // neither reads, and there may be a terminal
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, maxConf+1))
	if err != nil {
		return types.NewError(types.ErrIOFailure, "read the configuration from standard input: "+err.Error(), "")
	}
	if len(data) > maxConf {
		return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("the configuration on standard input is larger than %d bytes", maxConf), "")
	}
	fd, err := unix.MemfdCreate("cni-conf", unix.MFD_CLOEXEC)
	if err != nil {
		return types.NewError(types.ErrIOFailure, "make a memory file: "+err.Error(), "")
	}
	file := os.NewFile(uintptr(fd), "cni-conf")
	if _, err := file.Write(data); err != nil {
		return types.NewError(types.ErrIOFailure, "write a memory file: "+err.Error(), "")
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return types.NewError(types.ErrIOFailure, "rewind a memory file: "+err.Error(), "")
	}
	os.Stdin = file
	return nil
}

func cmdAdd(args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return confError(err)
	}
	if conf.Loopback {
		return addLoopback(args, conf)
	}
	if conf.Prev != nil {
		return types.NewError(codeConfig, "the plugin "+PluginName+" must be the only one in its network; remove the plugins before it", "")
	}
	n, err := OpenNetns(args.Netns)
	if err != nil {
		return types.NewError(codeNetns, err.Error(), "")
	}
	defer n.Close()
	link, err := n.setUp(args.IfName)
	if err != nil {
		return types.NewError(codeInternal, fmt.Sprintf("set up the network of sandbox %s: %v", args.ContainerID, err), "")
	}
	p := podPrefix()
	result := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{{
			Name:    args.IfName,
			Mac:     link.Attrs().HardwareAddr.String(),
			Sandbox: args.Netns,
		}},
		IPs: []*types100.IPConfig{{
			Interface: types100.Int(0),
			Address:   net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)},
		}},
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// cmdDel looks at no more of the configuration than the CNI library did: a
// sandbox must be removable whatever has become of the configuration.
func cmdDel(args *skel.CmdArgs) error {
	if args.Netns == "" || args.IfName == loName {
		return nil // lo goes with its namespace
	}
	n, err := OpenNetns(args.Netns)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist), errors.Is(err, ErrNotNetns), errors.Is(err, unix.ENOTDIR):
		return nil // gone, or only the file left that it was mounted on
	default:
		return types.NewError(codeNetns, err.Error(), "")
	}
	defer n.Close()
	if err := n.release(args.IfName); err != nil {
		return types.NewError(codeInternal, fmt.Sprintf("take down the network of sandbox %s: %v", args.ContainerID, err), "")
	}
	return nil
}

func cmdCheck(args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return confError(err)
	}
	if conf.Loopback {
		return checkLoopback(args)
	}
	if conf.Prev == nil {
		return types.NewError(codeConfig, "CHECK needs the prevResult of ADD", "")
	}
	n, err := OpenNetns(args.Netns)
	if err != nil {
		return types.NewError(codeNetns, err.Error(), "")
	}
	defer n.Close()
	h, err := n.netlink()
	if err != nil {
		return types.NewError(codeInternal, err.Error(), "")
	}
	defer h.Close()
	found, err := inspectNetwork(h, args.IfName)
	if err != nil {
		return types.NewError(codeInternal, err.Error(), "")
	}
	if len(found) == 0 {
		link, err := h.LinkByName(args.IfName)
		if err != nil {
			return types.NewError(codeInternal, err.Error(), "")
		}
		found = comparePrev(conf.Prev, args, link.Attrs().HardwareAddr)
	}
	if len(found) > 0 {
		return types.NewError(codeNetwork, fmt.Sprintf("the network of sandbox %s is not as it was made: %s",
			args.ContainerID, strings.Join(found, "; ")), "")
	}
	return nil
}

// comparePrev says how the result of ADD differs from what is there. That the
// kernel's side is our network has been checked before.
func comparePrev(prev *types100.Result, args *skel.CmdArgs, mac net.HardwareAddr) []string {
	var f findings
	index := -1
	for i, iface := range prev.Interfaces {
		switch {
		case iface.Name != args.IfName:
			f.add("prevResult has a further interface %q", iface.Name)
		case iface.Sandbox != args.Netns:
			f.add("prevResult has %s in %q, not in %q", iface.Name, iface.Sandbox, args.Netns)
		case iface.Mac != "" && iface.Mac != mac.String():
			f.add("prevResult gives %s the hardware address %q, which now is %s", iface.Name, iface.Mac, mac)
		default:
			index = i
		}
	}
	if index < 0 {
		f.add("prevResult does not have the interface %s", args.IfName)
	}
	if len(prev.IPs) != 1 || prefixOf(&prev.IPs[0].Address) != podPrefix() ||
		prev.IPs[0].Interface == nil || *prev.IPs[0].Interface != index {
		f.add("prevResult does not give %s exactly the address %s", args.IfName, podAddress)
	}
	if len(prev.Routes) > 0 {
		f.add("prevResult has routes")
	}
	return f.phrases()
}

// cmdStatus tells whether ADD can work: it needs the right to enter a namespace
// and to make an interface there.
func cmdStatus(args *skel.CmdArgs) error {
	if _, err := parseConf(args.StdinData); err != nil {
		return confError(err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return types.NewError(codeInternal, "read the own capabilities: "+err.Error(), "")
	}
	var missing []string
	for _, c := range []struct {
		name string
		bit  uint
	}{{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return types.NewError(codeNotAvailable, "the plugin "+PluginName+" is run without "+strings.Join(missing, " and ")+
			" and cannot set up a sandbox; run the container runtime as root or in a user namespace", "")
	}
	return nil
}

// cmdGC has nothing to collect: a namespace takes its interfaces with it, and
// nothing is kept elsewhere.
func cmdGC(args *skel.CmdArgs) error {
	if _, err := parseConf(args.StdinData); err != nil {
		return confError(err)
	}
	return nil
}

func confError(err error) *types.Error {
	code := codeConfig
	if errors.Is(err, errUnsupportedField) {
		code = codeUnsupportedField
	}
	return types.NewError(code, err.Error(), "")
}
