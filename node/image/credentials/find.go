package credentials

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Options of a Store. The zero value has no logins.
type Options struct {
	// Logins are those of the node's own configuration. They come first.
	Logins []Login
	// Files are looked into next, in this order. One that is missing is an error.
	Files []string
	// Environment tells where docker, podman and their like have their files,
	// which come last; os.Getenv for this process. nil: they are not looked at.
	Environment func(name string) string
	// HelperTimeout bounds one call of a credential helper. Default 30 s.
	HelperTimeout time.Duration
}

const defaultHelperTimeout = 30 * time.Second

// Store finds logins. Files are read anew each time: who logs in or out need not
// tell the node. It is safe for concurrent use.
type Store struct{ o Options }

// New makes a Store.
func New(o Options) *Store {
	if o.HelperTimeout <= 0 {
		o.HelperTimeout = defaultHelperTimeout
	}
	return &Store{o}
}

// Place is a file with logins.
type Place struct {
	Path string
	// Wanted by whom: "" for a usual place, where a file may be missing.
	Wanted string
}

// Find returns the login for a repository ("registry.example.org/group/algo"), or
// for a registry alone. The first place that has one decides; in it the entry
// that says most about the repository. ok is false where nobody has one. An error
// says which file or helper failed, and holds no secret; then it is not known
// whether there is a login.
func (s *Store) Find(ctx context.Context, repository string) (l Login, ok bool, err error) {
	name := Normalize(repository)
	if l, ok := longest(s.o.Logins, name); ok {
		return l, true, nil
	}
	for _, p := range s.Places() {
		l, ok, err := s.inFile(ctx, p, name)
		if err != nil || ok {
			return l, ok, err
		}
	}
	return Login{}, false, nil
}

// Places are the files in the order in which they are looked into: those of the
// configuration, then as containers-auth.json(5) has it REGISTRY_AUTH_FILE or else
// the runtime directory's, the user's, and Docker's.
func (s *Store) Places() []Place {
	var out []Place
	add := func(path, wanted string) { out = append(out, Place{path, wanted}) }
	for _, f := range s.o.Files {
		add(f, "registries.auth_files")
	}
	env := s.o.Environment
	if env == nil {
		return out
	}
	home := env("HOME")
	switch file, runtimeDir := env("REGISTRY_AUTH_FILE"), env("XDG_RUNTIME_DIR"); {
	case file != "":
		add(file, "REGISTRY_AUTH_FILE")
	case runtimeDir != "":
		add(filepath.Join(runtimeDir, "containers", "auth.json"), "")
	default:
		add(filepath.Join("/run/containers", strconv.Itoa(os.Getuid()), "auth.json"), "")
	}
	switch config := env("XDG_CONFIG_HOME"); {
	case config != "":
		add(filepath.Join(config, "containers", "auth.json"), "")
	case home != "":
		add(filepath.Join(home, ".config", "containers", "auth.json"), "")
	}
	switch config := env("DOCKER_CONFIG"); {
	case config != "":
		add(filepath.Join(config, "config.json"), "")
	case home != "":
		add(filepath.Join(home, ".docker", "config.json"), "")
	}
	return out
}

// inFile looks into one file.
func (s *Store) inFile(ctx context.Context, p Place, name string) (Login, bool, error) {
	f, err := Read(p)
	if err != nil || f == nil {
		return Login{}, false, err
	}
	if helper, asked := f.helperFor(name); helper != "" {
		l, ok, err := s.ask(ctx, helper, asked)
		if err != nil || ok {
			return l, ok, wrapFile(p, err)
		}
	}
	l, ok, err := f.entry(name)
	if err != nil || ok {
		return l, ok, wrapFile(p, err)
	}
	if f.store == "" {
		return Login{}, false, nil
	}
	l, ok, err = s.ask(ctx, f.store, storeKey(name))
	return l, ok, wrapFile(p, err)
}

func wrapFile(p Place, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("look into %s for the login: %w", p.Path, err)
}
