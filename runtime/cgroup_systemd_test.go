package runtime

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// fakeSystemd answers on a D-Bus connection of its own as systemd's manager
// does: a job for each unit, and a signal when the job has ended.
type fakeSystemd struct {
	mu     sync.Mutex
	units  map[string]map[string]string // properties as text
	result string                       // of jobs
	job    int
}

func startSystemd(t *testing.T) (*fakeSystemd, systemdBus) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeSystemd{units: map[string]map[string]string{}, result: "done"}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				s.serve(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return s, systemdBus{address: "unix:path=" + path}
}

// unit returns the properties of a unit, nil if there is none.
func (s *fakeSystemd) unit(name string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units[name]
}

func (s *fakeSystemd) answerJobs(result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result = result
}

func (s *fakeSystemd) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	if _, err := r.ReadByte(); err != nil { // the zero byte that carries credentials
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		answer := "ERROR\r\n"
		switch line = strings.TrimSpace(line); {
		case line == "BEGIN":
			s.messages(r, conn)
			return
		case line == "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		case strings.HasPrefix(line, "AUTH EXTERNAL"), strings.HasPrefix(line, "DATA"):
			answer = "OK 00000000000000000000000000000000\r\n"
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}

func (s *fakeSystemd) messages(r *bufio.Reader, conn net.Conn) {
	send := func(m *dbus.Message) error {
		if len(m.Body) > 0 {
			m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
		}
		return m.EncodeTo(conn, binary.LittleEndian)
	}
	for {
		m, err := dbus.DecodeMessage(r)
		if err != nil {
			return
		}
		body, fault, ended := s.answer(m)
		reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(m.Serial()),
		}, Body: body}
		if fault != "" {
			reply.Type, reply.Body = dbus.TypeError, []any{"refused"}
			reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(fault)
		}
		// The signal comes first: the caller must not depend on the order.
		if ended != nil {
			err = send(&dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath:      dbus.MakeVariant(dbus.ObjectPath(systemdPath)),
				dbus.FieldInterface: dbus.MakeVariant(systemdManager),
				dbus.FieldMember:    dbus.MakeVariant("JobRemoved"),
			}, Body: ended})
		}
		if err := errors.Join(err, send(reply)); err != nil {
			return
		}
	}
}

func (s *fakeSystemd) answer(m *dbus.Message) (body []any, fault string, ended []any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	member, _ := m.Headers[dbus.FieldMember].Value().(string)
	end := func(unit string) []any {
		s.job++
		path := dbus.ObjectPath(fmt.Sprint("/org/freedesktop/systemd1/job/", s.job))
		body = []any{path}
		return []any{uint32(s.job), path, unit, s.result}
	}
	switch member {
	case "Hello":
		return []any{":1.1"}, "", nil
	case "StartTransientUnit", "SetUnitProperties":
		unit := m.Body[0].(string)
		props := map[string]string{}
		for _, p := range m.Body[2].([][]any) {
			props[p[0].(string)] = fmt.Sprint(p[1].(dbus.Variant).Value())
		}
		if member == "SetUnitProperties" {
			s.units[unit] = props
			return nil, "", nil
		}
		if s.units[unit] != nil {
			return nil, "org.freedesktop.systemd1.UnitExists", nil
		}
		s.units[unit] = props
		ended = end(unit)
		return body, "", ended
	case "StopUnit":
		unit := m.Body[0].(string)
		if s.units[unit] == nil {
			return nil, "org.freedesktop.systemd1.NoSuchUnit", nil
		}
		delete(s.units, unit)
		ended = end(unit)
		return body, "", ended
	}
	return nil, "", nil
}

func TestASystemdSliceCarriesTheLimits(t *testing.T) {
	s, bus := startSystemd(t)
	r := Resources{MemoryLimit: 1 << 30, MemorySwap: 3 << 29, CPUQuota: 33_333, CPUPeriod: 100_000, PidsLimit: 50, CPUShares: 1024, CpusetCpus: "0,9"}
	const unit = "v6node-1.2.slice"
	if err := bus.startSlice(t.Context(), unit, r, 2); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"MemoryMax": "1073741824", "MemorySwapMax": "536870912", "TasksMax": "50", "CPUWeight": "39",
		"CPUQuotaPerSecUSec": "340000", // rounded up to 10 ms
		"AllowedCPUs":        "[1 2]", "DefaultDependencies": "false",
	} {
		if got := s.unit(unit)[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// Again, as after a restart of the node, with another limit.
	r.PidsLimit = 60
	if err := bus.startSlice(t.Context(), unit, r, 2); err != nil {
		t.Fatal(err)
	}
	if got := s.unit(unit)["TasksMax"]; got != "60" {
		t.Errorf("TasksMax is %q after the second time", got)
	}
	for range 2 {
		if err := bus.stopSlice(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
	}
	if left := s.unit(unit); left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestOnCgroupV1SystemdGetsTheOldNames(t *testing.T) {
	s, bus := startSystemd(t)
	if err := bus.startSlice(t.Context(), "v6node-1.2.slice", Resources{MemoryLimit: 1 << 20, CPUShares: 512}, 1); err != nil {
		t.Fatal(err)
	}
	if p := s.unit("v6node-1.2.slice"); p["MemoryLimit"] != "1048576" || p["CPUShares"] != "512" || p["MemoryMax"] != "" {
		t.Errorf("got %v", p)
	}
}

func TestASliceThatSystemdCannotMakeIsAnError(t *testing.T) {
	s, bus := startSystemd(t)
	s.answerJobs("failed")
	if err := bus.startSlice(t.Context(), "v6node-1.2.slice", Resources{}, 2); err == nil || !strings.Contains(err.Error(), "failed") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := bus.startSlice(ctx, "v6node-1.3.slice", Resources{}, 2); err == nil {
		t.Error("no error although the context had ended")
	}
	nowhere := systemdBus{address: "unix:path=" + filepath.Join(t.TempDir(), "none")}
	h := fakeV2(t, "/v6node.slice/v6node-n.7.slice")
	g := newCgroup(h, Systemd, "n", "7")
	g.call = nowhere
	if err := g.Create(Resources{}); err == nil || !strings.Contains(err.Error(), "D-Bus") {
		t.Errorf("got %v", err)
	}
	g.call = bus
	s.answerJobs("done")
	if err := g.Create(Resources{}); err != nil {
		t.Errorf("got %v", err)
	}
}
