package sif

import "github.com/v6node/v6node/sif/registry"

// Served is an image that can be pulled until it is released.
type Served struct {
	// Reference is what to pull: 127.0.0.1:PORT/NAME@sha256:...
	Reference string
	// Username and Password are the login that PullImage needs.
	Username, Password string
	// Release ends the serving, after the pull. Call it once.
	Release func()
}

// Serve serves an image that is none of the store's beside those that are. The name is made
// of any text.
func (s *Store) Serve(group, name string, img registry.Image) (*Served, error) {
	_, _, digest := img.Manifest()
	name = group + "/" + registry.Name(name)
	remove, err := s.registry.Add(name, registry.Tag(digest), img)
	if err != nil {
		return nil, err
	}
	out := &Served{Reference: s.address + "/" + name + "@" + digest, Release: remove}
	out.Username, out.Password = s.registry.Login()
	return out, nil
}
