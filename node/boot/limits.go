package boot

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/runtime/embedded"
)

// checkLimits holds the configured limits against the machine, so that what can
// never be applied is said at the start and not at the first run.
func checkLimits(ctx context.Context, cfg *config.Config, m limits.Machine, log *slog.Logger) error {
	check := func(where string, l limits.Limits) error {
		impossible, pointless := l.Fit(m)
		for _, p := range pointless {
			log.WarnContext(ctx, fmt.Sprintf("%s%s", where, p))
		}
		for _, p := range impossible {
			if cfg.Enforce == config.EnforceStrict {
				return fmt.Errorf("%w: %s%s: correct it, or set resources.enforce to %s to run without it", config.ErrInvalid, where, p, config.EnforceBestEffort)
			}
			log.WarnContext(ctx, fmt.Sprintf("%s%s; runs go on without it", where, p))
		}
		return nil
	}
	if err := check("limits.", cfg.Limits); err != nil {
		return err
	}
	for i := range cfg.LimitRules {
		// Only what the rule itself sets: the rest was said before.
		if err := check(cfg.LimitRules[i].Path(i)+".limits.", cfg.LimitRules[i].Change.Apply(limits.Limits{})); err != nil {
			return err
		}
	}
	return nil
}

// ulimitHandlers are the managed containerd's handlers for the lists of ulimits
// that the configuration names.
func ulimitHandlers(cfg *config.Config) []embedded.Handler {
	set := limits.Set{Default: cfg.Limits, Rules: cfg.LimitRules}
	var out []embedded.Handler
	for _, list := range set.Ulimits() {
		rlimits := engine.Rlimits(list)
		h := embedded.Handler{Name: engine.HandlerName(rlimits)}
		for _, r := range rlimits {
			h.Rlimits = append(h.Rlimits, embedded.Rlimit(r))
		}
		out = append(out, h)
	}
	return out
}
