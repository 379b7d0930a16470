package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/runtime"
)

// Images is what the node needs of a runtime's image store. runtime.Client
// implements it.
type Images interface {
	image.Store
	// ListImages returns all that the store holds.
	ListImages(ctx context.Context) ([]*runtime.Image, error)
	// RemoveImage deletes one with all its names; one that is gone is no error.
	RemoveImage(ctx context.Context, ref string) error
	// ImageDirectories are on the file systems that the store is on.
	ImageDirectories(ctx context.Context) ([]string, error)
	// ListContainers returns the containers that have these labels, whoever
	// made them.
	ListContainers(ctx context.Context, labels map[string]string) ([]*runtime.Container, error)
}

// ensureImage resolves the image once, decides on the digest, and brings it into
// the runtime where that lacks it. What it returns names exactly that digest.
func (n *Node) ensureImage(ctx context.Context, a *activeRun, r *server.Run) (resolved image.Resolved, img *image.Provided, err error) {
	for attempt := 1; ; attempt++ {
		resolved, img, err = n.provideImage(ctx, a, r)
		// A file that was replaced meanwhile is another image, to be decided on anew.
		if !errors.Is(err, image.ErrChanged) || attempt == imageAttempts {
			return resolved, img, err
		}
		n.log.WarnContext(ctx, "the image changed while it was prepared, trying again", "run", r.ID, "error", err)
	}
}

// imageAttempts is how often an image is prepared whose file changes all the time.
const imageAttempts = 3

func (n *Node) provideImage(ctx context.Context, a *activeRun, r *server.Run) (resolved image.Resolved, img *image.Provided, err error) {
	resolved, err = n.resolver.Resolve(ctx, r.Image)
	if err != nil {
		return resolved, nil, err
	}
	d, err := n.decide(ctx, a, r, resolved)
	if err != nil {
		return resolved, nil, err
	}
	if !d.Allowed {
		return resolved, nil, n.refused(a, &a.rec, resolved.Pinned, d)
	}
	if d, err = n.approved(r.ID, resolved, d); err != nil {
		return resolved, nil, err
	}
	if err := n.auditDecision(&a.rec, resolved.Pinned, d); err != nil {
		return resolved, nil, err
	}
	a.decided.Store(&ledger.Decision{Allowed: true, Reason: d.Reason})
	began := time.Now()
	defer a.doing.Store(nil)
	img, err = n.resolver.Provide(ctx, resolved, image.Provision{
		Store: n.images,
		// From here on the image is this run's, and no collection takes it.
		Named: func(name string) error {
			return n.using.use(ctx, name, func() error { return n.noteImage(r.ID, resolved, name) })
		},
		Progress:  n.imageProgress(ctx, a),
		Converted: n.metrics.Converted,
	})
	if err != nil {
		return resolved, nil, err
	}
	if img.Fetched {
		took := time.Since(began).Round(time.Millisecond)
		n.log.InfoContext(ctx, "image fetched", "run", r.ID, "image", resolved.Pinned, "bytes", img.Image.Size, "converted", img.Converted, "signers", img.Signers, "took", took)
		what := "fetched "
		if img.Converted {
			what = "converted and fetched "
		}
		n.tell(admin.EventImage, &a.rec, what+resolved.Pinned+" in "+took.String())
	}
	return resolved, img, nil
}

// noteImage writes down which image a run uses.
func (n *Node) noteImage(runID int64, resolved image.Resolved, name string) error {
	_, err := n.ledger.Update(runID, func(l *ledger.Record) error {
		l.Pinned, l.File, l.RuntimeImage = resolved.Pinned, resolved.File, ""
		if name != resolved.Pinned {
			l.RuntimeImage = name
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write down the image: %w", err)
	}
	return nil
}

// progressEvery is how often the log says how far an image is.
const progressEvery = 10 * time.Second

// imageProgress keeps how far an image is for the administrator, and logs it now
// and then where it takes long.
func (n *Node) imageProgress(ctx context.Context, a *activeRun) func(image.Progress) {
	var mu sync.Mutex
	last, doing := time.Now(), ""
	return func(p image.Progress) {
		a.doing.Store(&p)
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			n.log.InfoContext(ctx, "the image is being prepared", "run", a.id, "doing", p.Doing, "bytes", p.Done, "of", p.Total)
			if p.Doing != doing {
				doing = p.Doing
				n.tell(admin.EventImage, &a.rec, p.Doing+" "+a.rec.Image)
			}
		}
	}
}

// LocalImages tells a resolver which images the runtime's store holds. What a
// runtime has pulled fits its machine.
func LocalImages(images Images) image.LocalFunc {
	return func(ctx context.Context, ref string) (digest string, platformOK, found bool) {
		img, err := images.Image(ctx, ref)
		if err != nil {
			return "", false, false
		}
		want, err := imageref.Parse(ref)
		if err != nil {
			return "", false, false
		}
		for _, d := range img.RepoDigests {
			name, digest, ok := strings.Cut(d, "@")
			if ok && name == want.Name() {
				return digest, true, true
			}
		}
		return "", false, false
	}
}

// userOf is the user as whom an image's algorithm runs, where that is known
// without looking into the image.
func userOf(img *runtime.Image) (uid int64, known bool) {
	switch {
	case userns.OneID():
		return 0, true // see engine.CRI.Create
	case img.UID != nil:
		return *img.UID, true
	case img.Username == "", img.Username == "root":
		return 0, true
	}
	return 0, false
}
