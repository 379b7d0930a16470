package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/config"
)

// Reload implements admin.Station.
func (s *adminView) Reload(ctx context.Context) (*admin.Change, error) {
	return s.Node.Reload(ctx, actorOf(ctx))
}

// Reload reads the configuration again, and applies policies, databases and limits. Runs that were begun keep what
// was decided for them; those that wait are decided on with what holds when they begin, within the limits with which
// they came. It is all or nothing, and on record with who asked for it.
func (n *Node) Reload(ctx context.Context, who string) (*admin.Change, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	change, next, err := n.reread()
	e := audit.Entry{Event: audit.Reloaded, Actor: who}
	if err != nil {
		err = admin.Problemf(admin.ErrInvalid, "the configuration was not applied and nothing has changed: %s", firstOf(err))
		e.Reason = "refused: " + err.Error()
		n.log.ErrorContext(ctx, err.Error(), "by", who)
		return nil, errors.Join(err, n.audit.Append(e))
	}
	e.Reason = "applied: " + listed(change.Applied)
	if len(change.Restart) > 0 {
		e.Reason += "; only a restart applies: " + listed(change.Restart)
	}
	if err := n.audit.Append(e); err != nil {
		return nil, fmt.Errorf("nothing has changed, because the new configuration cannot be put on record: %w", err)
	}
	n.settings.Store(next)
	if n.applied != nil {
		n.applied(next.config)
	}
	n.log.InfoContext(ctx, "the configuration was read again", "by", who, "applied", listed(change.Applied))
	for _, w := range change.Warnings {
		n.log.WarnContext(ctx, w)
	}
	if len(change.Restart) > 0 {
		n.log.WarnContext(ctx, "changes in the configuration that only a restart of the node applies", "keys", listed(change.Restart))
	}
	n.tell(admin.EventReloaded, nil, e.Reason)
	for _, a := range n.activeRuns() {
		a.look()
	}
	if n.session.isTakenOver() && len(change.Applied) > 0 {
		n.announceNode(ctx)
	}
	return change, nil
}

// reread reads the configuration and compares it with what holds.
func (n *Node) reread() (*admin.Change, *settings, error) {
	if n.reload == nil {
		return nil, nil, errors.New("this node was started without a file that it could read again")
	}
	cfg, warnings, err := n.reload()
	if err != nil {
		return nil, nil, err
	}
	next, err := newSettings(cfg)
	if err != nil {
		return nil, nil, err
	}
	change := &admin.Change{Applied: []string{}, Restart: []string{}, Warnings: []string{}}
	for _, key := range config.Differences(n.settings.Load().config, cfg) {
		if slices.Contains(settable, key) {
			change.Applied = append(change.Applied, key)
		}
	}
	for _, key := range config.Differences(n.cfg, cfg) { // n.cfg is what the node was started with
		if !slices.Contains(settable, key) {
			change.Restart = append(change.Restart, key)
		}
	}
	for _, w := range warnings {
		change.Warnings = append(change.Warnings, w.String())
	}
	return change, next, nil
}

// firstOf makes one sentence of an error about a file, which may list many mistakes.
func firstOf(err error) string {
	var all config.Problems
	if errors.As(err, &all) && len(all) > 1 {
		return fmt.Sprintf("%v (and %d more; `v6node check --config` lists all)", all[0], len(all)-1)
	}
	return strings.TrimPrefix(err.Error(), config.ErrInvalid.Error()+": ")
}

func listed(keys []string) string {
	if len(keys) == 0 {
		return "nothing"
	}
	return strings.Join(keys, ", ")
}
