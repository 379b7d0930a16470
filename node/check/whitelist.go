package check

import (
	"context"
	"net"
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/hostport"
)

// whitelist looks whether what runs may reach is there. A pattern names no host,
// and a host without a pair no port that could be tried.
func (o Options) whitelist(ctx context.Context, report func(Result)) error {
	r := reporter(report)
	w := o.Config.Whitelist
	for _, name := range w.Rules.Domains {
		if strings.HasPrefix(name, "*") {
			continue
		}
		host := strings.TrimPrefix(name, ".")
		if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
			r.warn("whitelist.domains", "correct whitelist.domains, or the machine's name resolution: `getent hosts "+host+"` must find it", "runs will not reach %s: %v", host, err)
		} else {
			r.ok("whitelist.domains", "%s is known", host)
		}
	}
	pairs := slices.Clone(w.Rules.Pairs)
	for _, some := range w.Some {
		pairs = append(pairs, some.Pairs...)
	}
	slices.Sort(pairs)
	dialer := net.Dialer{Timeout: dialPatience}
	for _, text := range slices.Compact(pairs) {
		at, err := hostport.Parse(text)
		if err != nil {
			return err
		}
		c, err := dialer.DialContext(ctx, "tcp", at.String())
		if err != nil {
			r.warn("whitelist.pairs", "let this machine connect to it, or correct whitelist.pairs", "runs will not reach %s: %v", at, err)
			continue
		}
		c.Close()
		r.ok("whitelist.pairs", "%s takes connections", at)
	}
	return nil
}
