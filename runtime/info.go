package runtime

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
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

	// What runtimes differ in. Whoever needs to know asks here and not for a
	// runtime's name.

	// TellsDriver: CgroupDriver is the runtime's own answer, and no reading of
	// its configuration.
	TellsDriver bool
	// Events: the runtime sends events when containers end. Empty as long as
	// nobody has asked Client.SendsEvents.
	Events Answer
	// NetworkDropIns: the runtime is told which network to use by drop-in files
	// of its configuration, and tells neither those nor its directories over CRI.
	NetworkDropIns bool
	// CDI: devices can be asked for by their CDI names.
	CDI bool
	// MinMemory is the least memory limit in bytes that the runtime takes, 0
	// for any.
	MinMemory int64
}

// Answer to a question about a runtime; the empty one is not known yet.
type Answer string

// The two answers.
const (
	Yes Answer = "yes"
	No  Answer = "no"
)

// RecursiveReadOnly says whether a handler can make a mount's submounts
// read-only too.
func (i Info) RecursiveReadOnly(handler string) bool { return i.handler(handler).RecursiveReadOnly }

// UserNamespaces says whether a handler can give a sandbox a user namespace, and
// map what is mounted into it.
func (i Info) UserNamespaces(handler string) bool { return i.handler(handler).UserNamespaces }

// handler is the one of that name, or one that can do nothing.
func (i Info) handler(name string) Handler {
	at := slices.IndexFunc(i.Handlers, func(h Handler) bool { return h.Name == name })
	if at < 0 {
		return Handler{}
	}
	return i.Handlers[at]
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
	select {
	case <-c.eventsKnown:
		info.Events = c.events
	default:
	}
	return info
}

// SendsEvents finds out, the first time that it is asked, whether the runtime
// sends events. That takes a second where it does; Info tells it from then on.
func (c *Client) SendsEvents(ctx context.Context) bool {
	c.eventsOnce.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			c.wg.Go(c.probeEvents)
		}
	})
	select {
	case <-c.eventsKnown:
		return c.events == Yes
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}

// eventsTime is how long an event stream must stand to count as one. A runtime
// that sends none ends it at once.
const eventsTime = time.Second

// probeEvents finds out whether the runtime sends events: there is nothing in
// CRI that would say so.
func (c *Client) probeEvents() {
	defer close(c.eventsKnown)
	ctx, cancel := context.WithTimeout(c.ctx, eventsTime)
	defer cancel()
	stream, err := c.rt.GetContainerEvents(ctx, &cri.GetEventsRequest{}, grpc.WaitForReady(true))
	if err == nil {
		_, err = stream.Recv()
	}
	c.events = No
	if err == nil || status.Code(err) == codes.DeadlineExceeded {
		c.events = Yes
	}
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
	info.NetworkDropIns, info.CDI, info.MinMemory = hints.dropIns, hints.cdi, hints.minMemory
	info.AppArmor = !hints.noAppArmor && hostHasAppArmor()
	info.Seccomp = exists("/proc/sys/kernel/seccomp/actions_avail")

	// CRI-O before 1.28 and containerd before 2.0 do not know RuntimeConfig;
	// their kubelets are told the driver by hand.
	rc, err := c.rt.RuntimeConfig(limited, &cri.RuntimeConfigRequest{})
	switch {
	case err == nil && rc.Linux != nil:
		info.CgroupDriver, info.TellsDriver = Cgroupfs, true
		if rc.Linux.CgroupDriver == cri.CgroupDriver_SYSTEMD {
			info.CgroupDriver = Systemd
		}
	case err == nil || status.Code(err) == codes.Unimplemented:
		if info.CgroupDriver = hints.driver; info.CgroupDriver == "" {
			info.CgroupDriver = Cgroupfs
			if exists("/run/systemd/system") {
				info.CgroupDriver = Systemd
			}
			if info.CgroupDriver != c.info.Load().CgroupDriver { // said once
				c.log.Warn("the runtime does not tell its cgroup driver, assuming the likely one",
					"runtime", info.Name, "version", info.Version, "driver", string(info.CgroupDriver))
			}
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

// hints is what the verbose part of Status tells, whose form is each runtime's
// own, and what is known of a runtime that does not tell it.
type hints struct {
	confDir    string
	binDirs    []string
	noAppArmor bool
	driver     CgroupDriver
	dropIns    bool
	cdi        bool
	minMemory  int64
}

// crioMinMemory is CRI-O's own least memory limit with runc and crun
// (container_min_memory; it is not told over CRI).
const crioMinMemory = 12 << 20

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
			DisableAppArmor bool     `json:"disableApparmor"`
			EnableCDI       *bool    `json:"enableCDI"` // from 1.7 on, until it was always enabled
			CDISpecDirs     []string `json:"cdiSpecDirs"`
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
		if h.cdi = len(conf.CDISpecDirs) > 0; conf.EnableCDI != nil {
			h.cdi = *conf.EnableCDI
		}
		if r, ok := conf.Containerd.Runtimes[conf.Containerd.DefaultRuntimeName]; ok {
			h.driver = Cgroupfs
			if r.Options.SystemdCgroup {
				h.driver = Systemd
			}
		}
	case "cri-o":
		// CRI-O tells no directories over CRI; these are its defaults.
		h.confDir, h.binDirs = "/etc/cni/net.d", []string{"/opt/cni/bin"}
		h.dropIns, h.cdi, h.minMemory = true, true, crioMinMemory
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
