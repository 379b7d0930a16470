package boot

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/health"
	"github.com/v6node/v6node/node/metrics"
)

const (
	// lookEvery is between two looks at the node's state, lookEarly while it
	// is not ready for the first time.
	lookEvery = 5 * time.Second
	lookEarly = 250 * time.Millisecond
	// extension is how much longer a start may take, from now on, that waits
	// for server or runtime and whose loops are well.
	extension = time.Minute
)

// manager tells systemd how the node is (sd_notify(3)).
type manager struct {
	monitor  *health.Monitor
	source   metrics.Source
	winding  func() int    // runs that are waited for while the node stops
	watchdog time.Duration // between two signs of life; 0 for none
	log      *slog.Logger

	ready bool   // READY=1 was sent
	told  string // the status that was sent
	stuck bool   // the watchdog is not fed any more
	mute  bool   // a message could not be sent
}

// systemd returns nil where no service manager wants to be told.
func systemd(m *health.Monitor, source metrics.Source, winding func() int, log *slog.Logger) *manager {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not served", "error", err)
	}
	return &manager{monitor: m, source: source, winding: winding, watchdog: interval / 2, log: log}
}

// run tells until ctx ends. The node stops from the end of stopping on.
func (m *manager) run(ctx context.Context, stopping <-chan struct{}) error {
	var feed <-chan time.Time
	if m.watchdog > 0 {
		t := time.NewTicker(m.watchdog)
		defer t.Stop()
		feed = t.C
	}
	look := time.NewTimer(0)
	defer look.Stop()
	ending := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-stopping:
			m.send("STOPPING=1\nSTATUS=Stopping")
			stopping, ending = nil, true
			look.Reset(lookEarly) // when it is known what is waited for
		case <-feed:
			m.feed()
		case <-look.C:
			if ending {
				m.extend()
				look.Reset(lookEvery)
				continue
			}
			m.look(ctx)
			if m.ready {
				look.Reset(lookEvery)
			} else {
				look.Reset(lookEarly)
			}
		}
	}
}

// extend asks for more time to stop in as long as runs are waited for.
func (m *manager) extend() {
	if left := m.winding(); left > 0 {
		m.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=Stopping when %d runs are over", extension.Microseconds(), left))
	}
}

// feed gives a sign of life, unless a loop is stuck: then a restart is wanted.
func (m *manager) feed() {
	alive := m.monitor.Alive()
	if alive.OK {
		m.stuck = false
		m.send(daemon.SdNotifyWatchdog)
		return
	}
	if !m.stuck {
		m.log.Error("a loop of the node is stuck, so the service manager's watchdog is no longer told that all is well", "loops", alive.String())
	}
	m.stuck = true
}

// look tells what has changed. A node that is paused has started all the same.
func (m *manager) look(ctx context.Context) {
	rep := m.monitor.Ready(ctx)
	status := "STATUS="
	if rep.OK {
		runs := m.source.Measure(ctx).Runs
		status += fmt.Sprintf("Ready: %d running, %d queued", runs[string(admin.Running)], runs[string(admin.Queued)])
	} else {
		status += "Not ready: " + rep.String()
	}
	switch started := rep.Without(node.ConditionPaused).OK; {
	case started && !m.ready:
		m.ready = true
		m.send(daemon.SdNotifyReady + "\n" + status)
	case m.ready && status != m.told:
		m.send(status)
	case !m.ready && m.monitor.Alive().OK:
		m.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\n%s", extension.Microseconds(), status))
	}
	m.told = status
}

func (m *manager) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		if !m.mute {
			m.log.Warn("the service manager cannot be told how the node is", "error", err)
		}
		m.mute = true
		return
	}
	m.mute = false
}
