package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/policy"
	"github.com/v6node/v6node/node/server"
)

// errUnapproved: a run that was to begin needs an approval that it does not have, because its image or the policies
// changed while it waited for room.
var errUnapproved = errors.New("the run needs the approval of this node's administrator")

// decide asks the policies about a run; without a resolved image, whether any could be allowed. An error is not the
// policies' word.
func (n *Node) decide(ctx context.Context, a *activeRun, r *server.Run, resolved image.Resolved) (policy.Decision, error) {
	now := n.settings.Load()
	p := now.policy
	q := n.policyRequest(ctx, r, resolved)
	if p.HasRules() {
		var err error
		if q.Function, err = n.functionFor(ctx, a, r); err != nil {
			return policy.Decision{}, err
		}
	}
	if resolved.Digest == "" {
		return p.Possible(q), nil
	}
	d := p.Check(q)
	if !d.Allowed || now.signing == nil {
		return d, nil
	}
	return n.signed(ctx, resolved, now.signing, d)
}

// signed refuses an allowed run whose image is not signed. A SIF image is looked at when it is provided, if at all.
func (n *Node) signed(ctx context.Context, resolved image.Resolved, keys *image.SigningKeys, d policy.Decision) (policy.Decision, error) {
	ref, err := imageref.Parse(resolved.Pinned)
	if err != nil {
		return d, err
	}
	if ref.Scheme != imageref.Container {
		if n.cfg.SIF.RequireSignature {
			return d, nil
		}
		return policy.Decision{Reason: "This node runs only signed images (policies.signatures), and does not look at signatures of SIF images: sif.require_signature does."}, nil
	}
	source, ok := n.resolver.(image.Signatures)
	if !ok {
		return policy.Decision{}, errors.New("signatures are wanted and nothing here can look at them: report this as a defect")
	}
	signer, err := source.Signed(ctx, resolved, keys)
	switch {
	case errors.Is(err, image.ErrSignature):
		return policy.Decision{Reason: upperFirst(err.Error()) + "."}, nil
	case err != nil:
		return policy.Decision{}, err
	}
	d.Reason += " The image is signed with " + signer + "."
	return d, nil
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// approval refuses at once what no digest could make allowed, and waits for the administrator's word on a run, if a
// policy wants it. The word is about the run with the
// image that its reference means now: for another image it is asked for anew. A restart of the node does not end
// the wait.
func (n *Node) approval(ctx context.Context, a *activeRun, rec *ledger.Record, r *server.Run) error {
	defer a.held.Store(false)
	for {
		d, err := n.decide(ctx, a, r, image.Resolved{})
		if err != nil || d.Allowed && !d.Manual && !d.Perhaps {
			return err
		}
		var resolved image.Resolved
		if d.Allowed {
			if resolved, err = n.resolver.Resolve(ctx, r.Image); err != nil {
				return err
			}
			if d, err = n.decide(ctx, a, r, resolved); err != nil || d.Allowed && !d.Manual {
				return err
			}
		}
		if !d.Allowed {
			return n.refused(a, rec, resolved.Pinned, d)
		}
		now, err := n.askApproval(ctx, a, r, resolved, d)
		if err != nil {
			return err
		}
		switch word := now.Approval; word.Answer {
		case ledger.Approved:
			return nil
		case ledger.Denied:
			d := policy.Decision{Reason: "The administrator of this node has denied this run."}
			if word.Words != "" {
				d.Reason = "The administrator of this node has denied this run: " + word.Words
			}
			return n.refused(a, now, resolved.Pinned, d)
		}
		if !a.held.Swap(true) {
			n.log.InfoContext(ctx, "a run waits for approval: v6node approve or v6node deny", "run", a.id, "image", resolved.Pinned, "why", d.Reason)
			n.tell(admin.EventHeld, now, d.Reason)
		}
		a.arrived() // those that came with it go on
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.word:
		}
	}
}

// askApproval writes down that the administrator's word is wanted, unless it is already for this image and function:
// the server may hand out another input than it did before the node was restarted.
func (n *Node) askApproval(ctx context.Context, a *activeRun, r *server.Run, resolved image.Resolved, d policy.Decision) (*ledger.Record, error) {
	function, err := n.functionFor(ctx, a, r)
	if err != nil {
		return nil, err
	}
	now, err := n.ledger.Update(a.id, func(l *ledger.Record) error {
		if !approvalFor(l, resolved) || l.Function != function {
			l.Approval = &ledger.Approval{AskedAt: time.Now().UTC(), Pinned: resolved.Pinned, File: resolved.File}
		}
		l.Approval.Why, l.Function = d.Reason, function
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("write down that the run waits for approval: %w", err)
	}
	return now, nil
}

// approvalFor tells whether the record's approval, asked for or given, is about an image.
func approvalFor(rec *ledger.Record, resolved image.Resolved) bool {
	return rec.Approval != nil && rec.Approval.Pinned == resolved.Pinned && rec.Approval.File == resolved.File
}

// approved holds a decision that wants an approval against the run's record.
func (n *Node) approved(id int64, resolved image.Resolved, d policy.Decision) (policy.Decision, error) {
	if !d.Manual {
		return d, nil
	}
	rec, err := n.ledger.Get(id)
	if err != nil {
		return d, err
	}
	if !approvalFor(rec, resolved) || rec.Approval.Answer != ledger.Approved {
		return d, errUnapproved
	}
	d.Reason = fmt.Sprintf("Approved by %s at %s. %s", rec.Approval.By, rec.Approval.AnsweredAt.Format(time.RFC3339), d.Reason)
	return d, nil
}

// Approve implements admin.Station.
func (s *adminView) Approve(ctx context.Context, id int64) error {
	return s.answer(ctx, id, ledger.Approved, "")
}

// Deny implements admin.Station.
func (s *adminView) Deny(ctx context.Context, id int64, words string) error {
	return s.answer(ctx, id, ledger.Denied, words)
}

// answer puts the administrator's word on record, and only then in force.
func (s *adminView) answer(ctx context.Context, id int64, answer ledger.Answer, words string) error {
	s.answering.Lock()
	defer s.answering.Unlock()
	rec, err := s.record(id)
	if err != nil {
		return err
	}
	a := s.activeRun(id)
	if a == nil || !waitsForApproval(rec) {
		return admin.Problemf(admin.ErrState, "run %d does not wait for approval: it is %s", id, s.state(rec))
	}
	event, kind := audit.Approved, admin.EventApproved
	if answer == ledger.Denied {
		event, kind = audit.Denied, admin.EventDenied
	}
	e := entryOf(event, rec)
	e.Pinned, e.Actor, e.Reason = rec.Approval.Pinned, actorOf(ctx), words
	if words == "" {
		e.Reason = rec.Approval.Why
	}
	if err := s.audit.Append(e); err != nil {
		return fmt.Errorf("run %d waits on, because the word on it cannot be put on record: %w", id, err)
	}
	asked := rec.Approval.AskedAt
	rec, err = s.ledger.Update(id, func(l *ledger.Record) error {
		if !waitsForApproval(l) || !l.Approval.AskedAt.Equal(asked) {
			return admin.Problemf(admin.ErrState, "the image of run %d has changed just now: look at it again", id)
		}
		l.Approval.Answer, l.Approval.By, l.Approval.Words, l.Approval.AnsweredAt = answer, e.Actor, words, time.Now().UTC()
		return nil
	})
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "the administrator's word on a run", "run", id, "answer", string(answer), "by", e.Actor)
	s.tell(kind, rec, strings.TrimSuffix("by "+e.Actor+": "+words, ": "))
	a.look()
	return nil
}

// waitsForApproval tells whether a record is that of a run on which the administrator's word is wanted.
func waitsForApproval(rec *ledger.Record) bool {
	return rec.State == ledger.Received && rec.Approval != nil && rec.Approval.Answer == ""
}

// look makes a run that waits for approval look again whether it has to.
func (a *activeRun) look() {
	select {
	case a.word <- struct{}{}:
	default: // it is about to look
	}
}

// shownApproval is a record's approval for the administrator.
func shownApproval(rec *ledger.Record) *admin.Approval {
	w := rec.Approval
	if w == nil {
		return nil
	}
	return &admin.Approval{
		Reason: w.Why, Function: rec.Function, Databases: rec.Databases, Pinned: w.Pinned, AskedAt: w.AskedAt, Answer: string(w.Answer), By: w.By, Words: w.Words, AnsweredAt: w.AnsweredAt,
	}
}

// heldRuns are the runs that wait for approval, the oldest first.
func (s *adminView) heldRuns() ([]admin.Waiting, error) {
	var out []admin.Waiting
	for _, a := range s.activeRuns() {
		if !a.held.Load() {
			continue
		}
		rec, err := s.ledger.Get(a.id)
		if err != nil {
			return nil, err
		}
		if !waitsForApproval(rec) {
			continue // it was answered just now
		}
		out = append(out, admin.Waiting{
			Run: rec.RunID, Task: rec.TaskID, Image: rec.Image, Organization: rec.InitOrganizationID, OrganizationName: s.organization(rec.InitOrganizationID),
			Since: rec.Approval.AskedAt, Reason: "waits for v6node approve or deny: " + rec.Approval.Why,
		})
	}
	slices.SortFunc(out, func(a, b admin.Waiting) int { return int(a.Run - b.Run) })
	return out, nil
}

// actorOf is the administrator who asks.
func actorOf(ctx context.Context) string {
	if peer, ok := admin.PeerFrom(ctx); ok {
		return actor(peer.UID)
	}
	return "the node itself"
}
