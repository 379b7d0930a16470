package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

type share struct {
	Sum   float64 `json:"sum"`
	Count int64   `json:"count"`
}

type outcome struct {
	Average       float64   `json:"average"`
	Sum           float64   `json:"sum"`
	Count         int64     `json:"count"`
	Organizations []int64   `json:"organizations"`
	Rounds        int       `json:"rounds"`
	RoundSeconds  []float64 `json:"round_seconds"`
}

func central(in *contract.Input) (*outcome, error) {
	name, err := column(in)
	if err != nil {
		return nil, err
	}
	out := &outcome{Rounds: 1}
	if _, err := in.Arg(1, "organizations", &out.Organizations); err != nil {
		return nil, err
	}
	if _, err := in.Arg(2, "rounds", &out.Rounds); err != nil {
		return nil, err
	}
	if out.Rounds < 1 {
		return nil, fmt.Errorf("rounds is %d, and must be at least 1", out.Rounds)
	}
	c, err := contract.NewClient()
	if err != nil {
		return nil, err
	}
	if len(out.Organizations) == 0 {
		if out.Organizations, err = c.Organizations(); err != nil {
			return nil, fmt.Errorf("listing the organizations: %w", err)
		}
	}
	for range out.Rounds {
		start := time.Now()
		if err := round(c, name, out); err != nil {
			return nil, err
		}
		out.RoundSeconds = append(out.RoundSeconds, time.Since(start).Seconds())
	}
	return out, nil
}

// round asks every organization once and combines the answers.
func round(c *contract.Client, column string, out *outcome) error {
	id, err := c.CreateTask("average of "+column, out.Organizations, map[string]any{
		"method": "partial", "kwargs": map[string]any{"column": column},
	})
	if err != nil {
		return fmt.Errorf("creating the subtask: %w", err)
	}
	if err := c.WaitTask(id); err != nil {
		return fmt.Errorf("waiting for the subtask: %w", err)
	}
	shares, err := contract.Results[share](c, id)
	if err != nil {
		return fmt.Errorf("fetching the results of subtask %d: %w", id, err)
	}
	if len(shares) != len(out.Organizations) {
		return fmt.Errorf("subtask %d has %d results of %d organizations", id, len(shares), len(out.Organizations))
	}
	out.Sum, out.Count = 0, 0
	for _, s := range shares {
		out.Sum += s.Sum
		out.Count += s.Count
	}
	if out.Count == 0 {
		return errors.New("no organization has a value in this column")
	}
	out.Average = out.Sum / float64(out.Count)
	return nil
}
