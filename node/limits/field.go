package limits

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/v6node/v6node/internal/units"
)

// Form is how a limit is written.
type Form int

// The forms.
const (
	Size     Form = iota // 512m
	Number               // 1.5
	Integer              // -5
	Text                 // 0-3,8
	Duration             // 1h30m
	List                 // a list of texts
)

// Field is one limit as an administrator knows it.
type Field struct {
	Key   string // in the configuration: "memory_swap"
	Flag  string // on the command line, Podman's name where it has one: "memory-swap"
	Alias string // short flag, or ""
	Usage string // for the flag; the value's name stands in backquotes
	Form  Form

	parse func(l *Limits, values []string) error
	copy  func(to, from *Limits)
	texts func(l *Limits) []string
}

// Texts are the limit's values in l as a configuration has them, so that Set reads
// them again. None is a list without entries, or a limit that l leaves to others.
func (f *Field) Texts(l Limits) []string { return f.texts(&l) }

// MaxTimeout is the longest that can be asked for.
const MaxTimeout = 366 * 24 * time.Hour

// MinLog is the smallest size of a log, in bytes.
const MinLog = 1 << 20

// Bounds of values.
const (
	minMemory = 6 << 20 // below this no runtime starts a container
	maxPids   = 1 << 22
	minTmpfs  = 4 << 10
	maxList   = 64

	maxCrashRetries = 10
)

var fields = []*Field{
	size("memory", "m", "limit memory to `SIZE` (512m, 2g); 0 is no limit", minMemory, func(l *Limits) *int64 { return &l.Memory }),
	swap(),
	size("memory_reservation", "", "reclaim the run's memory down to `SIZE` when the machine runs short", minMemory, func(l *Limits) *int64 { return &l.MemoryReservation }),
	{
		Key: "cpus", Flag: "cpus", Usage: "limit the run to `NUMBER` CPUs' worth of time (1.5); 0 is no limit", Form: Number,
		parse: func(l *Limits, v []string) error {
			n, err := strconv.ParseFloat(v[0], 64)
			if err != nil || n != 0 && !(n >= 0.01 && n <= 4096) {
				return fmt.Errorf("it must be a number from 0.01 to 4096, such as 1.5, or 0 for no limit, not %q", units.Clip(v[0]))
			}
			l.CPUs = n
			return nil
		},
		copy:  func(to, from *Limits) { to.CPUs = from.CPUs },
		texts: func(l *Limits) []string { return []string{strconv.FormatFloat(l.CPUs, 'f', -1, 64)} },
	},
	integer("cpu_shares", "cpu-shares", "weigh the run with `NUMBER` against others when CPUs are short (1024 is usual)", 2, 262144, 0, func(l *Limits) *int64 { return &l.CPUShares }),
	list("cpuset_cpus", "cpuset-cpus", "run on these `CPUS` only (0-3,8)", func(l *Limits) *string { return &l.CpusetCpus }),
	list("cpuset_mems", "cpuset-mems", "use memory of these `NODES` only (0,1)", func(l *Limits) *string { return &l.CpusetMems }),
	integer("pids", "pids-limit", "limit the run to `NUMBER` processes and threads; 0 or -1 is no limit", 1, maxPids, Unlimited, func(l *Limits) *int64 { return &l.Pids }),
	size("shm_size", "", "make /dev/shm of `SIZE`; 0 leaves it to the runtime (64m)", minTmpfs, func(l *Limits) *int64 { return &l.ShmSize }),
	{
		Key: "ulimits", Flag: "ulimit", Usage: "set a ulimit of the algorithm's processes, `NAME=SOFT[:HARD]` (nofile=1024:4096); may be repeated", Form: List,
		parse: func(l *Limits, v []string) error {
			l.Ulimits = nil
			for _, text := range v {
				u, err := ParseUlimit(text)
				if err != nil {
					return err
				}
				if slices.ContainsFunc(l.Ulimits, func(o Ulimit) bool { return o.Name == u.Name }) {
					return fmt.Errorf("%s is given twice", u.Name)
				}
				l.Ulimits = append(l.Ulimits, u)
			}
			slices.SortFunc(l.Ulimits, func(a, b Ulimit) int { return cmp.Compare(a.Name, b.Name) })
			return nil
		},
		copy:  func(to, from *Limits) { to.Ulimits = slices.Clone(from.Ulimits) },
		texts: func(l *Limits) []string { return texts(l.Ulimits) },
	},
	size("tmpfs_size", "", "make the in-memory /tmp of `SIZE`", minTmpfs, func(l *Limits) *int64 { return &l.TmpfsSize }),
	{
		Key: "devices", Flag: "device", Usage: "give the run a CDI `DEVICE`: vendor.com/gpu=0, vendor.com/gpu=all, or vendor.com/gpu:2 for any two free ones; may be repeated", Form: List,
		parse: func(l *Limits, v []string) error {
			l.Devices = nil
			for _, text := range v {
				d, err := ParseDevice(text)
				if err != nil {
					return err
				}
				l.Devices = append(l.Devices, d)
			}
			return nil
		},
		copy:  func(to, from *Limits) { to.Devices = slices.Clone(from.Devices) },
		texts: func(l *Limits) []string { return texts(l.Devices) },
	},
	{
		Key: "oom_score_adj", Flag: "oom-score-adj", Usage: "adjust by `NUMBER` (-1000 to 1000) how likely the kernel kills the run when the machine is out of memory", Form: Integer,
		parse: func(l *Limits, v []string) error {
			n, err := strconv.ParseInt(v[0], 10, 64)
			if err != nil || n < -1000 || n > 1000 {
				return fmt.Errorf("it must be a whole number from -1000 to 1000, not %q", units.Clip(v[0]))
			}
			l.OOMScoreAdj = &n
			return nil
		},
		copy: func(to, from *Limits) { to.OOMScoreAdj = from.OOMScoreAdj },
		texts: func(l *Limits) []string {
			if l.OOMScoreAdj == nil {
				return nil
			}
			return []string{strconv.FormatInt(*l.OOMScoreAdj, 10)}
		},
	},
	size("input_size", "", "take inputs up to `SIZE`; 0 is no limit", 1, func(l *Limits) *int64 { return &l.InputSize }),
	size("output_size", "", "deliver results up to `SIZE`; 0 is no limit", 1, func(l *Limits) *int64 { return &l.OutputSize }),
	size("scratch_size", "", "limit /mnt/tmp of a job to `SIZE`; 0 is no limit", minTmpfs, func(l *Limits) *int64 { return &l.ScratchSize }),
	size("log_size", "", "keep `SIZE` of a run's log on the disk, its beginning and its end; 0 is no limit", MinLog, func(l *Limits) *int64 { return &l.LogSize }),
	{
		Key: "timeout", Flag: "timeout", Usage: "stop the algorithm after `DURATION` (90s, 12h; a number alone is seconds); 0 is no limit", Form: Duration,
		parse: func(l *Limits, v []string) error {
			d, err := units.ParseDuration(v[0])
			if err == nil && d != 0 && (d < time.Second || d > MaxTimeout) {
				err = fmt.Errorf("%s is outside 1s to %v", units.Clip(v[0]), MaxTimeout)
			}
			if err == nil {
				l.Timeout = d
			}
			return err
		},
		copy:  func(to, from *Limits) { to.Timeout = from.Timeout },
		texts: func(l *Limits) []string { return []string{units.Duration(l.Timeout)} },
	},
	integer("crash_retries", "crash-retries", "run an algorithm that crashed again, `NUMBER` times at most; 0 is never", 1, maxCrashRetries, 0, func(l *Limits) *int64 { return &l.CrashRetries }),
}

// Fields returns every limit, in the order of the manual.
func Fields() []*Field { return slices.Clone(fields) }

func flagOf(key string) string {
	out := []byte(key)
	for i, c := range out {
		if c == '_' {
			out[i] = '-'
		}
	}
	return string(out)
}

func size(key, alias, usage string, low int64, at func(*Limits) *int64) *Field {
	return &Field{
		Key: key, Flag: flagOf(key), Alias: alias, Usage: usage, Form: Size,
		parse: func(l *Limits, v []string) error {
			n, err := units.ParseSize(v[0])
			if err == nil && n != 0 && n < low {
				err = fmt.Errorf("%s is less than the smallest that works, %s", units.Clip(v[0]), units.FormatSize(low))
			}
			if err == nil {
				*at(l) = n
			}
			return err
		},
		copy:  func(to, from *Limits) { *at(to) = *at(from) },
		texts: func(l *Limits) []string { return []string{units.Size(*at(l))} },
	}
}

func swap() *Field {
	f := size("memory_swap", "", "limit memory and swap together to `SIZE`; -1 is unlimited swap", minMemory, func(l *Limits) *int64 { return &l.MemorySwap })
	sized := f.parse
	f.parse = func(l *Limits, v []string) error {
		if v[0] == "-1" {
			l.MemorySwap = Unlimited
			return nil
		}
		return sized(l, v)
	}
	return f
}

// integer reads a whole number from low to high, or 0 and none for no limit.
func integer(key, flag, usage string, low, high, none int64, at func(*Limits) *int64) *Field {
	return &Field{
		Key: key, Flag: flag, Usage: usage, Form: Integer,
		parse: func(l *Limits, v []string) error {
			n, err := strconv.ParseInt(v[0], 10, 64)
			if err == nil && (n == 0 || n == none) {
				*at(l) = 0
				return nil
			}
			if err != nil || n < low || n > high {
				return fmt.Errorf("it must be a whole number from %d to %d, or 0 for no limit, not %q", low, high, units.Clip(v[0]))
			}
			*at(l) = n
			return nil
		},
		copy:  func(to, from *Limits) { *at(to) = *at(from) },
		texts: func(l *Limits) []string { return []string{strconv.FormatInt(*at(l), 10)} },
	}
}

func list(key, flag, usage string, at func(*Limits) *string) *Field {
	return &Field{
		Key: key, Flag: flag, Usage: usage, Form: Text,
		parse: func(l *Limits, v []string) error {
			if v[0] != "" {
				if _, err := units.ParseList(v[0]); err != nil {
					return err
				}
			}
			*at(l) = v[0]
			return nil
		},
		copy:  func(to, from *Limits) { *at(to) = *at(from) },
		texts: func(l *Limits) []string { return []string{*at(l)} },
	}
}

func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.String())
	}
	return out
}

// Change sets some limits and leaves the others as they are. The zero value
// changes nothing.
type Change struct {
	values Limits
	given  []*Field
}

// Set reads one limit. A field of the form List takes any number of values, none
// of which means an empty list; others take one.
func (c *Change) Set(f *Field, values ...string) error {
	if f.Form != List && len(values) != 1 {
		return fmt.Errorf("it must be one value")
	}
	if len(values) > maxList {
		return fmt.Errorf("it has %d entries, more than %d", len(values), maxList)
	}
	if err := f.parse(&c.values, values); err != nil {
		return err
	}
	if !slices.Contains(c.given, f) {
		c.given = append(c.given, f)
	}
	return nil
}

// Empty reports whether nothing is changed.
func (c Change) Empty() bool { return len(c.given) == 0 }

// Sets reports whether a limit is changed.
func (c Change) Sets(key string) bool {
	return slices.ContainsFunc(c.given, func(f *Field) bool { return f.Key == key })
}

// Apply returns l with the change.
func (c Change) Apply(l Limits) Limits {
	for _, f := range c.given {
		f.copy(&l, &c.values)
	}
	return l
}
