package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Head names the last entry of a chain.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// String is the form that ParseHead reads: SEQ:HASH.
func (h Head) String() string { return strconv.FormatUint(h.Seq, 10) + ":" + h.Hash }

// ParseHead reads what Head.String wrote.
func ParseHead(s string) (Head, error) {
	number, hash, ok := strings.Cut(strings.TrimSpace(s), ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || len(hash) != len(first) || strings.Trim(hash, "0123456789abcdef") != "" {
		return Head{}, fmt.Errorf("%q is no head of an audit log: it looks like 17:8f14e4... with 64 hex digits, as `v6node audit verify` prints it", s)
	}
	return Head{seq, hash}, nil
}

const (
	headName  = "head"
	seqDigits = 20 // so that every head has the same length and replaces the one before it
)

func (h Head) record() []byte { return fmt.Appendf(nil, "%0*d:%s\n", seqDigits, h.Seq, h.Hash) }

// readHead returns the zero Head where none was ever written.
func readHead(dir string) (Head, error) {
	b, err := os.ReadFile(filepath.Join(dir, headName))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return Head{}, nil
	}
	if err != nil {
		return Head{}, fmt.Errorf("read the audit log's head: %w", err)
	}
	h, err := ParseHead(string(b))
	if err != nil {
		return Head{}, &Damage{File: headName, Problem: "it does not name an entry: it was changed"}
	}
	return h, nil
}
