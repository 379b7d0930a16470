package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/proxy/e2e"
)

// rounds measures (d): rounds of partial on three nodes, driven by one central
// algorithm, in an encrypted collaboration.
func (b *bench) rounds(ctx context.Context) (err error) {
	l, endpoint, end, err := b.open(ctx, "rounds")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	const nodes = 3
	keys, orgs := make([]*e2e.PrivateKey, nodes), make([]int64, nodes)
	for i := range nodes {
		if keys[i], err = e2e.GeneratePrivateKey(2048); err != nil {
			return err
		}
		orgs[i] = l.Server.AddOrganization(fmt.Sprintf("org-%d", i))
	}
	collab := l.Server.AddCollaboration("rounds", true, orgs...)
	image, err := l.Push("bench/average", b.programs.Algorithm("average"))
	if err != nil {
		return err
	}
	csv := filepath.Join(l.Dir, "data.csv")
	if err := os.WriteFile(csv, []byte("age\n40\n50\n60\n"), 0o600); err != nil {
		return err
	}
	var g errgroup.Group
	running := make([]*lab.Node, nodes)
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		for _, n := range running {
			if n != nil {
				err = errors.Join(err, n.Stop(end))
			}
		}
	}()
	for i := range nodes {
		g.Go(func() (err error) {
			running[i], err = l.StartNode(ctx, lab.NodeSpec{
				Name: fmt.Sprintf("node-%d", i), APIKey: l.Server.AddNode(orgs[i], collab), Key: keys[i],
				Databases: map[string]string{"default": csv}, Endpoint: endpoint,
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.Server.AddUser(orgs[0], "user", "password")
	user, err := standin.NewResearcher(ctx, l.Server.URL(), "user", "password", keys[0])
	if err != nil {
		return err
	}
	defer user.Close()
	id, err := user.CreateTask(ctx, standin.TaskSpec{
		Name: "rounds", Image: image.Pinned, Collaboration: collab, Organizations: orgs[:1], Method: "central",
		Kwargs: map[string]any{"column": "age", "rounds": b.times(100)}, Databases: []standin.DatabaseSpec{{Label: "default"}},
	})
	if err != nil {
		return err
	}
	if _, err := user.WaitTask(ctx, id); err != nil {
		return err
	}
	results, err := user.Results(ctx, id)
	if err != nil {
		return err
	}
	var r struct {
		Average float64   `json:"average"`
		Seconds []float64 `json:"round_seconds"`
	}
	if err := json.Unmarshal(results[0].Data, &r); err != nil {
		return fmt.Errorf("rounds: %w\n%s", err, results[0].Log)
	}
	var ds []time.Duration
	for _, s := range r.Seconds {
		ds = append(ds, time.Duration(s*float64(time.Second)))
	}
	b.seconds("d", fmt.Sprintf("one of %d rounds of partial on %d nodes", len(ds), nodes), ds)
	return nil
}
