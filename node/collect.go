package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/collect"
)

// Cache keeps what can be made or fetched again. It may be used by several
// collections and runs at the same time.
type Cache interface {
	// Things lists what it keeps. The Remove of each leaves what is in use or was
	// used meanwhile.
	Things() ([]collect.Thing, error)
}

// Kinds of things that are collected.
const (
	kindImage   = "image"
	kindCache   = "cache"
	kindRun     = "run" // what is left of one that is over
	kindScratch = "scratch"
	kindLog     = "log"
	kindSpool   = "spool"
	kindRecord  = "record"
)

var collectedKinds = []string{kindImage, kindCache, kindRun, kindScratch, kindLog, kindSpool, kindRecord}

// smallCache is below what a cached thing is worth more than its room.
const smallCache = 1 << 20

// GC implements admin.Station.
func (s *adminView) GC(ctx context.Context, o admin.GCOptions) (*admin.GCReport, error) {
	if !s.session.isTakenOver() {
		return nil, admin.Problemf(admin.ErrState, "the node has not taken over yet what an earlier start left, so it does not know what is needed: try again when `v6node info` shows that it is connected")
	}
	return s.collect(ctx, o, func() {})
}

// collection is one round of making room, by the node itself or by hand.
type collection struct {
	*Node
	o      admin.GCOptions
	now    time.Time
	report *admin.GCReport
	beat   func()           // called before each step that may take long
	freed  map[uint64]int64 // by file system, where nothing is really freed
	short  []string         // file systems that stay short of room
}

// collect removes what may go, or only says what would. One round at a time. A
// failure ends no round: it is in the report.
func (n *Node) collect(ctx context.Context, o admin.GCOptions, beat func()) (*admin.GCReport, error) {
	select {
	case n.collecting <- struct{}{}:
		defer func() { <-n.collecting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c := &collection{Node: n, o: o, now: time.Now(), report: &admin.GCReport{DryRun: o.DryRun}, beat: beat, freed: make(map[uint64]int64)}
	home, err := n.space(n.stateDir)
	c.problem(ctx, err)

	c.all(ctx, home.Device, c.list(ctx, n.remains))
	c.all(ctx, home.Device, c.list(ctx, n.staleSpool))
	gone, idle := collect.Choose(c.now, c.list(ctx, n.idleScratch), collect.Rules{MaxAge: n.cfg.GC.ScratchAge, All: o.All})
	c.apply(ctx, home.Device, gone)

	// Not by hand: nobody can make them again, and they are bounded.
	gone, logs := collect.Choose(c.now, c.list(ctx, n.keptLogs), collect.Rules{MaxAge: n.cfg.GC.LogAge, MaxSize: n.cfg.GC.LogSize})
	c.apply(ctx, home.Device, gone)

	uses, err := n.imageUses(c.now)
	if err != nil { // then it is not known what is needed
		c.problem(ctx, err)
		return c.end(ctx)
	}
	cached := c.list(ctx, func(context.Context) ([]collect.Thing, error) { return n.cached(uses) })
	gone, cached = collect.Choose(c.now, cached, collect.Rules{MaxAge: n.cfg.GC.Images.MaxAge, All: o.All})
	c.apply(ctx, home.Device, gone)

	stored, storedErr := n.storedImages(ctx, uses, c.now)
	c.problem(ctx, storedErr)
	at, store := n.stateDir, home
	if storedErr == nil {
		at, store = n.imageSpace(ctx, home)
	}
	rules := collect.Rules{MaxAge: n.cfg.GC.Images.MaxAge, MaxSize: n.cfg.GC.Images.MaxSize, All: o.All}
	gone, images := collect.Choose(c.now, n.pinned(n.imageThings(stored)), rules)
	c.apply(ctx, store.Device, gone)

	// What is fetched again most easily goes first. Logs and what a job has left go
	// last: nobody can make them again.
	cached = slices.DeleteFunc(cached, func(t collect.Thing) bool { return t.Size < smallCache })
	c.relieve(ctx, n.stateDir, cached)
	c.relieve(ctx, at, images)
	c.relieve(ctx, n.stateDir, logs)
	c.relieve(ctx, n.stateDir, idle)
	for _, dir := range slices.Compact([]string{n.stateDir, at}) {
		c.lacking(dir)
	}

	if storedErr == nil {
		c.forget(ctx, stored)
	}
	return c.end(ctx)
}

func (c *collection) end(ctx context.Context) (*admin.GCReport, error) {
	for _, s := range c.short {
		c.log.WarnContext(ctx, "a file system stays short of room, and nothing more may be collected: make room or enlarge it", "which", s)
	}
	return c.report, ctx.Err()
}

// problem reports what kept the round from looking at something.
func (c *collection) problem(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	c.log.WarnContext(ctx, "a part of a collection failed", "error", err)
	c.report.Problems = append(c.report.Problems, err.Error())
}

func (c *collection) list(ctx context.Context, list func(context.Context) ([]collect.Thing, error)) []collect.Thing {
	c.beat()
	things, err := list(ctx)
	c.problem(ctx, err)
	return things
}

// all removes things that are of no use to anyone.
func (c *collection) all(ctx context.Context, device uint64, things []collect.Thing) {
	gone, _ := collect.Choose(c.now, things, collect.Rules{All: true})
	c.apply(ctx, device, gone)
}

func (c *collection) apply(ctx context.Context, device uint64, gone []collect.Choice) {
	for _, g := range gone {
		if ctx.Err() != nil {
			return
		}
		c.remove(ctx, device, g)
	}
}

// remove removes one thing, unless nothing is to be changed, and reports it.
func (c *collection) remove(ctx context.Context, device uint64, g collect.Choice) {
	c.beat()
	item := admin.GCItem{Kind: g.Kind, Name: g.Name, Size: g.Size, UsedAt: g.UsedAt, Reason: g.Reason}
	if !c.o.DryRun {
		done, err := g.Remove(ctx)
		switch {
		case err != nil:
			item.Error = err.Error()
			c.log.WarnContext(ctx, "something could not be collected", "kind", g.Kind, "name", g.Name, "error", err)
		case !done:
			return // it is needed by now
		default:
			c.log.InfoContext(ctx, "collected", "kind", g.Kind, "name", g.Name, "bytes", g.Size, "why", g.Reason)
			c.tell(admin.EventGC, nil, g.Kind+" "+g.Name+": "+g.Reason)
			c.metrics.Collected(g.Kind, g.Size)
		}
	}
	if item.Error == "" {
		c.report.Freed += item.Size
		c.freed[device] += item.Size
	}
	c.report.Items = append(c.report.Items, item)
}

// lacks is what the file system of a directory is short of. Where nothing is
// really freed, what would be counts.
func (c *collection) lacks(dir string) (space collect.Space, bytes int64, inodes bool, err error) {
	space, err = c.space(dir)
	if err != nil {
		return space, 0, false, err
	}
	if c.o.DryRun {
		space.Free += c.freed[space.Device]
	}
	bytes, inodes = space.Lacks(c.cfg.GC.MinFree)
	return space, bytes, inodes, nil
}

// relieve removes things for as long as the file system that they are on is
// short of room.
func (c *collection) relieve(ctx context.Context, dir string, things []collect.Thing) {
	for _, g := range collect.Urgent(things) {
		space, bytes, inodes, err := c.lacks(dir)
		if err != nil || bytes == 0 && !inodes || ctx.Err() != nil {
			return // the error is told once, by lacking
		}
		c.remove(ctx, space.Device, g)
	}
}

// lacking notes a file system that is short of room after all.
func (c *collection) lacking(dir string) {
	space, bytes, inodes, err := c.lacks(dir)
	switch {
	case err != nil:
		c.report.Problems = append(c.report.Problems, err.Error())
	case bytes > 0:
		c.short = append(c.short, fmt.Sprintf("that of %s has %d bytes free of %d, %d less than gc.min_free wants", dir, space.Free, space.Total, bytes))
	case inodes:
		c.short = append(c.short, fmt.Sprintf("that of %s has %d inodes free of %d", dir, space.FreeInodes, space.Inodes))
	}
}

// imageSpace is where the runtime keeps its images. A place that cannot be found
// is taken for the state directory's.
func (n *Node) imageSpace(ctx context.Context, home collect.Space) (string, collect.Space) {
	dirs, err := n.images.ImageDirectories(ctx)
	if err != nil {
		return n.stateDir, home
	}
	for _, dir := range dirs {
		if space, err := n.space(dir); err == nil && space.Device != home.Device {
			return dir, space
		}
	}
	return n.stateDir, home
}

// isShort tells whether a file system of the node is short of room.
func (n *Node) isShort(ctx context.Context) (bool, error) {
	if n.cfg.GC.MinFree == 0 {
		return false, nil
	}
	home, err := n.space(n.stateDir)
	if err != nil {
		return false, err
	}
	_, store := n.imageSpace(ctx, home)
	for _, s := range []collect.Space{home, store} {
		if bytes, inodes := s.Lacks(n.cfg.GC.MinFree); bytes > 0 || inodes {
			return true, nil
		}
	}
	return false, nil
}

// pinned keeps what the configuration pins.
func (n *Node) pinned(things []collect.Thing) []collect.Thing {
	for i := range things {
		t := &things[i]
		t.Kept = t.Kept || slices.ContainsFunc(n.cfg.GC.Images.Keep, func(p collect.Pin) bool { return slices.ContainsFunc(t.Names, p.Holds) })
	}
	return things
}

// cached lists what the caches keep. What belongs to an image that is needed
// stays.
func (n *Node) cached(uses map[string]*imageUse) ([]collect.Thing, error) {
	needed := make(map[string]bool)
	for _, u := range uses {
		for _, name := range u.names {
			if u.needed {
				needed[imageKey(name)] = true
			}
		}
	}
	var out []collect.Thing
	var errs []error
	for _, c := range n.caches {
		things, err := c.Things()
		errs = append(errs, err)
		for _, t := range things {
			t.Kept = slices.ContainsFunc(t.Names, func(name string) bool { return needed[imageKey(name)] })
			out = append(out, t)
		}
	}
	return n.pinned(out), errors.Join(errs...)
}
