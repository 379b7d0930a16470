package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/runtime"
)

// GC implements admin.Station. Of images only those go that runs of this node
// have used: whatever else a runtime holds belongs to others.
func (s *adminView) GC(ctx context.Context, dryRun bool) (*admin.GCReport, error) {
	report := &admin.GCReport{DryRun: dryRun}
	used, needed, err := s.imagesOfRuns()
	if err != nil {
		return nil, err
	}
	for pinned, last := range used {
		if needed[pinned] {
			continue
		}
		img, err := s.images.Image(ctx, pinned)
		if errors.Is(err, runtime.ErrImageNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for the image %s: %w", pinned, err)
		}
		if img.Pinned {
			continue
		}
		s.discard(report, admin.GCItem{
			Kind: "image", Name: pinned, Size: int64(img.Size), UsedAt: last, Reason: "no run that is open uses it",
		}, func() error { return s.images.RemoveImage(ctx, pinned) })
	}
	jobs, err := s.files.IdleJobs(time.Now())
	if err != nil {
		return nil, fmt.Errorf("list the scratch directories: %w", err)
	}
	for _, id := range jobs {
		if s.jobActive(id) {
			continue
		}
		size, err := s.files.Open(0).ScratchUse(id, 0)
		if err != nil {
			return nil, fmt.Errorf("measure the scratch of job %d: %w", id, err)
		}
		s.discard(report, admin.GCItem{
			Kind: "scratch", Name: fmt.Sprintf("job %d", id), Size: size, Reason: "no run of the job is in work here",
		}, func() error {
			_, err := s.releaseJob(id, 0, true)
			return err
		})
	}
	return report, nil
}

// discard removes an item, unless nothing is to be changed, and reports it.
func (s *adminView) discard(r *admin.GCReport, item admin.GCItem, remove func() error) {
	if !r.DryRun {
		if err := remove(); err != nil {
			item.Error = err.Error()
		} else {
			s.tell(admin.EventGC, nil, item.Kind+" "+item.Name)
			s.metrics.Collected(item.Kind, item.Size)
		}
	}
	if item.Error == "" {
		r.Freed += item.Size
	}
	r.Items = append(r.Items, item)
}

// imagesOfRuns returns the images that runs of this node have had, with the
// time of their last use, and those that open runs need.
func (n *Node) imagesOfRuns() (used map[string]time.Time, needed map[string]bool, err error) {
	used, needed = make(map[string]time.Time), make(map[string]bool)
	err = n.ledger.Each(func(r *ledger.Record) error {
		name := r.ImageAtRuntime()
		if name == "" {
			return nil
		}
		if r.State != ledger.Done {
			needed[name] = true
		}
		if r.FinishedAt.After(used[name]) || used[name].IsZero() {
			used[name] = r.FinishedAt
		}
		return nil
	})
	return used, needed, err
}

func (n *Node) jobActive(id int64) bool {
	for _, a := range n.activeRuns() {
		if a.jobID == id {
			return true
		}
	}
	return false
}
