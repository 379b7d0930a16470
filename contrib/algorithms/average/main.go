// Command average is a sample vantage6 algorithm: the mean of a column over the
// databases of several organizations, without any row leaving its organization.
//
// Methods:
//
//	central(column, organizations=None, rounds=1)
//	        creates a subtask "partial" for every organization of the collaboration
//	        (or study, or for the given ones), waits, and returns
//	        {"average", "sum", "count", "organizations", "rounds", "round_seconds"}.
//	        More than one round repeats the same work, for benchmarks.
//	partial(column)
//	        returns {"sum", "count"} of the column of the task's first database, a
//	        CSV file with a header line. Empty cells are not counted.
//	noop()  returns {} at once.
//
// Failures go to standard error, with exit code 1.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "average:", err)
		os.Exit(1)
	}
}

func run() error {
	in, err := contract.ReadInput()
	if err != nil {
		return err
	}
	var result any
	switch in.Method {
	case "central":
		result, err = central(in)
	case "partial":
		result, err = partial(in)
	case "noop":
		result = struct{}{}
	default:
		err = fmt.Errorf("there is no method %q: central, partial and noop exist", in.Method)
	}
	if err != nil {
		return err
	}
	return contract.WriteOutput(result)
}

// column reads the argument that central and partial share.
func column(in *contract.Input) (string, error) {
	var name string
	if _, err := in.Arg(0, "column", &name); err != nil {
		return "", err
	}
	if name == "" {
		return "", errors.New("the argument column is missing: name the column to average")
	}
	return name, nil
}
