package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/server"
)

const (
	ledgerFile = "ledger.db"
	// rebuildFile marks that the ledger does not know yet what an earlier one
	// knew. It is there before the new ledger is.
	rebuildFile = "ledger.rebuild"
)

// openLedger opens the node's ledger. One that is damaged is set aside and a new
// one begun, which is rebuilt before the node takes any run into work; so is one
// that is missing although the audit log tells of runs.
func openLedger(o Options) (*ledger.Ledger, error) {
	path := filepath.Join(o.State.Dir, ledgerFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		ran, err := ranEver(o.State.Dir)
		if err != nil {
			return nil, err
		}
		if ran {
			o.Log.Error("the ledger is missing, and is rebuilt from the audit log, the runtime and the server: find out who removed it", "ledger", path)
			if err := wantRebuild(o.State.Dir); err != nil {
				return nil, err
			}
		}
	}
	l, err := ledger.Open(path)
	if err == nil && l.Backup() != "" {
		o.Log.Info("the ledger has a new schema; what it was before is kept for an older v6node", "ledger", path, "backup", l.Backup())
	}
	if !errors.Is(err, ledger.ErrDamaged) {
		return l, err
	}
	damage := err
	if err := wantRebuild(o.State.Dir); err != nil {
		return nil, errors.Join(damage, err)
	}
	aside, err := ledger.SetAside(path)
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	o.Log.Error("the ledger was damaged: it is set aside, and rebuilt from the audit log, the runtime and the server; check the disk", "error", damage, "set_aside", aside)
	return ledger.Open(path)
}

// wantRebuild makes the next adopt rebuild the ledger, also after a crash.
func wantRebuild(stateDir string) error {
	if err := os.WriteFile(filepath.Join(stateDir, rebuildFile), nil, 0o600); err != nil {
		return fmt.Errorf("mark that the ledger is to be rebuilt: %w", err)
	}
	return nil
}

// ranEver tells whether the audit log knows of an algorithm that was started.
func ranEver(stateDir string) (bool, error) {
	found := errors.New("found")
	err := eachAudited(stateDir, func(e *audit.Entry) error {
		if e.Event == audit.Started {
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		return true, nil
	}
	return false, err
}

// eachAudited calls fn for the entries of the audit log. Those that cannot be
// read are left out: the log says so itself when it is opened.
func eachAudited(stateDir string, fn func(*audit.Entry) error) error {
	err := audit.Each(filepath.Join(stateDir, audit.DirName), func(l *audit.Line) error {
		e, err := l.Entry()
		if err != nil {
			return nil
		}
		return fn(e)
	})
	if audit.IsDamage(err) {
		return nil
	}
	return err
}

// rebuild writes into a new ledger which of the server's open runs an earlier
// ledger knew: those of which the runtime has a sandbox, and those that the audit
// log says have started. Without it they would be taken for new ones and executed
// a second time. The others are new.
func (n *Node) rebuild(ctx context.Context, living map[int64]engine.Living) error {
	mark := filepath.Join(n.stateDir, rebuildFile)
	if _, err := os.Stat(mark); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	started := make(map[int64]*audit.Entry)
	if err := eachAudited(n.stateDir, func(e *audit.Entry) error {
		if e.Event == audit.Started && e.Node == n.instance {
			started[e.Run] = e
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	var open []*server.Run
	if err := n.persist(ctx, "list the open runs", func() (err error) {
		open, err = n.api.OpenRuns(ctx, 0)
		return err
	}); err != nil {
		return err
	}
	var records []*ledger.Record
	for _, r := range open {
		if r.OrganizationID != n.identity.OrganizationID || r.FinishedAt != nil {
			continue
		}
		if rec := remembered(recordOf(r), living[r.ID], started[r.ID]); rec != nil {
			records = append(records, rec)
		}
	}
	if _, err := n.ledger.InsertNew(records); err != nil {
		return fmt.Errorf("write the rebuilt ledger: %w", err)
	}
	if err := os.Remove(mark); err != nil {
		return fmt.Errorf("take the mark of the rebuilding away: %w", err)
	}
	n.log.WarnContext(ctx, "the ledger is rebuilt", slog.Int("runs", len(records)))
	return nil
}

// remembered completes the record of a run by what is left of it, or returns nil
// where nothing tells that it was ever begun. started is nil where it was not.
func remembered(rec *ledger.Record, l engine.Living, started *audit.Entry) *ledger.Record {
	if started == nil && l.SandboxID == "" {
		return nil
	}
	rec.Attempt, rec.SandboxID, rec.State = l.Attempt, l.SandboxID, ledger.Preparing
	if started == nil && !l.Started {
		return rec
	}
	rec.State, rec.StartedAt = ledger.Starting, time.Now().UTC()
	if started != nil {
		rec.StartedAt, rec.Pinned, rec.Function = started.Time, started.Pinned, started.Function
	}
	// Without a container what ran is gone, and its result with it.
	rec.ContainerID = l.ContainerID
	return rec
}
