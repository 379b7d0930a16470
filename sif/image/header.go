package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"
)

// The global header of SIF version 01: 32 bytes of launch script, magic number,
// version, architecture, UUID, then eight numbers.
const (
	headerSize     = 128
	magicOffset    = 32
	magicNumber    = "SIF_MAGIC\x00"
	versionOffset  = magicOffset + len(magicNumber)
	version        = "01\x00"
	numbersOffset  = 64
	descriptorSize = 585
)

// Limits of what is read into memory.
const (
	maxDescriptors = 4096
	maxSignatures  = 64
	maxJSON        = 4 << 20 // one OCI index, manifest or configuration
	maxSignature   = 1 << 20
)

// load checks the header and all descriptors, and only then lets the SIF library read
// them: it allocates what the header says.
func load(src *Source) (*apptainer.FileImage, error) {
	if err := checkHeader(src); err != nil {
		return nil, err
	}
	f, err := apptainer.LoadContainer(readOnly{src}, apptainer.OptLoadWithCloseOnUnload(false))
	if err != nil {
		if errors.Is(err, ErrChanged) {
			return nil, err
		}
		return nil, corrupt("%v", err)
	}
	return f, checkDescriptors(f, src.Size())
}

func checkHeader(src *Source) error {
	b := make([]byte, headerSize)
	if _, err := src.ReadAt(b, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return corrupt("the header is cut off")
		}
		return err
	}
	if got := string(b[magicOffset:versionOffset]); got != magicNumber {
		return ErrNotSIF
	}
	if got := string(b[versionOffset : versionOffset+len(version)]); got != version {
		return fmt.Errorf("%w: version %q of the format is not known", ErrNotSIF, got)
	}
	var n [8]int64
	for i := range n {
		n[i] = int64(binary.LittleEndian.Uint64(b[numbersOffset+8*i:]))
	}
	free, total, off, size := n[2], n[3], n[4], n[5]
	switch {
	case total < 0 || total > maxDescriptors:
		return tooMuch("it has room for %d objects, %d are allowed", total, maxDescriptors)
	case free < 0 || free > total:
		return corrupt("%d of %d descriptors are free", free, total)
	case size < total*descriptorSize:
		return corrupt("%d descriptors do not fit into %d bytes", total, size)
	case off < headerSize || off > src.Size() || size > src.Size()-off:
		return corrupt("its descriptors lie outside the file")
	}
	return nil
}

func checkDescriptors(f *apptainer.FileImage, size int64) error {
	var err error
	var ids []uint32
	signatures := 0
	f.WithDescriptors(func(d apptainer.Descriptor) bool {
		switch {
		case d.ID() == 0 || slices.Contains(ids, d.ID()):
			err = corrupt("two objects have the number %d, or one has none", d.ID())
		case d.Offset() < 0 || d.Size() < 0 || d.Offset() > size || d.Size() > size-d.Offset():
			err = corrupt("object %d lies outside the file", d.ID())
		case d.DataType() == apptainer.DataSignature:
			if signatures++; signatures > maxSignatures {
				err = tooMuch("it has more than %d signatures", maxSignatures)
			} else if d.Size() > maxSignature {
				err = tooMuch("signature %d has %d bytes, %d are allowed", d.ID(), d.Size(), maxSignature)
			}
		}
		ids = append(ids, d.ID())
		return err != nil
	})
	if err == nil && len(ids) > 0 && f.DescriptorsFree() == f.DescriptorsTotal() {
		err = corrupt("the header says that all descriptors are free, but %d are not", len(ids))
	}
	return err
}

// readObject reads an object into memory.
func readObject(d apptainer.Descriptor, most int64) ([]byte, error) {
	if d.Size() > most {
		return nil, tooMuch("object %d has %d bytes, %d are allowed", d.ID(), d.Size(), most)
	}
	b := make([]byte, d.Size())
	if _, err := io.ReadFull(d.GetReader(), b); err != nil {
		return nil, fmt.Errorf("read object %d: %w", d.ID(), err)
	}
	return b, nil
}

var errReadOnly = errors.New("a SIF source is read-only")

// readOnly is a Source as the SIF library wants it.
type readOnly struct{ *Source }

func (readOnly) Write([]byte) (int, error)      { return 0, errReadOnly }
func (readOnly) Seek(int64, int) (int64, error) { return 0, errReadOnly }
func (readOnly) Truncate(int64) error           { return errReadOnly }
