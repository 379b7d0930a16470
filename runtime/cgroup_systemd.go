package runtime

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// systemdCaller makes and stops slices. With the systemd cgroup driver the tree
// belongs to systemd: a directory that it does not know of may be removed, and
// limits that it does not know of are reset when it reloads. So the slice is made
// by systemd, with the limits as properties of the unit; the files are written
// too, because systemd rounds CPU quotas and does not know every controller of
// cgroup v1.
type systemdCaller interface {
	// startSlice starts a transient slice, or changes the limits of one that
	// exists. It returns when systemd has made it.
	startSlice(ctx context.Context, name string, r Resources, version int) error
	// stopSlice stops the slice with all units in it. One that does not exist
	// is no error.
	stopSlice(ctx context.Context, name string) error
}

// systemdBus asks the system's systemd over D-Bus. A connection is made for
// each call: there are two in the life of a run.
type systemdBus struct {
	address string // "" is the system bus
}

const (
	systemdName    = "org.freedesktop.systemd1"
	systemdPath    = "/org/freedesktop/systemd1"
	systemdManager = "org.freedesktop.systemd1.Manager"
	systemdTimeout = 30 * time.Second
)

type unitProperty struct {
	Name  string
	Value dbus.Variant
}

// auxiliaryUnit has the form that StartTransientUnit wants; none is ever sent.
type auxiliaryUnit struct {
	Name       string
	Properties []unitProperty
}

// sliceProperties are the limits as systemd.resource-control(5) names them.
func sliceProperties(name string, r Resources, version int) []unitProperty {
	var all []unitProperty
	add := func(name string, value any) {
		all = append(all, unitProperty{name, dbus.MakeVariant(value)})
	}
	add("Description", "v6node run "+strings.TrimSuffix(name, ".slice"))
	add("DefaultDependencies", false)
	add("MemoryAccounting", true)
	add("CPUAccounting", true)
	add("TasksAccounting", true)
	if r.MemoryLimit != 0 {
		if version == 1 {
			add("MemoryLimit", uint64(r.MemoryLimit))
		} else {
			add("MemoryMax", uint64(r.MemoryLimit))
		}
	}
	if r.MemorySwap != 0 && version == 2 {
		swap := uint64(math.MaxUint64) // systemd's infinity
		if r.MemorySwap != NoSwapLimit {
			swap = uint64(r.MemorySwap - r.MemoryLimit)
		}
		add("MemorySwapMax", swap)
	}
	if r.MemoryReservation != 0 && version == 2 {
		add("MemoryLow", uint64(r.MemoryReservation))
	}
	if r.CPUQuota != 0 {
		// Per second, in steps of 10 ms.
		const step = 10_000
		perSecond := (r.CPUQuota*1_000_000/r.CPUPeriod + step - 1) / step * step
		add("CPUQuotaPerSecUSec", uint64(perSecond))
	}
	if r.CPUShares != 0 {
		if version == 1 {
			add("CPUShares", uint64(r.CPUShares))
		} else {
			add("CPUWeight", uint64(cpuWeight(r.CPUShares)))
		}
	}
	if r.PidsLimit != 0 {
		add("TasksMax", uint64(r.PidsLimit))
	}
	if version == 2 && r.CpusetCpus != "" {
		add("AllowedCPUs", cpuMask(r.CpusetCpus))
	}
	if version == 2 && r.CpusetMems != "" {
		add("AllowedMemoryNodes", cpuMask(r.CpusetMems))
	}
	return all
}

// cpuMask is a list as systemd wants it: bit n of byte n/8.
func cpuMask(list string) []byte {
	var mask []byte
	for n := range cpuSet(list) {
		for len(mask) <= n/8 {
			mask = append(mask, 0)
		}
		mask[n/8] |= 1 << (n % 8)
	}
	return mask
}

func (b systemdBus) startSlice(ctx context.Context, name string, r Resources, version int) error {
	return b.do(ctx, func(ctx context.Context, s *systemdSession) error {
		props := sliceProperties(name, r, version)
		err := s.job(ctx, "StartTransientUnit", name, "replace", props, []auxiliaryUnit{})
		if !isDBusError(err, "org.freedesktop.systemd1.UnitExists") {
			return err
		}
		// What only a new unit takes is left out.
		var limits []unitProperty
		for _, p := range props {
			if p.Name != "Description" && p.Name != "DefaultDependencies" {
				limits = append(limits, p)
			}
		}
		return s.manager.CallWithContext(ctx, systemdManager+".SetUnitProperties", 0, name, true, limits).Err
	})
}

func (b systemdBus) stopSlice(ctx context.Context, name string) error {
	return b.do(ctx, func(ctx context.Context, s *systemdSession) error {
		err := s.job(ctx, "StopUnit", name, "replace")
		if isDBusError(err, "org.freedesktop.systemd1.NoSuchUnit") {
			return nil
		}
		return err
	})
}

func isDBusError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// systemdSession is one connection with the signals of ended jobs.
type systemdSession struct {
	manager dbus.BusObject
	ended   chan *dbus.Signal
}

func (b systemdBus) do(ctx context.Context, f func(context.Context, *systemdSession) error) error {
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	var conn *dbus.Conn
	var err error
	if b.address == "" {
		conn, err = dbus.ConnectSystemBus(dbus.WithContext(ctx))
	} else {
		conn, err = dbus.Connect(b.address, dbus.WithContext(ctx))
	}
	if err != nil {
		return fmt.Errorf("no connection to the system's D-Bus: %w", err)
	}
	defer conn.Close()
	s := &systemdSession{
		manager: conn.Object(systemdName, systemdPath),
		ended:   make(chan *dbus.Signal, 64),
	}
	// Before the job is made, so that its end is not missed.
	conn.Signal(s.ended)
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(systemdManager), dbus.WithMatchMember("JobRemoved"))
	if err != nil {
		return err
	}
	if err := s.manager.CallWithContext(ctx, systemdManager+".Subscribe", 0).Err; err != nil {
		return err
	}
	return f(ctx, s)
}

// job calls a method of the manager that makes a job, and waits for its end.
func (s *systemdSession) job(ctx context.Context, method string, args ...any) error {
	var job dbus.ObjectPath
	if err := s.manager.CallWithContext(ctx, systemdManager+"."+method, 0, args...).Store(&job); err != nil {
		return err
	}
	for {
		select {
		case sig, ok := <-s.ended:
			if !ok {
				return errors.New("the connection to D-Bus was lost")
			}
			var id uint32
			var path dbus.ObjectPath
			var unit, result string
			if sig.Name != systemdManager+".JobRemoved" || dbus.Store(sig.Body, &id, &path, &unit, &result) != nil || path != job {
				continue
			}
			if result != "done" {
				return fmt.Errorf("the job %s of %s ended with %q", method, oneLine(unit), oneLine(result))
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
