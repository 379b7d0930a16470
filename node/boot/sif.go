package boot

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/imported"
	"github.com/v6node/v6node/runtime/embedded"
	"github.com/v6node/v6node/sif"
	"github.com/v6node/v6node/sif/oras"
	"github.com/v6node/v6node/sif/signature"
)

// openSIF opens the store of SIF images. Without a section sif: in the
// configuration it serves the images of registries only. content, if it is not
// nil, takes the layers.
func openSIF(ctx context.Context, cfg *config.Config, access *image.Access, content *embedded.Content, log *slog.Logger) (*sif.Store, error) {
	var keys *signature.Keys
	if cfg.SIF.RequireSignature {
		var err error
		if keys, err = signature.Load(cfg.SIF.Keys...); err != nil {
			return nil, fmt.Errorf("read sif.keys: %w", err)
		}
		log.InfoContext(ctx, "SIF images must be signed", "keys", keys.Names())
	}
	for _, dir := range cfg.SIF.Directories {
		// It may be a network file system that comes later.
		if info, err := os.Stat(dir); err != nil {
			log.WarnContext(ctx, "a directory of sif.directories cannot be used now; images are looked for in it all the same", "error", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s in sif.directories is no directory; name the directory that the images are in", dir)
		}
	}
	var to sif.Importer
	if content != nil {
		to = Importer(content)
	}
	return sif.Open(ctx, sif.Options{
		Importer:    to,
		Directories: append([]string{importedSIF(cfg)}, cfg.SIF.Directories...), CacheDir: filepath.Join(cfg.StateDir, "sif"), CacheBytes: cfg.SIF.CacheSize,
		MaxImageBytes: cfg.SIF.MaxImageSize, Keys: keys,
		ORAS: oras.Options{Places: image.SIFPlaces(access)}, Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.SIF.RegistryPort)), Log: log,
	})
}

// importedSIF is where imported SIF files are. What was imported comes first.
func importedSIF(cfg *config.Config) string {
	return imported.SIFDirectory(filepath.Join(cfg.StateDir, imported.Directory))
}

// Importer lets a store of SIF images use a containerd's content store.
func Importer(c *embedded.Content) sif.Importer { return importer{c} }

type importer struct{ *embedded.Content }

func (i importer) Import(ctx context.Context) (sif.Imported, error) { return i.Content.Import(ctx) }
