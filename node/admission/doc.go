// Package admission decides which runs may start on a node, and in which
// order, so that what runs at the same time fits a budget of memory, CPUs,
// processes, devices and concurrent runs.
//
// The rules, which docs/admission.md explains to an administrator:
//
//   - Order. Organizations take turns, weighted by how much of the budget their
//     runs ask for; within an organization subtasks of runs that run here come
//     first, then first come first served.
//   - Backfill. A run that fits may pass one that does not, until that one has
//     been passed [Options.MaxPasses] times or [Options.MaxPassedFor] has gone
//     by since the first pass. From then on what it needs is kept for it: only
//     runs that do not touch it may still pass.
//   - Room for subtasks. A run may wait for its subtasks, also for some that
//     have to run on this very node, and nobody knows beforehand whether it
//     will. Runs therefore have a level (0 for a run without parent, one more
//     for each generation), and the runs of levels 0 to l together may fill the
//     budget only so far that one largest expected subtask for each deeper
//     level, up to [Options.Depth], still fits. A run that is alone with its
//     own ancestors may use the whole budget.
//   - Stalls. Deeper nesting than Depth, subtasks larger than announced, or a
//     budget made smaller can still leave every running run waiting for a
//     subtask that does not fit. Without taking resources from a running run
//     nothing can prevent that, so after [Options.StallAfter] the newest of
//     these subtasks is refused, which lets its parent end.
//
// Why the levels exclude a deadlock: let every running run wait for a queued
// subtask, and look at the run that was admitted last. If it was admitted by
// its level, usage was at that moment, and so is now, small enough that the
// subtask of the deepest running run fits. If it was admitted because it was
// alone, only it and its ancestors run, and its subtask is alone in turn.
//
// Nothing here knows of runtimes, servers or disks, except the reading of the
// machine's size in [Machine]. What a run asks for and when it arrived comes
// from the caller, who also keeps the queue across restarts: it enqueues again
// what it has not started, with the original times of arrival.
package admission
