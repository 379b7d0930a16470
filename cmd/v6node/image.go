package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/boot"
	nodeimage "github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/sif"
	"github.com/v6node/v6node/sif/cache"
	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/layout"
	"github.com/v6node/v6node/sif/oras"
	"github.com/v6node/v6node/sif/signature"
)

func imageCommand() *cli.Command {
	output := outputFlag(asTable)
	quiet := &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"}
	arch := &cli.StringFlag{Name: "arch", Usage: "take the image for a machine of the architecture `ARCH`, as Go calls it (default: this machine's)"}
	where := []cli.Flag{
		&cli.PathFlag{Name: "cache-dir", Usage: "the cache is `DIR` (default: sif in the state directory of the node)"},
		&cli.PathFlag{Name: "state-dir", Usage: "the node's state directory is `DIR`; also V6NODE_STATE_DIR"},
		&cli.PathFlag{Name: "config", Aliases: []string{"c"}, Usage: "the node's configuration is `FILE`; also V6NODE_CONFIG", TakesFile: true},
	}
	sub := func(c *cli.Command) *cli.Command {
		c.OnUsageError, c.HideHelpCommand, c.UseShortOptionHandling = usageError, true, true
		return c
	}
	return &cli.Command{
		Name:  "image",
		Usage: "import images from files; convert, inspect and verify SIF images; manage what the node keeps of both",
		Description: `SOURCE is the path of a SIF file (Singularity, Apptainer) or oras://REGISTRY/REPOSITORY:TAG,
for which the logins of docker and podman count. No Apptainer is needed, and no root.`,
		Subcommands: []*cli.Command{
			sub(imageImportCommand(where, quiet, output)),
			sub(&cli.Command{
				Name: "convert", Usage: "convert a SIF image to an OCI image", ArgsUsage: "SOURCE DESTINATION",
				Description: `DESTINATION is oci:DIRECTORY[:TAG] or oci-archive:FILE[:TAG]. The same SIF file gives the
same digests everywhere.

Examples:
   v6node image convert algorithm.sif oci-archive:algorithm.tar:1.0
   v6node image convert oras://registry.example.org/group/algorithm:1.0 oci:/srv/images`,
				Flags: []cli.Flag{arch, quiet, output}, Action: imageConvert,
			}),
			sub(&cli.Command{
				Name: "inspect", Usage: "show what a SIF image holds and how its container starts", ArgsUsage: "SOURCE",
				Description: `With --digest the image is converted without being written, to learn the digest of the
OCI image.

Example:
   v6node image inspect -o json algorithm.sif`,
				Flags: []cli.Flag{arch, quiet, output, &cli.BoolFlag{Name: "digest", Usage: "find out the OCI image's digest"}}, Action: imageInspect,
			}),
			sub(&cli.Command{
				Name: "verify", Usage: "check the signatures of a SIF image", ArgsUsage: "SOURCE",
				Description: `The exit code is 0 if every object in the image is signed by one of the keys, else 1.

Example:
   v6node image verify --key /etc/v6node/keys.asc --key publisher.pem algorithm.sif`,
				Flags:  []cli.Flag{&cli.StringSliceFlag{Name: "key", Usage: "trust the PGP or PEM public keys in `FILE`; may be repeated"}, arch, quiet, output},
				Action: imageVerify,
			}),
			sub(&cli.Command{
				Name: "ls", Usage: "list the images that were imported, and what the node has converted and downloaded", Flags: append(where[:3:3], output), Action: imageList,
			}),
			sub(&cli.Command{
				Name: "rm", Usage: "remove imported images, and conversions and downloads of SIF files", ArgsUsage: "IMAGE...",
				Description: `IMAGE is the name or the digest of an imported image, or the SHA-256 of a SIF file that was
converted or downloaded, or the beginning of a digest. An imported image goes with its last
name. SIF files in the directories of the configuration and images in the runtime stay.

Examples:
   v6node image rm registry.example.org/group/algo:1.0
   v6node image rm sif:algo d1561a611349`,
				Flags: where, Action: imageRemove,
			}),
			sub(&cli.Command{
				Name: "prune", Usage: "remove the conversions and downloads that were not used for the longest time",
				Description: `What is in use stays.

Example:
   v6node image prune --keep 10GB`,
				Flags:  append(where[:3:3], output, &cli.StringFlag{Name: "keep", Usage: "keep up to `SIZE`, such as 10GB or 512MiB", Value: "0"}),
				Action: imagePrune,
			}),
		},
	}
}

// openImage opens the image that the command line names.
func openImage(c *cli.Context, p *progressLine) (*sif.Opened, error) {
	return sif.OpenImage(c.Context, c.Args().First(), sif.OpenOptions{
		Architecture: c.String("arch"),
		ORAS:         oras.Options{Places: nodeimage.SIFPlaces(boot.UserAccess())},
		Progress:     p.show,
	})
}

// convertedImage is what convert and inspect --digest say about a result.
type convertedImage struct {
	Source      string           `json:"source"`
	SIF         string           `json:"sif_digest"`
	Destination string           `json:"destination,omitempty"`
	Digest      string           `json:"digest"`
	ImageID     string           `json:"image_id"`
	Layers      []convertedLayer `json:"layers"`
	Seconds     float64          `json:"seconds"`
}

type convertedLayer struct {
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	Entries int64  `json:"entries,omitempty"`
	Sockets int64  `json:"sockets_left_out,omitempty"`
}

func describeConversion(source, sifDigest, to string, r *image.Result, took time.Duration) convertedImage {
	out := convertedImage{Source: source, SIF: sifDigest, Destination: to, Digest: r.Digest, ImageID: r.ConfigDigest, Seconds: math.Round(took.Seconds()*1000) / 1000}
	for _, l := range r.Layers {
		out.Layers = append(out.Layers, convertedLayer{l.Digest, l.Size, l.Entries, l.Sockets})
	}
	return out
}

func imageConvert(c *cli.Context) error {
	if err := wantArgs(c, 2, 2); err != nil {
		return err
	}
	to, err := layout.Parse(c.Args().Get(1))
	if err != nil {
		return cli.Exit(err.Error(), exitUsage)
	}
	start := time.Now()
	p := newProgressLine(c)
	defer p.end()
	img, err := openImage(c, p)
	if err != nil {
		return err
	}
	res, err := img.Convert(c.Context, &to, p.show)
	p.end()
	if err = errors.Join(err, img.Close()); err != nil {
		return err
	}
	out := describeConversion(c.Args().First(), img.Source().Digest(), c.Args().Get(1), res, time.Since(start))
	if wantsJSON(c) {
		return printJSON(c.App.Writer, out)
	}
	d := newDescription(c.App.Writer)
	describeConverted(d, out)
	return d.print()
}

func describeConverted(d *description, out convertedImage) {
	d.section("OCI image")
	d.optional("written to", out.Destination)
	d.entry("digest", out.Digest)
	d.entry("image id", out.ImageID)
	for _, l := range out.Layers {
		text := l.Digest + ", " + humanSize(l.Size)
		if l.Entries > 0 {
			text += fmt.Sprintf(", %d entries", l.Entries)
		}
		if l.Sockets > 0 {
			text += fmt.Sprintf(", %d sockets left out", l.Sockets)
		}
		d.entry("layer", text)
	}
	d.entry("took", cpuTime(seconds(out.Seconds)))
}

// inspectedImage is what inspect says.
type inspectedImage struct {
	Source       string          `json:"source"`
	SIF          string          `json:"sif_digest"`
	Size         int64           `json:"size"`
	Kind         image.Kind      `json:"kind"`
	Architecture string          `json:"architecture"`
	Created      time.Time       `json:"created"`
	Config       image.Config    `json:"config"`
	Objects      []image.Object  `json:"objects"`
	Converted    *convertedImage `json:"converted,omitempty"`
}

func imageInspect(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	start := time.Now()
	p := newProgressLine(c)
	defer p.end()
	img, err := openImage(c, p)
	if err != nil {
		return err
	}
	out := inspectedImage{
		Source: c.Args().First(), SIF: img.Source().Digest(), Size: img.Source().Size(), Kind: img.Kind, Architecture: img.Architecture,
		Created: img.Created, Config: img.Image.Config, Objects: img.Objects(),
	}
	if c.Bool("digest") {
		res, err := img.Convert(c.Context, nil, p.show)
		if err != nil {
			return errors.Join(err, img.Close())
		}
		converted := describeConversion(out.Source, out.SIF, "", res, time.Since(start))
		out.Converted = &converted
	}
	p.end()
	if err := img.Close(); err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, out)
	}
	return printInspectedImage(c, out)
}

func printInspectedImage(c *cli.Context, out inspectedImage) error {
	d := newDescription(c.App.Writer)
	d.section("SIF image")
	d.entry("source", out.Source)
	d.entry("digest", out.SIF)
	d.entry("size", humanSize(out.Size))
	d.entry("kind", string(out.Kind))
	d.entry("architecture", out.Architecture)
	d.entry("created", stamp(out.Created))
	d.section("Container")
	d.optional("entrypoint", words(out.Config.Entrypoint))
	d.optional("command", words(out.Config.Cmd))
	d.optional("user", out.Config.User)
	d.optional("working directory", out.Config.WorkingDir)
	d.optional("environment", words(out.Config.Env))
	if len(out.Config.Entrypoint)+len(out.Config.Cmd) == 0 {
		d.entry("", "no runscript: a container of it needs a command")
	}
	if out.Converted != nil {
		describeConverted(d, *out.Converted)
	}
	if err := d.print(); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer)
	t := newTable(c.App.Writer, "OBJECT", "GROUP", "TYPE", "NAME", "SIZE", "USED")
	for _, o := range out.Objects {
		t.row(decimal(int64(o.ID)), number(int64(o.Group)), o.Type, o.Name, humanSize(o.Size), yesNo(o.Used))
	}
	return t.print()
}

// words shows a command so that its words can be told apart.
func words(list []string) string {
	var out []string
	for _, w := range list {
		if w == "" || strings.ContainsAny(w, " \t\n\"'") {
			w = fmt.Sprintf("%q", w)
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

func imageVerify(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	if len(c.StringSlice("key")) == 0 {
		return cli.Exit("no key is named that the image could be signed by: name its file with --key", exitUsage)
	}
	keys, err := signature.Load(c.StringSlice("key")...)
	if err != nil {
		return cli.Exit(err.Error(), exitUsage)
	}
	p := newProgressLine(c)
	defer p.end()
	img, err := openImage(c, p)
	if err != nil {
		return err
	}
	p.end()
	signers, err := img.Verify(c.Context, keys)
	if err = errors.Join(err, img.Close()); err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, map[string]any{"source": c.Args().First(), "sif_digest": img.Source().Digest(), "signers": signers})
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s (%s) is signed by %s\n", printable(c.Args().First()), img.Source().Digest(), strings.Join(signers, ", "))
	return err
}

// imageCache opens the cache of the node that the command line names.
func imageCache(c *cli.Context) (*cache.Cache, error) {
	dir := c.Path("cache-dir")
	if dir == "" {
		state, err := chooseStateDir(c.Path("state-dir"), c.Path("config"))
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(state, "sif")
	}
	if err := cache.Exists(dir); err != nil {
		return nil, fmt.Errorf("there is no cache for SIF images in %s (%w); name the node with --state-dir or --config", dir, err)
	}
	// Layers are the node's business: it knows whether they are kept.
	return cache.Open(dir, cache.Options{KeepLayers: true})
}

// cachedImage is one line of ls and prune.
type cachedImage struct {
	Kind    string    `json:"kind"`
	SIF     string    `json:"sif_digest,omitempty"`
	Names   []string  `json:"names,omitempty"`
	Digest  string    `json:"digest,omitempty"`
	ImageID string    `json:"image_id,omitempty"`
	Arch    string    `json:"architecture,omitempty"`
	Size    int64     `json:"size"`
	UsedAt  time.Time `json:"used_at"`
}

func cachedImages(list []cache.Usage) []cachedImage {
	out := []cachedImage{}
	for _, u := range list {
		i := cachedImage{Kind: u.Kind, SIF: u.Digest, Size: u.Size, UsedAt: u.UsedAt.UTC()}
		if r := u.Record; r != nil {
			i.Names, i.Digest, i.ImageID, i.Arch = r.Names, r.Digest, r.ConfigDigest, r.Architecture
		}
		out = append(out, i)
	}
	return out
}

func imageList(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	list, err := imagesHere(c)
	if err != nil {
		return err
	}
	return printCached(c, list)
}

// imagesHere are the imported images and the cache of SIF images, of which one may be missing.
func imagesHere(c *cli.Context) ([]cachedImage, error) {
	list := []cachedImage{}
	if c.Path("cache-dir") == "" {
		store, _, err := importedStore(c)
		if err != nil {
			return nil, err
		}
		if list, err = listImported(store); err != nil {
			return nil, err
		}
	}
	images, err := imageCache(c)
	if errors.Is(err, fs.ErrNotExist) && len(list) > 0 {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	cached, err := images.List()
	return append(list, cachedImages(cached)...), err
}

func printCached(c *cli.Context, list []cachedImage) error {
	if wantsJSON(c) {
		return printJSON(c.App.Writer, list)
	}
	t := newTable(c.App.Writer, "SIF DIGEST", "KIND", "NAME", "OCI DIGEST", "SIZE", "LAST USED")
	for _, i := range list {
		name := ""
		switch {
		case i.Kind == kindImported:
			name = strings.Join(i.Names, ", ")
		case len(i.Names) > 0: // each converted file had one name at a time
			name = i.Names[len(i.Names)-1]
		}
		t.row(shortDigest(i.SIF), i.Kind, name, shortDigest(i.Digest), humanSize(i.Size), ago(i.UsedAt))
	}
	return t.print()
}

func shortDigest(d string) string {
	d = strings.TrimPrefix(d, "sha256:")
	return d[:min(12, len(d))]
}

func imageRemove(c *cli.Context) error {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	var failed error
	for _, want := range c.Args().Slice() {
		gone, err := removeImage(c, want)
		for _, name := range gone {
			if _, werr := fmt.Fprintln(c.App.Writer, name); werr != nil {
				err = errors.Join(err, werr)
			}
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// removeImage removes what is meant: an imported image, else of the cache.
func removeImage(c *cli.Context, want string) ([]string, error) {
	if c.Path("cache-dir") == "" {
		store, _, err := importedStore(c)
		if err != nil {
			return nil, err
		}
		if gone, found, err := removeImported(c.Context, store, want); found || err != nil {
			return gone, err
		}
	}
	images, err := imageCache(c)
	if errors.Is(err, fs.ErrNotExist) && c.Path("cache-dir") == "" {
		return nil, fmt.Errorf("neither an imported image nor a SIF file in the cache is meant by %s; v6node image ls lists them", printable(want))
	}
	if err != nil {
		return nil, err
	}
	list, err := images.List()
	if err != nil {
		return nil, err
	}
	digest, err := findCached(list, want)
	if err == nil {
		_, err = images.Remove(digest)
	}
	if err != nil {
		return nil, err
	}
	return []string{digest}, nil
}

// findCached finds the one SIF file whose digest begins so.
func findCached(list []cache.Usage, want string) (string, error) {
	want = "sha256:" + strings.TrimPrefix(want, "sha256:")
	found := ""
	for _, u := range list {
		if !strings.HasPrefix(u.Digest, want) || u.Digest == found {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("several digests begin with %s: write more of it", want)
		}
		found = u.Digest
	}
	if found == "" {
		return "", fmt.Errorf("there is neither an imported image that is called %s, nor a SIF file in the cache whose digest begins so; v6node image ls lists them", strings.TrimPrefix(want, "sha256:"))
	}
	return found, nil
}

func imagePrune(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	keep, err := units.ParseSize(c.String("keep"))
	if err != nil {
		return cli.Exit("--keep: "+err.Error(), exitUsage)
	}
	images, err := imageCache(c)
	if err != nil {
		return err
	}
	gone, err := images.Prune(keep)
	if err != nil {
		return err
	}
	if err := printCached(c, cachedImages(gone)); err != nil || wantsJSON(c) {
		return err
	}
	var freed int64
	for _, u := range gone {
		freed += u.Size
	}
	_, err = fmt.Fprintf(c.App.Writer, "Total reclaimed space: %s\n", humanSize(freed))
	return err
}
