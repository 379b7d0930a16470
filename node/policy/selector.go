package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Selector picks some runs: those of the image, of the organization and of the
// user, of what it names. It is immutable.
type Selector struct {
	Image        string // as an entry of policies.allowed_algorithms; "" is every image
	Organization string // id or exact name of the organization that sent the task; "" is every one
	User         int64  // who sent the task; 0 is everyone

	pattern *Pattern // nil without an image
}

// NewSelector compiles a selector.
func NewSelector(image, organization string, user int64) (Selector, error) {
	s := Selector{Image: image, Organization: organization, User: user}
	if strings.TrimSpace(organization) != organization || len(organization) > 1024 {
		return s, fmt.Errorf("%q is not an id or a name of an organization; remove the spaces around it", organization)
	}
	if image != "" {
		p, err := CompilePattern(image)
		if err != nil {
			return s, err
		}
		s.pattern = p
	}
	return s, nil
}

// Equal tells whether two selectors pick the same.
func (s Selector) Equal(o Selector) bool {
	return s.Image == o.Image && s.Organization == o.Organization && s.User == o.User
}

// Subject is a run that selectors look at. The functions are asked only where a
// selector needs their answer; they may be nil, which is an error then.
type Subject struct {
	Image          string // as the task names it
	UserID         int64  // who sent the task; 0 when unknown
	OrganizationID int64  // that sent the task; 0 when unknown, which no selector picks
	// OrganizationName finds the name of OrganizationID.
	OrganizationName func() (string, error)
	// Digest finds the digest of Image, and of an oras:// image that of its file.
	Digest func() (digest, file string, err error)
	// DigestOf resolves an image that a selector names by tag.
	DigestOf func(ref string) (string, error)
}

// Picks tells whether a run is among those. What cannot be found out is an error.
func (s *Selector) Picks(q *Subject) (bool, error) {
	if s.User != 0 && s.User != q.UserID {
		return false, nil
	}
	if yes, err := s.sender(q); !yes {
		return false, err
	}
	if s.pattern == nil {
		return true, nil
	}
	m, err := s.pattern.Match(q.Image, "", "", nil)
	if err != nil || m != Unsure {
		return m == Matches, err
	}
	if q.Digest == nil {
		return false, errors.New("the digest of the image is not known")
	}
	digest, file, err := q.Digest()
	if err != nil {
		return false, err
	}
	m, err = s.pattern.Match(q.Image, digest, file, q.DigestOf)
	return m == Matches, err
}

func (s *Selector) sender(q *Subject) (bool, error) {
	if s.Organization == "" {
		return true, nil
	}
	if q.OrganizationID == 0 {
		return false, nil
	}
	if id, err := strconv.ParseInt(s.Organization, 10, 64); err == nil {
		return id == q.OrganizationID, nil
	}
	if q.OrganizationName == nil {
		return false, errors.New("the name of the organization is not known")
	}
	name, err := q.OrganizationName()
	if err != nil {
		return false, fmt.Errorf("the name of organization %d cannot be found: %w", q.OrganizationID, err)
	}
	return name == s.Organization, nil
}
