package node

import (
	"context"
	"errors"
	"testing"
)

func TestANameIsAskedForOnceAndNotOfAServerThatIsAway(t *testing.T) {
	asked, away := 0, false
	o := newOrganizations(func(context.Context, int64) (string, error) {
		if asked++; away {
			return "", errors.New("away")
		}
		return "hospital", nil
	})
	name := func(id int64) string {
		o.learn(t.Context(), id)
		return o.known(id)
	}
	if got := o.known(4); got != "" {
		t.Errorf("before it is asked for, the name is %q", got)
	}
	for range 3 {
		if got := name(4); got != "hospital" {
			t.Errorf("the name is %q", got)
		}
	}
	if got := name(0); got != "" || asked != 1 {
		t.Errorf("nobody is called %q, asked %d times", got, asked)
	}
	away = true
	for _, id := range []int64{5, 6, 5} {
		if got := name(id); got != "" {
			t.Errorf("the name is %q", got)
		}
	}
	if got := name(4); got != "hospital" || asked != 2 {
		t.Errorf("the name is %q, asked %d times", got, asked)
	}
	o.after, away = o.after.Add(-nameless), false
	if got := name(5); got != "hospital" {
		t.Errorf("afterwards the name is %q", got)
	}
}
