package engine

import (
	"errors"
	"testing"
)

func TestAProgramThatCannotBeExecutedIsToldFromOtherFailures(t *testing.T) {
	for text, want := range map[string]bool{
		`runc create failed: unable to start container process: error during container init: exec: "/no": stat /no: no such file or directory`: true,
		"executable file `algorithm` not found in $PATH: No such file or directory":                                                            true,
		`exec /algorithm: exec format error`:                        true,
		`failed to create shim task: context deadline exceeded`:     false,
		`failed to mount rootfs component: no space left on device`: false,
	} {
		if got := notExecutable(errors.New(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
