package config

import (
	"errors"
	"fmt"
	"strings"
)

// Advice parts a message at its last semicolon, behind which messages say what to do.
func Advice(message string) (what, fix string) {
	if i := strings.LastIndex(message, "; "); i > 0 {
		return message[:i], message[i+2:]
	}
	return message, ""
}

// ErrInvalid is what every error about a file or its content wraps.
var ErrInvalid = errors.New("invalid configuration")

// Problem is one thing that is wrong in a file.
type Problem struct {
	File    string
	Line    int    // from 1; 0 when the file as a whole is meant
	Key     string // where it is: "databases[0].label"; "" for the file as a whole
	Message string // one sentence without a full stop, naming the key
}

func (p Problem) Error() string { return position(p.File, p.Line) + p.Message }

// Problems is everything that is wrong in a file, in the order of its lines.
type Problems []Problem

// Error lists the problems, one a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, e := range p {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Is makes errors.Is(err, ErrInvalid) true.
func (p Problems) Is(target error) bool { return target == ErrInvalid }

// Warning is something in a file that the administrator should know and that does not stop the node.
type Warning struct {
	File    string
	Line    int
	Key     string
	Message string
}

func (w Warning) String() string { return position(w.File, w.Line) + w.Message }

func position(file string, line int) string {
	if line == 0 {
		return file + ": "
	}
	return fmt.Sprintf("%s:%d: ", file, line)
}
