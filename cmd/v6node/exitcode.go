package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/install"
	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/boot"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/server"
)

// The exit codes, documented in docs/commands.md. They are part of the
// program's interface: scripts and service managers rely on them.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitNotInEffect = 3
	exitAPIKey      = 4
	exitEncryption  = 5
	exitRuntime     = 6
	exitInUse       = 7
	exitDown        = 8
	exitRefused     = 9
	exitProtocol    = 10
	exitNoRun       = 11
	exitState       = 12
	exitCheck       = 13
	exitInPlace     = 14
	exitNotAllowed  = 15
	exitUndecided   = 16
	exitKeyDiffers  = 17
	exitNoKey       = 18
)

// exitCode is the one table from error to exit code.
func exitCode(err error) int {
	// Not errors.As: an error that wraps that of a program which has failed would have its code.
	if exit, ok := err.(cli.ExitCoder); ok {
		return exit.ExitCode()
	}
	for _, row := range []struct {
		is   error
		code int
	}{
		{config.ErrInvalid, exitUsage},
		{server.ErrBadAPIKey, exitAPIKey},
		{node.ErrEncryption, exitEncryption},
		{boot.ErrRuntime, exitRuntime},
		{node.ErrStateInUse, exitInUse},
		{admin.ErrDown, exitDown},
		{admin.ErrStopping, exitDown},
		{admin.ErrRefused, exitRefused},
		{admin.ErrProtocol, exitProtocol},
		{admin.ErrNotFound, exitNoRun},
		{admin.ErrState, exitState},
		{admin.ErrInvalid, exitUsage},
		{install.ErrInUse, exitInPlace},
		{install.ErrMounted, exitInPlace},
		{install.ErrBusy, exitInPlace},
	} {
		if errors.Is(err, row.is) {
			return row.code
		}
	}
	return exitFailure
}
