// Command bundle builds the programs that v6node ships beside its own binary:
// containerd, its shim, runc, the pause program and, for tests, crictl. With
// -runtimes it gets instead the runtimes that v6node is tested with and does not
// ship: CRI-O and Debian's containerd.
//
// Each program is built in its own module's directory of the module cache, so
// with the dependency versions that its authors released it with. Versions are
// pinned in go.mod files: containerd's in the repository's, CRI-O's in
// internal/tools/crio, the others' in internal/tools. A program is rebuilt only when something it is made from
// changes; the stamp file in the bundle says what that was.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	repo := flag.String("repo", ".", "root of the v6node repository")
	out := flag.String("out", "bundle", "directory to build into")
	force := flag.Bool("force", false, "build everything again")
	runtimes := flag.Bool("runtimes", false, "get the runtimes for tests instead of the bundle")
	only := flag.String("only", "", "build only the programs with these names, separated by commas; ctr is built only so")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, *repo, *out, *only, *force, *runtimes); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, repo, out, only string, force, runtimes bool) error {
	repo, err := filepath.Abs(repo)
	if err != nil {
		return err
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	g, err := findGo(ctx)
	if err != nil {
		return err
	}
	s, err := readStamp(filepath.Join(out, ".stamp"))
	if err != nil {
		return err
	}
	var errs []error
	list := parts(repo)
	if runtimes {
		list = testParts(repo)
	}
	for _, p := range list {
		if only == "" && p.extra || only != "" && !slices.Contains(strings.Split(only, ","), p.name) {
			continue
		}
		if err := p.make(ctx, g, s, out, force); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if runtimes && ctx.Err() == nil {
		errs = append(errs, makePinns(ctx, g, s, repo, out, force), debianContainerd(ctx, s, out, force))
	}
	return errors.Join(errs...)
}
