package node

import (
	"fmt"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/policy"
)

// settings are what a running node can be given anew. They are immutable: a run is decided on with those that hold
// at that moment, and keeps what was decided.
type settings struct {
	config    *config.Config // where they come from
	policy    *policy.Policy
	databases []config.Database
	limits    limits.Set
	signing   *image.SigningKeys // nil where no signature is wanted
}

// settable are the keys that settings come from. Changes of all others need a restart.
var settable = []string{"databases", "policies", "limits", "limit_rules"}

func newSettings(c *config.Config) (*settings, error) {
	p, err := policy.New(c.Policies)
	if err != nil {
		return nil, fmt.Errorf("read the policies: %w", err)
	}
	s := &settings{config: c, policy: p, databases: c.Databases, limits: limits.Set{Default: c.Limits, Rules: c.LimitRules}}
	if len(c.Policies.SigningKeys) > 0 {
		if s.signing, err = image.LoadSigningKeys(c.Policies.SigningKeys); err != nil {
			return nil, fmt.Errorf("%w: %w", config.ErrInvalid, err)
		}
	}
	return s, nil
}
