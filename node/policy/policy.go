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
	p := &Policy{basics: c.AllowBasics, requirePull: c.RequirePull}
	var errs []error
	for _, text := range c.AllowedAlgorithms {
		r, err := compileRule(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("allowed_algorithms: %w", err))
			continue
		}
		p.rules = append(p.rules, r)
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

// AllowsEveryImage reports whether no rule restricts images.
func (p *Policy) AllowsEveryImage() bool { return len(p.rules) == 0 }

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
}

// Decision is the answer. Reason is one sentence for the node's log and for the sender of the task.
type Decision struct {
	Allowed bool
	Reason  string
}

func refuse(format string, a ...any) Decision { return Decision{Reason: fmt.Sprintf(format, a...)} }
func allow(format string, a ...any) Decision {
	return Decision{Allowed: true, Reason: fmt.Sprintf(format, a...)}
}

// Check decides on a task whose image has been resolved. It never allows without a digest.
func (p *Policy) Check(r Request) Decision {
	if r.Digest == "" {
		return refuse("The image %q has not been resolved to a digest, so it cannot be checked.", shorten(r.Image))
	}
	if ref, err := imageref.Parse(r.Image); err == nil && ref.Scheme == imageref.ORAS && r.File == "" {
		return refuse("The file of the image %s has not been resolved to a digest, so it cannot be checked.", ref)
	}
	return p.decide(r)
}

// Possible decides before the image is looked up. A refusal is final; "allowed" means only that some digest
// may be. The node asks this first, so that a task cannot make it contact a registry that no rule mentions.
func (p *Policy) Possible(r Request) Decision {
	r.Digest, r.File = "", ""
	return p.decide(r)
}

func (p *Policy) decide(r Request) Decision {
	ref, err := imageref.Parse(r.Image)
	if err != nil {
		return refuse("The image of the task cannot be used: %v.", err)
	}
	c := candidate{ref: ref, digest: r.Digest, file: r.File, digestOf: r.DigestOf}
	if c.file != "" && !imageref.IsDigest(c.file) {
		return refuse("The file of the image %s was resolved to %q, which is not a SHA-256 digest.", ref, shorten(c.file))
	}
	if c.digest != "" {
		if !imageref.IsDigest(c.digest) {
			return refuse("The image %s was resolved to %q, which is not a SHA-256 digest.", ref, shorten(c.digest))
		}
		if ref.Digest != "" && ref.Digest != c.digest {
			return refuse("The task asks for %s, but what was found is %s.", ref, c.digest)
		}
	} else {
		c.digest = ref.Digest
	}
	basics := ref.Name() == BasicsImage
	if basics && p.basics != nil && !*p.basics {
		return refuse("This node does not run the basics algorithm %s (allow_basics_algorithm is false).", ref)
	}
	if d := p.sender(r); !d.Allowed {
		return d
	}
	switch {
	case len(p.rules) == 0:
		return allow("No rule restricts images.")
	case basics && p.basics != nil:
		return allow("The basics algorithm is allowed by allow_basics_algorithm.")
	}
	return p.image(c)
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
