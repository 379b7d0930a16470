package admission_test

import (
	"fmt"

	"github.com/v6node/v6node/node/admission"
)

// The example of docs/admission.md.
func ExampleController_Snapshot() {
	const gib = 1 << 30
	c, err := admission.New(admission.Budget{Resources: admission.Resources{Memory: 8 * gib}, Runs: 8}, admission.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ask := func(run, parent, org, mem int64) {
		err := c.Enqueue(admission.Request{RunID: run, TaskID: run, ParentTaskID: parent, OrganizationID: org, Ask: admission.Resources{Memory: mem}})
		if err != nil {
			fmt.Println(err)
		}
	}
	show := func() {
		s := c.Snapshot()
		for _, r := range s.Running {
			fmt.Println("running", r.RunID)
		}
		for _, w := range s.Queued {
			fmt.Println("queued", w.Position, w.RunID, w.Reason)
		}
	}
	ask(101, 0, 1, 2*gib)
	ask(102, 0, 1, 2*gib)
	ask(103, 0, 1, 2*gib)
	ask(104, 0, 1, 5*gib)
	ask(105, 0, 2, 2*gib)
	ask(106, 0, 2, 12*gib)
	show()
	ask(107, 101, 3, 2*gib) // a subtask of run 101
	show()
	// Output:
	// run 106 can never start on this node: it asks for 12.0 GiB of memory and the budget has 8.0 GiB; lower its limit or raise the budget
	// running 101
	// running 102
	// running 103
	// queued 1 105 waiting for memory: 2.0 GiB asked, 2.0 GiB free of 8.0 GiB and kept for subtasks; 0 runs ahead
	// queued 2 104 waiting for memory: 5.0 GiB asked, 2.0 GiB free of 8.0 GiB; 1 run ahead
	// running 101
	// running 102
	// running 103
	// running 107
	// queued 1 105 waiting for memory: 2.0 GiB asked, 0 B free of 8.0 GiB; 0 runs ahead
	// queued 2 104 waiting for memory: 5.0 GiB asked, 0 B free of 8.0 GiB; 1 run ahead
}
