package collect

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// thing was used so many days ago.
func thing(name string, days int, size int64) Thing {
	return Thing{Kind: "image", Name: name, Size: size, UsedAt: now.Add(-time.Duration(days) * 24 * time.Hour)}
}

func kept(t Thing) Thing { t.Kept = true; return t }

func choices(cs []Choice) (out []string) {
	for _, c := range cs {
		out = append(out, c.Name+": "+c.Reason)
	}
	return out
}

func TestWhatIsTooOldGoesAndWhatIsKeptStays(t *testing.T) {
	gone, rest := Choose(now, []Thing{thing("young", 1, 10), thing("old", 30, 10), kept(thing("needed", 90, 10)), thing("older", 40, 10)}, Rules{MaxAge: 30 * 24 * time.Hour})
	if got, want := choices(gone), []string{"older: not used for 40 days", "old: not used for 30 days"}; !slices.Equal(got, want) {
		t.Errorf("gone %q, want %q", got, want)
	}
	if len(rest) != 2 || rest[0].Name != "needed" || rest[1].Name != "young" {
		t.Errorf("rest %+v", rest)
	}
}

func TestTheLeastRecentlyUsedGoUntilTheBudgetHolds(t *testing.T) {
	things := []Thing{thing("a", 1, 40), kept(thing("b", 9, 40)), thing("c", 5, 40), thing("d", 3, 40)}
	gone, _ := Choose(now, things, Rules{MaxSize: 80})
	if got := choices(gone); len(got) != 2 || !strings.HasPrefix(got[0], "c: ") || !strings.HasPrefix(got[1], "d: ") {
		t.Errorf("gone %q", got)
	}
	if gone, _ := Choose(now, things, Rules{MaxSize: 160}); len(gone) != 0 {
		t.Errorf("within the budget: gone %q", choices(gone))
	}
	if gone, _ := Choose(now, things, Rules{}); len(gone) != 0 {
		t.Errorf("without a rule: gone %q", choices(gone))
	}
	// What goes by its age makes room for the rest.
	gone, _ = Choose(now, things, Rules{MaxAge: 5 * 24 * time.Hour, MaxSize: 120})
	if got, want := choices(gone), []string{"c: not used for 5 days"}; !slices.Equal(got, want) {
		t.Errorf("gone %q, want %q", got, want)
	}
	if gone, rest := Choose(now, things, Rules{All: true}); len(gone) != 3 || len(rest) != 1 || rest[0].Name != "b" {
		t.Errorf("all: gone %q, rest %v", choices(gone), rest)
	}
}

func TestInNeedTheOldestGoFirst(t *testing.T) {
	if got := choices(Urgent([]Thing{thing("new", 0, 1), kept(thing("needed", 3, 1)), thing("old", 2, 1)})); len(got) != 2 ||
		!strings.HasPrefix(got[0], "old: ") || !strings.HasPrefix(got[1], "new: ") {
		t.Errorf("urgent %q", got)
	}
}

func TestTheThresholdFitsTheFileSystem(t *testing.T) {
	for _, c := range []struct {
		what   string
		space  Space
		min    int64
		bytes  int64
		inodes bool
	}{
		{"large, by default", Space{Total: 1 << 40, Free: 9 << 30}, DefaultFree, 1 << 30, false},
		{"small, by default", Space{Total: 20 << 30, Free: 3 << 30}, DefaultFree, 0, false},
		{"small and full, by default", Space{Total: 20 << 30, Free: 1 << 30}, DefaultFree, 1 << 30, false},
		{"enough", Space{Total: 1 << 40, Free: 11 << 30}, DefaultFree, 0, false},
		{"as configured", Space{Total: 20 << 30, Free: 4 << 30}, 5 << 30, 1 << 30, false},
		{"switched off", Space{Total: 20 << 30, Inodes: 100}, 0, 0, false},
		{"few inodes", Space{Total: 1 << 40, Free: 1 << 39, Inodes: 1000, FreeInodes: 49}, DefaultFree, 0, true},
		{"enough inodes", Space{Total: 1 << 40, Free: 1 << 39, Inodes: 1000, FreeInodes: 50}, DefaultFree, 0, false},
		{"no fixed number of inodes", Space{Total: 1 << 40, Free: 1 << 39}, DefaultFree, 0, false},
	} {
		if bytes, inodes := c.space.Lacks(c.min); bytes != c.bytes || inodes != c.inodes {
			t.Errorf("%s: lacks %d bytes and inodes %v, want %d and %v", c.what, bytes, inodes, c.bytes, c.inodes)
		}
	}
	s, err := SpaceOf(t.TempDir())
	if err != nil || s.Total < s.Free || s.Total == 0 || s.Device == 0 {
		t.Errorf("this directory: %+v, %v", s, err)
	}
	if _, err := SpaceOf("/nowhere"); err == nil {
		t.Error("a path that is not there has space")
	}
}

func TestPinsHoldWhatTheyName(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	for _, c := range []struct {
		pin        string
		yes, other []string
	}{
		{a, []string{a, "ghcr.io/org/algo@" + a, "sif:x@" + a}, []string{b, "ghcr.io/org/algo@" + b, "ghcr.io/org/algo"}},
		{"ghcr.io/org/algo@" + a, []string{"GHCR.io/org/algo@" + a}, []string{a, "ghcr.io/org/other@" + a, "ghcr.io/org/algo:v1"}},
		{"ghcr.io/org/algo:v1", []string{"ghcr.io/org/algo:v1"}, []string{"ghcr.io/org/algo:v2", "ghcr.io/org/algo@" + a}},
		{"ghcr.io/org/algo", []string{"ghcr.io/org/algo:v1", "ghcr.io/org/algo", "ghcr.io/org/algo@" + a}, []string{"ghcr.io/org/algo2", a}},
		{"python", []string{"docker.io/library/python:3", "python@" + a}, []string{"docker.io/other/python:3"}},
		{"sif:algo", []string{"sif:algo", "sif:algo@" + a}, []string{"sif:algo.sif", "algo"}},
		{"oras://ghcr.io/org/algo:v1", []string{"oras://ghcr.io/org/algo:v1"}, []string{"ghcr.io/org/algo:v1"}},
	} {
		p, err := ParsePin(c.pin)
		if err != nil {
			t.Errorf("%s: %v", c.pin, err)
			continue
		}
		for _, name := range c.yes {
			if !p.Holds(name) {
				t.Errorf("%s does not hold %s", c.pin, name)
			}
		}
		for _, name := range c.other {
			if p.Holds(name) {
				t.Errorf("%s holds %s", c.pin, name)
			}
		}
	}
	for _, bad := range []string{"", "sha256:abc", "a b", "ghcr.io/Org/x"} {
		if _, err := ParsePin(bad); err == nil {
			t.Errorf("%q is a pin", bad)
		}
	}
}
