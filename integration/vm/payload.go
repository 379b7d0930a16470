package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// payloadDir is where the machine has the second disk.
const payloadDir = "/payload"

// makePayload compiles the tests and puts them on a disk, with the programs that
// they test.
func makePayload(ctx context.Context, repo, tmp string, plan []suite) (string, error) {
	stage := filepath.Join(tmp, "payload")
	for _, dir := range []string{"bin", "bundle"} {
		if err := copyTree(filepath.Join(repo, dir), filepath.Join(stage, dir)); err != nil {
			return "", fmt.Errorf("the programs are missing, run `make` first: %w", err)
		}
	}
	build := func(args ...string) error {
		cmd := command(ctx, "go", args...)
		cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	if err := build("build", "-trimpath", "-o", filepath.Join(stage, "vm"), "./integration/vm"); err != nil {
		return "", err
	}
	if slices.ContainsFunc(plan, func(s suite) bool { return s.Installed }) {
		if err := makePackage(ctx, repo, stage); err != nil {
			return "", err
		}
	}
	done := map[string]bool{}
	for _, s := range plan {
		if done[s.Package] {
			continue
		}
		done[s.Package] = true
		say("compiling the tests of %s", s.Package)
		dir := filepath.Join(stage, "tests", s.dir())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		if err := build("test", "-c", "-vet=off", "-trimpath", "-tags", "integration,vm", "-o", filepath.Join(dir, "test"), s.Package); err != nil {
			return "", err
		}
		if data := filepath.Join(repo, s.Package, "testdata"); exists(data) {
			if err := copyTree(data, filepath.Join(dir, "testdata")); err != nil {
				return "", err
			}
		}
	}
	b, err := json.Marshal(plan)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(stage, "plan.json"), b, 0o644); err != nil {
		return "", err
	}
	size := int64(64 << 20)
	err = filepath.WalkDir(stage, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size() + 4096
		}
		return err
	})
	if err != nil {
		return "", err
	}
	disk := filepath.Join(tmp, "payload.ext4")
	return disk, makeDisk(ctx, stage, disk, fmt.Sprintf("%dM", (size+size/16)>>20))
}

// packageFile is where the machine finds the Debian package.
const packageFile = "v6node.deb"

// makePackage builds the Debian package from what is built already.
func makePackage(ctx context.Context, repo, stage string) error {
	say("building the Debian package")
	dir := filepath.Join(stage, "deb")
	cmd := command(ctx, filepath.Join(repo, "contrib", "debian", "build"), dir)
	cmd.Env = append(os.Environ(), "DEB_COMPRESSION=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the Debian package: %w: %s", err, strings.TrimSpace(string(out)))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		return errors.Join(fmt.Errorf("%d packages were built", len(found)), err)
	}
	return errors.Join(os.Rename(found[0], filepath.Join(stage, packageFile)), os.Remove(dir))
}

// dir is the directory of a package's test binary, below tests/.
func (s suite) dir() string {
	return strings.ReplaceAll(strings.TrimPrefix(s.Package, "./"), "/", "_")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
