package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const crioModule = "github.com/cri-o/cri-o"

func crioPin(repo string) string { return filepath.Join(repo, "internal", "tools", "crio") }

// testParts are what v6node is tested with and does not ship.
func testParts(repo string) []part {
	none := func(string) string { return "" }
	return []part{
		{name: "crio", module: crioModule, pinDir: crioPin(repo), pkg: "./cmd/crio",
			tags: "seccomp containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper", ldflags: none, cgo: true, dynamic: true},
	}
}

// makePinns builds CRI-O's helper in C that makes a sandbox's namespaces.
func makePinns(ctx context.Context, g *toolchain, s *stamp, repo, out string, force bool) error {
	const name = "pinns"
	m, err := pinned(ctx, crioPin(repo), crioModule)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if g.cc == "" {
		return fmt.Errorf("%s: no C compiler was found; install gcc", name)
	}
	sources, err := filepath.Glob(filepath.Join(m.Dir, "pinns", "src", "*.c"))
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("%s: %s has no sources of it (%w)", name, m.Dir, err)
	}
	cc := strings.Fields(g.cc)
	args := append(cc[1:], "-std=c99", "-O2", "-Wall", "-static")
	recipe := strings.Join(append([]string{m.Path + "@" + m.Version, g.cc}, args...), " ")
	target := filepath.Join(out, name)
	if upToDate(s, name, target, recipe) && !force {
		fmt.Printf("%-24s %s (up to date)\n", name, m.Version)
		return nil
	}
	if _, err := output(ctx, "", nil, cc[0], append(append(args, "-o", target+".new"), sources...)...); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.Rename(target+".new", target); err != nil {
		return err
	}
	fmt.Printf("%-24s %s (built)\n", name, m.Version)
	return s.set(name, recipe)
}

// debianContainerd unpacks Debian's containerd and runc into a directory. They
// are not installed: that would start a service and touch the machine's own.
func debianContainerd(ctx context.Context, s *stamp, out string, force bool) (err error) {
	const name = "debian-containerd"
	packages := []string{"containerd", "runc"}
	fail := func(err error) error { return fmt.Errorf("%s: %w", name, err) }
	var recipe []string
	for _, p := range packages {
		version, err := debianVersion(ctx, p)
		if err != nil {
			return fail(err)
		}
		recipe = append(recipe, p+"="+version)
	}
	target := filepath.Join(out, name)
	if upToDate(s, name, target, strings.Join(recipe, " ")) && !force {
		fmt.Printf("%-24s %s (up to date)\n", name, strings.Join(recipe, ", "))
		return nil
	}
	began := time.Now()
	tmp, err := os.MkdirTemp(out, name+"-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(tmp)
	// apt fetches as a user of its own where that can write.
	if err := os.Chmod(tmp, 0o777); err != nil {
		return fail(err)
	}
	if _, err := output(ctx, tmp, nil, "apt-get", append([]string{"download", "-q"}, recipe...)...); err != nil {
		return fail(err)
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != len(packages) {
		return fail(fmt.Errorf("apt-get downloaded %q (%w)", debs, err))
	}
	for _, deb := range debs {
		if _, err := output(ctx, "", nil, "dpkg-deb", "-x", deb, filepath.Join(tmp, "root")); err != nil {
			return fail(err)
		}
	}
	if err := os.RemoveAll(target); err != nil {
		return fail(err)
	}
	if err := os.Rename(filepath.Join(tmp, "root"), target); err != nil {
		return fail(err)
	}
	fmt.Printf("%-24s %s (unpacked in %.0f s)\n", name, strings.Join(recipe, ", "), time.Since(began).Seconds())
	return s.set(name, strings.Join(recipe, " "))
}

// debianVersion is the version of a package that apt would install.
func debianVersion(ctx context.Context, name string) (string, error) {
	text, err := output(ctx, "", []string{"LC_ALL=C"}, "apt-cache", "policy", name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok && v != "(none)" {
			return v, nil
		}
	}
	return "", fmt.Errorf("apt knows no package %s; run apt-get update", name)
}

// upToDate tells whether a part is there and made from this recipe.
func upToDate(s *stamp, name, target, recipe string) bool {
	_, err := os.Stat(target)
	return err == nil && s.recipes[name] == recipe
}
