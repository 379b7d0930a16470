package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/ledger"
)

// staleAfter is how old a file of the proxies' spool must be to be a crash's
// remains: a proxy takes the name away as soon as it has made the file.
const staleAfter = time.Hour

// remains lists what is left of runs that are over, or that the ledger does not
// know: files, sandboxes.
func (n *Node) remains(ctx context.Context) ([]collect.Thing, error) {
	// Before the ledger, which knows a run before anything of it exists.
	ids, err := n.files.RunIDs()
	if err != nil {
		return nil, fmt.Errorf("list the run directories: %w", err)
	}
	living, err := n.engine.List(ctx)
	if err != nil {
		err = fmt.Errorf("list the sandboxes: %w", err)
	}
	for _, l := range living {
		ids = append(ids, l.RunID)
	}
	slices.Sort(ids)
	var out []collect.Thing
	for _, id := range slices.Compact(ids) {
		ended, over := n.isOver(id)
		if !over {
			continue
		}
		ws := n.files.Open(id)
		size, sizeErr := ws.OutputUse(0)
		err = errors.Join(err, sizeErr)
		out = append(out, collect.Thing{
			Kind: kindRun, Name: fmt.Sprint(id), Size: size, UsedAt: ended,
			Remove: func(ctx context.Context) (bool, error) {
				if _, over := n.isOver(id); !over {
					return false, nil
				}
				return true, errors.Join(n.engine.Remove(ctx, id), ws.Remove())
			},
		})
	}
	return out, err
}

// isOver tells whether nothing of a run may exist any more, and when it ended.
func (n *Node) isOver(id int64) (time.Time, bool) {
	if n.activeRun(id) != nil {
		return time.Time{}, false
	}
	rec, err := n.ledger.Get(id)
	if errors.Is(err, ledger.ErrNotFound) {
		return time.Time{}, true
	}
	if err != nil || rec.State != ledger.Done {
		return time.Time{}, false
	}
	return rec.FinishedAt, true
}

// keptLogs lists the logs of runs that are over.
func (n *Node) keptLogs(context.Context) ([]collect.Thing, error) {
	logs, err := n.files.KeptLogs()
	if err != nil {
		err = fmt.Errorf("list the logs of runs that are over: %w", err)
	}
	var out []collect.Thing
	for _, l := range logs {
		out = append(out, collect.Thing{
			Kind: kindLog, Name: fmt.Sprint(l.RunID), Size: l.Size, UsedAt: l.Since,
			Remove: func(context.Context) (bool, error) { return true, n.files.RemoveLog(l.RunID) },
		})
	}
	return out, err
}

// idleScratch lists the scratch of jobs that have no run in work here.
func (n *Node) idleScratch(context.Context) ([]collect.Thing, error) {
	jobs, err := n.files.Jobs()
	if err != nil {
		return nil, fmt.Errorf("list the scratch directories: %w", err)
	}
	var out []collect.Thing
	for id, changed := range jobs {
		if n.jobActive(id) {
			continue
		}
		size, sizeErr := n.files.Open(0).ScratchUse(id, 0)
		if sizeErr != nil {
			err = errors.Join(err, fmt.Errorf("measure the scratch of job %d: %w", id, sizeErr))
		}
		out = append(out, collect.Thing{
			Kind: kindScratch, Name: fmt.Sprintf("job %d", id), Size: size, UsedAt: changed,
			Remove: func(context.Context) (bool, error) { return n.releaseJob(id, 0, true) },
		})
	}
	return out, err
}

func (n *Node) jobActive(id int64) bool {
	return slices.ContainsFunc(n.activeRuns(), func(a *activeRun) bool { return a.jobID == id })
}

// staleSpool lists files of proxies that a crash has left.
func (n *Node) staleSpool(context.Context) ([]collect.Thing, error) {
	list, err := os.ReadDir(n.spool)
	if err != nil {
		return nil, fmt.Errorf("list the spool directory: %w", err)
	}
	var out []collect.Thing
	for _, f := range list {
		info, err := f.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		path := filepath.Join(n.spool, f.Name())
		out = append(out, collect.Thing{
			Kind: kindSpool, Name: f.Name(), Size: info.Size(), UsedAt: info.ModTime(),
			Remove: func(context.Context) (bool, error) {
				err := os.Remove(path)
				if errors.Is(err, fs.ErrNotExist) {
					return false, nil
				}
				return err == nil, err
			},
		})
	}
	return out, nil
}

// forget removes the records of runs that ended long ago. The last one of an
// image that is still there stays, because it tells whose the image is.
func (c *collection) forget(ctx context.Context, stored []*storedImage) {
	c.beat()
	last := make(map[int64]bool, len(stored))
	for _, s := range stored {
		last[s.run] = true
	}
	for _, i := range c.report.Items { // its images are gone, or would be
		if i.Kind == kindImage && i.Error == "" {
			for _, s := range stored {
				if s.shown == i.Name {
					delete(last, s.run)
				}
			}
		}
	}
	age := c.cfg.GC.RecordAge
	before := c.now.Add(-age)
	var ids []int64
	var newest time.Time
	if err := c.ledger.Each(func(r *ledger.Record) error {
		if at := lastUse(r, c.now); r.State == ledger.Done && at.Before(before) && !last[r.RunID] {
			ids = append(ids, r.RunID)
			if at.After(newest) {
				newest = at
			}
		}
		return nil
	}); err != nil {
		c.problem(ctx, err)
		return
	}
	if len(ids) == 0 {
		return
	}
	item := admin.GCItem{Kind: kindRecord, Name: fmt.Sprintf("of %d runs", len(ids)), UsedAt: newest, Reason: fmt.Sprintf("ended more than %d days ago", age/(24*time.Hour))}
	if !c.o.DryRun {
		n, err := c.ledger.Forget(ids)
		if err != nil {
			item.Error = err.Error()
			c.log.WarnContext(ctx, "old records could not be removed", "error", err)
		} else {
			c.log.InfoContext(ctx, "collected", "kind", kindRecord, "records", n, "why", item.Reason)
			c.tell(admin.EventGC, nil, fmt.Sprintf("records %s: %s", item.Name, item.Reason))
		}
		for range n {
			c.metrics.Collected(kindRecord, 0)
		}
	}
	c.report.Items = append(c.report.Items, item)
}
