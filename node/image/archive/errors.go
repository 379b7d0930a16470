package archive

import (
	"errors"
	"fmt"
)

// Kinds of failure, for errors.Is.
var (
	// ErrFormat: the file is no archive of images, or a damaged one.
	ErrFormat = errors.New("the file cannot be used")
	// ErrLimit: it holds more than is allowed.
	ErrLimit = errors.New("the file is too large")
	// ErrPlatform: its images are for other machines.
	ErrPlatform = errors.New("the image does not run on this machine")
)

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrFormat, fmt.Errorf(format, a...))
}
