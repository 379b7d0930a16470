package node

import (
	"context"
	"fmt"
	"log/slog"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/policy"
)

// openAudit opens the record of what this node does. Damage that it finds there
// is said, and is no reason not to record what comes.
func openAudit(o Options) (*audit.Log, error) {
	l, damage, err := audit.Open(filepath.Join(o.State.Dir, audit.DirName), audit.Options{Node: o.State.Instance})
	sayDamage(o.Log, damage)
	return l, err
}

func sayDamage(log *slog.Logger, damage error) {
	if damage != nil {
		log.Error("the audit log is not what this node wrote: find out who changed it; `v6node audit verify` names the place", "error", damage)
	}
}

// examineAudit reads the whole audit log once, when the living runs have their
// proxies back.
func (n *Node) examineAudit(ctx context.Context) error {
	select {
	case <-n.served:
	case <-ctx.Done():
		return nil
	}
	damage, err := n.audit.Examine(ctx)
	sayDamage(n.log, damage)
	if err != nil && ctx.Err() == nil {
		n.log.WarnContext(ctx, "the audit log could not be read to its end; `v6node audit verify` reads it", "error", err)
	}
	return nil
}

// auditNode records the node's own start or end, and names the chain's head in
// the node's log: what is kept elsewhere exposes a chain that was made anew.
func (n *Node) auditNode(ctx context.Context, event audit.Event) error {
	err := n.audit.Append(audit.Entry{Event: event, Reason: "v6node " + n.version})
	n.log.InfoContext(ctx, "audit log", "event", string(event), "head", n.audit.Head().String())
	return err
}

// entryOf is an entry about a run.
func entryOf(event audit.Event, rec *ledger.Record) audit.Entry {
	return audit.Entry{
		Event: event, Run: rec.RunID, Task: rec.TaskID, Parent: rec.ParentID, Collaboration: rec.CollaborationID,
		Organization: rec.InitOrganizationID, User: rec.InitUserID, Image: rec.Image, Pinned: rec.Pinned,
		Function: rec.Function, Databases: rec.Databases,
	}
}

// auditDecision records what the policy says of a run. Without the record
// nothing may come of the decision.
func (n *Node) auditDecision(rec *ledger.Record, pinned string, d policy.Decision) error {
	e := entryOf(audit.Decided, rec)
	e.Pinned, e.Allowed, e.Reason = pinned, &d.Allowed, d.Reason
	return n.audit.Append(e)
}

// auditEnd records a run's outcome. A result is not sent before that is on
// record, so it is tried until it succeeds or ctx ends; that there is no result
// is told to the server in any case.
func (n *Node) auditEnd(ctx context.Context, rec *ledger.Record) error {
	e := entryOf(audit.Ended, rec)
	e.StartedAt, e.FinishedAt, e.Status, e.Outcome, e.Reason = rec.StartedAt, rec.FinishedAt, rec.Status, rec.Reason, rec.Message
	if !rec.StartedAt.IsZero() {
		e.ExitCode = &rec.ExitCode
	}
	e.BytesOut = n.resultSize(rec)
	e.Connections = recorded(rec.Connections)
	return n.untilWritten(ctx, rec.RunID, "the end of a run could not be put on record, and its result is not sent before it is", func() error {
		err := n.audit.Append(e)
		if err != nil && !rec.HasOutput {
			n.log.ErrorContext(ctx, "the end of a run could not be put on record", "run", rec.RunID, "error", err)
			return nil
		}
		return err
	})
}

// resultSize is that of a run's result in bytes, nil where it has none to deliver.
func (n *Node) resultSize(rec *ledger.Record) *int64 {
	if !rec.HasOutput {
		return nil
	}
	f, size, err := n.files.Open(rec.RunID).Output()
	if err != nil {
		return nil
	}
	_ = f.Close() // only its size was asked for
	return &size
}

// auditDelivery records that the server has a run's outcome.
func (n *Node) auditDelivery(ctx context.Context, rec *ledger.Record) {
	if now, err := n.ledger.Get(rec.RunID); err == nil {
		rec = now // the server may have refused the result
	}
	e := entryOf(audit.Delivered, rec)
	e.Status, e.BytesOut = rec.Status, n.resultSize(rec)
	if err := n.audit.Append(e); err != nil {
		n.log.ErrorContext(ctx, "a delivery could not be put on record", "run", rec.RunID, "error", err)
	}
}

// Steered records an administrator's command. The command holds all the same:
// a run must be killed also when the disk is full.
func (n *Node) Steered(ctx context.Context, peer admin.Peer, command string, what []any, err error) {
	if command == "reload" || err == nil && (command == "approve" || command == "deny") {
		return // these put themselves on record, before they take effect
	}
	run := &ledger.Record{}
	reason := command
	for i := 0; i+1 < len(what); i += 2 {
		if id, ok := what[i+1].(int64); ok && what[i] == "run" {
			run.RunID = id
			continue
		}
		reason += fmt.Sprintf(" %v=%v", what[i], what[i+1])
	}
	if err != nil {
		reason += ": refused: " + err.Error()
	}
	if rec, err := n.ledger.Get(run.RunID); err == nil {
		run = rec
	}
	e := entryOf(audit.Steered, run)
	e.Actor, e.Reason = actor(peer.UID), reason
	if err := n.audit.Append(e); err != nil {
		n.log.ErrorContext(ctx, "an administrator's command could not be put on record", "command", command, "error", err)
	}
}

func actor(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username + " (" + id + ")"
	}
	return id
}
