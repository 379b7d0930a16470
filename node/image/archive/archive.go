package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Bounds of an archive.
const (
	maxEntries  = 16384
	maxPath     = 1024
	maxDocument = 4 << 20  // of an index, manifest or configuration
	maxText     = 64 << 20 // of all of them together
	maxReads    = 16384    // of documents
	maxImages   = 64
	maxNames    = 64 // of an image
	maxIndex    = 1024
	maxLayers   = 256
	maxDepth    = 4 // of an index in an index
	maxLinks    = 8 // from a layer to the file that has it
)

// Kind of an archive.
type Kind string

// The kinds.
const (
	Docker Kind = "docker-archive"
	OCI    Kind = "oci-archive"
)

// Options of Open.
type Options struct {
	// TempDir gets the unpacked archive, when it is compressed or no file.
	TempDir string
	// MaxBytes is what the archive may hold: unpacked, and so its images.
	MaxBytes int64
	// OS and Architecture of the machine, in Go's names.
	OS, Architecture string
	// Progress is told how many bytes of the archive were read, of how many; 0 where
	// that is not known. May be nil.
	Progress func(done, total int64)
}

// Archive is an open archive. It is for one goroutine. Close it.
type Archive struct {
	Kind   Kind
	Images []*Image
	// Signatures are those that cosign has put beside images. Which image each is about,
	// and whether it is worth anything, is for the reader to find out.
	Signatures []Signature

	o     Options
	at    io.ReaderAt
	files map[string]file // by name in the archive
	links map[string]string
	close func() error
	left  int64 // bytes that layers may still unpack to
	text  int64 // bytes of documents that were read
	reads int
}

// file is where an entry of the tar has its content.
type file struct{ offset, size int64 }

var gzipMagic = []byte{0x1f, 0x8b}

// Open reads an archive's table of contents and the documents of its images, and
// no layers. r is read from where it is, and may be closed when the Archive was. Errors are of one of the kinds, the
// context's, or those of this machine's disk.
func Open(ctx context.Context, r *os.File, o Options) (_ *Archive, err error) {
	a := &Archive{o: o, files: map[string]file{}, links: map[string]string{}, close: func() error { return nil }, left: o.MaxBytes}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	size, err := a.source(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := a.list(ctx, size); err != nil {
		return nil, err
	}
	_, layout := a.files["oci-layout"]
	_, index := a.files["index.json"]
	_, manifest := a.files["manifest.json"]
	switch {
	case layout && index:
		a.Kind = OCI
		err = a.readLayout()
	case manifest:
		a.Kind = Docker
		err = a.readDocker()
	default:
		err = malformed("it is a tar, but neither of an OCI layout (oci-layout, index.json) nor of docker save (manifest.json)")
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Close removes what was only there for the archive.
func (a *Archive) Close() error { return a.close() }

// source makes a tar of the file that can be read at any place.
func (a *Archive) source(ctx context.Context, r *os.File) (size int64, err error) {
	info, err := r.Stat()
	if err != nil {
		return 0, err
	}
	head := make([]byte, len(gzipMagic))
	if info.Mode().IsRegular() {
		if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if !bytes.Equal(head, gzipMagic) {
			a.at = r
			return info.Size(), nil
		}
	}
	in := bufio.NewReaderSize(&counted{ctx: ctx, r: r, total: regularSize(info), tell: a.o.Progress}, 1<<20)
	var content io.Reader = in
	if head, err := in.Peek(len(gzipMagic)); err == nil && bytes.Equal(head, gzipMagic) {
		if content, err = gzip.NewReader(in); err != nil {
			return 0, malformed("its gzip header is damaged: %w", err)
		}
	}
	f, err := os.CreateTemp(a.o.TempDir, "archive-")
	if err != nil {
		return 0, err
	}
	a.close = func() error { return errors.Join(f.Close(), os.Remove(f.Name())) }
	a.at = f
	size, err = io.Copy(f, io.LimitReader(content, a.o.MaxBytes+1))
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil && damaged(err):
		return 0, malformed("it is damaged or cut off: %w", err)
	case err != nil:
		return 0, err
	case size > a.o.MaxBytes:
		return 0, a.tooLarge()
	}
	return size, nil
}

func (a *Archive) tooLarge() error {
	return fmt.Errorf("%w: it unpacks to more than %d bytes", ErrLimit, a.o.MaxBytes)
}

func regularSize(info os.FileInfo) int64 {
	if info.Mode().IsRegular() {
		return info.Size()
	}
	return 0
}

// damaged tells the compressed data's faults from the disk's.
func damaged(err error) bool {
	var disk *os.PathError
	return !errors.As(err, &disk)
}

// list reads the headers of the tar.
func (a *Archive) list(ctx context.Context, size int64) error {
	section := io.NewSectionReader(a.at, 0, size)
	tr := tar.NewReader(section)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && damaged(err) {
			return malformed("it is no tar, or a damaged one: %w", err)
		}
		if err != nil {
			return err
		}
		if n >= maxEntries {
			return fmt.Errorf("%w: it has more than %d entries", ErrLimit, maxEntries)
		}
		name, err := entryName(h.Name)
		if err != nil {
			return err
		}
		_, file1 := a.files[name]
		_, link := a.links[name]
		if h.Typeflag != tar.TypeDir && (file1 || link) {
			return malformed("it has the entry %q twice", name)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			for key := range h.PAXRecords {
				if strings.HasPrefix(key, "GNU.sparse.") {
					return malformed("its entry %q has holes", name)
				}
			}
			// The reader of the tar takes no more than the header.
			offset, err := section.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			if h.Size < 0 || h.Size > size-offset {
				return malformed("its entry %q is cut off", name)
			}
			a.files[name] = file{offset, h.Size}
		case tar.TypeSymlink: // docker save once had one layer of several images so
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		case tar.TypeDir, tar.TypeXGlobalHeader:
		default:
			return malformed("its entry %q is neither a file nor a directory", name)
		}
	}
	return nil
}

// entryName is the one spelling of a name in the archive.
func entryName(name string) (string, error) {
	clean := path.Clean(name)
	if len(name) > maxPath || path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(name, 0) {
		return "", malformed("its entry %q leads out of it", short(name))
	}
	return clean, nil
}

// find returns the content of an entry, through links.
func (a *Archive) find(name string) (file, error) {
	name = path.Clean(name)
	for range maxLinks {
		if f, ok := a.files[name]; ok {
			return f, nil
		}
		next, ok := a.links[name]
		if !ok {
			return file{}, malformed("it has no %q, which it says is part of an image", short(name))
		}
		name = next
	}
	return file{}, malformed("its links lead nowhere")
}

func (a *Archive) open(f file) *io.SectionReader { return io.NewSectionReader(a.at, f.offset, f.size) }

// document reads a small entry.
func (a *Archive) document(name string) ([]byte, error) {
	f, err := a.find(name)
	if err != nil {
		return nil, err
	}
	if f.size > maxDocument {
		return nil, fmt.Errorf("%w: %s has more than %d MiB", ErrLimit, short(name), maxDocument>>20)
	}
	a.text += f.size
	if a.reads++; a.text > maxText || a.reads > maxReads {
		return nil, fmt.Errorf("%w: its manifests and configurations have more than %d MiB, or are more than %d", ErrLimit, maxText>>20, maxReads)
	}
	return io.ReadAll(a.open(f))
}

// decode reads JSON into v.
func decode(name string, text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return malformed("%s in it is not what it should be: %w", name, err)
	}
	return nil
}

// Names are all names in the archive, sorted.
func (a *Archive) Names() []string {
	all := map[string]bool{}
	for _, i := range a.Images {
		for _, n := range i.Names {
			all[n] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// counted counts what is read, and ends with its context.
type counted struct {
	ctx         context.Context
	r           io.Reader
	done, total int64
	tell        func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.done += int64(n)
	if c.tell != nil {
		c.tell(c.done, c.total)
	}
	return n, err
}
