package squashfs

import (
	"errors"
	"fmt"
	"io"
)

var (
	// ErrCorrupt means that the image breaks the format or is cut off.
	ErrCorrupt = errors.New("damaged squashfs image")
	// ErrUnsupported means that the image is of a kind that is not read here.
	ErrUnsupported = errors.New("squashfs image not supported")
	// ErrLimit means that the image needs more than the Options allow.
	ErrLimit = errors.New("squashfs image exceeds a limit")
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func tooMuch(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrLimit}, args...)...)
}

// readAt fills b from offset off of the image. An end of the underlying file
// inside b is damage; any other failure to read is passed on as it is.
func (f *FS) readAt(b []byte, off int64, what string) error {
	if off < 0 || off > f.super.bytesUsed || int64(len(b)) > f.super.bytesUsed-off {
		return corrupt("%s lies outside the image (%d bytes at %d of %d)", what, len(b), off, f.super.bytesUsed)
	}
	n, err := f.r.ReadAt(b, f.off+off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("%s is cut off at %d", what, off+int64(n))
	}
	return fmt.Errorf("read %s: %w", what, err)
}
