package imagekit

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec says what is in an image.
type Spec struct {
	// Binary is the path of a static executable on this machine; it lies in the
	// image at Path, default /algorithm.
	Binary, Path string
	// Files are added beside the binary. Skeleton has the usual ones.
	Files []File

	Entrypoint []string // default: Path
	Cmd        []string
	Env        []string // NAME=value
	User       string
	WorkingDir string
	Labels     map[string]string

	// Platform, default linux and this machine's architecture. Another one gives an
	// image that does not run here, for tests.
	OS, Architecture string
	// Gzip compresses the layer. Without it a runtime unpacks faster, and on
	// loopback nothing is won by sending less.
	Gzip bool
	// Created is the time written into image and files, default the Unix epoch.
	Created time.Time
}

// File is a file or, without Data and Link, a directory (its path then ends with a
// slash).
type File struct {
	Path     string
	Mode     fs.FileMode // permission and sticky bits
	UID, GID int
	Data     []byte
	Link     string // target, for a symbolic link
}

// Skeleton returns what programs expect of a root file system: /tmp, /etc/passwd
// and /etc/group with root and nobody.
func Skeleton() []File {
	return []File{
		{Path: "/tmp/", Mode: 0o777 | fs.ModeSticky},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnobody:x:65534:\n")},
	}
}

// Build makes the image. It reads the binary once and keeps the layer in memory.
func Build(s Spec) (v1.Image, error) {
	setDefaults(&s)
	layer, err := s.layer()
	if err != nil {
		return nil, fmt.Errorf("packing %s into an image: %w", s.Binary, err)
	}
	diffID, err := layer.DiffID()
	if err != nil {
		return nil, err
	}
	img, err := mutate.Append(
		mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: s.Created}, CreatedBy: "v6node imagekit"}},
	)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: s.Architecture, OS: s.OS, Created: v1.Time{Time: s.Created},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
		History: []v1.History{{Created: v1.Time{Time: s.Created}, CreatedBy: "v6node imagekit"}},
		Config: v1.Config{
			Entrypoint: s.Entrypoint, Cmd: s.Cmd, Env: s.Env, User: s.User, WorkingDir: s.WorkingDir, Labels: s.Labels,
		},
	})
}

func setDefaults(s *Spec) {
	if s.Path == "" {
		s.Path = "/algorithm"
	}
	if s.Entrypoint == nil {
		s.Entrypoint = []string{s.Path}
	}
	if s.OS == "" {
		s.OS = "linux"
	}
	if s.Architecture == "" {
		s.Architecture = runtime.GOARCH
	}
	if s.Created.IsZero() {
		s.Created = time.Unix(0, 0)
	}
	s.Created = s.Created.UTC().Truncate(time.Second)
}

// Index makes a multi-platform index of images.
func Index(images ...v1.Image) (v1.ImageIndex, error) {
	var adds []mutate.IndexAddendum
	for _, img := range images {
		c, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		d, err := partial.Descriptor(img)
		if err != nil {
			return nil, err
		}
		d.Platform = &v1.Platform{OS: c.OS, Architecture: c.Architecture}
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: *d})
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...), nil
}

func (s *Spec) layer() (v1.Layer, error) {
	info, err := os.Stat(s.Binary)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	binary, err := os.ReadFile(s.Binary)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	if err := s.tar(&packed, binary); err != nil {
		return nil, err
	}
	if !s.Gzip {
		return static.NewLayer(packed.Bytes(), types.OCIUncompressedLayer), nil
	}
	return gzipLayer(packed.Bytes())
}

// tar writes the layer: parents first, sorted, everything owned and dated as the
// Spec says.
func (s *Spec) tar(w io.Writer, binary []byte) error {
	files := append([]File{{Path: s.Path, Mode: 0o755, Data: binary}}, s.Files...)
	have := map[string]bool{"/": true}
	for i := range files {
		p := path.Clean("/" + files[i].Path)
		if strings.HasSuffix(files[i].Path, "/") {
			p += "/"
		}
		files[i].Path = p
		if have[strings.TrimSuffix(p, "/")] {
			return fmt.Errorf("%s is in the image twice", p)
		}
		have[strings.TrimSuffix(p, "/")] = true
	}
	for _, f := range slices.Clone(files) {
		for dir := path.Dir(strings.TrimSuffix(f.Path, "/")); !have[dir]; dir = path.Dir(dir) {
			have[dir] = true
			files = append(files, File{Path: dir + "/", Mode: 0o755})
		}
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	tw := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{
			Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), Uid: f.UID, Gid: f.GID,
			ModTime: s.Created, Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(len(f.Data)),
		}
		if f.Mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Link, 0
		case strings.HasSuffix(f.Path, "/"):
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := tw.Write(f.Data); err != nil {
				return err
			}
		}
	}
	return tw.Close()
}

// compressed is a gzip layer: static.NewLayer knows only layers whose content is
// their uncompressed content.
type compressed struct {
	v1.Layer // of the compressed bytes
	diffID   v1.Hash
	plain    []byte
}

func gzipLayer(plain []byte) (v1.Layer, error) {
	packed, err := Gzip(plain)
	if err != nil {
		return nil, err
	}
	diffID, _, err := v1.SHA256(bytes.NewReader(plain))
	if err != nil {
		return nil, err
	}
	return &compressed{static.NewLayer(packed, types.OCILayer), diffID, plain}, nil
}

func (l *compressed) DiffID() (v1.Hash, error) { return l.diffID, nil }

func (l *compressed) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.plain)), nil
}
