package conformance

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/sif"
)

// emptySIF has Apptainer's scripts and no program: it is pulled and not run. It is
// small, so that every v6node can have it.
//
//go:embed empty.sif
var emptySIF []byte

func sifBehaviours() []behaviour {
	return []behaviour{{"images", "a SIF image is converted, and pulled from the node's own registry", convertedImage}}
}

// convertedImage goes the way that every runtime can go: a pull over HTTP from a
// loopback address, with a login.
func convertedImage(ctx context.Context, b *bench) (err error) {
	dir := filepath.Join(b.dir, "sif")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "empty.sif"), emptySIF, 0o600)); err != nil {
		return err
	}
	store, err := sif.Open(ctx, sif.Options{Directories: []string{dir}, CacheDir: filepath.Join(b.dir, "sif-cache"), Architecture: "amd64"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	found, err := store.Resolve(ctx, "sif:empty", nil)
	if err != nil {
		return err
	}
	image, err := store.Ensure(ctx, found, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Release()) }()
	if err := b.pull(ctx, image.Reference, &runtime.Auth{Username: image.Username, Password: image.Password}); err != nil {
		return fmt.Errorf("%w: the runtime has to take 127.0.0.1 for a registry without TLS (CRI-O: `v6node cni install --runtime crio` writes that)", err)
	}
	got, err := b.rt.Image(ctx, image.ImageID)
	if err != nil {
		return fmt.Errorf("by its id the image is not found: %w", err)
	}
	if strings.TrimPrefix(got.ID, "sha256:") != strings.TrimPrefix(image.ImageID, "sha256:") { // CRI-O leaves it out
		return fmt.Errorf("the runtime calls it %s, want %s", got.ID, image.ImageID)
	}
	return nil
}
