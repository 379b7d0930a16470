package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/plainfile"
	"github.com/v6node/v6node/internal/units"
	nodeimage "github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/archive"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/image/imported"
	"github.com/v6node/v6node/sif"
	"github.com/v6node/v6node/sif/reference"
)

// kindImported is what ls calls imported images.
const kindImported = "imported"

// importSize is what an archive may unpack to if the command line does not say.
const importSize = "64GiB"

func imageImportCommand(where []cli.Flag, quiet, output cli.Flag) *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "give the node an image out of a file, for tasks that name it without a registry", ArgsUsage: "FILE",
		Description: `FILE is what "docker save" or "podman save" writes (docker-archive, oci-archive, also
compressed with gzip), or a SIF file; - is standard input. The image is kept in the node's
state directory until "v6node image rm" removes it. Tasks name it as the archive does, or
as --name says, by tag or by digest; no registry is asked for it, and no restart of the
node is needed. A SIF file is called sif:NAME after its file.

Examples:
   docker save registry.example.org/group/algo:1.0 | v6node image import -
   v6node image import algo.tar.gz --name registry.example.org/group/algo:1.0
   v6node image import algo.sif --name sif:tools/algo`,
		Flags: append(where[1:len(where):len(where)],
			&cli.StringFlag{Name: "name", Usage: "tasks name the image `REF`, such as registry.example.org/group/algo:1.0"},
			&cli.StringFlag{Name: "only", Usage: "of several images in the file import the one that is called `NAME` there, or has this digest"},
			&cli.StringFlag{Name: "max-size", Usage: "refuse a file that unpacks to more than `SIZE`", Value: importSize},
			quiet, output),
		Action: imageImport,
	}
}

// importedStore is where the node that the command line names has imported images.
func importedStore(c *cli.Context) (*imported.Store, string, error) {
	state, err := chooseStateDir(c.Path("state-dir"), c.Path("config"))
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(state, imported.Directory)
	return imported.Open(dir), state, nil
}

// importedImage is what import and ls say about an imported image.
type importedImage struct {
	Kind       string    `json:"kind"`
	Names      []string  `json:"names"`
	Digest     string    `json:"digest"`
	Manifest   string    `json:"manifest_digest,omitempty"`
	ImageID    string    `json:"image_id,omitempty"`
	Platform   string    `json:"platform,omitempty"`
	Layers     int       `json:"layers,omitempty"`
	Size       int64     `json:"size"`
	ImportedAt time.Time `json:"imported_at"`
}

func describeImported(r *imported.Record) importedImage {
	return importedImage{
		Kind: r.Kind, Names: r.Names, Digest: r.Digest, Manifest: r.Manifest.Digest, ImageID: r.Config.Digest,
		Platform: r.OS + "/" + r.Arch, Layers: len(r.Layers), Size: r.Size, ImportedAt: r.ImportedAt,
	}
}

func imageImport(c *cli.Context) (err error) {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	most, err := units.ParseSize(c.String("max-size"))
	if err != nil || most <= 0 {
		return cli.Exit(fmt.Sprintf("--max-size: %q is not a size such as 10GB", c.String("max-size")), exitUsage)
	}
	store, state, err := importedStore(c)
	if err != nil {
		return err
	}
	if err := ownState(state); err != nil {
		return err
	}
	file, err := openImport(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	adding, err := store.Add(c.Context)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer func() { err = errors.Join(err, adding.End()) }()
	start := time.Now()
	p := newProgressLine(c)
	defer p.end()
	var all []importedImage
	if isSIF(file) {
		all, err = importSIF(c, adding, file, p)
	} else {
		all, err = importArchive(c, adding, file, most, p)
	}
	p.end()
	if err != nil {
		return fmt.Errorf("import %s: %w", printable(c.Args().First()), err)
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, all)
	}
	for _, i := range all {
		if err := printImported(c, i, time.Since(start)); err != nil {
			return err
		}
	}
	return nil
}

// ownState makes sure that a node can read what is put into its state directory.
func ownState(dir string) error {
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return fmt.Errorf("the state directory of the node, %s, cannot be used (%w): name the node with --state-dir or --config", dir, err)
	}
	if int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("the node's state directory %s is another user's: run the command as the user who runs the node, user id %d", dir, s.Uid)
	}
	return nil
}

func openImport(c *cli.Context) (*os.File, error) {
	name := c.Args().First()
	if name != "-" {
		f, err := plainfile.Open(name)
		if err != nil {
			return nil, fmt.Errorf("the file with the image cannot be read: %w: name what docker save or podman save has written, or - for standard input", err)
		}
		return f, nil
	}
	f, ok := c.App.Reader.(*os.File)
	if !ok {
		f = os.Stdin
	}
	if _, _, terminal := terminal(f); terminal {
		return nil, cli.Exit("- is standard input, which is a terminal: pipe an archive into it", exitUsage)
	}
	// Closed by the process's end; what is returned is closed before.
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "standard input"), nil
}

// isSIF looks for what a SIF file has behind its first line.
func isSIF(f *os.File) bool {
	head := make([]byte, 64)
	n, err := f.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && n > 42 && bytes.Contains(head[:n], []byte("SIF_MAGIC\x00"))
}

func importSIF(c *cli.Context, to *imported.Adding, f *os.File, p *progressLine) ([]importedImage, error) {
	if c.Args().First() == "-" {
		return nil, errors.New("a SIF file must be named, for it is read more than once")
	}
	if c.String("only") != "" {
		return nil, errors.New("--only is for archives: a SIF file holds one image")
	}
	name := c.String("name")
	if name == "" {
		name = reference.SIF + ":" + strings.TrimSuffix(filepath.Base(c.Args().First()), ".sif")
	}
	ref, err := reference.Parse(name)
	if err == nil && ref.Scheme != reference.SIF {
		err = errors.New("it is a name in a registry")
	}
	if err != nil {
		return nil, fmt.Errorf("a SIF file needs a name such as sif:algo in --name (%w); for another one make an archive of it first, with v6node image convert", err)
	}
	img, err := sif.OpenImage(c.Context, c.Args().First(), sif.OpenOptions{Progress: p.show})
	if err != nil {
		return nil, err
	}
	digest, size := img.Source().Digest(), img.Source().Size()
	if err := img.Close(); err != nil {
		return nil, err
	}
	if ref.Digest != "" && ref.Digest != digest {
		return nil, fmt.Errorf("it has the digest %s, not %s", digest, ref.Digest)
	}
	if err := to.SIF(c.Context, f, size, digest, ref, stage(p, "copying")); err != nil {
		return nil, err
	}
	ref.Digest = ""
	return []importedImage{{
		Kind: "sif", Names: []string{strings.TrimSuffix(ref.String(), ".sif")}, Digest: digest, Size: size, ImportedAt: time.Now().UTC().Truncate(time.Second),
		Platform: "linux/" + img.Architecture,
	}}, nil
}

func stage(p *progressLine, doing string) func(done, total int64) {
	return func(done, total int64) { p.show(sif.Progress{Stage: sif.Stage(doing), Done: done, Total: total}) }
}

func importArchive(c *cli.Context, to *imported.Adding, f *os.File, most int64, p *progressLine) (_ []importedImage, err error) {
	do := "if you trust it, allow more with --max-size"
	if room, err := freeBytes(to.TempDir()); err == nil && room < most {
		most, do = room, "make room on the disk of the node's state directory" // what could never be kept is not unpacked
	}
	defer func() {
		switch {
		case errors.Is(err, archive.ErrLimit):
			err = fmt.Errorf("%w: %s", err, do)
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			err = fmt.Errorf("%w: make room on the disk of the node's state directory", err)
		}
	}()
	a, err := archive.Open(c.Context, f, archive.Options{
		TempDir: to.TempDir(), MaxBytes: most, OS: "linux", Architecture: runtime.GOARCH, Progress: stage(p, "reading"),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	images, err := chosenImages(a, c.String("only"), c.String("name"))
	if err != nil {
		return nil, err
	}
	names := make([][]imageref.Reference, len(images))
	for n, img := range images { // before anything is written
		if names[n], err = namesFor(a.Kind, img, c.String("name")); err != nil {
			return nil, err
		}
	}
	out := []importedImage{}
	for n, img := range images {
		r, err := to.Image(c.Context, a, img, names[n], stage(p, "importing"))
		if err != nil {
			return nil, err
		}
		out = append(out, describeImported(r))
	}
	return out, nil
}

// freeBytes is the room on a file system.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// chosenImages are those that are to be imported.
func chosenImages(a *archive.Archive, only, name string) ([]*archive.Image, error) {
	images := a.Images
	if only != "" {
		images = slices.DeleteFunc(slices.Clone(images), func(i *archive.Image) bool { return !isCalled(i, only) })
		if len(images) == 0 {
			return nil, fmt.Errorf("it has no image that is called %s: it has %s", printable(only), inArchive(a))
		}
	}
	if len(images) > 1 && name != "" {
		return nil, fmt.Errorf("it has %d images, which cannot all be called %s: choose one with --only; it has %s", len(images), printable(name), inArchive(a))
	}
	return images, nil
}

func isCalled(i *archive.Image, name string) bool {
	return name == i.Digest || name == i.Manifest || name == i.Config || slices.ContainsFunc(i.Names, func(n string) bool { return n == name || sameName(n, name) })
}

// sameName compares two spellings of a reference.
func sameName(a, b string) bool {
	x, errX := imageref.Parse(a)
	y, errY := imageref.Parse(b)
	return errX == nil && errY == nil && x.String() == y.String()
}

// inArchive lists what an archive has.
func inArchive(a *archive.Archive) string {
	var out []string
	for _, i := range a.Images {
		called := i.Names
		if len(called) == 0 {
			called = []string{i.Config}
		}
		out = append(out, called...)
	}
	return printable(strings.Join(out, ", "))
}

// namesFor are the names under which an image is imported.
func namesFor(kind archive.Kind, img *archive.Image, name string) ([]imageref.Reference, error) {
	if name != "" {
		ref, err := nodeimage.ImportName(name)
		if err != nil {
			return nil, err
		}
		switch {
		case ref.Digest == "":
		case img.Digest == "":
			return nil, fmt.Errorf("an archive of docker save does not have the digest of the registry's image, so that it cannot be compared with %s: leave the digest out, or get an oci-archive (skopeo copy docker://... oci-archive:...)", ref.Digest)
		case ref.Digest != img.Digest && ref.Digest != img.Manifest:
			return nil, fmt.Errorf("the image has the digest %s, not %s", img.Digest, ref.Digest)
		}
		refs := []imageref.Reference{ref}
		if ref.Digest != "" && ref.Tag != "" { // name:tag@digest
			tagged := ref
			tagged.Digest = ""
			refs = append(refs, tagged)
		}
		return refs, nil
	}
	var out []imageref.Reference
	for _, n := range img.Names {
		// A tag alone would be taken for a repository of Docker Hub.
		if kind == archive.OCI && !strings.ContainsAny(n, "/:") {
			continue
		}
		if ref, err := nodeimage.ImportName(n); err == nil {
			out = append(out, ref)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the archive has no name for the image %s by which a task could name it: give it one with --name, such as registry.example.org/group/algo:1.0", img.Config)
	}
	return out, nil
}

func printImported(c *cli.Context, i importedImage, took time.Duration) error {
	d := newDescription(c.App.Writer)
	d.section("Imported image")
	for _, n := range i.Names {
		d.entry("name", n)
	}
	d.entry("digest", i.Digest)
	if i.Manifest != "" && i.Manifest != i.Digest {
		d.entry("of this platform", i.Manifest)
	}
	d.optional("image id", i.ImageID)
	d.entry("platform", i.Platform)
	d.entry("kind", i.Kind)
	d.entry("size", humanSize(i.Size))
	d.entry("took", cpuTime(seconds(math.Round(took.Seconds()*1000)/1000)))
	return d.print()
}

// listImported are the imported images as lines of ls.
func listImported(store *imported.Store) ([]cachedImage, error) {
	records, err := store.List()
	if err != nil {
		return nil, err
	}
	out := []cachedImage{}
	for _, r := range records {
		out = append(out, cachedImage{Kind: kindImported, Names: r.Names, Digest: r.Digest, ImageID: r.Config.Digest, Arch: r.Arch, Size: r.Size, UsedAt: r.ImportedAt})
	}
	files, err := store.ListSIF()
	for _, f := range files {
		out = append(out, cachedImage{Kind: kindImported, Names: []string{f.Name}, Size: f.Size, UsedAt: f.ImportedAt.UTC().Truncate(time.Second)})
	}
	return out, err
}

// removeImported removes an imported image; found is false where none is meant.
func removeImported(ctx context.Context, store *imported.Store, what string) (gone []string, found bool, err error) {
	gone, err = store.Remove(ctx, what)
	if errors.Is(err, imported.ErrNotFound) {
		return nil, false, nil
	}
	return gone, err == nil, err
}
