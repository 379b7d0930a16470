//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/faultproxy"
	"github.com/v6node/v6node/integration/standin"
)

// TestFaultsOfTheConnection: whatever happens between a node and its server, each
// run ends once, with its own result, and the node goes on without a restart.
func TestFaultsOfTheConnection(t *testing.T) {
	keys, err := faultproxy.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	onRuntime(t, embeddedKind, []scenario{
		{"connections are refused", outage(nil, faultproxy.Fault{Refuse: true}, "connection refused")},
		{"connections are reset", outage(nil, faultproxy.Fault{End: faultproxy.Reset}, "the server cannot be reached")},
		{"connections end in the middle", outage(nil, faultproxy.Fault{End: faultproxy.Close, Up: faultproxy.Never, Down: 40}, "the server cannot be reached")},
		{"a certificate of an unknown authority", outage(keys, faultproxy.Fault{Certificate: faultproxy.Foreign}, "name that authority's certificate in ca_file")},
		{"a certificate that has expired", outage(keys, faultproxy.Fault{Certificate: faultproxy.Expired}, "certificate has expired")},
		{"a certificate for another host", outage(keys, faultproxy.Fault{Certificate: faultproxy.OtherName}, "is not valid for it")},
		{"a name that does not resolve", nameGone},
		{"a connection of 3 kB/s", slowConnection},
		{"connections that are dead and do not know", halfOpen},
		{"a large result whose connection breaks", brokenUpload},
		{"a kill while the connection is gone", killedMeanwhile},
		{"a run that another finished while the connection was gone", finishedMeanwhile},
	})
}

// behind makes a node that reaches the server only through a proxy, by TLS if
// there are keys.
func (w *world) behind(t *testing.T, keys *faultproxy.Keys, o nodeOptions) (*node, *faultproxy.Proxy) {
	t.Helper()
	p, err := faultproxy.New(fmt.Sprintf("127.0.0.1:%d", w.server.Port()), keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Shut) // after the node
	extra := map[string]any{"port": p.Port(), "poll_interval": "1s"}
	if keys != nil {
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, keys.Authority, 0o600); err != nil {
			t.Fatal(err)
		}
		extra["server_url"], extra["ca_file"] = "https://127.0.0.1", file
	}
	maps.Copy(extra, o.Extra)
	o.Extra = extra
	return w.start(t, o), p
}

// says waits for words in the node's log.
func (n *node) says(t *testing.T, words string) {
	t.Helper()
	eventually(t, func() error {
		if !strings.Contains(n.Log(1<<20), words) {
			return fmt.Errorf("the node does not say %q", words)
		}
		return nil
	})
}

// lives checks that the node's process has not ended.
func (n *node) lives(t *testing.T) {
	t.Helper()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if code, err := n.Wait(now); err == nil {
		t.Errorf("the node has ended with exit code %d", code)
	}
}

// breaks disturbs the connection, those that stand too.
func breaks(t *testing.T, p *faultproxy.Proxy, f faultproxy.Fault) {
	t.Helper()
	if err := p.Break(f); err != nil {
		t.Fatal(err)
	}
}

// heals ends all disturbance.
func heals(t *testing.T, p *faultproxy.Proxy) {
	t.Helper()
	if err := p.Set(faultproxy.Fault{}); err != nil {
		t.Fatal(err)
	}
}

// outage is a fault of the connection that passes: a run ends meanwhile, and
// another is posted.
func outage(keys *faultproxy.Keys, f faultproxy.Fault, says string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		n, p := w.behind(t, keys, nodeOptions{})
		n.survives(t, says, func() { breaks(t, p, f) }, func() { heals(t, p) })
	}
}

// survives lets a run end and posts another while the server is away, and checks
// both when it is back.
func (n *node) survives(t *testing.T, says string, away, back func()) {
	t.Helper()
	g := n.hold(t)
	away()
	later, _ := n.post(t, "count", nil)
	g.release(t)
	n.says(t, "the result could not be delivered, trying again")
	n.says(t, says)
	back()
	done := n.well(t, g.task)
	if got := completed[gated](t, done); got.Executed != 1 {
		t.Errorf("the algorithm was executed %d times", got.Executed)
	}
	if got := completed[struct{ Count int }](t, n.well(t, later)); got.Count != 1 {
		t.Errorf("the next algorithm was executed %d times", got.Count)
	}
	if text := done.Text; strings.Count(text, "waiting at the gate") != 1 {
		t.Errorf("the log is not what the algorithm wrote: %q", text)
	}
	// The socket is back as well.
	if err := n.w.server.WaitNode(within(t), n.ID(), true); err != nil {
		t.Error(err)
	}
	n.lives(t)
}

// nameGone: the node has its own view of what a machine knows of names, in a mount
// namespace, so that the test does not touch the machine's.
func nameGone(t *testing.T, w *world) {
	const name = "v6node-server.test"
	dir := t.TempDir()
	hosts, resolver, script := filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "v6node")
	known, unknown := "127.0.0.1 localhost "+name+"\n", "127.0.0.1 localhost\n"
	program := fmt.Sprintf(`#!/bin/sh
exec unshare --mount --propagation slave sh -c 'mount --bind %s /etc/hosts && mount --bind %s /etc/resolv.conf && exec "$@"' sh %s "$@"
`, hosts, resolver, w.programs.V6node)
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(hosts, known, 0o644)
	// Nobody serves names there.
	write(resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 0o644)
	write(script, program, 0o700)
	n, p := w.behind(t, nil, nodeOptions{
		Program: script, Env: []string{"V6NODE_BUNDLE=" + w.programs.Bundle}, Extra: map[string]any{"server_url": "http://" + name},
	})
	n.survives(t, "lookup "+name, func() {
		write(hosts, unknown, 0o644) // the same file, which is what is mounted
		// A process believes for some seconds what it has read there.
		eventually(t, func() error {
			p.Cut()
			if !strings.Contains(n.Log(1<<20), "lookup "+name) {
				return errors.New("the node still knows the name")
			}
			return nil
		})
	}, func() { write(hosts, known, 0o644) })
}

func slowConnection(t *testing.T, w *world) {
	n, p := w.behind(t, nil, nodeOptions{})
	if err := p.Set(faultproxy.Fault{Rate: 3000}); err != nil {
		t.Fatal(err)
	}
	task, _ := n.post(t, "big_output", kwargs{"bytes": 20_000})
	if done := n.well(t, task); len(done.Data) != 20_002 {
		t.Errorf("the result has %d bytes", len(done.Data))
	}
	n.lives(t)
}

// halfOpen: a firewall has forgotten the connections that stand. A request on one
// of them is given up after 90 seconds without a byte, which this takes.
func halfOpen(t *testing.T, w *world) {
	n, p := w.behind(t, nil, nodeOptions{})
	completed[any](t, n.call(t, "noop", nil))
	if err := p.Set(faultproxy.Fault{End: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	heals(t, p) // for others
	task, _ := n.post(t, "count", nil)
	long, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	if _, err := w.server.WaitTask(long, task); err != nil {
		t.Fatal(err)
	}
	if got := completed[struct{ Count int }](t, n.well(t, task)); got.Count != 1 {
		t.Errorf("the algorithm was executed %d times", got.Count)
	}
	n.lives(t)
}

func brokenUpload(t *testing.T, w *world) {
	const size, limit = 12_000_000, 5 << 20
	n, p := w.behind(t, nil, nodeOptions{Sealed: true})
	if err := p.Set(faultproxy.Fault{End: faultproxy.Reset, Up: limit, Down: faultproxy.Never, Times: 2}); err != nil {
		t.Fatal(err)
	}
	task, _ := n.post(t, "big_output", kwargs{"bytes": size})
	done := n.well(t, task)
	if err := p.Wait(within(t), func(s faultproxy.Stats) bool { return s.Ended == 2 }); err != nil {
		t.Error(err)
	}
	if len(done.Data) != size+2 || strings.Trim(string(done.Data), `"0123456789abcdef`) != "" {
		t.Errorf("the result of %d bytes is damaged, or not of %d", len(done.Data), size+2)
	}
	n.lives(t)
}

func killedMeanwhile(t *testing.T, w *world) {
	n, p := w.behind(t, nil, nodeOptions{})
	g := n.hold(t)
	breaks(t, p, faultproxy.Fault{Refuse: true})
	n.kill(t, g.task)
	if list := n.sandboxes(t, g.run); len(list) != 1 || !list[0].Ready {
		t.Fatalf("the node knows of a kill without a connection: %+v", list)
	}
	heals(t, p)
	n.killed(t, g.run, true)
	completed[any](t, n.call(t, "noop", nil))
	n.lives(t)
}

// finishedMeanwhile: the first report that the server takes is the one that counts,
// whoever makes it.
func finishedMeanwhile(t *testing.T, w *world) {
	n, p := w.behind(t, nil, nodeOptions{})
	g := n.hold(t)
	breaks(t, p, faultproxy.Fault{Refuse: true})
	w.ask(t, http.MethodPatch, fmt.Sprintf("/run/%d", g.run), w.server.NodeToken(n.ID()),
		fmt.Appendf(nil, `{"status":"failed","log":"by another hand","finished_at":%q}`, time.Now().UTC().Format("2006-01-02T15:04:05.000000")))
	g.release(t)
	n.says(t, "the result could not be delivered, trying again")
	heals(t, p)
	n.gone(t, g.run)
	n.onceDelivered(t, g.run)
	if rec, _ := w.server.Run(g.run); rec.Status != standin.StatusFailed || rec.Log == nil || *rec.Log != "by another hand" {
		t.Errorf("the run is %q: %v", rec.Status, rec.Log)
	}
	completed[any](t, n.call(t, "noop", nil))
	n.lives(t)
}
