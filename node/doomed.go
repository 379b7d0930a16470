package node

import "github.com/v6node/v6node/node/ledger"

// maxDoomed is how many killed tasks are kept in mind, the latest. Their subtasks
// come within moments if they come at all.
const maxDoomed = 10_000

// anyOrganization stands for all of them.
const anyOrganization = 0

// doomed are killed tasks: what they have made ends with them, also if it arrives
// only later.
type doomed struct {
	// by is the organization whose run of the task was killed, or anyOrganization.
	by    map[int64]int64
	order []int64
}

func (d *doomed) add(task, organization int64) {
	have, known := d.by[task]
	switch {
	case !known:
		if len(d.order) == maxDoomed {
			delete(d.by, d.order[0])
			d.order = d.order[1:]
		}
		d.order = append(d.order, task)
		d.by[task] = organization
	case have != organization:
		d.by[task] = anyOrganization
	}
}

// parentOf tells whether the run that made a run's task was killed, and by is whose
// subtasks end for that.
func (d *doomed) parentOf(rec *ledger.Record) (by int64, killed bool) {
	by, killed = d.by[rec.ParentID]
	if rec.ParentID == 0 || (by != anyOrganization && by != rec.InitOrganizationID) {
		killed = false
	}
	return by, killed
}
