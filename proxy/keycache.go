package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/v6node/v6node/proxy/e2e"
)

// KeyCacheOptions configure a KeyCache; zero values are the defaults.
type KeyCacheOptions struct {
	TTL  time.Duration // 1 minute
	Size int           // keys held at most, 4096
}

// KeyCache holds public keys of organizations for all runs of a node. An
// organization's key is asked for once, however many runs want it at the same
// time. Only keys are held, not failures. It is safe for concurrent use.
type KeyCache struct {
	ttl  time.Duration
	size int
	now  func() time.Time

	mu   sync.Mutex
	keys map[int64]*keyEntry
}

type keyEntry struct {
	done  chan struct{} // closed when key, err and until are set
	key   *e2e.PublicKey
	err   error
	until time.Time
}

// NewKeyCache returns an empty cache.
func NewKeyCache(o KeyCacheOptions) *KeyCache {
	if o.TTL <= 0 {
		o.TTL = time.Minute
	}
	if o.Size <= 0 {
		o.Size = 4096
	}
	return &KeyCache{ttl: o.TTL, size: o.Size, now: time.Now, keys: make(map[int64]*keyEntry)}
}

// Get returns the organization's key, from the cache or with fetch. fetch runs
// in the context of one of those who wait; the others share its answer, unless
// it was cut off by the end of that one's context: then another fetches.
func (c *KeyCache) Get(ctx context.Context, organization int64, fetch func(context.Context) (*e2e.PublicKey, error)) (*e2e.PublicKey, error) {
	for {
		e, mine := c.entry(organization)
		if mine {
			c.fetch(ctx, organization, e, fetch)
			return e.key, e.err
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, errGone
		}
		if !errors.Is(e.err, errGone) {
			return e.key, e.err
		}
	}
}

// entry returns the organization's entry, and whether the caller must fill it.
func (c *KeyCache) entry(organization int64) (e *keyEntry, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.keys[organization]; e != nil {
		select {
		case <-e.done:
			if c.now().Before(e.until) {
				return e, false
			}
		default:
			return e, false
		}
	}
	if len(c.keys) >= c.size {
		c.evict()
	}
	e = &keyEntry{done: make(chan struct{})}
	c.keys[organization] = e
	return e, true
}

// evict makes room: what is over goes first, else anything that is not being
// fetched.
func (c *KeyCache) evict() {
	now := c.now()
	var any int64
	for id, e := range c.keys {
		select {
		case <-e.done:
			if !now.Before(e.until) {
				delete(c.keys, id)
			}
			any = id
		default:
		}
	}
	if len(c.keys) >= c.size {
		delete(c.keys, any)
	}
}

func (c *KeyCache) fetch(ctx context.Context, organization int64, e *keyEntry, fetch func(context.Context) (*e2e.PublicKey, error)) {
	e.err = errors.New("fetching a public key did not end") // kept only by a panic
	defer func() {
		c.mu.Lock()
		if e.err != nil && c.keys[organization] == e {
			delete(c.keys, organization)
		}
		e.until = c.now().Add(c.ttl)
		c.mu.Unlock()
		close(e.done)
	}()
	e.key, e.err = fetch(ctx)
}

// Forget drops the keys of organizations, so that the next one asks the server.
func (c *KeyCache) Forget(organizations ...int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range organizations {
		delete(c.keys, id)
	}
}
