package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/apptainer/sif/v2/pkg/sif"
)

// packages make a Debian with Python and pandas of more than 300 MB when it is compressed.
const packages = "ca-certificates,python3-pandas,python3-scipy,python3-sklearn,python3-statsmodels,python3-matplotlib,r-base-core"

const suite = "bookworm"

// fixture is one image: a SIF file, and its squashfs alone for programs that want that.
type fixture struct {
	comp     string
	sif      string
	squashfs string
	size     int64 // of the SIF
	entries  int64
	layer    int64
}

// fixture gives the image in a compression. What is in the cache already is used.
func (b *bench) fixture(ctx context.Context, comp, mirror string) (*fixture, error) {
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return nil, err
	}
	f := &fixture{comp: comp, sif: filepath.Join(b.cache, comp+".sif"), squashfs: filepath.Join(b.cache, comp+".squashfs")}
	if err := made(f.squashfs, func(tmp string) error {
		root, err := b.rootfs(ctx, mirror)
		if err != nil {
			return err
		}
		return command(ctx, "mksquashfs", root, tmp, "-comp", comp, "-noappend", "-no-progress", "-quiet", "-all-root")
	}); err != nil {
		return nil, err
	}
	if err := made(f.sif, func(tmp string) error { return writeSIF(tmp, f.squashfs) }); err != nil {
		return nil, err
	}
	// Reads it into the page cache, too.
	out, _, err := b.self(ctx, childConvert, f.sif)
	if err != nil {
		return nil, err
	}
	var d described
	if err := json.Unmarshal(out, &d); err != nil {
		return nil, err
	}
	info, err := os.Stat(f.sif)
	if err != nil {
		return nil, err
	}
	f.size, f.entries, f.layer = info.Size(), d.Entries, d.Size
	return f, nil
}

// made makes a file or a directory under another name first, unless it is there.
func made(path string, how func(tmp string) error) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := path + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := how(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(tmp, path)
}

// rootfs gives the directory that the images are made of.
func (b *bench) rootfs(ctx context.Context, mirror string) (string, error) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errors.New("mmdebstrap was not found; install the package of this name")
	}
	root := filepath.Join(b.cache, "rootfs")
	return root, made(root, func(tmp string) error {
		fmt.Fprintln(os.Stderr, "installing a Debian with Python and pandas; this takes some minutes")
		args := []string{"--quiet", "--variant=minbase", "--include=" + packages, "--format=directory", suite, tmp}
		if mirror != "" {
			args = append(args, mirror)
		}
		if err := command(ctx, "mmdebstrap", args...); err != nil {
			return err
		}
		meta := filepath.Join(tmp, ".singularity.d")
		if err := os.MkdirAll(filepath.Join(meta, "env"), 0o755); err != nil {
			return err
		}
		return errors.Join(
			os.WriteFile(filepath.Join(meta, "env", "90-environment.sh"), []byte("#!/bin/sh\nexport BENCH=sif\n"), 0o755),
			os.WriteFile(filepath.Join(meta, "runscript"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755))
	})
}

func writeSIF(path, squashfs string) (err error) {
	img, err := os.Open(squashfs)
	if err != nil {
		return err
	}
	defer img.Close()
	d, err := sif.NewDescriptorInput(sif.DataPartition, io.Reader(img), sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, runtime.GOARCH))
	if err != nil {
		return err
	}
	f, err := sif.CreateContainerAtPath(path, sif.OptCreateWithDescriptors(d))
	if err != nil {
		return err
	}
	return f.UnloadContainer()
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
