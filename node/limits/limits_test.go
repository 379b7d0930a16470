package limits

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// change reads "key=value" pairs; a list's values are separated by spaces.
func change(t testing.TB, pairs ...string) Change {
	t.Helper()
	var c Change
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		i := slices.IndexFunc(fields, func(f *Field) bool { return f.Key == key })
		if i < 0 {
			t.Fatalf("there is no limit %q", key)
		}
		values := []string{value}
		if fields[i].Form == List {
			values = strings.Fields(value)
		}
		if err := c.Set(fields[i], values...); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func rule(t testing.TB, image, organization string, pairs ...string) Rule {
	t.Helper()
	r, err := NewRule(image, organization, change(t, pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryLimitCanBeSetTakenAwayAndLeft(t *testing.T) {
	full := change(t, "memory=1g", "memory_swap=2g", "memory_reservation=512m", "cpus=1.5", "cpu_shares=512", "cpuset_cpus=0-1", "cpuset_mems=0",
		"pids=100", "shm_size=1m", "ulimits=nofile=9 core=0", "tmpfs_size=2m", "devices=a.b/c=0 a.b/d:2", "oom_score_adj=-5", "input_size=7m", "output_size=3m",
		"scratch_size=4m", "log_size=5m", "timeout=90s", "crash_retries=3").Apply(Limits{})
	want := Limits{
		Memory: 1 << 30, MemorySwap: 2 << 30, MemoryReservation: 512 << 20, CPUs: 1.5, CPUShares: 512, CpusetCpus: "0-1", CpusetMems: "0", Pids: 100,
		ShmSize: 1 << 20, Ulimits: []Ulimit{{Name: "core"}, {Name: "nofile", Soft: 9, Hard: 9}}, TmpfsSize: 2 << 20,
		Devices: []Device{{Kind: "a.b/c", Name: "0"}, {Kind: "a.b/d", Count: 2}}, OOMScoreAdj: new(int64(-5)), InputSize: 7 << 20, OutputSize: 3 << 20, ScratchSize: 4 << 20, LogSize: 5 << 20,
		Timeout: 90 * time.Second, CrashRetries: 3,
	}
	if !reflect.DeepEqual(full, want) {
		t.Errorf("got  %+v\nwant %+v", full, want)
	}
	// Every field of the type is in the table: nothing of full is left.
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s cannot be set", v.Type().Field(i).Name)
		}
	}
	none := change(t, "memory=0", "memory_swap=0", "memory_reservation=0", "cpus=0", "cpu_shares=0", "cpuset_cpus=", "cpuset_mems=", "pids=-1", "shm_size=0",
		"ulimits=", "tmpfs_size=0", "devices=", "oom_score_adj=0", "input_size=0", "output_size=0", "scratch_size=0", "log_size=0", "timeout=0", "crash_retries=0").Apply(full)
	none.OOMScoreAdj = nil // 0 is a value of its own
	if b, err := json.Marshal(none); err != nil || string(b) != "{}" {
		t.Errorf("left: %s (%v)", b, err)
	}
	if got := (Change{}).Apply(full); !reflect.DeepEqual(got, full) {
		t.Errorf("a change of nothing made %+v", got)
	}
}

func TestLimitsSurviveJSON(t *testing.T) {
	l := change(t, "memory=1g", "ulimits=nofile=1:2 core=-1", "devices=a.b/c=0 a.b/d:2", "timeout=1h", "oom_score_adj=0").Apply(Defaults())
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var back Limits
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, l) {
		t.Errorf("%s is read as %+v (%v)", b, back, err)
	}
}

func TestNamesOfKeysAndFlagsAreTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Fields() {
		for _, n := range []string{f.Key, "--" + f.Flag, "-" + f.Alias} {
			if n != "-" && seen[n] {
				t.Errorf("%s is there twice", n)
			}
			seen[n] = true
		}
		if !strings.Contains(f.Usage, "`") {
			t.Errorf("the usage of %s names no value", f.Flag)
		}
	}
}

func TestContradictionsAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"memory_swap=1g":                      "memory_swap: it needs a limit of memory",
		"memory_swap=-1":                      "memory_swap: it needs a limit of memory",
		"memory=2g memory_swap=1g":            "memory and swap together",
		"memory=1g memory_reservation=2g":     "memory_reservation: it cannot be more",
		"memory=1g memory_swap=-1":            "",
		"memory=1g memory_swap=1g":            "",
		"memory_reservation=1g":               "",
		"memory=16m memory_reservation=16m":   "",
		"memory=16m memory_swap=16m cpus=0.1": "",
	} {
		got := change(t, strings.Fields(text)...).Apply(Limits{}).Check()
		switch {
		case want == "" && len(got) > 0, want != "" && len(got) != 1, want != "" && !strings.Contains(got[0].String(), want):
			t.Errorf("%s: %v, want %q", text, got, want)
		}
	}
}

func TestRulesChangeTheRunsThatTheyMatch(t *testing.T) {
	const digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	s := Set{Default: change(t, "memory=1g", "cpus=1").Apply(Limits{}), Rules: []Rule{
		rule(t, `^ghcr\.io/org/.*`, "", "memory=2g"),
		rule(t, "ghcr.io/org/big:v1", "", "memory=8g"),
		rule(t, digest, "", "pids=7"),
		rule(t, "", "6", "cpus=4"),
		rule(t, "", "hospital", "timeout=1h"),
		rule(t, "ghcr.io/org/small", "6", "memory=0"),
	}}
	names := map[int64]string{6: "six", 7: "hospital"}
	for _, c := range []struct {
		image  string
		org    int64
		digest string
		rules  []int
		want   string
	}{
		{"docker.io/x/y", 5, "sha256:" + strings.Repeat("2", 64), nil, "memory=1g cpus=1"},
		{"ghcr.io/org/a", 5, "sha256:" + strings.Repeat("2", 64), []int{0}, "memory=2g cpus=1"},
		{"ghcr.io/org/big:v1", 5, "sha256:" + strings.Repeat("2", 64), []int{0, 1}, "memory=8g cpus=1"},
		{"ghcr.io/org/big:v2", 5, "sha256:" + strings.Repeat("2", 64), []int{0}, "memory=2g cpus=1"},
		{"ghcr.io/org/a", 6, digest, []int{0, 2, 3}, "memory=2g cpus=4 pids=7"},
		{"other/a", 7, "sha256:" + strings.Repeat("2", 64), []int{4}, "memory=1g cpus=1 timeout=1h"},
		{"ghcr.io/org/small@" + digest, 6, digest, []int{0, 2, 3, 5}, "cpus=4 pids=7"},
		{"docker.io/x/y", 0, "sha256:" + strings.Repeat("2", 64), nil, "memory=1g cpus=1"},
	} {
		got, rules, err := s.Resolve(Request{
			Image: c.image, OrganizationID: c.org, OrganizationName: func() (string, error) { return names[c.org], nil },
			Digest:   func() (string, string, error) { return c.digest, "", nil },
			DigestOf: func(string) (string, error) { return "sha256:" + strings.Repeat("3", 64), nil },
		})
		if want := change(t, strings.Fields(c.want)...).Apply(Limits{}); err != nil || !reflect.DeepEqual(got, want) || !slices.Equal(rules, c.rules) {
			t.Errorf("%s of %d: %+v by %v (%v), want %+v by %v", c.image, c.org, got, rules, err, want, c.rules)
		}
	}
}

func TestNothingIsAskedThatNoRuleNeeds(t *testing.T) {
	s := Set{Default: Defaults(), Rules: []Rule{rule(t, "ghcr.io/org/a", "", "pids=5"), rule(t, "", "6", "pids=6")}}
	got, _, err := s.Resolve(Request{Image: "ghcr.io/org/a:v1", OrganizationID: 5})
	if err != nil || got.Pids != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatCannotBeFoundOutFailsTheRun(t *testing.T) {
	gone := errors.New("gone")
	ask := func() (string, error) { return "", gone }
	askDigest := func() (string, string, error) { return "", "", gone }
	for name, c := range map[string]struct {
		rule Rule
		q    Request
		is   error
	}{
		"digest":          {rule(t, "sha256:"+strings.Repeat("1", 64), "", "pids=5"), Request{Image: "a/b", Digest: askDigest}, gone},
		"nobody to ask":   {rule(t, "sha256:"+strings.Repeat("1", 64), "", "pids=5"), Request{Image: "a/b"}, nil},
		"name":            {rule(t, "", "hospital", "pids=5"), Request{Image: "a/b", OrganizationID: 3, OrganizationName: ask}, gone},
		"nobody for name": {rule(t, "", "hospital", "pids=5"), Request{Image: "a/b", OrganizationID: 3}, nil},
		"contradiction":   {rule(t, "a/b", "", "memory_swap=1g"), Request{Image: "a/b"}, nil},
		"image":           {rule(t, "a/b", "", "pids=5"), Request{Image: "A B"}, nil},
	} {
		s := Set{Default: Limits{Pids: 1}, Rules: []Rule{c.rule}}
		if l, _, err := s.Resolve(c.q); err == nil || !reflect.DeepEqual(l, Limits{}) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

func TestDevicesAreGivenByNameAllOrByNumber(t *testing.T) {
	known := map[string][]string{"a.b/gpu": {"0", "1", "2", "all"}, "a.b/plain": {"x", "y"}}
	for _, c := range []struct{ ask, taken, want, wrong string }{
		{"a.b/gpu=1", "", "a.b/gpu=1", ""},
		{"a.b/gpu=1", "a.b/gpu=1", "a.b/gpu=1", ""}, // shared on purpose
		{"a.b/gpu=all", "", "a.b/gpu=all", ""},
		{"a.b/plain=all", "", "a.b/plain=x a.b/plain=y", ""},
		{"a.b/gpu:2", "a.b/gpu=0", "a.b/gpu=1 a.b/gpu=2", ""},
		{"a.b/gpu:2 a.b/gpu=0", "", "a.b/gpu=0 a.b/gpu=1 a.b/gpu=2", ""},
		{"a.b/gpu:1 a.b/gpu:1", "", "a.b/gpu=0 a.b/gpu=1", ""},
		{"a.b/gpu:3", "a.b/gpu=0", "", "of the 3 here only 2 are free"},
		{"a.b/gpu:1 a.b/gpu=all", "", "", "only 0 are free"},
		{"a.b/gpu=7", "", "", "no device a.b/gpu=7; it has a.b/gpu=0, a.b/gpu=1"},
		{"a.b/none:1", "", "", "no device of the kind a.b/none"},
		{"", "", "", ""},
	} {
		got, err := Pick(change(t, "devices="+c.ask).Apply(Limits{}).Devices, known, func(cdi string) bool { return slices.Contains(strings.Fields(c.taken), cdi) })
		if c.wrong == "" && (err != nil || strings.Join(got, " ") != c.want) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s with %q taken: %v, %v", c.ask, c.taken, got, err)
		}
	}
}

func TestAMachineRefusesWhatItCannotHold(t *testing.T) {
	m := Machine{Memory: 8 << 30, CPUs: map[int]bool{0: true, 1: true}, Mems: map[int]bool{0: true}, NoSwapLimit: true, HardUlimits: map[string]int64{"nofile": 1024, "core": Unlimited}}
	for text, want := range map[string]string{
		"memory=16g":                       "?memory",
		"cpus=3":                           "?cpus",
		"cpus=2 memory=8g cpuset_cpus=0-1": "",
		"cpuset_cpus=0-2":                  "cpuset_cpus",
		"cpuset_mems=1":                    "cpuset_mems",
		"memory=1g memory_swap=2g":         "memory_swap",
		"memory=1g memory_swap=-1":         "",
		"oom_score_adj=-1":                 "oom_score_adj",
		"oom_score_adj=1":                  "",
		"ulimits=nofile=2000":              "ulimits",
		"ulimits=nofile=-1":                "ulimits",
		"ulimits=nofile=1000":              "",
	} {
		bad, idle := change(t, strings.Fields(text)...).Apply(Limits{}).Fit(m)
		got := ""
		for _, p := range bad {
			got += p.Key
		}
		for _, p := range idle {
			got += "?" + p.Key
		}
		if got != want {
			t.Errorf("%s: %q (%v %v), want %q", text, got, bad, idle, want)
		}
	}
	m.Privileged = true
	if bad, _ := change(t, "oom_score_adj=-1", "ulimits=nofile=2000").Apply(Limits{}).Fit(m); len(bad) > 0 {
		t.Errorf("with CAP_SYS_RESOURCE: %v", bad)
	}
}

func TestEveryListOfUlimitsIsKnownBeforehand(t *testing.T) {
	s := Set{Default: change(t, "ulimits=nofile=5").Apply(Limits{}), Rules: []Rule{
		rule(t, "a/b", "", "ulimits=core=0"), rule(t, "c/d", "", "pids=5"), rule(t, "e/f", "", "ulimits="), rule(t, "g/h", "", "ulimits=nofile=5"),
	}}
	got := s.Ulimits()
	if len(got) != 2 || got[0][0].Name != "nofile" || got[1][0].Name != "core" {
		t.Errorf("%v", got)
	}
}

func FuzzParseUlimit(f *testing.F) {
	for _, s := range []string{"nofile=1024:4096", "core=0", "stack=-1", "nofile=unlimited:5", "=:", "nofile=99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUlimit(s)
		if err != nil {
			return
		}
		if again, err := ParseUlimit(u.String()); err != nil || again != u {
			t.Fatalf("%q is %v, which is read as %v (%v)", s, u, again, err)
		}
	})
}

func FuzzParseDevice(f *testing.F) {
	for _, s := range []string{"nvidia.com/gpu=0", "nvidia.com/gpu=all", "nvidia.com/gpu:2", "/dev/fuse", "a/b=c:d", "a/b:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDevice(s)
		if err != nil {
			return
		}
		if again, err := ParseDevice(d.String()); err != nil || again != d {
			t.Fatalf("%q is %v, which is read as %v (%v)", s, d, again, err)
		}
	})
}

func TestTheTextsOfALimitAreReadAgain(t *testing.T) {
	for _, l := range []Limits{Defaults(), {}, change(t, "memory=3g", "memory_swap=-1", "cpus=0.5", "cpuset_cpus=0-3,8", "ulimits=core=0 nofile=1024:4096", "devices=a.org/x=0 a.org/y:2",
		"oom_score_adj=-5", "timeout=90m", "crash_retries=3", "log_size=2m", "pids=7", "cpu_shares=512").Apply(Limits{})} {
		var again Change
		for _, f := range fields {
			texts := f.Texts(l)
			if len(texts) == 0 && f.Form != List {
				continue
			}
			if err := again.Set(f, texts...); err != nil {
				t.Errorf("%s: %q is not read: %v", f.Key, texts, err)
			}
		}
		if got := again.Apply(Limits{}); !reflect.DeepEqual(got, l) {
			t.Errorf("%+v became %+v", l, got)
		}
	}
}
