// Command sif measures what a SIF image costs against what an administrator would script:
// its conversion against sqfs2tar and unsquashfs, the start of its container against
// sqfs2tar, an OCI layout and ctr. It needs root, and squashfs-tools, squashfs-tools-ng and
// mmdebstrap. Whatever is compared is measured in turn, in one run, each in a process of
// its own, so that ratios can be compared between machines.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Row is one figure of one image.
type Row struct {
	Image  string  `json:"image"` // compression of the squashfs
	Figure string  `json:"figure"`
	Value  float64 `json:"value"` // median
	Unit   string  `json:"unit"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

type bench struct {
	bundle, plugin, cache, dir, tmpfs string
	only                              string
	samples                           map[string][]float64 // "image\tfigure\tunit", in the order of keys
	keys                              []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) > 2 && os.Args[1] == childConvert:
		err = convert(ctx, os.Args[2])
	case len(os.Args) > 2 && os.Args[1] == childStart:
		err = startSIF(ctx, os.Args[2])
	default:
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-sif:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	user, err := os.UserCacheDir()
	if err != nil {
		user = os.TempDir()
	}
	var (
		root   = flag.String("root", ".", "the checkout, after `make`")
		cache  = flag.String("cache", filepath.Join(user, "v6node-bench-sif"), "where the images that are measured are kept between runs")
		dir    = flag.String("dir", os.TempDir(), "where runtimes and layouts are put while it lasts, on the kind of disk that counts")
		tmpfs  = flag.String("tmpfs", "/dev/shm", "a tmpfs with room for an unpacked image")
		mirror = flag.String("mirror", "", "the Debian mirror for mmdebstrap; default: its own")
		rounds = flag.Int("rounds", 5, "how often everything is measured")
		only   = flag.String("only", "abcde", "the measurements to make, by letter")
		comps  = flag.String("images", "gzip,zstd", "the compressions of the squashfs")
		out    = flag.String("json", "", "also write the figures to this file")
	)
	flag.Parse()
	abs, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	b := &bench{bundle: filepath.Join(abs, "bundle"), plugin: filepath.Join(abs, "bin", "v6node-cni"), cache: *cache, only: *only, samples: map[string][]float64{}}
	for _, p := range []string{"mksquashfs", "unsquashfs", "sqfs2tar", "sha256sum", "tar"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s was not found; install the packages squashfs-tools and squashfs-tools-ng", p)
		}
	}
	for _, d := range []struct {
		parent string
		to     *string
	}{{*dir, &b.dir}, {*tmpfs, &b.tmpfs}} {
		if *d.to, err = os.MkdirTemp(d.parent, "v6bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*d.to)) }()
	}
	var images []*fixture
	for comp := range strings.SplitSeq(*comps, ",") {
		f, err := b.fixture(ctx, comp, *mirror)
		if err != nil {
			return fmt.Errorf("make the %s image: %w", comp, err)
		}
		images = append(images, f)
	}
	for n := range *rounds {
		for _, f := range images {
			fmt.Fprintf(os.Stderr, "round %d of %d, %s\n", n+1, *rounds, f.comp)
			if err := b.round(ctx, f); err != nil {
				return fmt.Errorf("%s: %w", f.comp, err)
			}
		}
	}
	rows := b.rows()
	b.print(images, rows)
	if *out == "" {
		return nil
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(text, '\n'), 0o644)
}

func (b *bench) round(ctx context.Context, f *fixture) error {
	for _, m := range []struct {
		letter  string
		measure func(context.Context, *fixture) error
	}{{"a", b.ours}, {"b", b.sqfs2tar}, {"c", b.unsquashfs}, {"d", b.start}, {"e", b.script}} {
		if !strings.Contains(b.only, m.letter) {
			continue
		}
		syscall.Sync() // what others have left to write is not this one's
		if err := m.measure(ctx, f); err != nil {
			return fmt.Errorf("(%s): %w", m.letter, err)
		}
	}
	return nil
}

func (b *bench) add(f *fixture, figure, unit string, value float64) {
	key := strings.Join([]string{f.comp, figure, unit}, "\t")
	if _, ok := b.samples[key]; !ok {
		b.keys = append(b.keys, key)
	}
	b.samples[key] = append(b.samples[key], value)
}

func (b *bench) seconds(f *fixture, figure string, d time.Duration) {
	b.add(f, figure, "s", d.Seconds())
}

func (b *bench) mega(f *fixture, figure string, bytes int64) {
	b.add(f, figure, "MB", float64(bytes)/1e6)
}

func (b *bench) rows() []Row {
	var rows []Row
	for _, key := range b.keys {
		part := strings.Split(key, "\t")
		s := slices.Sorted(slices.Values(b.samples[key]))
		rows = append(rows, Row{Image: part[0], Figure: part[1], Value: s[len(s)/2], Unit: part[2], Low: s[0], High: s[len(s)-1]})
	}
	slices.SortStableFunc(rows, func(x, y Row) int { return strings.Compare(x.Figure[:3], y.Figure[:3]) })
	return rows
}

// ratios are what the figures are for: the first divided by the second, and what it should
// be at most; 0 where that is open.
var ratios = []struct {
	name, of, by string
	most         float64
}{
	{"conversion to a digest / sqfs2tar | sha256sum", figureConvert, figureSqfs2tar, 1},
	{"conversion to a digest / unsquashfs on tmpfs", figureConvert, figureUnsquashfs, 0},
	{"first start / sqfs2tar + layout + ctr import", figureFirst, figureScript, 2.0 / 3},
}

func (b *bench) print(images []*fixture, rows []Row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	for _, f := range images {
		fmt.Fprintf(w, "%s: %.0f MB, %d paths, %.0f MB as a layer\n", f.comp, float64(f.size)/1e6, f.entries, float64(f.layer)/1e6)
	}
	fmt.Fprintln(w, "IMAGE\tFIGURE\tMEDIAN\tUNIT\tRANGE")
	at := map[string]float64{}
	for _, r := range rows {
		at[r.Image+r.Figure] = r.Value
		fmt.Fprintf(w, "%s\t%s\t%.3f\t%s\t%.3f to %.3f\n", r.Image, r.Figure, r.Value, r.Unit, r.Low, r.High)
	}
	for _, f := range images {
		for _, x := range ratios {
			of, by := at[f.comp+x.of], at[f.comp+x.by]
			if of == 0 || by == 0 {
				continue
			}
			aim := ""
			if x.most > 0 {
				aim = fmt.Sprintf("aim: below %.2f", x.most)
			}
			fmt.Fprintf(w, "%s\t%s\t%.2f\tratio\t%s\n", f.comp, x.name, of/by, aim)
		}
	}
	_ = w.Flush() // standard output
}
