package node

import (
	"context"
	"sync"
	"time"
)

const (
	// nameTime is how long the server has to tell a name.
	nameTime = 2 * time.Second
	// nameless is how long no name is asked for after the server did not tell one.
	nameless = time.Minute
)

// organizations are the names of those that send tasks, for the administrator. Each is asked for once, when its first
// run comes; without the server there are only numbers.
type organizations struct {
	ask   func(context.Context, int64) (string, error)
	names sync.Map // by id

	mu    sync.Mutex // held while the server is asked
	after time.Time  // when it is asked again
}

func newOrganizations(ask func(context.Context, int64) (string, error)) *organizations {
	return &organizations{ask: ask}
}

// known is the name of one as far as it was told, without waiting for anybody.
func (o *organizations) known(id int64) string {
	name, _ := o.names.Load(id)
	s, _ := name.(string)
	return s
}

// learn asks for a name that is not known yet. Several that want one at the same time wait for each other.
func (o *organizations) learn(ctx context.Context, id int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if id == 0 || o.known(id) != "" || time.Now().Before(o.after) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	name, err := o.ask(ctx, id)
	if err != nil {
		o.after = time.Now().Add(nameless)
		return
	}
	o.names.Store(id, name)
}
