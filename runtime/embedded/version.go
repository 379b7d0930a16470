package embedded

import (
	"strings"

	"github.com/containerd/containerd/v2/version"
)

// WantVersion is the containerd that this package's configuration is written
// for and that `make bundle` builds: the version in go.mod.
func WantVersion() string {
	v, _, _ := strings.Cut(version.Version, "+") // what follows names a build
	return v
}
