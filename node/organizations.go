package node

import (
	"context"
	"sync"
	"time"
)

const (
	// nameTime is how long an administrator's command waits for the server to tell a name.
	nameTime = 2 * time.Second
	// nameless is how long no name is asked for after the server did not tell one.
	nameless = time.Minute
)

// organizations are the names of those that send tasks, for the administrator. Each is asked for once, when it is
// shown first; without the server there are only numbers.
type organizations struct {
	ask func(context.Context, int64) (string, error)

	mu    sync.Mutex
	names map[int64]string
	after time.Time // when the server is asked again
}

func newOrganizations(ask func(context.Context, int64) (string, error)) *organizations {
	return &organizations{ask: ask, names: make(map[int64]string)}
}

// name is "" where it is not known. Several that want one at the same time wait for each other.
func (o *organizations) name(ctx context.Context, id int64) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if name, known := o.names[id]; known || id == 0 || time.Now().Before(o.after) {
		return name
	}
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	name, err := o.ask(ctx, id)
	if err != nil {
		o.after = time.Now().Add(nameless)
		return ""
	}
	o.names[id] = name
	return name
}
