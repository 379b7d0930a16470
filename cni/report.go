package cni

import "fmt"

// State says what is at a place where Install puts a file.
type State string

// The states of an installed file.
const (
	Absent  State = "absent"
	Current State = "current" // ours, and what Install would put there
	Stale   State = "stale"   // ours, but of another build or release
	Foreign State = "foreign" // somebody else's; Uninstall leaves it alone
)

// File is one of the files that make up an installation.
type File struct {
	Path  string `json:"path"`
	State State  `json:"state"`
	// SHA256 is the content's, in hexadecimal; empty if absent.
	SHA256 string `json:"sha256,omitempty"`
	// Version is what the plugin's build says of itself; empty for others.
	Version string `json:"version,omitempty"`
}

// Other is another network's configuration in the same directory.
type Other struct {
	Path string `json:"path"`
	// Network and Plugins are empty if the file cannot be understood.
	Network string   `json:"network,omitempty"`
	Plugins []string `json:"plugins,omitempty"`
	// Earlier is true when the file sorts before ours, so that a runtime uses
	// it instead of ours.
	Earlier bool `json:"earlier"`
}

func (o Other) String() string {
	if o.Network == "" {
		return o.Path
	}
	return fmt.Sprintf("%s (network %q)", o.Path, o.Network)
}

// Report is what Install, Uninstall and Inspect found or left behind.
type Report struct {
	Layout
	Conf   File `json:"conf"`
	Plugin File `json:"plugin"`
	// Loopback is the plugin LoopbackName. Somebody else's is as good as ours,
	// and only containerd without use_internal_loopback needs one.
	Loopback File `json:"loopback"`
	// DropIns are the files of CRI-O's own configuration.
	DropIns []File  `json:"drop_ins,omitempty"`
	Others  []Other `json:"others"`
	Changed bool    `json:"changed"` // Install or Uninstall wrote or removed something
	// Effective is true when configuration and plugin are ours and no other configuration
	// sorts earlier, so that a runtime that uses these directories, and has no
	// other network named in its own configuration, gives our network to
	// each new sandbox.
	Effective bool `json:"effective"`
	// Problems are sentences for an administrator; empty if all is well.
	Problems []string `json:"problems"`
}

// Installed tells whether configuration and plugin are there and ours, stale or not.
func (r *Report) Installed() bool {
	return r.Conf.ours() && r.Plugin.ours()
}

func (f File) ours() bool { return f.State == Current || f.State == Stale }
