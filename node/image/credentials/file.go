package credentials

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/plainfile"
)

// Bounds of a file: a person's has a few entries.
const (
	maxFile    = 1 << 20
	maxEntries = 4096
)

// File is one file of logins, as docker, podman, skopeo, buildah and apptainer
// write them:
//
//	{"auths": {"registry.example.org/group": {"auth": "BASE64(user:password)"}},
//	 "credHelpers": {"registry.example.org": "ecr-login"}, "credsStore": "pass"}
type File struct {
	entries []entry
	helpers map[string]string // registry or path, as written -> helper
	store   string            // helper for all others
}

type entry struct {
	at, written string // the key, normalized and as it is in the file
	auth        auth
}

// auth is one entry of a file. What others write beside it does not matter here.
type auth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Read reads a file. One that may be missing and is gives nil.
func Read(p Place) (*File, error) {
	f, err := plainfile.Open(p.Path)
	if errors.Is(err, fs.ErrNotExist) && p.Wanted == "" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the file with logins cannot be read: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("the file with logins %s cannot be read: %w", p.Path, err)
	}
	file, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("the file with logins %s %w: correct it, or log in anew", p.Path, err)
	}
	return file, nil
}

// parse reads a file's content. Its errors hold nothing of it.
func parse(text []byte) (*File, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("is longer than %d KiB", maxFile>>10)
	}
	var in struct {
		Auths       map[string]auth   `json:"auths"`
		CredHelpers map[string]string `json:"credHelpers"`
		CredsStore  string            `json:"credsStore"`
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return &File{}, nil // as a mount of /dev/null for one that is to be empty
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, errors.New("is not the JSON that docker login writes")
	}
	if len(in.Auths)+len(in.CredHelpers) > maxEntries {
		return nil, fmt.Errorf("has more than %d entries", maxEntries)
	}
	out := &File{helpers: in.CredHelpers, store: in.CredsStore}
	for key, a := range in.Auths {
		out.entries = append(out.entries, entry{Normalize(key), key, a})
	}
	// The longest first; of several spellings of one registry the plain one.
	slices.SortFunc(out.entries, func(a, b entry) int {
		if n := len(b.at) - len(a.at); n != 0 {
			return n
		}
		if n := len(a.written) - len(b.written); n != 0 {
			return n
		}
		return strings.Compare(a.written, b.written)
	})
	return out, nil
}

// Helpers are the helper programs that the file names.
func (f *File) Helpers() []string {
	var out []string
	for _, h := range f.helpers {
		out = append(out, h)
	}
	if f.store != "" {
		out = append(out, f.store)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// entry is the login in the file itself. Where a helper keeps the logins there
// are entries with nothing in them.
func (f *File) entry(name string) (Login, bool, error) {
	for _, e := range f.entries {
		if !covers(e.at, name) {
			continue
		}
		l, err := e.auth.login(e.at)
		if err != nil {
			return Login{}, false, fmt.Errorf("its entry for %s %w", e.written, err)
		}
		if !l.empty() {
			return l, true, nil
		}
	}
	return Login{}, false, nil
}

func (a auth) login(at string) (Login, error) {
	l := Login{Registry: at, Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a.Auth == "" {
		return l, nil
	}
	plain, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return Login{}, errors.New("is not BASE64 of user:password")
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if !ok {
		return Login{}, errors.New("is not BASE64 of user:password")
	}
	// Docker once padded passwords with zeros.
	l.Username, l.Password = user, strings.TrimRight(password, "\x00")
	return l, nil
}

// helperFor is the helper that the file names for a repository, and what it is to
// be asked for: the key, as it is written.
func (f *File) helperFor(name string) (helper, asked string) {
	best := ""
	for key, h := range f.helpers {
		at := Normalize(key)
		if h == "" || !covers(at, name) || len(at) < len(best) || at == best && key > asked {
			continue
		}
		best, helper, asked = at, h, key
	}
	return helper, asked
}

// storeKey is what a helper for all registries is asked for: the registry, as
// docker login names it.
func storeKey(name string) string {
	host, _, _ := strings.Cut(name, "/")
	if host == hub {
		return "https://index." + hub + "/v1/"
	}
	return host
}
