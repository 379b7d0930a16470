package cni

import (
	"errors"
	"fmt"
	"strings"
)

// ErrForeignNetwork is wrapped when a sandbox's network is not exactly what our
// plugin makes, whatever the reason. A run must not start in it.
var ErrForeignNetwork = errors.New("foreign network")

// ForeignNetworkError says what was found in a sandbox instead of our network.
// errors.Is(err, ErrForeignNetwork) holds.
type ForeignNetworkError struct {
	Path  string   // of the namespace
	Found []string // what is wrong, each a phrase for a reader
	// Layout names the directories of the runtime, for the command that Error
	// advises. Verify leaves it empty, which means the defaults; a caller that
	// knows better fills it in.
	Layout Layout
}

func (e *ForeignNetworkError) Error() string {
	l := e.Layout.withDefaults()
	return fmt.Sprintf("the sandbox's network is not v6node's (%s): "+
		"run %q on the runtime's machine, "+
		"see \"v6node cni show\" with the same options, and repeat the run",
		strings.Join(e.Found, "; "), l.installCommand())
}

// Unwrap makes errors.Is(e, ErrForeignNetwork) hold.
func (e *ForeignNetworkError) Unwrap() error { return ErrForeignNetwork }
