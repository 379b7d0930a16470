package check

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/v6node/v6node/node/cdi"
	"github.com/v6node/v6node/node/limits"
)

// devices looks whether the machine has the CDI devices that the configuration
// gives to runs.
func (o Options) devices(_ context.Context, report func(Result)) error {
	known, err := cdi.Devices(cdi.Dirs()...)
	if err != nil {
		reporter(report).warn("", "correct the files in "+strings.Join(cdi.Dirs(), " and "), "%v", err)
	}
	o.deviceNames(reporter(report), known)
	return nil
}

// deviceNames holds every limit with devices against those that are known.
func (o Options) deviceNames(r reporter, known map[string][]string) {
	const fix = "have the device's vendor make its CDI names (GPUs: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml), or correct the key"
	hold := func(key string, all []limits.Device) {
		for _, d := range all {
			have := known[d.Kind]
			switch {
			case len(have) == 0:
				r.fail(key, fix, "%s: this machine has no %s; it has %s", d, d.Kind, cdiKinds(known))
			case d.Count > 0 && d.Count > len(have), d.Name != "" && d.Name != limits.AllDevices && !slices.Contains(have, d.Name):
				r.fail(key, fix, "%s: of %s this machine has %s", d, d.Kind, strings.Join(have, ", "))
			default:
				r.ok(key, "%s", d)
			}
		}
	}
	hold("limits.devices", o.Config.Limits.Devices)
	for i := range o.Config.LimitRules {
		rule := &o.Config.LimitRules[i]
		hold(rule.Path(i)+".limits.devices", rule.Change.Apply(limits.Limits{}).Devices)
	}
	for _, kind := range slices.Sorted(maps.Keys(o.Config.Budget.Devices)) {
		if n := o.Config.Budget.Devices[kind]; n > int64(len(known[kind])) {
			r.warn("resources.budget.devices", fix, "%s:%d is more than this machine has (%d)", kind, n, len(known[kind]))
		}
	}
}

// usesDevices tells whether any run is given devices.
func (o Options) usesDevices() bool {
	return len(o.Config.Limits.Devices)+len(o.Config.Budget.Devices) > 0 ||
		slices.ContainsFunc(o.Config.LimitRules, func(r limits.Rule) bool { return len(r.Change.Apply(limits.Limits{}).Devices) > 0 })
}

func cdiKinds(known map[string][]string) string {
	if len(known) == 0 {
		return "no CDI devices at all"
	}
	return strings.Join(slices.Sorted(maps.Keys(known)), ", ")
}
