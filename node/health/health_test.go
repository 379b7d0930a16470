package health

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// clock is set by the test.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestALoopIsStuckWhenItWorksWithoutProgress(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	m := New(c.now)
	l := m.Loop("turning", time.Minute)
	step := func(d time.Duration, ok bool, when string) {
		t.Helper()
		c.t = c.t.Add(d)
		if rep := m.Alive(); rep.OK != ok || len(rep.Items) != 1 || ok != (rep.String() == "") {
			t.Errorf("%s: %+v", when, rep)
		}
	}
	step(time.Hour, true, "before it has begun")
	l.Beat()
	step(time.Minute, true, "within its allowance")
	step(time.Second, false, "after its allowance")
	l.Beat()
	step(0, true, "when it goes on")
	l.Rest()
	step(24*time.Hour, true, "while it waits for work")
	l.Beat()
	step(2*time.Minute, false, "stuck again")
	if text := m.Alive().String(); text != "turning: stuck: no progress for 2m0s" {
		t.Error(text)
	}
}

func TestEveryConditionThatIsNotMetIsNamed(t *testing.T) {
	m := New(nil)
	m.Require("one", func(context.Context) error { return errors.New("is missing") })
	m.Require("two", func(context.Context) error { return nil })
	m.Require("three", func(ctx context.Context) error {
		_, bounded := ctx.Deadline()
		return map[bool]error{false: errors.New("no deadline")}[bounded]
	})
	rep := m.Ready(t.Context())
	if rep.OK || rep.String() != "one: is missing" || len(rep.Items) != 3 {
		t.Errorf("%+v", rep)
	}
	if rest := rep.Without("one"); !rest.OK || len(rest.Items) != 2 || len(rep.Items) != 3 {
		t.Errorf("%+v", rest)
	}
}

func TestACachedCheckIsAskedOnce(t *testing.T) {
	asked := 0
	check := Cached(func(context.Context) error { asked++; return errors.New("down") }, time.Hour)
	for range 3 {
		if err := check(t.Context()); err == nil || err.Error() != "down" {
			t.Error(err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	always := Cached(func(context.Context) error { asked++; return nil }, 0)
	for range 2 {
		if err := always(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
}

func TestNobodyWaitsBehindASilentAnswerer(t *testing.T) {
	began := make(chan struct{})
	check := Cached(func(ctx context.Context) error { close(began); <-ctx.Done(); return ctx.Err() }, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- check(ctx) }()
	<-began
	impatient, gaveUp := context.WithCancel(t.Context())
	gaveUp()
	if err := check(impatient); err == nil || !strings.Contains(err.Error(), "no answer yet") {
		t.Error(err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestANilLoopIsNoLoop(*testing.T) {
	var l *Loop
	l.Beat()
	l.Rest()
}
