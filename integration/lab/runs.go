package lab

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/v6node/v6node/node/admin"
)

// Runs are all runs that the node knows, as `v6node ps -a` tells the
// administrator.
func (n *Node) Runs() ([]admin.Run, error) {
	out, err := exec.Command(n.lab.programs.V6node, "ps", "-a", "--state-dir", n.StateDir, "-o", "json").Output()
	if err != nil {
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			err = fmt.Errorf("%w: %s", err, ended.Stderr)
		}
		return nil, fmt.Errorf("list the runs of node %s: %w", n.Name, err)
	}
	var runs []admin.Run
	return runs, json.Unmarshal(out, &runs)
}

// SideBySide is the largest number of algorithms that ran at the same moment,
// by the runtime's own times.
func SideBySide(runs []admin.Run) int {
	type change struct {
		at time.Time
		by int
	}
	var all []change
	for _, r := range runs {
		all = append(all, change{r.StartedAt, 1}, change{r.EndedAt, -1})
	}
	slices.SortFunc(all, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.by, b.by)) })
	most, now := 0, 0
	for _, c := range all {
		now += c.by
		most = max(most, now)
	}
	return most
}
