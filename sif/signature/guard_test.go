package signature

import (
	"errors"
	"testing"
)

func TestAPanicOfTheLibraryIsAnErrorOfItsInput(t *testing.T) {
	if err := guarded(func() error { return []error{}[0] }); err == nil {
		t.Error("a panic is no error")
	}
	if want := errors.New("x"); guarded(func() error { return want }) != want || guarded(func() error { return nil }) != nil {
		t.Error("the call's own end is lost")
	}
}
