package image

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/v6node/v6node/sif"
)

// Served tells whether an image's name at the runtime is one under which a node serves images on loopback, its own or
// those of an earlier port. Under any other name somebody else has pulled it.
func Served(name string) bool {
	host, rest, _ := strings.Cut(name, "/")
	namespace, _, ok := strings.Cut(rest, "/")
	at, err := netip.ParseAddrPort(host)
	return ok && err == nil && at.Addr().IsLoopback() && slices.Contains([]string{sif.Namespace, importedNamespace}, namespace)
}
