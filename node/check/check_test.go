package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asUser makes this test program make a check as a normal user and print its
// results.
const asUser = "V6NODE_TEST_CHECK"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == HelperName {
		Help(os.Args[1:])
	}
	what, arg, ok := strings.Cut(os.Getenv(asUser), "=")
	if !ok {
		os.Exit(m.Run())
	}
	var got []Result
	c, ok := asUserChecks[what]
	if !ok {
		fmt.Fprintln(os.Stderr, "no check", what)
		os.Exit(1)
	}
	if err := c(arg)(context.Background(), func(r Result) { got = append(got, r) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
		os.Exit(1)
	}
}

// lookAs makes a check as user 65534.
func lookAs(t *testing.T, what, arg string) []Result {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), asUser+"="+what+"="+arg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []Result
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return got
}

// openDir is a directory that every user reaches.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// results makes a check.
func results(t *testing.T, look func(context.Context, func(Result)) error) []Result {
	t.Helper()
	var got []Result
	Check{Group: "g", Name: "n", Look: look}.look(t.Context(), func(r Result) { got = append(got, r) })
	return got
}

// want looks for a result, whose detail and fix must have the texts in them.
func want(t *testing.T, got []Result, name string, status Status, texts ...string) {
	t.Helper()
	i := slices.IndexFunc(got, func(r Result) bool { return r.Name == name && r.Status == status })
	if i < 0 {
		t.Errorf("there is no result %s: %s in %+v", name, status, got)
		return
	}
	for _, text := range texts {
		if !strings.Contains(got[i].Detail+" -> "+got[i].Fix, text) {
			t.Errorf("%q is not in %+v", text, got[i])
		}
	}
	if (status == Warn || status == Fail) && (got[i].Fix == "" || got[i].Detail == "") {
		t.Errorf("%+v does not say what is wrong and what to do", got[i])
	}
}

func TestResultsComeInTheOrderOfTheListWhoeverIsFirst(t *testing.T) {
	second := make(chan struct{})
	var seen []string
	s, err := Run(t.Context(), []Check{
		{Group: "a", Name: "first", Look: func(_ context.Context, report func(Result)) error {
			<-second // waits for the one behind it: they look at the same time
			report(Result{Status: OK})
			return nil
		}},
		{Group: "a", Name: "second", Look: func(_ context.Context, report func(Result)) error {
			defer close(second)
			report(Result{Status: Warn})
			report(Result{Name: "more", Status: Skip})
			return nil
		}},
		{Group: "b", Name: "alone", Alone: true, Look: func(_ context.Context, report func(Result)) error {
			report(Result{Status: OK})
			return nil
		}},
		{Group: "b", Name: "last", Look: func(context.Context, func(Result)) error {
			return errors.New("it is broken; mend it")
		}},
	}, func(r Result) { seen = append(seen, r.Group+" "+r.Name+" "+string(r.Status)+" "+r.Fix) })
	if err != nil || s != (Summary{OK: 2, Warn: 1, Fail: 1, Skip: 1}) {
		t.Errorf("%v, %+v", err, s)
	}
	if got := strings.Join(seen, "|"); got != "a first ok |a second warn |a more skip |b alone ok |b last fail mend it" {
		t.Error(got)
	}
}

func TestACheckThatHangsKeepsNothingUp(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	var got []Result
	s, err := run(t.Context(), []Check{
		{Group: "g", Name: "hangs", Look: func(_ context.Context, report func(Result)) error {
			report(Result{Name: "partly", Status: OK})
			<-release // as in a system call that does not come back
			report(Result{Name: "too late", Status: OK})
			return nil
		}},
		{Group: "g", Name: "slow", Look: func(ctx context.Context, _ func(Result)) error {
			<-ctx.Done()
			return fmt.Errorf("ask: %w", ctx.Err())
		}},
		{Group: "g", Name: "quick", Look: func(_ context.Context, report func(Result)) error {
			report(Result{Status: OK})
			return nil
		}},
	}, time.Millisecond, func(r Result) { got = append(got, r) })
	if err != nil || s != (Summary{OK: 2, Fail: 2}) {
		t.Errorf("%v, %+v, %+v", err, s, got)
	}
	want(t, got, "partly", OK)
	want(t, got, "hangs", Fail, "no answer in time")
	want(t, got, "slow", Fail, "no answer in time")
	want(t, got, "quick", OK)
}

func TestTheEndOfTheContextEndsTheReport(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Run(ctx, []Check{
		{Group: "g", Name: "first", Look: func(ctx context.Context, _ func(Result)) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}},
		{Group: "g", Name: "alone", Alone: true, Look: func(_ context.Context, report func(Result)) error {
			report(Result{Status: OK})
			return nil
		}},
	}, func(Result) {})
	if !errors.Is(err, context.Canceled) || s != (Summary{}) {
		t.Errorf("%v, %+v", err, s)
	}
}

func TestARuntimeThatIsNotThereFailsWithWhatToDo(t *testing.T) {
	got := results(t, Runtime("unix://"+t.TempDir()+"/none.sock", "").Look)
	want(t, got, "n", Fail, "nothing exists at this path", "check that the runtime is running")
}
