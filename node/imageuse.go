package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/runtime"
)

// imageUse is what the ledger knows of an image that runs of this node have had.
type imageUse struct {
	shown  string   // what the node calls it
	names  []string // that name, the file's digest, and the references that meant it last
	usedAt time.Time
	run    int64 // the last one
	needed bool  // by an open run, as far as that can be known
}

// imageUses returns the uses by what the runtime calls the images. A run that
// waits has no image yet: for it the one stays that its reference meant last.
func (n *Node) imageUses(now time.Time) (map[string]*imageUse, error) {
	uses := make(map[string]*imageUse)
	type meant struct {
		at time.Time
		by *imageUse
	}
	latest := make(map[string]meant)
	wanted := make(map[string]bool)
	err := n.ledger.Each(func(r *ledger.Record) error {
		ref, at := canonical(r.Image), lastUse(r, now)
		if r.State != ledger.Done {
			wanted[ref] = true
		}
		name := r.ImageAtRuntime()
		if name == "" {
			return nil
		}
		u := uses[name]
		if u == nil {
			u = new(imageUse)
			uses[name] = u
		}
		u.needed = u.needed || r.State != ledger.Done
		for _, known := range []string{r.Pinned, r.File} {
			if known != "" && !slices.Contains(u.names, known) {
				u.names = append(u.names, known)
			}
		}
		if !at.Before(u.usedAt) {
			u.usedAt, u.run, u.shown = at, r.RunID, r.Pinned
		}
		if !at.Before(latest[ref].at) {
			latest[ref] = meant{at, u}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read which images runs use: %w", err)
	}
	for ref, l := range latest {
		l.by.names = append(l.by.names, ref)
	}
	for _, u := range uses {
		u.needed = u.needed || slices.ContainsFunc(u.names, func(name string) bool { return wanted[name] })
	}
	return uses, nil
}

// lastUse is when a run had its image last.
func lastUse(r *ledger.Record, now time.Time) time.Time {
	switch {
	case r.State != ledger.Done:
		return now
	case r.FinishedAt.IsZero():
		return r.ReceivedAt
	}
	return r.FinishedAt
}

// canonical is the one spelling of a reference, or the text that is none.
func canonical(ref string) string {
	if r, err := imageref.Parse(ref); err == nil {
		return r.String()
	}
	return ref
}

// storedImage is an image that the runtime holds, with all uses under its names.
type storedImage struct {
	*runtime.Image
	imageUse
	pulled []string // repositories from which runs have had it; without those that had it by its id
}

// foreign tells whether somebody else has pulled the image too, as far as its
// names tell: the node pulls by digest only, from the repositories that its runs
// have named or from its own on loopback.
func (s *storedImage) foreign() bool {
	return slices.ContainsFunc(slices.Concat(s.RepoTags, s.RepoDigests), func(name string) bool {
		repository, _, pinned := strings.Cut(name, "@")
		return !image.Served(name) && !(pinned && slices.Contains(s.pulled, repository))
	})
}

// storedImages returns the images that are this node's to collect. Those of
// another's runtime are, as far as runs of this node have used them and nobody
// else has pulled them.
func (n *Node) storedImages(ctx context.Context, uses map[string]*imageUse, now time.Time) ([]*storedImage, error) {
	managed := n.cfg.Runtime.Endpoint == ""
	found := make(map[string]*storedImage)
	for name, u := range uses {
		img, err := n.images.Image(ctx, name)
		if errors.Is(err, runtime.ErrImageNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for the image %s: %w", u.shown, err)
		}
		s := found[img.ID]
		if s == nil {
			s = &storedImage{Image: img}
			found[img.ID] = s
		}
		s.add(u)
		if repository, _, ok := strings.Cut(name, "@"); ok {
			s.pulled = append(s.pulled, repository)
		}
	}
	if managed {
		all, err := n.images.ListImages(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the images: %w", err)
		}
		for _, img := range all {
			if found[img.ID] == nil {
				shown := img.ID
				if known := slices.Concat(img.RepoTags, img.RepoDigests); len(known) > 0 {
					shown = known[0]
				}
				found[img.ID] = &storedImage{Image: img, imageUse: imageUse{shown: shown, usedAt: n.seen.since(img.ID, now)}}
			}
		}
		n.seen.keep(found)
	}
	containers, err := n.images.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list the containers that use images: %w", err)
	}
	var out []*storedImage
	for _, s := range found {
		if s.Pinned || !managed && s.foreign() {
			continue
		}
		s.needed = s.needed || slices.ContainsFunc(containers, func(c *runtime.Container) bool {
			return c.ImageRef == s.ID || slices.Contains(s.RepoDigests, c.ImageRef)
		})
		out = append(out, s)
	}
	return out, nil
}

func (s *storedImage) add(u *imageUse) {
	s.names = append(s.names, u.names...)
	s.needed = s.needed || u.needed
	if !u.usedAt.Before(s.usedAt) {
		s.usedAt, s.run, s.shown = u.usedAt, u.run, u.shown
	}
}

// imageThings returns the images as what can be collected.
func (n *Node) imageThings(stored []*storedImage) []collect.Thing {
	out := make([]collect.Thing, 0, len(stored))
	for _, s := range stored {
		names := slices.Concat(s.names, s.RepoTags, s.RepoDigests, []string{"sha256:" + strings.TrimPrefix(s.ID, "sha256:")})
		out = append(out, collect.Thing{
			Kind: "image", Name: s.shown, Names: names, Size: int64(s.Size), UsedAt: s.usedAt, Kept: s.needed,
			Remove: func(ctx context.Context) (bool, error) {
				done, err := n.using.remove(names, func() bool { return n.wanted(names) }, func() error { return n.images.RemoveImage(ctx, s.ID) })
				if errors.Is(err, runtime.ErrImageInUse) { // another's container, made since the list was
					return false, nil
				}
				return done, err
			},
		})
	}
	return out
}

// wanted tells whether a run in work needs an image of one of these names.
func (n *Node) wanted(names []string) bool {
	keys := make(map[string]bool, 2*len(names))
	for _, name := range names {
		keys[name], keys[imageKey(name)] = true, true
	}
	return slices.ContainsFunc(n.activeRuns(), func(a *activeRun) bool {
		rec, err := n.ledger.Get(a.id)
		if err != nil {
			rec = &a.rec
		}
		if rec.State == ledger.Done {
			return false
		}
		return keys[imageKey(rec.ImageAtRuntime())] || keys[canonical(rec.Image)]
	})
}

// imageKey is the digest in a name, by which the same image has the same key
// under all its names.
func imageKey(name string) string {
	if _, digest, ok := strings.Cut(name, "@"); ok {
		return digest
	}
	return name
}

// imageGuard stands between runs that are about to use an image and removals. A
// removal begins only when no run has written down that it needs the image, and
// a run writes that down, and then looks whether the runtime has it, only when
// no removal of it is under way.
type imageGuard struct {
	mu       sync.RWMutex
	removing map[string]chan struct{} // by key; closed at the end
}

// use calls note, which writes down that a run needs the image of this name.
func (g *imageGuard) use(ctx context.Context, name string, note func() error) error {
	for {
		done, err := g.tryUse(name, note)
		if done == nil {
			return err
		}
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *imageGuard) tryUse(name string, note func() error) (<-chan struct{}, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if done := g.removing[imageKey(name)]; done != nil {
		return done, nil
	}
	return nil, note()
}

// remove removes the image of these names unless it is needed, and tells whether
// it was to.
func (g *imageGuard) remove(names []string, needed func() bool, remove func() error) (bool, error) {
	g.mu.Lock()
	if needed() {
		g.mu.Unlock()
		return false, nil
	}
	if g.removing == nil {
		g.removing = make(map[string]chan struct{})
	}
	done := make(chan struct{})
	for _, name := range names {
		g.removing[imageKey(name)] = done
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		for _, name := range names {
			delete(g.removing, imageKey(name))
		}
		g.mu.Unlock()
		close(done)
	}()
	return true, remove()
}

// sightings remember since when images are there that no run has used. Only one
// collection at a time uses it.
type sightings map[string]time.Time

func (s sightings) since(id string, now time.Time) time.Time {
	if _, ok := s[id]; !ok {
		s[id] = now
	}
	return s[id]
}

// keep forgets the images that are gone.
func (s sightings) keep(there map[string]*storedImage) {
	for id := range s {
		if there[id] == nil {
			delete(s, id)
		}
	}
}
