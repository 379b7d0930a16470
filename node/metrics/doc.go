// Package metrics shows what a node does as Prometheus metrics, and its health,
// over HTTP on this machine.
//
// What the node counts comes in through the Recorder, what it is at the moment
// through a Source, which is asked at each scrape. Nothing of tasks or users may
// enter: a label's values come from the node's own tables (states, reasons,
// phases) or are the numbers of living runs, so that no name, image or secret
// leaves the node here and a scrape stays small. docs/metrics.md lists every
// metric; a test compares the two.
//
// The package knows no server, no runtime and no ledger.
package metrics
