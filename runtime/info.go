package runtime

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Info is what the runtime and the host can do, as read when the client was
// dialled or last probed by Ready.
type Info struct {
	Endpoint   string // unix:///path
	Name       string // "containerd", "cri-o"
	Version    string
	APIVersion string // "v1"

	CgroupDriver  CgroupDriver
	CgroupVersion int // 1 (also for the hybrid layout) or 2

	Handlers   []Handler // the default one has the name ""
	CNIConfDir string    // "" when the runtime does not tell and has no known default
	CNIBinDirs []string

	AppArmor bool // the default profile is sent
	Seccomp  bool // the kernel filters system calls
}

// Handler is a runtime handler (RuntimeClass) with its features.
type Handler struct {
	Name              string
	UserNamespaces    bool
	RecursiveReadOnly bool
}

// CgroupDriver is how the runtime makes control groups.
type CgroupDriver string

// The two drivers that CRI knows.
const (
	Cgroupfs CgroupDriver = "cgroupfs"
	Systemd  CgroupDriver = "systemd"
)

// Info returns what was read at the last probe. The caller may keep it.
func (c *Client) Info() Info {
	info := *c.info.Load()
	info.Handlers = slices.Clone(info.Handlers)
	info.CNIBinDirs = slices.Clone(info.CNIBinDirs)
	return info
}

// Ready asks the runtime again whether it and its network are ready, and
// refreshes Info. The error has the kind ErrNotReady or ErrNotCRI.
func (c *Client) Ready(ctx context.Context) error {
	notReady, err := c.probe(ctx)
	if err != nil {
		return err
	}
	return notReady
}

// probe reads Version, Status and RuntimeConfig. It returns separately what
// the runtime says about its readiness and whether it could be asked at all.
func (c *Client) probe(ctx context.Context) (notReady, err error) {
	info := Info{Endpoint: c.info.Load().Endpoint}
	op := "use the CRI endpoint " + info.Endpoint
	limited, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()

	v, err := c.rt.Version(limited, &cri.VersionRequest{})
	if err != nil {
		return nil, probeError(ctx, op, err)
	}
	info.Name, info.Version, info.APIVersion = oneLine(v.RuntimeName), oneLine(v.RuntimeVersion), oneLine(v.RuntimeApiVersion)
	if v.RuntimeApiVersion != "v1" {
		return nil, &Error{Op: op, Kind: ErrNotCRI,
			text: info.Name + " " + info.Version + " speaks CRI " + info.APIVersion + ", but v1 is needed; update the runtime"}
	}

	st, err := c.rt.Status(limited, &cri.StatusRequest{Verbose: true})
	if err != nil {
		return nil, probeError(ctx, op, err)
	}
	for _, h := range st.RuntimeHandlers {
		info.Handlers = append(info.Handlers, Handler{
			Name:              h.GetName(),
			UserNamespaces:    h.GetFeatures().GetUserNamespaces(),
			RecursiveReadOnly: h.GetFeatures().GetRecursiveReadOnlyMounts(),
		})
	}
	hints := readHints(info.Name, st.Info)
	info.CNIConfDir, info.CNIBinDirs = hints.confDir, hints.binDirs
	info.AppArmor = !hints.noAppArmor && hostHasAppArmor()
	info.Seccomp = exists("/proc/sys/kernel/seccomp/actions_avail")

	// CRI-O before 1.28 and containerd before 2.0 do not know RuntimeConfig;
	// their kubelets are told the driver by hand.
	rc, err := c.rt.RuntimeConfig(limited, &cri.RuntimeConfigRequest{})
	switch {
	case err == nil && rc.Linux != nil:
		info.CgroupDriver = Cgroupfs
		if rc.Linux.CgroupDriver == cri.CgroupDriver_SYSTEMD {
			info.CgroupDriver = Systemd
		}
	case err == nil || status.Code(err) == codes.Unimplemented:
		info.CgroupDriver = hints.driver
		if info.CgroupDriver == "" {
			info.CgroupDriver = Cgroupfs
			if exists("/run/systemd/system") {
				info.CgroupDriver = Systemd
			}
		}
		if info.CgroupDriver != c.info.Load().CgroupDriver { // said once
			c.log.Warn("the runtime does not tell its cgroup driver, assuming the likely one",
				"runtime", info.Name, "version", info.Version, "driver", string(info.CgroupDriver))
		}
	default:
		return nil, probeError(ctx, op, err)
	}
	info.CgroupVersion = c.host.version
	c.info.Store(&info)
	return readiness(op, st.Status), nil
}

// readiness looks at the two conditions that CRI requires, and at no other:
// containerd reports its deprecation warnings as a third one that is false.
func readiness(op string, st *cri.RuntimeStatus) error {
	for _, want := range []string{cri.RuntimeReady, cri.NetworkReady} {
		var found *cri.RuntimeCondition
		for _, cond := range st.GetConditions() {
			if cond.GetType() == want {
				found = cond
			}
		}
		if found.GetStatus() {
			continue
		}
		why := oneLine(found.GetReason() + ": " + found.GetMessage())
		if found == nil {
			why = "it does not report the condition " + want
		}
		text := "the runtime says that it is not ready (" + why + "); check its log"
		if want == cri.NetworkReady {
			text = "the runtime has no working pod network (" + why + "); run: v6node cni install"
		}
		return &Error{Op: op, Kind: ErrNotReady, text: text}
	}
	return nil
}

// probeError says what it means that something accepts connections but does
// not answer a CRI question.
func probeError(ctx context.Context, op string, err error) error {
	if cause := ctx.Err(); cause != nil {
		return &Error{Op: op, Cause: cause}
	}
	msg := causeText(err)
	switch status.Code(err) {
	case codes.Unimplemented:
		return &Error{Op: op, Kind: ErrNotCRI, Cause: err,
			text: "a gRPC server answers, but without CRI v1 (" + msg + "); enable the runtime's CRI plugin (containerd: disabled_plugins) or update it"}
	case codes.PermissionDenied, codes.Unauthenticated:
		return &Error{Op: op, Kind: ErrPermission, Cause: err}
	case codes.DeadlineExceeded:
		return &Error{Op: op, Kind: ErrNotReady, Cause: err,
			text: "it accepts connections but did not answer within " + probeTimeout.String() + "; check that it is a CRI socket and the runtime's log"}
	case codes.Unavailable:
		// No HTTP/2 greeting: HTTP/1 (the Docker socket), or anything else.
		if strings.Contains(msg, "server preface") || strings.Contains(msg, "frame") || strings.Contains(msg, "HTTP/1") {
			return &Error{Op: op, Kind: ErrNotCRI, Cause: err,
				text: notGRPC}
		}
		return &Error{Op: op, Kind: ErrNotReady, Cause: err, text: "the runtime does not answer now (" + msg + "); check its log"}
	case codes.Unknown, codes.Internal:
		// HTTP/2, but no gRPC: the answer has no grpc-status or a wrong content type.
		if strings.Contains(msg, "content-type") || strings.Contains(msg, "HTTP status code") {
			return &Error{Op: op, Kind: ErrNotCRI, Cause: err, text: "what listens there speaks HTTP, not gRPC; name the runtime's CRI socket"}
		}
	}
	return &Error{Op: op, Kind: ErrNotReady, Cause: err}
}

// hints is what the verbose part of Status tells; its form is each runtime's own.
type hints struct {
	confDir    string
	binDirs    []string
	noAppArmor bool
	driver     CgroupDriver
}

func readHints(name string, info map[string]string) hints {
	var h hints
	switch name {
	case "containerd":
		var conf struct {
			CNI struct {
				BinDir  string   `json:"binDir"`
				BinDirs []string `json:"binDirs"`
				ConfDir string   `json:"confDir"`
			} `json:"cni"`
			DisableAppArmor bool `json:"disableApparmor"`
			Containerd      struct {
				DefaultRuntimeName string `json:"defaultRuntimeName"`
				Runtimes           map[string]struct {
					Options struct {
						SystemdCgroup bool
					} `json:"options"`
				} `json:"runtimes"`
			} `json:"containerd"`
		}
		h.confDir, h.binDirs = "/etc/cni/net.d", []string{"/opt/cni/bin"}
		if json.Unmarshal([]byte(info["config"]), &conf) != nil {
			return h
		}
		if conf.CNI.ConfDir != "" {
			h.confDir = conf.CNI.ConfDir
		}
		switch {
		case len(conf.CNI.BinDirs) > 0:
			h.binDirs = conf.CNI.BinDirs
		case conf.CNI.BinDir != "":
			h.binDirs = []string{conf.CNI.BinDir}
		}
		h.noAppArmor = conf.DisableAppArmor
		if r, ok := conf.Containerd.Runtimes[conf.Containerd.DefaultRuntimeName]; ok {
			h.driver = Cgroupfs
			if r.Options.SystemdCgroup {
				h.driver = Systemd
			}
		}
	case "cri-o":
		// CRI-O tells no directories over CRI; these are its defaults.
		h.confDir, h.binDirs = "/etc/cni/net.d", []string{"/opt/cni/bin"}
	}
	return h
}

// hostHasAppArmor asks what containerd and CRI-O ask: with the default profile
// requested on a host without AppArmor they refuse the container.
func hostHasAppArmor() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || len(enabled) == 0 || enabled[0] != 'Y' {
		return false
	}
	return exists("/sys/kernel/security/apparmor") && exists("/sbin/apparmor_parser")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
