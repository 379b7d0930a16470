package image

import (
	"errors"
	"fmt"
)

// Kinds of failure, for errors.Is. The file is at fault in all but ErrChanged.
var (
	// ErrNotSIF: the file is no SIF at all, or of another version of the format.
	ErrNotSIF = errors.New("not a SIF image")
	// ErrCorrupt: it is a SIF, but breaks the format or is cut off.
	ErrCorrupt = errors.New("damaged SIF image")
	// ErrLimit: the image needs more than is allowed.
	ErrLimit = errors.New("SIF image exceeds a limit")
	// ErrChanged: the file changed while it was used.
	ErrChanged = errors.New("the SIF file changed while it was read")
	// ErrEncrypted: the root file system is encrypted.
	ErrEncrypted = errors.New("encrypted SIF image")
	// ErrExt3: the root file system is ext3.
	ErrExt3 = errors.New("SIF image with an ext3 file system")
	// ErrFileSystem: the root file system is of yet another kind.
	ErrFileSystem = errors.New("SIF image with an unknown file system")
	// ErrOverlay: the image has a writable overlay, whose content would be missing.
	ErrOverlay = errors.New("SIF image with an overlay")
	// ErrNoSystem: the image has no root file system.
	ErrNoSystem = errors.New("SIF image without a system partition")
	// ErrSeveralSystems: the image has several root file systems.
	ErrSeveralSystems = errors.New("SIF image with several system partitions")
	// ErrArchitecture: the image is for other machines.
	ErrArchitecture = errors.New("SIF image for another architecture")
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func tooMuch(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrLimit}, args...)...)
}
