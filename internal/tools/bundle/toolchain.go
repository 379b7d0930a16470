package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toolchain is the Go toolchain and what it can link with on this machine.
type toolchain struct {
	version string // as in "go1.26.8"
	arch    string
	cc      string // "" when there is no C compiler
}

func findGo(ctx context.Context) (*toolchain, error) {
	out, err := output(ctx, "", nil, "go", "env", "GOVERSION", "GOARCH", "CC")
	if err != nil {
		return nil, fmt.Errorf("the Go toolchain does not answer (install Go from https://go.dev/dl/ and put it into PATH): %w", err)
	}
	f := strings.Split(out, "\n")
	if len(f) < 3 {
		return nil, fmt.Errorf("go env printed %q, expected three lines", out)
	}
	t := &toolchain{version: f[0], arch: f[1]}
	if cc := strings.Fields(f[2]); len(cc) > 0 {
		if _, err := exec.LookPath(cc[0]); err == nil {
			t.cc = f[2]
		}
	}
	return t, nil
}

// seccomp says how runc can be linked here: "static", "dynamic", or "" with
// the reason why not at all.
func (t *toolchain) seccomp(ctx context.Context) (mode, reason string) {
	const install = "install it with `apt-get install gcc pkg-config libseccomp-dev` (Debian, Ubuntu) or `dnf install gcc pkgconf libseccomp-devel libseccomp-static glibc-static` (Fedora, Enterprise Linux)"
	if t.cc == "" {
		return "", "no C compiler was found; " + install
	}
	if _, err := exec.LookPath("pkg-config"); err != nil {
		return "", "pkg-config was not found; " + install
	}
	cflags, err := output(ctx, "", nil, "pkg-config", "--cflags", "libseccomp")
	if err != nil {
		return "", "the headers of libseccomp were not found; " + install
	}
	dir, err := os.MkdirTemp("", "v6node-bundle-")
	if err != nil {
		return "", err.Error()
	}
	defer os.RemoveAll(dir)
	src := filepath.Join(dir, "probe.c")
	const probe = "#include <seccomp.h>\nint main(void) { return seccomp_init(SCMP_ACT_ALLOW) == 0; }\n"
	if err := os.WriteFile(src, []byte(probe), 0o600); err != nil {
		return "", err.Error()
	}
	link := func(extra ...string) error {
		cc := strings.Fields(t.cc)
		args := append(cc[1:], extra...)
		args = append(args, strings.Fields(cflags)...)
		args = append(args, "-o", filepath.Join(dir, "probe"), src, "-lseccomp")
		_, err := output(ctx, "", nil, cc[0], args...)
		return err
	}
	if link("-static-pie") == nil {
		return "static", ""
	}
	if err := link(); err != nil {
		return "", fmt.Sprintf("a C program with libseccomp does not link (%v); %s", err, install)
	}
	return "dynamic", ""
}

// module is a module in the module cache, verified against the go.sum of the
// module that pins it.
type module struct{ Path, Version, Dir string }

// pinned finds the version of a module in the go.mod of dir and makes sure
// that its source is in the module cache.
func pinned(ctx context.Context, dir, path string) (module, error) {
	env := []string{"GOWORK=off", "GOFLAGS=-mod=readonly"}
	version, err := output(ctx, dir, env, "go", "list", "-m", "-f", "{{.Version}}", path)
	if err != nil {
		return module{}, fmt.Errorf("no version of %s is pinned in %s: %w", path, filepath.Join(dir, "go.mod"), err)
	}
	out, err := output(ctx, dir, env, "go", "mod", "download", "-json", path+"@"+version)
	if err != nil {
		return module{}, fmt.Errorf("cannot download %s %s (check GOPROXY and the network): %w", path, version, err)
	}
	var m module
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return module{}, fmt.Errorf("go mod download %s: %w", path, err)
	}
	return m, nil
}

// output runs a program and returns what it printed, without the last newline.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stdout, c.Stderr = dir, &stdout, &stderr
	c.Env = append(os.Environ(), env...)
	if err := c.Run(); err != nil {
		if msg := strings.TrimSpace(stderr.String()); msg != "" {
			err = errors.New(msg)
		}
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}
