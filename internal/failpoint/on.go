//go:build failpoints

package failpoint

import (
	"io"
	"os"
	"strings"
	"syscall"
)

// Variable names the file that arms a point.
const Variable = "V6NODE_FAILPOINT"

// Reached does to the program what the armed point says.
func Reached(p Point) {
	file := os.Getenv(Variable)
	if file == "" {
		return
	}
	text, err := os.ReadFile(file)
	armed, pipe, waits := strings.Cut(strings.TrimSpace(string(text)), " ")
	if err != nil || armed != string(p) {
		return
	}
	if os.Remove(file) != nil {
		return // another goroutine was here first, and does it
	}
	if waits {
		wait(pipe)
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal ends all threads
}

// wait returns when whoever opened the pipe for writing has closed it.
func wait(pipe string) {
	f, err := os.Open(pipe)
	if err != nil {
		panic("failpoint: " + err.Error())
	}
	_, _ = io.Copy(io.Discard, f) // the end is what counts
	_ = f.Close()
}
