package check

import (
	"context"

	"github.com/v6node/v6node/integration/conformance"
)

// Behaviour tries on a runtime everything that the node relies on, in
// sandboxes that it removes again.
func Behaviour(o conformance.Options) Check {
	return Check{Group: "behaviour", Name: "tests", Alone: true, Look: func(ctx context.Context, report func(Result)) error {
		return conformance.Run(ctx, o, func(out conformance.Outcome) {
			r := Result{Group: out.Group, Name: out.Name, Detail: out.Detail, Took: out.Took}
			switch out.Status {
			case conformance.OK:
				r.Status = OK
			case conformance.Skip:
				r.Status = Skip
			case conformance.Fail:
				r.Status = Fail
				r.Fix = "compare the runtime's version and configuration with those in docs/runtimes.md, and read its log"
			}
			report(r)
		})
	}}
}
