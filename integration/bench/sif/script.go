package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/runtime"
)

const imported = "docker.io/bench/script:latest"

// script measures (e): what an administrator would write without v6node, with nothing
// copied that need not be.
func (b *bench) script(ctx context.Context, f *fixture) (err error) {
	dir := filepath.Join(b.dir, "e")
	d, err := lab.Containerd(ctx, dir, b.bundle, b.plugin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.EndContainerd(d), os.RemoveAll(dir)) }()
	c, err := runtime.Dial(ctx, d.Endpoint(), runtime.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r := runner{c: c, logs: filepath.Join(dir, "logs")}
	defer func() { err = errors.Join(err, r.end(context.WithoutCancel(ctx))) }()
	layout := filepath.Join(dir, "layout")
	watched := watchDisk(layout, filepath.Join(dir, "root", "containerd", "io.containerd.content.v1.content"))
	began := time.Now()
	err = b.scripted(ctx, f, &r, layout, d.Endpoint())
	took := time.Since(began)
	peak, left := watched.end()
	if err != nil {
		return err
	}
	b.seconds(f, figureScript, took)
	b.mega(f, "(e) disk beyond the snapshot, peak", peak)
	b.mega(f, "(e) disk beyond the snapshot, left", left)
	return nil
}

func (b *bench) scripted(ctx context.Context, f *fixture, r *runner, layout, endpoint string) error {
	blobs := filepath.Join(layout, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	layer := filepath.Join(layout, "layer")
	out, _, err := pipe(ctx, []string{"sqfs2tar", f.squashfs}, []string{"tee", layer}, []string{"sha256sum"})
	if err != nil {
		return err
	}
	sum, _, _ := strings.Cut(string(out), " ")
	if err := os.Rename(layer, filepath.Join(blobs, sum)); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(blobs, sum))
	if err != nil {
		return err
	}
	describe := func(mediaType, hex string, size int64) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image." + mediaType, "digest": "sha256:" + hex, "size": size}
	}
	write := func(mediaType string, v any) (map[string]any, error) {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		h := sha256.Sum256(text)
		name := hex.EncodeToString(h[:])
		return describe(mediaType, name, int64(len(text))), os.WriteFile(filepath.Join(blobs, name), text, 0o644)
	}
	config, err := write("config.v1+json", map[string]any{
		"architecture": goruntime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/.singularity.d/runscript"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum}},
	})
	if err != nil {
		return err
	}
	manifest, err := write("manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
		"layers": []any{describe("layer.v1.tar", sum, info.Size())},
	})
	if err != nil {
		return err
	}
	manifest["annotations"] = map[string]string{"io.containerd.image.name": imported}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(layout, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)); err != nil {
		return err
	}
	_, _, err = pipe(ctx, []string{"tar", "-C", layout, "-cf", "-", "."},
		[]string{filepath.Join(b.bundle, "ctr"), "--address", strings.TrimPrefix(endpoint, "unix://"), "--namespace", "k8s.io", "images", "import", "--local", "-"})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(layout); err != nil {
		return err
	}
	id, err := awaitImage(ctx, r.c)
	if err != nil {
		return err
	}
	return r.start(ctx, id)
}

// awaitImage waits until the CRI plugin has heard of the imported image.
func awaitImage(ctx context.Context, c *runtime.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		img, err := c.Image(ctx, imported)
		if err == nil {
			return img.ID, nil
		}
		if !errors.Is(err, runtime.ErrImageNotFound) {
			return "", fmt.Errorf("look for the imported image: %w", err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
