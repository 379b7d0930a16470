// Package demo shows the whole system at work on one machine: a stand-in
// server, three organizations with a node and a CSV file each, and a federated
// average over an encrypted collaboration, checked against the value computed
// directly.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/proxy/e2e"
)

// Options of a demonstration.
type Options struct {
	Programs lab.Programs
	// PluginBinary is the CNI plugin.
	PluginBinary string
	// Dir is where everything lives while it runs; a new temporary directory
	// if empty. What the demonstration made is removed at its end unless Keep.
	Dir  string
	Keep bool
	Out  io.Writer
}

// ErrWrong: the federated result is not the directly computed one.
var ErrWrong = errors.New("the federated average differs from the directly computed one")

const (
	keyBits = 2048
	column  = "age"
	stopFor = 30 * time.Second
)

// organization is one participant.
type organization struct {
	name string
	rows int
	id   int64
	key  *e2e.PrivateKey
	csv  string
	node *lab.Node
}

// demo is one demonstration under way.
type demo struct {
	Options
	began   time.Time
	lab     *lab.Lab
	orgs    []*organization
	collab  int64
	image   imagekit.Ref
	sum     float64
	count   int
	cleanup []func(context.Context) error
}

// Run gives the demonstration. It returns nil only if the result is right and
// everything that it made is gone again.
func Run(ctx context.Context, o Options) (err error) {
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "v6node-demo-"); err != nil {
			return err
		}
	}
	d := &demo{Options: o, began: time.Now(), orgs: []*organization{
		{name: "Amsterdam Hospital", rows: 4000}, {name: "Berlin Registry", rows: 2500}, {name: "Coimbra University", rows: 1200},
	}}
	defer func() {
		// Also after Ctrl-C everything is taken down.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopFor)
		defer cancel()
		err = errors.Join(err, d.end(end))
		if err == nil {
			d.say("everything that the demonstration made is removed")
		}
	}()
	for _, step := range []func(context.Context) error{d.data, d.world, d.runtime, d.nodes, d.average} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.Out, "%7.2f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) atEnd(f func(context.Context) error) { d.cleanup = append(d.cleanup, f) }

func (d *demo) end(ctx context.Context) error {
	var errs []error
	for i := len(d.cleanup) - 1; i >= 0; i-- {
		errs = append(errs, d.cleanup[i](ctx))
	}
	if d.Keep {
		d.say("kept in %s", d.Dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, lab.RemoveAll(d.Dir))...)
}

// data writes three different CSV files and computes the answer directly.
func (d *demo) data(context.Context) error {
	random := rand.New(rand.NewPCG(2026, 4))
	for i, org := range d.orgs {
		var b strings.Builder
		b.WriteString("patient," + column + "\n")
		for row := range org.rows {
			age := 20 + 10*i + random.IntN(50)
			fmt.Fprintf(&b, "%d,%d\n", row, age)
			d.sum += float64(age)
			d.count++
		}
		org.csv = filepath.Join(d.Dir, fmt.Sprintf("patients-%d.csv", i+1))
		if err := os.WriteFile(org.csv, []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	d.say("wrote three CSV files, %d patients in all", d.count)
	return nil
}

// world starts the server, makes the organizations and serves the image.
func (d *demo) world(ctx context.Context) (err error) {
	if d.lab, err = lab.New(ctx, d.Dir, d.Programs, standin.Options{}); err != nil {
		return err
	}
	d.atEnd(func(context.Context) error { return d.lab.Close() })
	var g errgroup.Group
	ids := make([]int64, len(d.orgs))
	for i, org := range d.orgs {
		org.id = d.lab.Server.AddOrganization(org.name)
		ids[i] = org.id
		g.Go(func() (err error) { org.key, err = e2e.GeneratePrivateKey(keyBits); return err })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.collab = d.lab.Server.AddCollaboration("demonstration", true, ids...)
	d.say("started a stand-in vantage6 v4 server at %s, with one encrypted collaboration of three organizations", d.lab.Server.URL())
	if d.image, err = d.lab.Push("demo/average", d.Programs.Algorithm("average")); err != nil {
		return err
	}
	d.say("packed the sample algorithm into an image: %s", d.image.Pinned)
	return nil
}

// runtime starts a managed containerd that the three nodes share. One without
// root has the rights of a node alone, so there each node starts its own.
func (d *demo) runtime(ctx context.Context) error {
	endpoint := ""
	if os.Geteuid() == 0 {
		managed, err := lab.Containerd(ctx, d.Dir, d.Programs.Bundle, d.PluginBinary)
		if err != nil {
			return err
		}
		d.atEnd(func(ctx context.Context) error {
			stopped, err := managed.Stop(ctx)
			if err == nil && !stopped {
				err = errors.New("sandboxes are left in the demonstration's containerd")
			}
			return err
		})
		endpoint = managed.Endpoint()
		d.say("started a containerd of its own: inspect it with  crictl -r %s pods", endpoint)
	} else {
		d.say("each node will start a containerd without root, in a user namespace")
	}
	for i, org := range d.orgs {
		node, err := d.lab.Configure(lab.NodeSpec{
			Name:      fmt.Sprintf("node-%d", i+1),
			APIKey:    d.lab.Server.AddNode(org.id, d.collab),
			Key:       org.key,
			Databases: map[string]string{"default": org.csv},
			Endpoint:  endpoint,
			Extra:     map[string]any{"policies": map[string]any{"allowed_algorithms": []string{d.image.Pinned}}},
		})
		if err != nil {
			return err
		}
		org.node = node
	}
	return nil
}

// nodes starts the three nodes.
func (d *demo) nodes(ctx context.Context) error {
	var g errgroup.Group
	for _, org := range d.orgs {
		d.atEnd(org.node.Stop)
		g.Go(func() error {
			if err := org.node.Start(); err != nil {
				return err
			}
			return org.node.WaitOnline(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.say("three nodes are online, each allowing this one image by its digest")
	return nil
}

// average plays the researcher.
func (d *demo) average(ctx context.Context) error {
	first := d.orgs[0]
	d.lab.Server.AddUser(first.id, "researcher", "demo-password")
	r, err := standin.NewResearcher(ctx, d.lab.Server.URL(), "researcher", "demo-password", first.key)
	if err != nil {
		return err
	}
	defer r.Close()
	posted := time.Now()
	task, err := r.CreateTask(ctx, standin.TaskSpec{
		Name: "federated average", Image: d.image.Tag, Collaboration: d.collab, Organizations: []int64{first.id},
		Method: "central", Kwargs: map[string]any{"column": column}, Databases: []standin.DatabaseSpec{{Label: "default"}},
	})
	if err != nil {
		return err
	}
	d.say("the researcher asked %s for the average %s of all patients (task %d, input encrypted)", first.name, column, task)
	status, err := r.WaitTask(ctx, task)
	if err != nil {
		return err
	}
	took := time.Since(posted)
	d.steps(task, posted)
	results, err := r.Results(ctx, task)
	if err != nil {
		return err
	}
	if len(results) != 1 || status != standin.StatusCompleted {
		return fmt.Errorf("the task ended as %q: %s\n%s", status, logOf(results), first.node.Log(20))
	}
	var got struct {
		Average float64 `json:"average"`
		Count   int     `json:"count"`
	}
	if err := json.Unmarshal(results[0].Data, &got); err != nil {
		return fmt.Errorf("read the result: %w", err)
	}
	want := d.sum / float64(d.count)
	d.say("the result came back after %.2f s and was decrypted: average %.6f over %d patients", took.Seconds(), got.Average, got.Count)
	if math.Abs(got.Average-want) > 1e-9*math.Abs(want) || got.Count != d.count {
		return fmt.Errorf("%w: %v over %d and %v over %d", ErrWrong, got.Average, got.Count, want, d.count)
	}
	d.say("computed directly from the three files:                    average %.6f over %d patients: the same", want, d.count)
	return nil
}

// steps prints what the server saw of the task and its subtasks.
func (d *demo) steps(task int64, posted time.Time) {
	names := make(map[int64]string, len(d.orgs))
	for _, o := range d.orgs {
		names[o.id] = o.name
	}
	for _, id := range append([]int64{task}, d.lab.Server.Children(task)...) {
		for _, run := range d.lab.Server.RunsOf(id) {
			what := "partial"
			if id == task {
				what = "central"
			}
			for _, e := range run.History {
				if status := e.Field("status"); status != "" {
					d.say("  %-8s at %-20s %+6.2f s  %s", what, names[run.OrganizationID], e.At.Sub(posted).Seconds(), status)
				}
			}
		}
	}
}

func logOf(results []standin.Result) string {
	if len(results) == 0 {
		return "no result"
	}
	return results[0].Log
}
