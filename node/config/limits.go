package config

import (
	"fmt"
	"path"
	"time"

	"github.com/v6node/v6node/node/limits"
)

// Limits hold for each run.
type Limits = limits.Limits

// Ways to treat a limit that did not take.
const (
	// EnforceStrict stops the run.
	EnforceStrict = "strict"
	// EnforceBestEffort warns, and lets the run go on without it.
	EnforceBestEffort = "best-effort"
)

func (d *decoder) limits(s *section, c *Config) {
	v, _ := s.get("limits")
	l := d.section(v, "limits")
	before := len(d.problems)
	c.Limits = d.limitValues(l).Apply(limits.Defaults())
	l.done()
	d.checkLimits(l, c.Limits, before)
	d.limitRules(s, c)
	r, _ := s.get("resources")
	e := d.section(r, "resources")
	c.Enforce = EnforceStrict
	e.oneOf("enforce", &c.Enforce, EnforceStrict, EnforceBestEffort)
	d.budget(e, c)
	d.admission(e, c)
	if e.text("cgroup", &c.Cgroup) && (!path.IsAbs(c.Cgroup) || path.Clean(c.Cgroup) != c.Cgroup || c.Cgroup == "/") {
		_, line := e.get("cgroup")
		d.fail(line, "resources.cgroup", "resources.cgroup: %q is not the path of a control group, such as /v6node-alice, below where the control groups are mounted", clip(c.Cgroup))
	}
	e.done()
}

// Budget is what all runs together may ask for. Zero is the machine's, less a
// reserve for the rest.
type Budget struct {
	Memory int64 // bytes
	CPUs   int64
	Pids   int64
	Runs   int64 // at the same time
	// Devices bounds the devices of a CDI kind that runs are given by number.
	Devices map[string]int64
	// Reserve is what is kept back where the budget itself is not set; nil is
	// the default.
	Reserve struct{ Memory, CPUs, Pids *int64 }
}

// Admission says which run starts when; zero is the default.
type Admission struct {
	// Depth is for how many generations of subtasks room is kept, Memory, CPUs
	// and Pids how much at least for subtasks of runs on other nodes.
	Depth              int64
	Memory, CPUs, Pids int64
	MaxPasses          int64
	MaxPassedFor       time.Duration
	StallAfter         time.Duration
}

func (d *decoder) admission(s *section, c *Config) {
	v, _ := s.get("subtasks")
	t := d.section(v, "resources.subtasks")
	t.integer("depth", &c.Admission.Depth, 1, 8)
	t.size("memory", &c.Admission.Memory, 0)
	t.integer("cpus", &c.Admission.CPUs, 0, 8192)
	t.integer("pids", &c.Admission.Pids, 0, 4<<20)
	t.done()
	v, _ = s.get("queue")
	q := d.section(v, "resources.queue")
	q.integer("max_passes", &c.Admission.MaxPasses, 1, 100_000)
	q.duration("max_passed_for", &c.Admission.MaxPassedFor, time.Second, 30*24*time.Hour)
	q.duration("stall_after", &c.Admission.StallAfter, time.Second, 30*24*time.Hour)
	q.done()
}

func (d *decoder) budget(s *section, c *Config) {
	v, _ := s.get("budget")
	b := d.section(v, "resources.budget")
	b.size("memory", &c.Budget.Memory, 16<<20)
	b.integer("cpus", &c.Budget.CPUs, 1, 8192)
	b.integer("pids", &c.Budget.Pids, 16, 4<<20)
	b.integer("runs", &c.Budget.Runs, 2, 10_000)
	entries, _ := b.texts("devices")
	for _, e := range entries {
		device, err := limits.ParseDevice(e.text)
		if err != nil || device.Count == 0 || c.Budget.Devices[device.Kind] > 0 {
			d.fail(e.line, b.child("devices"), "resources.budget.devices: %q is not a kind and a number that is given once, such as nvidia.com/gpu:2", clip(e.text))
			continue
		}
		if c.Budget.Devices == nil {
			c.Budget.Devices = make(map[string]int64)
		}
		c.Budget.Devices[device.Kind] = int64(device.Count)
	}
	b.done()
	v, _ = s.get("reserve")
	r := d.section(v, "resources.reserve")
	defer r.done()
	var n int64
	keep := func(given bool, to **int64) {
		if given {
			*to = new(n)
		}
	}
	keep(r.size("memory", &n, 0), &c.Budget.Reserve.Memory)
	keep(r.integer("cpus", &n, 0, 8192), &c.Budget.Reserve.CPUs)
	keep(r.integer("pids", &n, 0, 4<<20), &c.Budget.Reserve.Pids)
}

// limitValues reads the keys of a section that holds limits.
func (d *decoder) limitValues(s *section) limits.Change {
	var out limits.Change
	for _, f := range limits.Fields() {
		v, _ := s.get(f.Key)
		if v == nil {
			continue
		}
		values, ok := s.limitTexts(f, v)
		if !ok {
			continue
		}
		if err := out.Set(f, values...); err != nil {
			d.fail(v.line, s.child(f.Key), "%s: %v", s.child(f.Key), err)
		}
	}
	return out
}

// wanted describes the forms of limits for a value of another type.
var wanted = map[limits.Form]string{
	limits.Size: "a size such as 512m", limits.Number: "a number such as 1.5", limits.Integer: "a whole number",
	limits.Text: "a list such as 0-3,8", limits.Duration: "a duration such as 12h", limits.List: "a text or a list of texts",
}

func (s *section) limitTexts(f *limits.Field, v *value) ([]string, bool) {
	items := []*value{v}
	if f.Form == limits.List && v.kind == list {
		items = v.items
	}
	var out []string
	for _, i := range items {
		if i.kind != scalar || i.tag == "!!bool" || i.tag == "!!float" && f.Form != limits.Number {
			s.wrong(i, f.Key, wanted[f.Form])
			return nil, false
		}
		out = append(out, i.text)
	}
	return out, true
}

// checkLimits reports limits that contradict each other, unless some of them
// could not even be read.
func (d *decoder) checkLimits(s *section, l limits.Limits, before int) {
	if len(d.problems) > before {
		return
	}
	for _, p := range l.Check() {
		line := s.line
		if at, _ := s.get(p.Key); at != nil {
			line = at.line
		}
		d.fail(line, s.child(p.Key), "%s: %s", s.child(p.Key), p.Text)
	}
}

func (d *decoder) limitRules(s *section, c *Config) {
	v, _ := s.get("limit_rules")
	if v == nil {
		d.limitRule(nil, "limit_rules[0]", c)
		return
	}
	if v.kind != list {
		s.wrong(v, "limit_rules", "a list of rules (image, organization, limits)")
		return
	}
	for i, item := range v.items {
		d.limitRule(item, fmt.Sprintf("limit_rules[%d]", i), c)
	}
}

// limitRule reads one rule; nil only makes its keys known.
func (d *decoder) limitRule(v *value, path string, c *Config) {
	r := d.section(v, path)
	defer r.done()
	before := len(d.problems)
	image, organization := "", ""
	r.text("image", &image)
	r.literal("organization", &organization)
	inner, line := r.get("limits")
	l := d.section(inner, path+".limits")
	change := d.limitValues(l)
	l.done()
	if v == nil || len(d.problems) > before {
		return
	}
	if change.Empty() {
		d.fail(max(line, v.line), path+".limits", "%s.limits is missing or empty; a rule says what it changes", path)
		return
	}
	rule, err := limits.NewRule(image, organization, change)
	if err != nil {
		d.fail(v.line, path, "%s: %v", path, err)
		return
	}
	d.checkLimits(l, change.Apply(c.Limits), before)
	c.LimitRules = append(c.LimitRules, rule)
}
