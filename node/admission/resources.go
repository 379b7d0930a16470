package admission

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// Resources is an amount of what a machine has.
type Resources struct {
	Memory    int64            `json:"memory_bytes"`
	MilliCPUs int64            `json:"milli_cpus"` // thousandths of one CPU
	Pids      int64            `json:"pids"`       // processes and threads
	Devices   map[string]int64 `json:"devices,omitempty"`
}

// MilliCPUs converts a number of CPUs as an administrator writes it.
func MilliCPUs(cpus float64) int64 { return int64(math.Ceil(cpus*1000 - 1e-9)) }

// Budget is what all admitted runs together may ask for. Zero memory, CPUs,
// pids or runs means that this resource is not limited; a device that is not
// named does not exist.
type Budget struct {
	Resources
	Runs int64 `json:"runs"` // admitted at the same time
}

// Validate reports amounts that make no sense.
func (b Budget) Validate() error {
	if b.Runs < 0 || b.Runs > maxRuns {
		return fmt.Errorf("%w: a budget of %d runs is not between 0 (no limit) and %d", ErrInvalid, b.Runs, maxRuns)
	}
	return b.Resources.validate()
}

const (
	// maxAmount bounds every single amount, and maxRuns how many of them are
	// added up, so that no sum overflows.
	maxAmount = 1 << 46 // 64 TiB
	maxRuns   = 1 << 14
	unlimited = math.MaxInt64 / 2
)

func (r Resources) validate() error {
	check := func(name string, n int64) error {
		if n < 0 || n > maxAmount {
			return fmt.Errorf("%w: %s of %d is not between 0 and %d", ErrInvalid, name, n, int64(maxAmount))
		}
		return nil
	}
	for _, a := range []struct {
		name string
		n    int64
	}{{"memory", r.Memory}, {"milli-CPUs", r.MilliCPUs}, {"pids", r.Pids}} {
		if err := check(a.name, a.n); err != nil {
			return err
		}
	}
	for name, n := range r.Devices {
		if err := check("device "+name, n); err != nil {
			return err
		}
	}
	return nil
}

func (r Resources) clone() Resources {
	r.Devices = maps.Clone(r.Devices)
	return r
}

// vector is an amount of each of a budget's resources, in the order of scale.
type vector []int64

// The resources that every budget has. Devices follow, by name.
const (
	dimRuns = iota
	dimMemory
	dimCPUs
	dimPids
	dimDevices
)

// scale is a budget as a vector, with the names of its resources.
type scale struct {
	devices []string
	limit   vector
}

func newScale(b Budget) *scale {
	s := &scale{devices: slices.Sorted(maps.Keys(b.Devices))}
	s.limit = vector{dimRuns: b.Runs, dimMemory: b.Memory, dimCPUs: b.MilliCPUs, dimPids: b.Pids}
	for d, n := range s.limit {
		if n == 0 {
			s.limit[d] = unlimited
		}
	}
	for _, name := range s.devices {
		s.limit = append(s.limit, b.Devices[name])
	}
	return s
}

func (s *scale) zero() vector { return make(vector, len(s.limit)) }

// vector turns resources into a vector for the given number of runs. A device
// that the budget lacks is named instead.
func (s *scale) vector(r Resources, runs int64) (v vector, unknown string) {
	v = s.zero()
	v[dimMemory], v[dimCPUs], v[dimPids], v[dimRuns] = r.Memory, r.MilliCPUs, r.Pids, runs
	for name, n := range r.Devices {
		if n == 0 {
			continue
		}
		i, ok := slices.BinarySearch(s.devices, name)
		if !ok {
			if unknown == "" || name < unknown {
				unknown = name
			}
			continue
		}
		v[dimDevices+i] = n
	}
	return v, unknown
}

// resources is the way back. Resources without a limit are reported as zero
// where v is the limit itself.
func (s *scale) resources(v vector) (Resources, int64) {
	plain := func(n int64) int64 {
		if n >= unlimited {
			return 0
		}
		return n
	}
	r := Resources{Memory: plain(v[dimMemory]), MilliCPUs: plain(v[dimCPUs]), Pids: plain(v[dimPids])}
	for i, name := range s.devices {
		if r.Devices == nil {
			r.Devices = make(map[string]int64, len(s.devices))
		}
		r.Devices[name] = v[dimDevices+i]
	}
	return r, plain(v[dimRuns])
}

// name is what an administrator calls the resource.
func (s *scale) name(dim int) string {
	switch dim {
	case dimMemory:
		return "memory"
	case dimCPUs:
		return "CPUs"
	case dimPids:
		return "pids"
	case dimRuns:
		return "a free run slot"
	}
	return s.devices[dim-dimDevices]
}

// format writes an amount with its unit.
func (s *scale) format(dim int, n int64) string {
	switch dim {
	case dimMemory:
		return formatBytes(n)
	case dimCPUs:
		return strconv.FormatFloat(float64(n)/1000, 'f', -1, 64)
	}
	return strconv.FormatInt(n, 10)
}

// amount writes what a run asks for.
func (s *scale) amount(dim int, n int64) string {
	switch dim {
	case dimRuns:
		return "a run slot"
	case dimCPUs, dimPids:
		return s.format(dim, n) + " " + s.name(dim)
	}
	return s.format(dim, n) + " of " + s.name(dim)
}

func formatBytes(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if n < 1024 && n > -1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n), ""
	for _, unit = range units {
		f /= 1024
		if math.Abs(f) < 1023.95 {
			break
		}
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + unit
}

func (v vector) add(w vector) {
	for d, n := range w {
		v[d] += n
	}
}

// raise makes v at least w in every resource.
func (v vector) raise(w vector) {
	for d, n := range w {
		v[d] = max(v[d], n)
	}
}
