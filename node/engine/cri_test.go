package engine

import (
	"context"
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

func TestAGatewayThatFailsEndsTheWaitForItsRun(t *testing.T) {
	why := errors.New("the listener is gone")
	for name, fail := range map[string]error{"fails": why, "closed": nil} {
		t.Run(name, func(t *testing.T) {
			g := &gateway{}
			g.broken, g.fail = context.WithCancelCause(context.Background())
			e := &CRI{gateways: map[int64]*gateway{7: g}}
			served, end := e.whileServed(t.Context(), 7)
			other, endOther := e.whileServed(t.Context(), 8)
			defer end()
			defer endOther()
			g.fail(fail)
			if fail != nil {
				<-served.Done()
				if got := context.Cause(served); got != why {
					t.Errorf("the wait ended for %v", got)
				}
			} else if served.Err() != nil {
				t.Errorf("a gateway that is closed ended the wait: %v", context.Cause(served))
			}
			if other.Err() != nil {
				t.Error("another run is disturbed")
			}
		})
	}
}
