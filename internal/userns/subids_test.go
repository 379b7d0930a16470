package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestContainersGetIDsOfNobodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		users, groups string
		first, count  uint32
		refused       string
	}{
		"nothing is written":            {first: 0x70000000, count: 0x10000000},
		"others have ids":               {users: "alice:100000:65536\n", groups: "alice:100000:65536\n", first: 0x70000000, count: 0x10000000},
		"others have the usual ones":    {users: "alice:1879048192:65536\n", refused: "belong to alice as well"},
		"others end where they begin":   {users: "alice:1878982656:65536\n", first: 0x70000000, count: 0x10000000},
		"the node has its own":          {users: "v6node:200000:655360\n", groups: "x\nv6node:200000:655360\n", first: 200000, count: 655360},
		"the two files differ a little": {users: "v6node:200000:655360\n", groups: "v6node:265536:655360\n", first: 265536, count: 589824},
		"only users":                    {users: "v6node:200000:655360\n", refused: "in common"},
		"too few":                       {users: "v6node:200000:65535\n", groups: "v6node:200000:65535\n", refused: "in common"},
		"far apart":                     {users: "v6node:200000:65536\n", groups: "v6node:900000:65536\n", refused: "in common"},
		"those of root":                 {users: "v6node:0:65536\n", groups: "v6node:0:65536\n", refused: "in common"},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine{root: t.TempDir()}
			for file, text := range map[string]string{"subuid": c.users, "subgid": c.groups} {
				path := filepath.Join(m.root, "etc", file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			first, count, err := m.subIDs("v6node")
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%d, %d, %v", first, count, err)
				}
				return
			}
			if err != nil || first != c.first || count != c.count {
				t.Errorf("%d, %d, %v; want %d, %d", first, count, err, c.first, c.count)
			}
		})
	}
}
