package engine

import (
	"errors"
	"testing"

	"github.com/v6node/v6node/runtime"
)

func slots(n int64) *Users {
	return &Users{first: 1 << 20, slots: n, start: 2, taken: map[int64]int64{}}
}

func TestLivingRunsHaveDifferentUsers(t *testing.T) {
	u := slots(3)
	seen := map[uint32]bool{}
	for _, run := range []int64{7, 10, 13} { // all three begin at the same slot
		if err := u.reserve(run); err != nil {
			t.Fatal(err)
		}
		first := u.of(run).First
		if seen[first] || first < 1<<20 || first >= 1<<20+3*runtime.IDMapSize {
			t.Errorf("run %d has the ids from %d on, others have those of %v", run, first, seen)
		}
		seen[first] = true
		if err := u.reserve(run); err != nil || u.of(run).First != first {
			t.Errorf("asked again, run %d has the ids from %d on, and had %d (%v)", run, u.of(run).First, first, err)
		}
	}
	if err := u.reserve(16); !errors.Is(err, ErrLimit) || u.of(16) != nil {
		t.Errorf("without ids left: %v, %v", u.of(16), err)
	}
	freed := u.of(10).First
	u.release(10)
	if err := u.reserve(16); err != nil || u.of(16).First != freed {
		t.Errorf("the ids that were given back: %v, %v", u.of(16), err)
	}
}

func TestUsersOfAnEarlierStartAreNotGivenAgain(t *testing.T) {
	u := slots(2)
	sandbox := func(text string) *runtime.Sandbox {
		return &runtime.Sandbox{Annotations: map[string]string{AnnotationUsers: text}}
	}
	before := runtime.IDMap{First: 1<<20 + runtime.IDMapSize}
	u.found(1, sandbox(before.String()))
	if err := u.reserve(3); err != nil || u.of(3).First == before.First || u.of(1).First != before.First {
		t.Errorf("the run of before has %v, the new one %v, %v", u.of(1), u.of(3), err)
	}
	for _, text := range []string{"", "x", "5:65536", "1048576:1", "4294967296:65536", "1179648:65536"} {
		u.found(2, sandbox(text))
		if got := u.of(2); got != nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestWithoutUsersEverythingIsTheMachines(t *testing.T) {
	var u *Users
	u.found(1, &runtime.Sandbox{})
	u.release(1)
	if err := errors.Join(u.take(runtime.Info{}, "", &Spec{}), u.Close()); err != nil || u.of(1) != nil {
		t.Errorf("%v, %v", u.of(1), err)
	}
}
