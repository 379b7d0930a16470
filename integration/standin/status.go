package standin

// Status texts of runs and tasks, as the v4 server knows them.
const (
	StatusPending      = "pending"
	StatusInitializing = "initializing"
	StatusActive       = "active"
	StatusCompleted    = "completed"
	StatusFailed       = "failed"
	StatusStartFailed  = "start failed"
	StatusNoImage      = "non-existing Docker image"
	StatusCrashed      = "crashed"
	StatusKilled       = "killed by user"
	StatusNotAllowed   = "not allowed"
	StatusUnknownError = "unknown error"
)

func knownStatus(s string) bool {
	switch s {
	case StatusPending, StatusInitializing, StatusActive, StatusCompleted, StatusFailed, StatusStartFailed,
		StatusNoImage, StatusCrashed, StatusKilled, StatusNotAllowed, StatusUnknownError:
		return true
	}
	return false
}

// Failed reports whether a status text means that a run or task has failed.
func Failed(status string) bool {
	switch status {
	case StatusPending, StatusInitializing, StatusActive, StatusCompleted:
		return false
	}
	return true
}

// Finished reports whether a status text is a final one.
func Finished(status string) bool { return status == StatusCompleted || Failed(status) }

// status derives a task's status from its runs: one kind of failure gives that
// kind, several give "failed"; without failures active goes before initializing,
// pending and completed.
func (t *task) status() string {
	failure, seen := "", map[string]bool{}
	for _, r := range t.runs {
		seen[r.status] = true
		if !Failed(r.status) {
			continue
		}
		if failure != "" && failure != r.status {
			failure = StatusFailed
			continue
		}
		failure = r.status
	}
	if failure != "" {
		return failure
	}
	for _, st := range []string{StatusActive, StatusInitializing, StatusPending} {
		if seen[st] {
			return st
		}
	}
	return StatusCompleted
}
