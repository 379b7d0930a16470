//go:build failpoints

package failpoint

import (
	"os"
	"strings"
	"syscall"
)

// Variable names the file that arms a point.
const Variable = "V6NODE_FAILPOINT"

// Reached ends the program if the point is armed.
func Reached(p Point) {
	file := os.Getenv(Variable)
	if file == "" {
		return
	}
	armed, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(armed)) != string(p) {
		return
	}
	if os.Remove(file) != nil {
		return // another goroutine was here first, and the signal is on its way
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal ends all threads
}
