package limits

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/v6node/v6node/internal/units"
)

// Device asks for devices of one CDI kind: one by name, all, or some number of
// which the node picks free ones.
type Device struct {
	Kind  string // "nvidia.com/gpu"
	Name  string // "0"; AllDevices for all; "" when Count counts
	Count int
}

// AllDevices is the name that stands for every device of a kind.
const AllDevices = "all"

// The forms of the Container Device Interface specification, 0.6 and later.
var (
	deviceKind = regexp.MustCompile(`\A[A-Za-z][A-Za-z0-9_.-]{0,62}/[A-Za-z][A-Za-z0-9_.-]{0,62}\z`)
	deviceName = regexp.MustCompile(`\A[A-Za-z0-9]([A-Za-z0-9_.:-]{0,126}[A-Za-z0-9])?\z`)
)

const maxDevices = 1024

// ParseDevice reads "nvidia.com/gpu=0", "nvidia.com/gpu=all" or, for any two
// free ones, "nvidia.com/gpu:2".
func ParseDevice(s string) (Device, error) {
	if strings.HasPrefix(s, "/") {
		return Device{}, fmt.Errorf("%q is a path; devices have CDI names, such as nvidia.com/gpu=0, which the files in /etc/cdi give them", units.Clip(s))
	}
	bad := fmt.Errorf("%q is not a device; write a CDI name such as nvidia.com/gpu=0, nvidia.com/gpu=all for all, or nvidia.com/gpu:2 for any two", units.Clip(s))
	if kind, name, ok := strings.Cut(s, "="); ok {
		if !deviceKind.MatchString(kind) || !deviceName.MatchString(name) {
			return Device{}, bad
		}
		return Device{Kind: kind, Name: name}, nil
	}
	kind, count, ok := strings.Cut(s, ":")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 || n > maxDevices || !deviceKind.MatchString(kind) {
		return Device{}, bad
	}
	return Device{Kind: kind, Count: n}, nil
}

// String is what ParseDevice reads.
func (d Device) String() string {
	if d.Name == "" {
		return fmt.Sprintf("%s:%d", d.Kind, d.Count)
	}
	return d.Kind + "=" + d.Name
}

// MarshalJSON writes a device as String does.
func (d Device) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON is the inverse of MarshalJSON.
func (d *Device) UnmarshalJSON(b []byte) error {
	var s string
	err := json.Unmarshal(b, &s)
	if err == nil {
		*d, err = ParseDevice(s)
	}
	return err
}

// CountDevices counts the devices of each kind, of which known has the names.
func CountDevices(known map[string][]string) map[string]int64 {
	out := make(map[string]int64, len(known))
	for kind, names := range known {
		for _, name := range names {
			if name != AllDevices {
				out[kind]++
			}
		}
	}
	return out
}

// Pick chooses the devices that a run gets, as CDI names. known has the names of
// all devices by kind, in an order of its own; taken tells the CDI names that
// other runs have. A device that is asked for by name, or all of them, may be
// taken: naming it shares it on purpose. A count gets free devices only.
func Pick(ask []Device, known map[string][]string, taken func(cdi string) bool) ([]string, error) {
	var out []string
	mine := map[string]bool{}
	add := func(cdi string) {
		if !mine[cdi] {
			mine[cdi] = true
			out = append(out, cdi)
		}
	}
	for _, d := range ask {
		names := known[d.Kind]
		if len(names) == 0 {
			return nil, fmt.Errorf("this machine has no device of the kind %s (no file in /etc/cdi or /var/run/cdi describes one)", d.Kind)
		}
		if d.Name == "" {
			continue // after those with a name, of which it must not take one
		}
		found := false
		for _, name := range names {
			if name == d.Name {
				found = true
				add(d.Kind + "=" + name)
			}
		}
		if !found && d.Name == AllDevices {
			for _, name := range names {
				add(d.Kind + "=" + name)
			}
		} else if !found {
			return nil, fmt.Errorf("this machine has no device %s; it has %s", d, d.Kind+"="+strings.Join(names, ", "+d.Kind+"="))
		}
	}
	for _, d := range ask {
		if d.Name != "" {
			continue
		}
		left, all := d.Count, 0
		for _, name := range known[d.Kind] {
			if name == AllDevices {
				continue
			}
			all++
			if cdi := d.Kind + "=" + name; left > 0 && !mine[cdi] && !mine[d.Kind+"="+AllDevices] && !taken(cdi) {
				add(cdi)
				left--
			}
		}
		if left > 0 {
			return nil, fmt.Errorf("%d devices of the kind %s are wanted, but of the %d here only %d are free", d.Count, d.Kind, all, d.Count-left)
		}
	}
	return out, nil
}
