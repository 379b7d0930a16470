package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// KeptLog is a log that outlived its run.
type KeptLog struct {
	RunID int64
	Size  int64 // bytes on the disk
	Since time.Time
}

// KeepLog moves the run's log to where it outlives the run. It is idempotent, and a run
// without a log has none to keep.
func (w *Run) KeepLog() error {
	files, err := os.ReadDir(w.LogDir())
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(files) == 0 {
		return nil
	}
	if err == nil {
		err = os.MkdirAll(w.root.logs(), 0o700)
	}
	if err == nil {
		err = os.RemoveAll(w.root.keptLog(w.id))
	}
	if err == nil {
		err = os.Rename(w.LogDir(), w.root.keptLog(w.id))
	}
	if err != nil {
		return fmt.Errorf("keep the log of run %d: %w", w.id, err)
	}
	return nil
}

// KeptLogFile is where the log is after KeepLog.
func (w *Run) KeptLogFile() string { return filepath.Join(w.root.keptLog(w.id), LogName) }

// KeptLogs lists the logs that outlived their runs.
func (r Root) KeptLogs() ([]KeptLog, error) {
	entries, err := os.ReadDir(r.logs())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []KeptLog
	for _, e := range entries {
		id, err := strconv.ParseInt(e.Name(), 10, 64)
		if err != nil {
			continue // not ours
		}
		kept := KeptLog{RunID: id}
		files, err := os.ReadDir(r.keptLog(id))
		if err != nil {
			return out, err
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				continue // it was removed meanwhile
			}
			kept.Size += info.Size()
			if info.ModTime().After(kept.Since) {
				kept.Since = info.ModTime()
			}
		}
		out = append(out, kept)
	}
	return out, nil
}

// RemoveLog deletes a log that outlived its run. It is idempotent.
func (r Root) RemoveLog(runID int64) error { return os.RemoveAll(r.keptLog(runID)) }

func (r Root) logs() string { return filepath.Join(r.Dir, "logs") }

func (r Root) keptLog(runID int64) string {
	return filepath.Join(r.logs(), strconv.FormatInt(runID, 10))
}
