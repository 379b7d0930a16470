package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// part is one program of the bundle.
type part struct {
	name    string // file name in the bundle
	module  string // its module; "" for one of this repository
	pinDir  string // directory of the go.mod that pins the module, or of the repository
	pkg     string // package, relative to the module
	tags    string
	ldflags func(version string) string
	// cgo programs link with libseccomp; hosts are the programs of the
	// host that may stand in where that is impossible.
	cgo   bool
	hosts []string
	// dynamic programs are linked so, also where they could be static.
	dynamic bool
	extra   bool // not part of a bundle; built when it is named
	test    bool // pkg has tests, and they are the program
}

const static = "osusergo netgo static_build"

func parts(repo string) []part {
	tools := filepath.Join(repo, "internal", "tools")
	const ctd = "github.com/containerd/containerd/v2"
	containerdVersion := func(v string) string {
		return "-X " + ctd + "/version.Version=" + v + " -X " + ctd + "/version.Package=" + ctd
	}
	none := func(string) string { return "" }
	return []part{
		{name: "v6node-pause", pinDir: repo, pkg: "./cmd/v6node-pause", tags: static, ldflags: none},
		{name: "v6node-runc", pinDir: repo, pkg: "./cmd/v6node-runc", tags: static, ldflags: none},
		{name: "runc", module: "github.com/opencontainers/runc", pinDir: tools, pkg: ".",
			tags: "seccomp urfave_cli_no_docs netgo osusergo", ldflags: none, cgo: true, hosts: []string{"runc", "crun"}},
		// What the CRI plugin does not need is left out: less memory, a
		// quicker start, less to attack.
		{name: "containerd", module: ctd, pinDir: repo, pkg: "./cmd/containerd",
			tags: "urfave_cli_no_docs no_tracing no_devmapper no_zfs no_btrfs " + static, ldflags: containerdVersion},
		{name: "containerd-shim-runc-v2", module: ctd, pinDir: repo, pkg: "./cmd/containerd-shim-runc-v2",
			tags: "urfave_cli_no_docs no_grpc " + static, ldflags: containerdVersion},
		// Drivers for networks are left out: the namespace has the host's.
		{name: "rootlesskit", module: "github.com/rootless-containers/rootlesskit/v3", pinDir: tools, pkg: "./cmd/rootlesskit",
			tags: "no_vpnkit no_slirp4netns no_lxcusernic no_gvisortapvsock " + static, ldflags: none},
		{name: "crictl", module: "sigs.k8s.io/cri-tools", pinDir: tools, pkg: "./cmd/crictl", tags: static,
			ldflags: func(v string) string {
				return "-X sigs.k8s.io/cri-tools/pkg/version.Version=" + strings.TrimPrefix(v, "v")
			}},
		// For benchmarks: what an administrator would import images with.
		{name: "ctr", module: ctd, pinDir: repo, pkg: "./cmd/ctr", tags: "urfave_cli_no_docs " + static, ldflags: containerdVersion, extra: true},
		{name: "critest", module: "sigs.k8s.io/cri-tools", pinDir: tools, pkg: "./cmd/critest", tags: static, ldflags: none, extra: true, test: true},
	}
}

func (p part) make(ctx context.Context, g *toolchain, s *stamp, out string, force bool) error {
	m := module{Path: "github.com/v6node/v6node", Dir: p.pinDir}
	var err error
	if p.module != "" {
		m, err = pinned(ctx, p.pinDir, p.module)
	} else {
		m.Version, err = sourceHash(filepath.Join(p.pinDir, p.pkg))
	}
	if err != nil {
		return err
	}
	mode, reason := "static", ""
	if p.cgo {
		if mode, reason = g.seccomp(ctx); mode == "" {
			return p.borrow(ctx, s, out, reason)
		}
		if p.dynamic {
			mode = "dynamic"
		}
	}
	args, env := p.command(m, mode)
	recipe := strings.Join(append([]string{m.Path + "@" + m.Version, g.version, g.arch}, append(env, args...)...), " ")
	target := filepath.Join(out, p.name)
	if upToDate(s, p.name, target, recipe) && !force {
		fmt.Printf("%-24s %s (up to date)\n", p.name, m.Version)
		return nil
	}
	began := time.Now()
	tmp := target + ".new"
	defer os.Remove(tmp)
	if _, err := output(ctx, m.Dir, env, "go", append(args, "-o", tmp, p.pkg)...); err != nil {
		return err
	}
	// A program in use must be replaced, not written over.
	if err := os.Rename(tmp, target); err != nil {
		return err
	}
	fmt.Printf("%-24s %s (built in %.0f s)\n", p.name, m.Version, time.Since(began).Seconds())
	return s.set(p.name, recipe)
}

func (p part) command(m module, mode string) (args, env []string) {
	ldflags := strings.TrimSpace("-s -w " + p.ldflags(m.Version))
	args = []string{"build"}
	if p.test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-mod=readonly", "-trimpath", "-buildvcs=false", "-tags", p.tags)
	env = []string{"GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0"}
	if p.cgo {
		env[2] = "CGO_ENABLED=1"
		args = append(args, "-buildmode=pie")
		if mode == "static" {
			ldflags += " -linkmode external -extldflags -static-pie"
		}
	}
	return append(args, "-ldflags", ldflags), env
}

// borrow copies a program of the host into the bundle where it cannot be built.
func (p part) borrow(ctx context.Context, s *stamp, out, reason string) error {
	for _, host := range p.hosts {
		path, err := exec.LookPath(host)
		if err != nil {
			continue
		}
		version, err := output(ctx, "", nil, path, "--version")
		if err != nil {
			continue
		}
		version, _, _ = strings.Cut(version, "\n")
		if err := copyProgram(path, filepath.Join(out, p.name)); err != nil {
			return err
		}
		fmt.Printf("%-24s NOT BUILT: %s\n%-24s the host's %s (%s) was copied in its place\n", p.name, reason, "", path, version)
		return s.set(p.name, "host "+path+" "+version)
	}
	if len(p.hosts) == 0 {
		return fmt.Errorf("cannot be built: %s", reason)
	}
	return fmt.Errorf("cannot be built, and the host has no %s to use in its place: %s", strings.Join(p.hosts, " or "), reason)
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.OpenFile(to+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(to+".new"))
	}
	return os.Rename(to+".new", to)
}

// sourceHash stands for the version of a package of this repository.
func sourceHash(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("no Go files in %s (%w)", dir, err)
	}
	h := sha256.New()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(b), b)
	}
	return fmt.Sprintf("source-%x", h.Sum(nil)[:6]), nil
}
