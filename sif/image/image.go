package image

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"

	"github.com/v6node/v6node/sif/squashfs"
)

// Kind says which of the two kinds of SIF an image is.
type Kind string

// The kinds.
const (
	Native Kind = "sif"
	OCI    Kind = "oci-sif"
)

// Options choose how an image is opened. The zero value is right on this machine.
type Options struct {
	// Architecture is the machine's, as Go calls it. Default: this machine's.
	Architecture string
	// Squashfs bounds what reading the file systems may cost.
	Squashfs squashfs.Options
}

// Image is an opened SIF image, good as long as its source is open. It is checked, but
// its layers have not been read yet. Its methods may be called by many goroutines.
type Image struct {
	Kind         Kind
	Architecture string
	Variant      string
	Created      time.Time // UTC; when the image says nothing usable, the start of 1970
	Config       Config

	src    *Source
	opts   Options
	file   *apptainer.FileImage
	layers []layerSource
	used   []uint32
}

// layerSource is where one layer comes from.
type layerSource struct {
	off, size int64
	squashfs  bool   // else it is a tar, passed on as it is
	digest    string // of the bytes in the file; "" for a native partition
	mediaType string // of a tar
	diffID    string // of a tar, as the image's configuration says
}

// Open checks an image and reads its configuration, but no layer. The caller keeps the
// source, and closes it after the image's last use.
func Open(ctx context.Context, src *Source, o Options) (*Image, error) {
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	file, err := load(src)
	if err != nil {
		return nil, err
	}
	i := &Image{src: src, opts: o, file: file, Created: clamp(file.CreatedAt())}
	var systems []apptainer.Descriptor
	var roots []apptainer.Descriptor
	for _, d := range i.descriptors() {
		switch d.DataType() {
		case apptainer.DataOCIRootIndex:
			roots = append(roots, d)
		case apptainer.DataPartition:
			_, kind, _, err := d.PartitionMetadata()
			if err != nil {
				return nil, corrupt("partition %d: %v", d.ID(), err)
			}
			switch kind {
			case apptainer.PartPrimSys, apptainer.PartSystem:
				systems = append(systems, d)
			case apptainer.PartOverlay:
				return nil, fmt.Errorf("%w: object %d holds changes that Apptainer would lay over the image, which is not supported; build the image without it", ErrOverlay, d.ID())
			}
		}
	}
	switch {
	case len(roots)+len(systems) == 0:
		return nil, ErrNoSystem
	case len(roots)+len(systems) > 1:
		return nil, fmt.Errorf("%w: it has %d, and only one can be the root", ErrSeveralSystems, len(roots)+len(systems))
	case len(roots) == 1:
		i.Kind = OCI
		return i, i.openOCI(roots[0])
	}
	i.Kind = Native
	return i, i.openNative(ctx, systems[0])
}

// Source is the file of the image.
func (i *Image) Source() *Source { return i.src }

// File is the image as the SIF library sees it, for the verification of signatures. It
// cannot be written to, and is good as long as the source is open.
func (i *Image) File() *apptainer.FileImage { return i.file }

// Used are the numbers of the objects that the OCI image is made of.
func (i *Image) Used() []uint32 { return i.used }

// Object describes one object in the file.
type Object struct {
	ID    uint32 `json:"id"`
	Group uint32 `json:"group,omitempty"`
	Type  string `json:"type"`
	Name  string `json:"name,omitempty"`
	Size  int64  `json:"size"`
	Used  bool   `json:"used"`
}

// Objects lists what is in the file.
func (i *Image) Objects() []Object {
	used := map[uint32]bool{}
	for _, id := range i.used {
		used[id] = true
	}
	var out []Object
	for _, d := range i.descriptors() {
		o := Object{ID: d.ID(), Group: d.GroupID(), Type: d.DataType().String(), Name: d.Name(), Size: d.Size(), Used: used[d.ID()]}
		if fs, part, arch, err := d.PartitionMetadata(); err == nil {
			o.Type = fmt.Sprintf("%s (%s, %s, %s)", o.Type, fs, part, arch)
		}
		out = append(out, o)
	}
	return out
}

func (i *Image) descriptors() []apptainer.Descriptor {
	var out []apptainer.Descriptor
	i.file.WithDescriptors(func(d apptainer.Descriptor) bool {
		out = append(out, d)
		return false
	})
	return out
}

// use notes an object that the OCI image is made of.
func (i *Image) use(d apptainer.Descriptor) { i.used = append(i.used, d.ID()) }

// wantArchitecture refuses images for other machines.
func (i *Image) wantArchitecture(arch string) error {
	if arch != i.opts.Architecture {
		return fmt.Errorf("%w: it is for %s and this machine is %s", ErrArchitecture, printable(arch), i.opts.Architecture)
	}
	i.Architecture = arch
	return nil
}

// clamp makes a time that JSON can say out of any.
func clamp(t time.Time) time.Time {
	t = t.UTC()
	if t.Unix() < 0 || t.Year() > 9999 {
		return time.Unix(0, 0).UTC()
	}
	return t
}

// unmarshal reads JSON that comes out of the image.
func unmarshal(b []byte, v any, what string) error {
	if err := json.Unmarshal(b, v); err != nil {
		return corrupt("%s cannot be read: %v", what, err)
	}
	return nil
}

func printable(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return fmt.Sprintf("%q", s)
}
