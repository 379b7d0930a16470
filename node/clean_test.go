package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/v6node/v6node/node/workspace"
)

// Runs of one job that end at the same moment stay among the active ones for a
// little longer: none of them may leave the scratch to another that has left already.
func TestTheLastRunOfAJobTakesItsScratchAway(t *testing.T) {
	const job, parent, child, grandchild = 41, 101, 105, 106
	for name, order := range map[string][]int64{
		"the parent last":  {grandchild, child, parent},
		"the parent first": {parent, child, grandchild},
		"in between":       {child, parent, grandchild},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			scratch := filepath.Join(dir, "jobs", "41")
			if err := os.MkdirAll(scratch, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(scratch, "data"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			n := &Node{files: workspace.Root{Dir: dir}, active: map[int64]*activeRun{}, orphaned: map[int64]struct{}{}}
			for _, id := range order {
				n.active[id] = &activeRun{id: id, jobID: job}
			}
			for i, id := range order {
				if _, err := os.Stat(scratch); err != nil {
					t.Errorf("before run %d has left: %v", id, err)
				}
				released, err := n.releaseJob(job, id, id == parent)
				if last := i == len(order)-1; err != nil || released != last {
					t.Errorf("run %d, number %d: released is %v, %v", id, i+1, released, err)
				}
			}
			if _, err := os.Stat(scratch); !os.IsNotExist(err) {
				t.Errorf("after the last run: %v", err)
			}
		})
	}
}
