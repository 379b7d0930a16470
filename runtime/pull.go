package runtime

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	defaultStall = 5 * time.Minute
	// maxSample is the longest time between two looks at a pull's progress.
	maxSample = time.Second
	minSample = 20 * time.Millisecond
)

// PullOptions of one PullImage.
type PullOptions struct {
	// StallTimeout ends a pull that makes no progress for that long; default
	// 5 min. Callers that share a pull share the first one's.
	StallTimeout time.Duration
	// Progress, if set, is told about once a second how many bytes the runtime
	// has taken in since the pull began. Pulls of other images that run at the
	// same time are counted too. It must return quickly, and is not called any
	// more once PullImage has returned.
	Progress func(bytes uint64)
}

// pull is one pull under way, shared by all who want the same reference. Its
// fields below done are guarded by Client.mu.
type pull struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when image and err are final
	image  *Image
	err    error

	waiters  int
	progress map[int]func(uint64)
	nextID   int
}

var errAbandoned = errors.New("nobody waits for this pull any more")

// PullImage pulls ref and returns the image. Callers that ask for the same
// reference at the same time share one pull, with the first one's credentials;
// one whose context ends leaves the others' pull alone, and the last one to
// leave ends it. The kinds of error are ErrImageNotFound, ErrRegistryDenied,
// ErrRegistryUnreachable, ErrWrongPlatform, ErrPullStalled, ErrNoSpace, ErrReadOnly,
// ErrNotReady, ErrInvalid and ErrClosed.
//
// It always asks the registry, also for an image that is in the store: look it
// up with Image first.
func (c *Client) PullImage(ctx context.Context, ref string, a *Auth, o PullOptions) (*Image, error) {
	op := "pull the image " + oneLine(ref)
	if ref == "" || strings.ContainsAny(ref, " \t\r\n\x00") {
		return nil, invalid(op, "%q is not an image reference", ref)
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = defaultStall
	}

	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, &Error{Op: op, Kind: ErrClosed, text: "the connection to the runtime is closed"}
	}
	p := c.pulls[ref]
	if p == nil {
		p = &pull{done: make(chan struct{}), progress: map[int]func(uint64){}}
		var pctx context.Context
		pctx, p.cancel = context.WithCancelCause(c.ctx)
		c.pulls[ref] = p
		c.wg.Go(func() { c.runPull(pctx, p, op, ref, a.cri(), o.StallTimeout) })
	}
	p.waiters++
	id := p.nextID
	p.nextID++
	if o.Progress != nil {
		p.progress[id] = o.Progress
	}
	c.mu.Unlock()

	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(p.progress, id)
		p.waiters--
		if p.waiters == 0 {
			// A later caller must not join a pull that is being ended.
			if c.pulls[ref] == p {
				delete(c.pulls, ref)
			}
			p.cancel(errAbandoned)
		}
	}()

	select {
	case <-p.done:
		return p.image, p.err
	case <-ctx.Done():
		return nil, &Error{Op: op, Cause: ctx.Err()}
	}
}

// pullTries bounds how often a pull is begun again that somebody else has ended:
// CRI-O joins pulls of one image, and a pull that was given up a moment ago takes
// those with it that have joined it since.
const pullTries = 5

// runPull makes the call and watches its progress.
func (c *Client) runPull(ctx context.Context, p *pull, op, ref string, auth *cri.AuthConfig, stall time.Duration) {
	var stalled bool
	meter := newPullMeter(c)
	result := make(chan error, 1)
	var answer *cri.PullImageResponse
	c.wg.Go(func() {
		var err error
		for range pullTries {
			answer, err = c.img.PullImage(ctx, &cri.PullImageRequest{
				Image: &cri.ImageSpec{Image: ref, UserSpecifiedImage: ref},
				Auth:  auth,
			}, grpc.WaitForReady(true))
			if err == nil || !strings.Contains(causeText(err), "context canceled") || !pause(ctx, retryPause) {
				break
			}
		}
		result <- err
	})

	tick := time.NewTicker(min(max(stall/10, minSample), maxSample))
	defer tick.Stop()
	moved := time.Now()
	var err error
wait:
	for {
		select {
		case err = <-result:
			break wait
		case <-tick.C:
			bytes, progress := meter.sample(ctx)
			now := time.Now()
			if progress {
				moved = now
				c.reportProgress(p, bytes)
			} else if now.Sub(moved) >= stall && !stalled {
				stalled = true
				p.cancel(ErrPullStalled)
			}
		}
	}

	p.image, p.err = c.pulled(ctx, op, ref, answer, err, stalled, stall)
	c.mu.Lock()
	if c.pulls[ref] == p {
		delete(c.pulls, ref)
	}
	c.mu.Unlock()
	close(p.done)
	p.cancel(nil)
}

// reportProgress calls the callbacks under the lock, so that none runs after
// its PullImage has returned.
func (c *Client) reportProgress(p *pull, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range p.progress {
		f(bytes)
	}
}

func (c *Client) pulled(ctx context.Context, op, ref string, answer *cri.PullImageResponse, err error, stalled bool, stall time.Duration) (*Image, error) {
	switch {
	case err != nil && stalled:
		return nil, &Error{Op: op, Kind: ErrPullStalled, Cause: err,
			text: "nothing arrived from the registry for " + stall.String() + "; check the network and the registry, then try again"}
	case err != nil && ctx.Err() != nil:
		// Closed, or abandoned: then nobody reads this.
		return nil, &Error{Op: op, Kind: ErrClosed, Cause: err, text: "the connection to the runtime was closed"}
	case err != nil:
		return nil, pullError(op, ref, err)
	}
	image, err := c.Image(ctx, ref)
	if errors.Is(err, ErrImageNotFound) && answer.GetImageRef() != "" {
		// Some runtimes know it at first only under the name they returned.
		image, err = c.Image(ctx, answer.ImageRef)
	}
	if err != nil {
		return nil, err
	}
	if digest := digestOf(ref); digest != "" && !hasDigest(image, digest) {
		return nil, &Error{Op: op, Kind: ErrImageNotFound,
			text: "the runtime returned an image that does not have the digest asked for; remove it from the runtime and try again"}
	}
	return image, nil
}

// digestOf returns the digest of name@sha256:..., or "".
func digestOf(ref string) string {
	_, digest, _ := strings.Cut(ref, "@")
	return digest
}

func hasDigest(i *Image, digest string) bool {
	if i.ID == digest {
		return true
	}
	for _, d := range i.RepoDigests {
		if digestOf(d) == digest {
			return true
		}
	}
	return false
}
