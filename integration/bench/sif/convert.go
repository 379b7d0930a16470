package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/v6node/v6node/sif"
)

const childConvert = "convert"

// The figures that ratios are made of.
const (
	figureConvert    = "(a) conversion to a digest"
	figureSqfs2tar   = "(b) sqfs2tar | sha256sum"
	figureUnsquashfs = "(c) unsquashfs on tmpfs"
)

// described is what a conversion says.
type described struct {
	Digest  string
	Size    int64
	Entries int64
}

// convert is the child process of (a): the SIF's own digest, and that of the OCI image.
func convert(ctx context.Context, path string) (err error) {
	o, err := sif.OpenImage(ctx, path, sif.OpenOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	res, err := o.Convert(ctx, nil, nil)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(described{res.Digest, res.Layers[0].Size, res.Layers[0].Entries})
}

func (b *bench) ours(ctx context.Context, f *fixture) error {
	_, u, err := b.self(ctx, childConvert, f.sif)
	b.record(f, figureConvert, u)
	return err
}

func (b *bench) sqfs2tar(ctx context.Context, f *fixture) error {
	_, u, err := pipe(ctx, []string{"sqfs2tar", f.squashfs}, []string{"sha256sum"})
	b.record(f, figureSqfs2tar, u)
	return err
}

func (b *bench) unsquashfs(ctx context.Context, f *fixture) error {
	to := filepath.Join(b.tmpfs, "root")
	_, u, err := pipe(ctx, []string{"unsquashfs", "-no-progress", "-quiet", "-d", to, f.squashfs})
	b.record(f, figureUnsquashfs, u)
	return errors.Join(err, os.RemoveAll(to))
}

func (b *bench) record(f *fixture, figure string, u usage) {
	b.seconds(f, figure, u.wall)
	b.mega(f, figure+", peak memory", u.peak)
}
