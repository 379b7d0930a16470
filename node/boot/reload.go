package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
)

// reload makes what reads the configuration again and holds it against the machine and the runtime that the node was
// started with; nil where nothing can be read.
func (o *Options) reload(ctx context.Context) func() (*config.Config, []config.Warning, error) {
	if o.Load == nil {
		return nil
	}
	return func() (*config.Config, []config.Warning, error) {
		cfg, warnings, err := o.Load()
		if err != nil {
			return nil, nil, err
		}
		if err := checkLimits(ctx, cfg, engine.Machine(), o.Log); err != nil {
			return nil, nil, err
		}
		return cfg, warnings, o.checkHandlers(cfg)
	}
}

// checkHandlers refuses ulimits that the node's own containerd was not started with: no run could have them.
func (o *Options) checkHandlers(cfg *config.Config) error {
	if o.Config.Runtime.Endpoint != "" {
		return nil
	}
	var have []string
	for _, h := range ulimitHandlers(o.Config) {
		have = append(have, h.Name)
	}
	for _, h := range ulimitHandlers(cfg) {
		if !slices.Contains(have, h.Name) {
			return fmt.Errorf("%w: the ulimits of limits and limit_rules cannot change without a restart of the node, whose containerd is started with them", config.ErrInvalid)
		}
	}
	return nil
}

// hangUps reloads at each SIGHUP until ctx ends. What went wrong is in the node's log.
func hangUps(ctx context.Context, n *node.Node, signals <-chan os.Signal, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			if _, err := n.Reload(ctx, "SIGHUP"); err != nil && !errors.Is(err, admin.ErrInvalid) {
				log.ErrorContext(ctx, err.Error())
			}
		}
	}
}

// notifyHangUp takes SIGHUP over from its default, which ends the program. The function that it returns gives it back.
func notifyHangUp() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
