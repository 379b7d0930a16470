package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/v6node/v6node/node/image/imageref"
)

// Policy is a compiled Config. It is immutable and safe for concurrent use.
type Policy struct {
	rules         []rule
	stores        []store
	either        bool
	terms         []terms
	basics        *bool
	users         senders
	organizations senders
	requirePull   bool
}

// senders is a list of ids and names.
type senders struct {
	ids   map[int64]bool
	names map[string]bool
}

func (s senders) empty() bool { return len(s.ids) == 0 && len(s.names) == 0 }

// New compiles a configuration. It reports every entry that it does not understand: a list with one bad entry
// is refused as a whole, because leaving the entry out would change what the others mean.
func New(c Config) (*Policy, error) {
	p := &Policy{basics: c.AllowBasics, requirePull: c.RequirePull, either: c.EitherListOrStore}
	var errs []error
	for _, text := range c.AllowedAlgorithms {
		r, err := compileRule(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("allowed_algorithms: %w", err))
			continue
		}
		p.rules = append(p.rules, r)
	}
	for _, text := range c.AllowedStores {
		st, err := compileStore(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("allowed_algorithm_stores: %w", err))
			continue
		}
		p.stores = append(p.stores, st)
	}
	for i, r := range c.Rules {
		t, err := compileTerms(i+1, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("rules: %w", err))
			continue
		}
		p.terms = append(p.terms, t)
	}
	var err error
	if p.users, err = newSenders("allowed_users", c.AllowedUsers); err != nil {
		errs = append(errs, err)
	}
	if p.organizations, err = newSenders("allowed_organizations", c.AllowedOrganizations); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func newSenders(list string, entries []string) (senders, error) {
	s := senders{ids: map[int64]bool{}, names: map[string]bool{}}
	for _, e := range entries {
		if e == "" || strings.TrimSpace(e) != e || len(e) > maxRule {
			return s, fmt.Errorf("%s: %q is not an id or a name; remove the spaces around it or the whole entry", list, e)
		}
		if id, err := strconv.ParseInt(e, 10, 64); err == nil {
			s.ids[id] = true
		} else {
			s.names[e] = true
		}
	}
	return s, nil
}

// RequirePull reports whether an image must come from its registry.
func (p *Policy) RequirePull() bool { return p.requirePull }

// HasRules reports whether the databases and the function of a run matter.
func (p *Policy) HasRules() bool { return len(p.terms) > 0 }

// Request is one task to decide on.
type Request struct {
	Image  string // as the task gives it
	Digest string // what it resolved to; "" only for Possible
	File   string // of an oras:// image the digest of the SIF file; else, and for Possible, ""

	UserID         int64  // who sent the task; 0 when unknown, which matches nothing
	UserName       string // "" where the server does not tell
	OrganizationID int64  // the organization that sent the task; 0 when unknown, which matches nothing
	// OrganizationName finds the name of OrganizationID. It is called only when the configuration lists
	// names and the id alone did not decide. nil, an error and "" all mean that no name matches.
	OrganizationName func() (string, error)
	// DigestOf resolves an image that the configuration allows by tag, when the task names the same
	// repository in another way. nil means that only the tag itself is allowed.
	DigestOf func(ref string) (string, error)

	StoreID int64 // the algorithm store that the task comes from; 0 when from none
	// StoreAddresses finds the addresses of StoreID, with and without the path of its API. It is called only when
	// the configuration lists stores.
	StoreAddresses func() ([]string, error)

	// Databases are the labels that the task asks for, and Function the method that its input names. They matter
	// where there are rules.
	Databases []string
	Function  string
}

// Decision is the answer. Reason is one sentence for the node's log and for the sender of the task.
type Decision struct {
	Allowed bool
	Reason  string
	// Manual tells that the run may begin only with the administrator's word. Perhaps tells that only the digest
	// of its image says whether, which comes from Possible only.
	Manual, Perhaps bool
}

// Step is one question that a decision came by.
type Step struct {
	Rule    string // the key of the configuration below policies, or "image"
	Allowed bool
	Reason  string
}

func refuse(format string, a ...any) Decision { return Decision{Reason: fmt.Sprintf(format, a...)} }
func allow(format string, a ...any) Decision {
	return Decision{Allowed: true, Reason: fmt.Sprintf(format, a...)}
}

// Check decides on a task whose image has been resolved. It never allows without a digest.
func (p *Policy) Check(r Request) Decision {
	d, _ := p.Explain(r)
	return d
}

// Explain is Check that also tells what was asked on the way. A question after one that refuses is not asked.
func (p *Policy) Explain(r Request) (Decision, []Step) {
	if r.Digest == "" {
		return p.asked(refuse("The image %q has not been resolved to a digest, so it cannot be checked.", shorten(r.Image)))
	}
	if ref, err := imageref.Parse(r.Image); err == nil && ref.Scheme == imageref.ORAS && r.File == "" {
		return p.asked(refuse("The file of the image %s has not been resolved to a digest, so it cannot be checked.", ref))
	}
	return p.decide(r)
}

// Possible decides before the image is looked up. A refusal is final; "allowed" means only that some digest
// may be. The node asks this first, so that a task cannot make it contact a registry that no rule mentions.
func (p *Policy) Possible(r Request) Decision {
	d, _ := p.ExplainPossible(r)
	return d
}

// ExplainPossible is Possible that also tells what was asked on the way.
func (p *Policy) ExplainPossible(r Request) (Decision, []Step) {
	r.Digest, r.File = "", ""
	return p.decide(r)
}

func (p *Policy) asked(d Decision) (Decision, []Step) {
	return d, []Step{{"image", d.Allowed, d.Reason}}
}

func (p *Policy) decide(r Request) (Decision, []Step) {
	c, d := candidateOf(r)
	if !d.Allowed {
		return p.asked(d)
	}
	var steps []Step
	ask := func(rule string, answer Decision) bool {
		steps = append(steps, Step{rule, answer.Allowed, answer.Reason})
		d = answer
		return answer.Allowed
	}
	basics := c.ref.Name() == BasicsImage && p.basics != nil
	if basics && !*p.basics {
		ask("allow_basics_algorithm", refuse("This node does not run the basics algorithm %s (allow_basics_algorithm is false).", c.ref))
		return d, steps
	}
	if !ask(p.senderKeys(), p.sender(r)) {
		return d, steps
	}
	restricted := len(p.rules)+len(p.stores) > 0
	switch {
	case basics && restricted:
		ask("allow_basics_algorithm", allow("The basics algorithm is allowed by allow_basics_algorithm."))
	case !restricted:
		ask("allowed_algorithms", allow("No rule restricts images."))
	case !p.origin(c, r, ask):
		return d, steps
	}
	if len(p.terms) == 0 {
		return d, steps
	}
	allowed := d
	if bound := p.bind(c, r); !ask("rules", bound) || bound.Manual || bound.Perhaps {
		return bound, steps
	}
	return allowed, steps
}

// candidateOf is the image of a request, if that can be one.
func candidateOf(r Request) (candidate, Decision) {
	ref, err := imageref.Parse(r.Image)
	if err != nil {
		return candidate{}, refuse("The image of the task cannot be used: %v.", err)
	}
	c := candidate{ref: ref, digest: r.Digest, file: r.File, digestOf: r.DigestOf}
	if c.file != "" && !imageref.IsDigest(c.file) {
		return c, refuse("The file of the image %s was resolved to %q, which is not a SHA-256 digest.", ref, shorten(c.file))
	}
	if c.digest == "" {
		c.digest = ref.Digest
		return c, allow("")
	}
	if !imageref.IsDigest(c.digest) {
		return c, refuse("The image %s was resolved to %q, which is not a SHA-256 digest.", ref, shorten(c.digest))
	}
	if ref.Digest != "" && ref.Digest != c.digest {
		return c, refuse("The task asks for %s, but what was found is %s.", ref, c.digest)
	}
	return c, allow("")
}

// origin asks whether the image is listed, and whether the task comes from a store that is.
func (p *Policy) origin(c candidate, r Request, ask func(string, Decision) bool) bool {
	const list, stores = "allowed_algorithms", "allowed_algorithm_stores"
	switch {
	case len(p.stores) == 0:
		return ask(list, p.image(c))
	case len(p.rules) == 0:
		return ask(stores, p.store(r))
	case !p.either:
		return ask(stores, p.store(r)) && ask(list, p.image(c))
	}
	listed := p.image(c)
	if listed.Allowed {
		return ask(list, listed)
	}
	stored := p.store(r)
	if !stored.Allowed {
		stored.Reason = listed.Reason + " " + stored.Reason
	}
	return ask(list+" or "+stores, stored)
}

// image applies allowed_algorithms.
func (p *Policy) image(c candidate) Decision {
	var unknown error
	maybe := ""
	for _, rule := range p.rules {
		v, err := rule.match(c)
		switch {
		case err != nil:
			unknown = errors.Join(unknown, err)
		case v == yes:
			return allow("The image %s is allowed by %q in allowed_algorithms.", c.ref, rule.text)
		case v == perhaps && maybe == "":
			maybe = rule.text
		}
	}
	switch {
	case maybe != "":
		return allow("The image %s may be allowed by %q in allowed_algorithms, depending on its digest.", c.ref, maybe)
	case unknown != nil:
		return refuse("This node could not decide on the image %s: %v.", c.ref, unknown)
	case c.digest != "" && c.ref.Digest == "":
		return refuse("This node does not allow the image %s (%s): nothing in allowed_algorithms matches it.", c.ref, c.digest)
	}
	return refuse("This node does not allow the image %s: nothing in allowed_algorithms matches it.", c.ref)
}

func (p *Policy) senderKeys() string {
	switch {
	case p.organizations.empty() && !p.users.empty():
		return "allowed_users"
	case p.users.empty() && !p.organizations.empty():
		return "allowed_organizations"
	}
	return "allowed_users or allowed_organizations"
}

// sender applies allowed_users and allowed_organizations.
func (p *Policy) sender(r Request) Decision {
	if p.users.empty() && p.organizations.empty() {
		return allow("No rule restricts who may send tasks.")
	}
	if r.UserID != 0 && p.users.ids[r.UserID] || r.UserName != "" && p.users.names[r.UserName] {
		return allow("The user is in allowed_users.")
	}
	if r.OrganizationID != 0 && p.organizations.ids[r.OrganizationID] {
		return allow("The organization is in allowed_organizations.")
	}
	if len(p.organizations.names) > 0 && r.OrganizationName != nil {
		name, err := r.OrganizationName()
		if err != nil {
			return refuse("This node could not find the name of organization %d, which its policy needs: %v.", r.OrganizationID, err)
		}
		if name != "" && p.organizations.names[name] {
			return allow("The organization is in allowed_organizations.")
		}
	}
	return refuse("This node does not accept tasks from user %d of organization %d.", r.UserID, r.OrganizationID)
}

// shorten keeps a hostile text out of logs.
func shorten(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
