package workspace

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

func TestAUserOpensWhatThePermissionsAllow(t *testing.T) {
	const other, dir = 1000, fs.ModeDir
	for _, c := range []struct {
		mode  fs.FileMode
		owner int64
		uid   int64
		want  bool
	}{
		{0o600, 0, 0, true},
		{0o200, 0, 0, false},
		{0o044, 0, 0, false}, // the owner's bits decide for the owner
		{0o600, other, 0, false},
		{0o604, other, 0, true},
		{0o640, other, 0, true}, // the image may put its user into the group
		{0o600, other, other, true},
		{dir | 0o700, 0, 0, true},
		{dir | 0o700, other, 0, false},
		{dir | 0o704, other, 0, false}, // listed, not entered
		{dir | 0o755, other, 0, true},
	} {
		if got := mayOpen(access{mode: c.mode, owner: c.owner, group: c.owner}, c.uid, -1); got != c.want {
			t.Errorf("mode %v of %d opened by %d: %v", c.mode, c.owner, c.uid, got)
		}
	}
}

func TestInAUserNamespaceOtherUsersAreStrangers(t *testing.T) {
	const stranger = 65534
	for name, c := range map[string]struct {
		access
		uid  int64
		want bool
	}{
		"the user's own file":                      {access{0o600, 0, 0, false, false}, 0, true},
		"the user's own file, for an image's user": {access{0o600, 0, 0, false, false}, 1000, false},
		"another user's file":                      {access{0o600, stranger, stranger, false, false}, 0, false},
		"another user's file for its group":        {access{0o640, stranger, stranger, false, false}, 0, false},
		"another user's file for all":              {access{0o604, stranger, stranger, false, false}, 0, true},
		"another user's file, with a list":         {access{0o640, stranger, stranger, true, false}, 0, true},
		"another user's file for the user's group": {access{0o640, stranger, 0, false, false}, 0, true},
		"another user's file, for the user 65534":  {access{0o600, stranger, stranger, false, false}, stranger, false},
		"the user's own folder, to be changed":     {access{fs.ModeDir | 0o500, 0, 0, false, true}, 0, false},
		"a folder that all may change":             {access{fs.ModeDir | 0o777, stranger, stranger, false, true}, 0, true},
		"another user's folder that all may enter": {access{fs.ModeDir | 0o755, stranger, stranger, false, false}, 0, true},
	} {
		if got := mayOpen(c.access, c.uid, stranger); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestADatabaseThatTheAlgorithmCannotOpenIsRefused(t *testing.T) {
	root, spec := base(t)
	spec.Requested = []Request{{Label: "default"}}
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.CheckAccess(0); err != nil {
		t.Errorf("a file of root: %v", err)
	}
	err = w.CheckAccess(1000)
	if !errors.Is(err, ErrDatabase) || !strings.Contains(err.Error(), `"default"`) || !strings.Contains(err.Error(), "user 1000") {
		t.Errorf("a file of root for user 1000: %v", err)
	}
	if err := os.Remove(spec.Databases[0].URI); err != nil {
		t.Fatal(err)
	}
	if err := w.CheckAccess(0); !errors.Is(err, ErrDatabase) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a file that is gone: %v", err)
	}
}
