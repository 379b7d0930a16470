package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/workspace"
)

// storeAt is a runtime whose images are at a place.
type storeAt struct {
	fakeImages
	dir string
}

func (s storeAt) ImageDirectories(context.Context) ([]string, error) { return []string{s.dir}, nil }

func TestTheDisksAreLookedAt(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		state string
		store collect.Space
		says  string
	}{
		"all well":         {dir, collect.Space{Free: 1 << 30, Inodes: 1000, FreeInodes: 500}, ""},
		"no inodes there":  {dir, collect.Space{Free: 1 << 30}, ""}, // it has no fixed number
		"no state":         {filepath.Join(dir, "file", "below"), collect.Space{Free: 1 << 30}, "below cannot be written to"},
		"images full":      {dir, collect.Space{Free: 4096}, "full file system"},
		"inodes used up":   {dir, collect.Space{Free: 1 << 30, Inodes: 1000, FreeInodes: 3}, "full file system"},
		"images read-only": {dir, collect.Space{Free: 1 << 30, ReadOnly: true}, "read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			n := &Node{
				cfg:      &config.Config{Runtime: config.Runtime{Endpoint: "unix:///run/runtime.sock"}},
				stateDir: c.state, files: workspace.Root{Dir: filepath.Join(dir, "work")}, images: storeAt{dir: "/store"},
				space: func(string) (collect.Space, error) { return c.store, nil },
			}
			err := n.checkDisks(t.Context())
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*", ".*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
