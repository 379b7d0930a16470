package main

import (
	"strings"
	"testing"
)

func TestOnlyWhatRanAndPassedIsBelieved(t *testing.T) {
	const (
		up    = mark + `{"Ready":{"Kernel":"6.1"}}` + "\n"
		begin = mark + `{"Begin":"one"}` + "\n"
		pass  = "--- PASS: TestA (1.00s)\n    --- PASS: TestA/part (0.50s)\n"
		end   = mark + `{"End":{"Name":"one","Seconds":2}}` + "\n"
		done  = mark + `{"Done":true}` + "\n"
	)
	plan := []suite{{Name: "one", Tests: []string{"TestA"}}}
	for name, c := range map[string]struct {
		said, want string // want is part of the error; "" for none
		plan       []suite
	}{
		"passed":                 {said: up + begin + "=== RUN TestA\n" + pass + "PASS\n" + end + done},
		"silence":                {want: "did not come up"},
		"no suite":               {said: up, want: "ended after 0 of 1"},
		"switched off in a test": {said: up + begin + pass, want: "ended after 0 of 1"},
		"switched off after":     {said: up + begin + pass + end, want: "ended after 1 of 1"},
		"one suite of two":       {said: up + begin + pass + end + done, plan: append(plan, suite{Name: "two"}), want: "ended after 1 of 2"},
		"no test":                {said: up + begin + "testing: warning: no tests to run\nPASS\n" + end + done, want: "TestA did not run"},
		"only a part":            {said: up + begin + "    --- PASS: TestA/x (0.00s)\n" + end + done, want: "TestA did not run"},
		"another test":           {said: up + begin + "--- PASS: TestB (0.00s)\n" + end + done, want: "TestA did not run"},
		"skipped":                {said: up + begin + "--- SKIP: TestA (0.00s)\n" + end + done, want: "TestA did not run"},
		"a part skipped":         {said: up + begin + "--- PASS: TestA (0.00s)\n    --- SKIP: TestA/x (0.00s)\n" + end + done, want: "TestA/x was skipped"},
		"failed": {said: up + begin + pass + mark + `{"End":{"Name":"one","Error":"exit status 1"}}` + "\n" + done,
			want: "the tests failed (exit status 1)"},
		"passed before it began": {said: up + pass + begin + end + done, want: "TestA did not run"},
		"out of turn":            {said: up + mark + `{"Begin":"two"}` + "\n", want: "out of turn"},
		"the guest's trouble":    {said: up + mark + `{"Error":"no disk"}` + "\n", want: "no disk"},
		"garbage":                {said: up + mark + "{\n", want: "the machine says"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &verdict{plan: plan}
			if c.plan != nil {
				v.plan = c.plan
			}
			err := lines(strings.NewReader(c.said), v.hear)
			if err == nil {
				err = v.err()
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, wanted %q", err, c.want)
			}
		})
	}
}

func TestEverySuiteCanBeRun(t *testing.T) {
	names := map[string]bool{}
	for _, s := range suites {
		if names[s.Name] || s.Name == "" || len(s.Tests) == 0 || !strings.HasPrefix(s.Package, "./") {
			t.Errorf("%+v", s)
		}
		names[s.Name] = true
	}
}
