// Package ledger is the durable memory of a node: one record per run that the
// server offered, from the moment it was received until its result is
// acknowledged and nothing of it is left on the machine.
//
// A record is written before the step that it announces is taken, so that a
// node killed at any point knows at its next start what may have happened. The
// package knows neither runtimes nor servers: it stores what node tells it.
package ledger
