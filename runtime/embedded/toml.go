package embedded

import (
	"bytes"
	"fmt"
	"os"
	"text/template"
)

// configFile is containerd's configuration, version 4 (containerd 2.3 and
// later). What is not named has containerd's default. The reasons:
//
//   - imports: containerd would read the system's /etc/containerd/conf.d.
//   - disabled plugins: nothing here uses them. Without them containerd starts
//     sooner, is smaller, does not create /opt/containerd or listen for NRI
//     plugins of the host.
//   - discard_unpacked_layers stays off: compressed layers cost disk, but a
//     lost snapshot is unpacked again instead of pulled again, and pulls go
//     through containerd's transfer service, its best-tested way. Content.Shed removes
//     those of which this machine has another source.
//   - config_path: mirrors and certificate authorities of registries, first our
//     own, then where the administrator already keeps them. Registries on
//     loopback addresses need no entry: containerd falls back to plain HTTP.
//   - volatile: a writable layer is scratch, nothing is gained by syncing it
//     to the disk when a container ends.
//   - proxy_plugins, unpack_config and diff-service: where one user id is mapped
//     the node unpacks layers itself, see differ.go.
//   - netns_mounts_under_state_dir: /var/run/netns belongs to the host.
//   - enable_unprivileged_ports and _icmp are off: nobody can be reached or
//     pinged from a sandbox, and setting the sysctls takes time.
//   - hugetlb: v6node sets no huge page limits, and the controller is often
//     not delegated.
//   - bolt.open: a containerd that this state directory does not know of has
//     the database; better to fail than to wait for it for ever.
var configFile = template.Must(template.New("config.toml").Parse(`# Written by v6node at each start; changes are lost.
version = 4
root = {{printf "%q" .Root}}
state = {{printf "%q" .State}}
imports = []
disabled_plugins = [{{range $i, $p := .Disabled}}{{if $i}},{{end}}
  {{printf "%q" $p}}{{end}}
]

[plugins."io.containerd.server.v1.grpc"]
  address = {{printf "%q" .Socket}}
  uid = {{.UID}}
  gid = {{.GID}}
  max_recv_message_size = 16777216
  max_send_message_size = 16777216

[plugins."io.containerd.server.v1.ttrpc"]
  address = {{printf "%q" .TTRPC}}
  uid = {{.UID}}
  gid = {{.GID}}

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = {{printf "%q" .ShimSockets}}

[plugins."io.containerd.cri.v1.images"]
  snapshotter = {{printf "%q" .Snapshotter}}
  discard_unpacked_layers = false
  image_pull_progress_timeout = "5m0s"
  stats_collect_period = 300
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = {{printf "%q" .PauseRef}}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = {{printf "%q" .Registries}}

[plugins."io.containerd.transfer.v1.local"]
  config_path = {{printf "%q" .Registries}}
{{- if .Differ}}
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = {{printf "%q" .Platform}}
    snapshotter = {{printf "%q" .Snapshotter}}
    differ = {{printf "%q" .DifferName}}

[plugins."io.containerd.service.v1.diff-service"]
  default = [{{printf "%q" .DifferName}}]

[proxy_plugins.{{.DifferName}}]
  type = "diff"
  address = {{printf "%q" .Differ}}
{{- end}}
{{- if .Volatile}}

[plugins."io.containerd.snapshotter.v1.overlayfs"]
  mount_options = ["volatile"]
{{- end}}

[plugins."io.containerd.cri.v1.runtime"]
  max_container_log_line_size = 16384
  disable_apparmor = {{.DisableAppArmor}}
  restrict_oom_score_adj = {{.RestrictOOMScoreAdj}}
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  enable_criu = false
  stats_collect_period = "10s"
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [{{printf "%q" .CNIBin}}]
    conf_dir = {{printf "%q" .CNIConf}}
    max_conf_num = 1
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = {{printf "%q" .Shim}}
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = {{printf "%q" .Runc}}
        Root = {{printf "%q" .RuncRoot}}
        SystemdCgroup = {{.SystemdCgroup}}
{{- range .Handlers}}
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{{.Name}}]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = {{printf "%q" $.Shim}}
      base_runtime_spec = {{printf "%q" .Spec}}
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{{.Name}}.options]
        BinaryName = {{printf "%q" $.Runc}}
        Root = {{printf "%q" $.RuncRoot}}
        SystemdCgroup = {{$.SystemdCgroup}}
{{- end}}

[timeouts]
  "io.containerd.timeout.bolt.open" = "5s"
`))

// unneeded are the plugins that CRI as v6node uses it can do without.
var unneeded = []string{
	"io.containerd.nri.v1.nri",
	"io.containerd.image-verifier.v1.bindir",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.restart",
	"io.containerd.monitor.container.v1.restart",
	"io.containerd.monitor.task.v1.cgroups",
	"io.containerd.metrics.v1.grpc-prometheus",
	"io.containerd.metrics.v1.grpc-otel",
	"io.containerd.server.v1.metrics",
	"io.containerd.server.v1.debug",
	"io.containerd.server.v1.grpc-tcp",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.differ.v1.erofs",
	"io.containerd.mount-handler.v1.erofs",
}

type configData struct {
	Root, State, Socket, TTRPC, ShimSockets  string
	Snapshotter, PauseRef, Registries        string
	Differ, DifferName, Platform             string // Differ is "" for containerd's own
	CNIBin, CNIConf, Shim, Runc, RuncRoot    string
	Disabled                                 []string
	UID, GID                                 int
	Volatile, DisableAppArmor, SystemdCgroup bool
	RestrictOOMScoreAdj                      bool
	Handlers                                 []handlerFile
}

// renderConfig returns containerd's configuration file.
func renderConfig(l *layout, b Bundle, h host, pauseRef string, handlers []Handler, noCgroups bool) ([]byte, error) {
	d := configData{
		Root: l.root, State: l.state, Socket: l.socket, TTRPC: l.ttrpc, ShimSockets: l.shimSocks,
		Snapshotter: "overlayfs", PauseRef: pauseRef, Registries: l.registries,
		CNIBin: l.cniBin, CNIConf: l.cniConf, Shim: b.Shim, Runc: b.Runc, RuncRoot: l.runc,
		Disabled: append([]string(nil), unneeded...),
		UID:      os.Geteuid(), GID: os.Getegid(),
		Volatile: h.volatile, DisableAppArmor: !h.appArmor, SystemdCgroup: h.systemdCgroups,
		RestrictOOMScoreAdj: !h.oomAdjustable,
	}
	switch {
	case noCgroups:
		d.Runc = b.looseRunc()
	case h.oneID:
		d.Runc = l.groupedRunc
	}
	if h.oneID {
		d.Differ, d.DifferName, d.Platform = l.differ, differName, platform()
	}
	for _, h := range handlers {
		d.Handlers = append(d.Handlers, l.handlerFile(h))
	}
	if h.overlay {
		d.Disabled = append(d.Disabled, "io.containerd.snapshotter.v1.native")
	} else {
		d.Snapshotter = "native"
		d.Disabled = append(d.Disabled, "io.containerd.snapshotter.v1.overlayfs")
	}
	var out bytes.Buffer
	if err := configFile.Execute(&out, d); err != nil {
		return nil, fmt.Errorf("containerd's configuration: %w", err)
	}
	return out.Bytes(), nil
}
