//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/proxy/e2e"
	"github.com/v6node/v6node/runtime"
)

// collaboration is a set of organizations, each with a node that is online.
type collaboration struct {
	id    int64
	nodes []*node
	err   error // why it could not be started
}

// node is a node process with the researcher of its organization.
type node struct {
	*lab.Node
	w          *world
	org        int64
	collab     int64
	researcher *standin.Researcher
	guests     []*standin.Researcher // of the organizations without a node
	key        *e2e.PrivateKey
	taskDir    string // "" where the files of runs are in the state directory

	dial sync.Once
	rt   *runtime.Client

	lookup sync.Once
	scope  string // of the user's systemd, with the node and its runs in it
}

// nodeOptions say how a node differs from the usual one.
type nodeOptions struct {
	// Databases by label, with their content; {"default": patients} if nil.
	Databases map[string]string
	// DatabaseEnv are variables of a database, by its label.
	DatabaseEnv map[string]map[string]string
	// Extra is laid over the configuration.
	Extra map[string]any
	// Endpoint of another runtime than the world's.
	Endpoint string
	// Program is another v6node than the world's, which finds its own bundle.
	Program string
	Args    []string
	Env     []string
	// Sealed makes the collaboration an encrypted one.
	Sealed bool
	// Guests is how many organizations without a node send tasks to this one.
	Guests int
}

// patients is the content of the usual database; its mean age is 40.
const patients = "patient,age\n1,30\n2,40\n3,50\n"

// configure makes a node of a new organization in a new collaboration and
// writes its configuration, without starting it. It is stopped with the test.
func (w *world) configure(t *testing.T, o nodeOptions) *node {
	t.Helper()
	org := w.server.AddOrganization(fmt.Sprintf("organization %d", w.number()))
	n, err := w.addNode(org, w.server.AddCollaboration("alone", o.Sealed, org), o)
	if err != nil {
		t.Fatal(err)
	}
	for range o.Guests {
		guest := w.server.AddOrganization(fmt.Sprintf("organization %d", w.number()))
		w.server.JoinCollaboration(guest, n.collab)
		name := fmt.Sprintf("guest %d", guest)
		w.server.AddUser(guest, name, "password")
		r, err := standin.NewResearcher(within(t), w.server.URL(), name, "password", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		n.guests = append(n.guests, r)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		n.tell(t)
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

// start makes a node as configure does, and starts it and its researcher.
func (w *world) start(t *testing.T, o nodeOptions) *node {
	t.Helper()
	n := w.configure(t, o)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitOnline(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.login(within(t)); err != nil {
		t.Fatal(err)
	}
	return n
}

// tell logs what the node logged when the test has failed.
func (n *node) tell(t *testing.T) {
	if t.Failed() {
		t.Logf("log of node %s:\n%s", n.Name, n.Log(60))
	}
}

func (w *world) addNode(org, collab int64, o nodeOptions) (*node, error) {
	n := &node{w: w, org: org, collab: collab}
	n.taskDir, _ = o.Extra["task_dir"].(string)
	name := fmt.Sprintf("n%d", w.number())
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	content := o.Databases
	if content == nil {
		content = map[string]string{"default": patients}
	}
	var list []map[string]any
	for label, text := range content {
		file := filepath.Join(dir, label+".csv")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, err
		}
		list = append(list, map[string]any{"label": label, "uri": file, "type": "csv", "env": o.DatabaseEnv[label]})
	}
	extra := map[string]any{
		"databases": list,
		// How many scenarios go side by side does not depend on the machine.
		"resources": w.resources(map[string]any{"runs": 200, "memory": "1t", "pids": 1_000_000}),
	}
	maps.Copy(extra, o.Extra)
	spec := lab.NodeSpec{
		Name: name, APIKey: w.server.AddNode(org, collab), Extra: extra,
		Args: append([]string{"--log-level", "debug"}, o.Args...), Env: append([]string{"TMPDIR=" + w.tmp()}, o.Env...), Endpoint: o.Endpoint, Program: o.Program,
	}
	if w.user != nil {
		spec.As = w.user.credential()
		spec.Env = append(spec.Env, "HOME="+dir, "XDG_RUNTIME_DIR="+w.user.runtimeDir(w.dir))
	}
	if o.Sealed {
		key, err := e2e.GeneratePrivateKey(2048)
		if err != nil {
			return nil, err
		}
		n.key, spec.Key = key, key
	}
	if spec.Endpoint == "" && w.external != nil {
		spec.Endpoint = w.external.endpoint()
	}
	var err error
	if n.Node, err = w.lab.Configure(spec); err != nil {
		return nil, err
	}
	if w.user != nil {
		if err := w.user.own(dir); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
	return n, nil
}

// cgroup has the control groups of the node's runs in it.
func (n *node) cgroup(t testing.TB) string {
	t.Helper()
	switch {
	case n.w.user == nil:
		return "/"
	case n.w.user.cgroup != "":
		return n.w.user.cgroup
	}
	n.lookup.Do(func() { // it stays when the node is gone
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", n.PID()))
		rel := strings.TrimPrefix(strings.TrimSpace(string(b)), "0::")
		if scope := filepath.Dir(rel); filepath.Ext(scope) == ".scope" {
			n.scope = scope
			return
		}
		t.Errorf("the node is in the control group %q, and not in a scope of its own (%v)", rel, err)
	})
	if n.scope == "" {
		t.FailNow()
	}
	return n.scope
}

// resources are those of a configuration, with a budget.
func (w *world) resources(budget map[string]any) map[string]any {
	r := map[string]any{"budget": budget}
	if w.user != nil && w.user.cgroup != "" {
		r["cgroup"] = w.user.cgroup
	}
	return r
}

// login makes the organization's researcher.
func (n *node) login(ctx context.Context) (err error) {
	name := "user of " + n.Name
	n.w.server.AddUser(n.org, name, "password")
	n.researcher, err = standin.NewResearcher(ctx, n.w.server.URL(), name, "password", n.key)
	return err
}

// shared starts a collaboration that scenarios use together.
func (w *world) shared(sealed bool, options ...nodeOptions) *collaboration {
	c := &collaboration{}
	orgs := make([]int64, len(options))
	for i := range options {
		orgs[i] = w.server.AddOrganization(fmt.Sprintf("organization %d", w.number()))
	}
	c.id = w.server.AddCollaboration("shared", sealed, orgs...)
	// Not the context of the scenario that happens to come first: the others
	// use the nodes longer.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, o := range options {
		o.Sealed = sealed
		n, err := w.addNode(orgs[i], c.id, o)
		if err == nil {
			err = n.Start()
		}
		if err != nil {
			c.err = err
			return c
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		if c.err = n.WaitOnline(ctx); c.err != nil {
			return c
		}
		if c.err = n.login(ctx); c.err != nil {
			return c
		}
	}
	return c
}

func (c *collaboration) use(t *testing.T) []*node {
	t.Helper()
	if c.err != nil {
		t.Fatal(c.err)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.tell(t)
		}
	})
	return c.nodes
}

// The shared nodes' particulars.
const (
	// secretPassword is in the variables of a database that runs must ask for.
	secretPassword = "correct-horse-battery"
	// betaPort is beta's proxy port, which differs from alpha's, so that each
	// could be told apart where one sandbox saw another's.
	betaPort  = 18080
	alphaPort = 8080
	// scratchSize is alpha's size of /tmp.
	scratchSize = 8 << 20
)

// alphaBeta are two nodes of an open collaboration.
func (w *world) alphaBeta(t *testing.T) (alpha, beta *node) {
	t.Helper()
	w.openOnce.Do(func() {
		w.open = w.shared(false,
			nodeOptions{
				Databases:   map[string]string{"default": patients, "secret": "patient,diagnosis\n1,flu\n"},
				DatabaseEnv: map[string]map[string]string{"secret": {"password": secretPassword}},
				Extra: map[string]any{
					"limits":        map[string]any{"tmpfs_size": strconv.Itoa(scratchSize)},
					"algorithm_env": map[string]string{"SUITE_SETTING": "from the configuration"},
				},
			},
			nodeOptions{Extra: map[string]any{"proxy_port": betaPort}},
		)
	})
	nodes := w.open.use(t)
	return nodes[0], nodes[1]
}

// alpha is a node that scenarios share.
func (w *world) alpha(t *testing.T) *node {
	t.Helper()
	alpha, _ := w.alphaBeta(t)
	return alpha
}

// trio are three nodes of an encrypted collaboration.
func (w *world) trio(t *testing.T) []*node {
	t.Helper()
	w.sealedOnce.Do(func() {
		w.sealed = w.shared(true,
			nodeOptions{Databases: map[string]string{"default": "patient,age\n1,10\n2,20\n"}},
			nodeOptions{Databases: map[string]string{"default": "patient,age\n1,30\n"}},
			nodeOptions{Databases: map[string]string{"default": "patient,age\n1,40\n2,50\n3,60\n"}},
		)
	})
	return w.sealed.use(t)
}

// order changes a task before it is posted.
type order func(*standin.TaskSpec)

func image(ref string) order { return func(s *standin.TaskSpec) { s.Image = ref } }

func databases(labels ...string) order {
	return func(s *standin.TaskSpec) {
		s.Databases = nil
		for _, l := range labels {
			s.Databases = append(s.Databases, standin.DatabaseSpec{Label: l})
		}
	}
}

type kwargs = map[string]any

// post sends a task for this node alone: a method of the test algorithm, with
// no database, unless the orders say otherwise.
func (n *node) post(t *testing.T, method string, args kwargs, orders ...order) (task, run int64) {
	t.Helper()
	return n.postAs(t, n.researcher, method, args, orders...)
}

// postAs is post by a researcher of another organization.
func (n *node) postAs(t *testing.T, who *standin.Researcher, method string, args kwargs, orders ...order) (task, run int64) {
	t.Helper()
	spec := standin.TaskSpec{
		Name: t.Name(), Image: n.w.testalgo.Tag, Collaboration: n.collab, Organizations: []int64{n.org}, Method: method, Kwargs: args,
	}
	for _, o := range orders {
		o(&spec)
	}
	task, err := who.CreateTask(within(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range n.w.server.RunsOf(task) {
		if r.OrganizationID == n.org {
			run = r.ID
		}
	}
	t.Cleanup(func() { n.w.tellTask(t, task) })
	return task, run
}

// tellTask logs what became of a task and its subtasks when the test has failed.
func (w *world) tellTask(t *testing.T, task int64) {
	if !t.Failed() {
		return
	}
	for _, id := range append([]int64{task}, w.server.Children(task)...) {
		for _, r := range w.server.RunsOf(id) {
			text := ""
			if r.Log != nil {
				text = *r.Log
			}
			t.Logf("task %d, run %d: %q, log %.1000q", id, r.ID, r.Status, text)
		}
	}
}

// ended is a run that is over.
type ended struct {
	standin.RunRecord
	Data []byte // the result as the researcher reads it
	Text string // the log as the researcher reads it
}

// finish waits until a task is over and returns its run on this node.
func (n *node) finish(t *testing.T, task int64) ended {
	t.Helper()
	ctx := within(t)
	if _, err := n.w.server.WaitTask(ctx, task); err != nil {
		t.Fatal(err)
	}
	results, err := n.researcher.Results(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.OrganizationID != n.org {
			continue
		}
		rec, ok := n.w.server.Run(r.RunID)
		if !ok {
			t.Fatalf("run %d is unknown", r.RunID)
		}
		return ended{RunRecord: rec, Data: r.Data, Text: r.Log}
	}
	t.Fatalf("task %d has no run on node %s", task, n.Name)
	return ended{}
}

// call posts a task and waits for its end.
func (n *node) call(t *testing.T, method string, args kwargs, orders ...order) ended {
	t.Helper()
	task, _ := n.post(t, method, args, orders...)
	return n.finish(t, task)
}

// completed decodes the result of a run that must have ended well.
func completed[T any](t *testing.T, e ended) T {
	t.Helper()
	var v T
	if e.Status != standin.StatusCompleted {
		t.Fatalf("run %d ended as %q: %s", e.ID, e.Status, e.Text)
	}
	if err := json.Unmarshal(e.Data, &v); err != nil {
		t.Fatalf("result %q: %v", e.Data, err)
	}
	return v
}

// active waits until an algorithm runs.
func (n *node) active(t *testing.T, run int64) {
	t.Helper()
	if _, err := n.w.server.WaitRunFor(within(t), run, func(r standin.RunRecord) bool {
		return r.Status == standin.StatusActive || r.FinishedAt != nil
	}); err != nil {
		t.Fatal(err)
	}
	if r, _ := n.w.server.Run(run); r.FinishedAt != nil {
		text := ""
		if r.Log != nil {
			text = *r.Log
		}
		t.Fatalf("run %d ended as %q before it was active: %s", run, r.Status, text)
	}
}

// gate is an algorithm that runs until it is let go.
type gate struct {
	n         *node
	task, run int64
	restarts  int // after which it was attended
}

// hold starts an algorithm that runs until release and then counts how often it
// was executed, and waits until it runs.
func (n *node) hold(t *testing.T, orders ...order) *gate {
	t.Helper()
	g := &gate{n: n}
	g.task, g.run = n.post(t, "gate", nil, orders...)
	n.active(t, g.run)
	// The mark of the algorithm's start.
	eventually(t, func() error { _, err := os.Stat(filepath.Join(g.scratch(t), "executed")); return err })
	return g
}

// gated is what the gate's algorithm returns.
type gated struct {
	Executed int    `json:"executed"`
	Proxy    int    `json:"proxy"` // status of a request through the proxy after the release
	Error    string `json:"error"`
}

// release lets the algorithm end.
func (g *gate) release(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.scratch(t), "open"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// undisturbed lets the algorithm end and checks that it ran as if nothing else had.
func (g *gate) undisturbed(t *testing.T) {
	t.Helper()
	g.release(t)
	if got := completed[gated](t, g.n.finish(t, g.task)); got.Executed != 1 || got.Proxy != 200 {
		t.Errorf("the algorithm that ran meanwhile was disturbed: %+v", got)
	}
}

// scratch is the host's path of the job's /mnt/tmp.
func (g *gate) scratch(t *testing.T) string {
	t.Helper()
	return filepath.Join(g.n.files(), "jobs", strconv.FormatInt(g.job(t), 10))
}

func (g *gate) job(t *testing.T) int64 {
	t.Helper()
	sandboxes, err := g.n.runtime(t).ListSandboxes(within(t), map[string]string{"ai.vantage6.run": strconv.FormatInt(g.run, 10)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sandboxes {
		if job, err := strconv.ParseInt(s.Labels["ai.vantage6.job"], 10, 64); err == nil {
			return job
		}
	}
	t.Fatalf("run %d has no sandbox with a label of its job", g.run)
	return 0
}

// runDir is the host's directory of a run.
func (n *node) runDir(run int64) string {
	return filepath.Join(n.files(), "runs", strconv.FormatInt(run, 10))
}

// files is the host's directory of all runs.
func (n *node) files() string {
	if n.taskDir == "" {
		return filepath.Join(n.StateDir, "work")
	}
	name, err := readInstance(n.StateDir)
	if err != nil {
		return filepath.Join(n.taskDir, "*") // it never got so far
	}
	return filepath.Join(n.taskDir, name)
}

var endpointInLog = regexp.MustCompile(`msg="connected to the container runtime" endpoint=(unix://\S+)`)

// endpoint is where the node's runtime listens, as its log tells the
// administrator.
func (n *node) endpoint(t testing.TB) string {
	t.Helper()
	m := endpointInLog.FindStringSubmatch(n.Log(1 << 20))
	if m == nil {
		t.Fatalf("node %s does not log its runtime's endpoint:\n%s", n.Name, n.Log(20))
	}
	return m[1]
}

// runtime is a client of the node's runtime.
func (n *node) runtime(t testing.TB) *runtime.Client {
	t.Helper()
	n.dial.Do(func() {
		var err error
		if n.rt, err = runtime.Dial(within(t), n.endpoint(t), runtime.Options{CgroupBase: n.cgroup(t)}); err != nil {
			n.rt = nil
			t.Error(err)
		}
	})
	if n.rt == nil {
		t.Fatal("the node's runtime cannot be asked")
	}
	return n.rt
}

// forget closes what the tests opened to look at the node.
func (n *node) forget(t *testing.T) {
	if n.researcher != nil {
		n.researcher.Close()
	}
	if n.rt != nil {
		if err := n.rt.Close(); err != nil {
			t.Error(err)
		}
	}
}

// sandboxes are the living and dead sandboxes of one of the node's runs, or of
// all with run 0.
func (n *node) sandboxes(t testing.TB, run int64) []*runtime.Sandbox {
	t.Helper()
	labels := map[string]string{"ai.vantage6.node": n.instance(t)}
	if run != 0 {
		labels["ai.vantage6.run"] = strconv.FormatInt(run, 10)
	}
	list, err := n.runtime(t).ListSandboxes(within(t), labels)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// gone waits until nothing of a run is on the machine any more.
func (n *node) gone(t *testing.T, run int64) {
	t.Helper()
	eventually(t, func() error {
		if list := n.sandboxes(t, run); len(list) > 0 {
			return fmt.Errorf("run %d still has %d sandboxes", run, len(list))
		}
		if _, err := os.Stat(n.runDir(run)); !os.IsNotExist(err) {
			return fmt.Errorf("run %d still has its files (%v)", run, err)
		}
		return nil
	})
}

// instance is the name of the node among all that share its runtime.
func (n *node) instance(t testing.TB) string {
	t.Helper()
	name, err := readInstance(n.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	return name
}
