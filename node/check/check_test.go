package check

import (
	"context"
	"errors"
	"testing"
)

func TestACheckThatCannotLookDoesNotKeepOthersFromLooking(t *testing.T) {
	broken := errors.New("broken")
	var seen []string
	s, err := Run(t.Context(), []Check{
		func(context.Context, func(Result)) error { return broken },
		func(_ context.Context, report func(Result)) error {
			for name, status := range map[string]Status{"a": OK, "b": Warn, "c": Fail, "d": Skip} {
				report(Result{Name: name, Status: status})
			}
			return nil
		},
	}, func(r Result) { seen = append(seen, r.Name) })
	if !errors.Is(err, broken) || len(seen) != 4 || s != (Summary{1, 1, 1, 1}) {
		t.Errorf("%v, %q, %+v", err, seen, s)
	}
}

func TestARuntimeThatIsNotThereFailsWithWhatToDo(t *testing.T) {
	var got []Result
	s, err := Run(t.Context(), []Check{Runtime("unix://"+t.TempDir()+"/none.sock", "")}, func(r Result) { got = append(got, r) })
	if err != nil || s.Fail != 1 || len(got) != 1 || got[0].Fix == "" || got[0].Detail == "" {
		t.Errorf("%v, %+v", err, got)
	}
}
