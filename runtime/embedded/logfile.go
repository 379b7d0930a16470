package embedded

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxLog is how large containerd's log may grow before it is moved aside; one
// older file is kept, so the two never take much more than twice this.
const maxLog = 8 << 20

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// capLog keeps the log small. containerd holds the file open, so its content
// is copied and the file cut; it appends, so it goes on at the new end. Lines
// written in between are lost.
func capLog(path string, limit int64) (err error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || fi.Size() <= limit {
		return err
	}
	in, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.Seek(-limit, io.SeekEnd); err != nil {
		return err
	}
	old, err := os.OpenFile(path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(old, io.LimitReader(in, limit))
	return errors.Join(err, old.Close(), in.Truncate(0))
}

// logSize is where the log of the next containerd begins.
func logSize(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// lastWords returns the last line that containerd wrote after the given
// offset: why it did not start, where it did not.
func lastWords(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const window = 4 << 10
	if size := logSize(path); size-from > window {
		from = size - window
	}
	b, err := io.ReadAll(io.NewSectionReader(f, from, window))
	if err != nil {
		return ""
	}
	b = bytes.TrimSpace(b)
	line := string(b[bytes.LastIndexByte(b, '\n')+1:])
	const most = 500
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + " ..."
	}
	return line
}
