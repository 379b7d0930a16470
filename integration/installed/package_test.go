//go:build vm

package installed

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// install installs the package whose file V6NODE_DEB names, for the time of the
// test.
func install(t *testing.T) {
	t.Helper()
	deb := os.Getenv("V6NODE_DEB")
	if deb == "" {
		t.Fatal("V6NODE_DEB does not name the package to be installed")
	}
	command(t, "dpkg", "-i", deb)
	t.Cleanup(func() {
		command(t, "dpkg", "-P", "v6node")
		for _, dir := range []string{"/usr/bin/v6node", "/usr/libexec/v6node", "/etc/v6node", "/var/lib/v6node"} {
			if _, err := os.Lstat(dir); err == nil {
				t.Errorf("%s is left of the package", dir)
			}
		}
	})
}

// patience bounds what may take long on an emulated machine; nothing takes it.
const patience = 5 * time.Minute

// command runs a program that must succeed, and returns what it says. It works
// in a test's cleanup too.
func command(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// asUser runs a command line in a session of the machine's normal user.
func asUser(t *testing.T, line string) string {
	t.Helper()
	return command(t, "systemd-run", "--machine="+user+"@.host", "--user", "--pipe", "--wait", "--quiet", "--collect", "sh", "-c", line)
}

// user is the machine's normal user.
const user = "hpc"

// algorithm is the path of a program that tests pack into an image.
func algorithm(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(os.Getenv("V6NODE_BUNDLE"), "algorithms", name)
}
