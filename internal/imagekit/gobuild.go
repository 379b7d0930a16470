package imagekit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// GoBinary compiles a Go package of the module in dir to a static binary out, for
// this machine's architecture or, when arch is set, another one. Paths and symbol
// tables are left out, so that equal sources give equal binaries.
func GoBinary(ctx context.Context, dir, pkg, out, arch string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if arch != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+arch)
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling %s failed: %w: %s", pkg, err, strings.TrimSpace(string(text)))
	}
	return nil
}
