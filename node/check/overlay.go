package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/v6node/v6node/runtime/embedded"
)

// HelperName is what this program starts itself as to do what can only be done in
// namespaces of its own; it then calls Help.
const HelperName = "v6node-check-helper"

// Help tries an overlay in the directory that args names, and ends the program.
func Help(args []string) {
	if len(args) != 1 {
		os.Exit(2)
	}
	if err := embedded.TryOverlay(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// overlay looks whether containers' file systems can be mounted instead of
// copied below dir.
type overlay struct {
	dir      string
	rootless bool
}

func (o overlay) look(ctx context.Context, report func(Result)) error {
	r := reporter(report)
	dir, err := existing(o.dir)
	if err != nil {
		return err
	}
	if o.rootless {
		err = o.inNamespace(ctx, dir)
	} else {
		err = embedded.TryOverlay(dir)
	}
	if err != nil {
		r.warn("", "keep state_dir on a local ext4 or xfs file system, and use Linux 5.11 or newer where v6node runs without root",
			"it does not work below %s, so that every image is copied for every run (%v)", dir, err)
		return nil
	}
	r.ok("", "mounted below %s", dir)
	return nil
}

// inNamespace tries it as root of a new user namespace, as a node without root is.
func (o overlay) inNamespace(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", dir)
	cmd.Args[0] = HelperName
	cmd.SysProcAttr = inUserNamespace(syscall.CLONE_NEWNS)
	out, err := cmd.CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		if text := strings.TrimSpace(string(out)); errors.As(err, &exit) && text != "" {
			return errors.New(text)
		}
	}
	return err
}

// existing returns a directory or the nearest one above it that exists.
func existing(dir string) (string, error) {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil:
			return "", fmt.Errorf("%s is no directory; choose another", dir)
		case !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}
