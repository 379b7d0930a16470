package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Host is one place that has the images of a registry.
type Host struct {
	Scheme string // "https", or "http" where the file says so; "" is as usual for this host
	Host   string // "host[:port]"; "" is the registry itself
	Path   string // of the API: "/v2", or with something before it
	Mirror bool   // and not the registry itself

	Resolve bool // may be asked what a tag means
	Pull    bool // may be asked for what has a digest

	Header     http.Header // goes with every request to it
	CAs        []string    // PEM files with authorities that are trusted beside the system's
	Client     []KeyPair   // what the node shows for itself
	SkipVerify bool        // its certificate is not looked at
	DialTime   time.Duration
}

// KeyPair are the files of a client's certificate and key; Key is "" where both
// are in one.
type KeyPair struct{ Certificate, Key string }

// apiPath is where the API is by specification.
const apiPath = "/v2"

// Directories are those that have a directory for each registry. In the order of
// names that containerd has, with the port in two spellings and _default last, the
// first directory that has one counts.
type Directories []string

// Find returns the directory for a registry, "" where there is none.
func (d Directories) Find(registry string) (string, error) {
	for _, name := range names(registry) {
		for _, dir := range d {
			path := filepath.Join(dir, name)
			info, err := os.Stat(path)
			switch {
			case err == nil && info.IsDir():
				return path, nil
			case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrPermission): // not for this user
			default:
				return "", fmt.Errorf("look for the mirrors and certificates of %s: %w", registry, err)
			}
		}
	}
	return "", nil
}

// Names are the registries for which there is a directory, as the directories are
// called.
func (d Directories) Names() ([]string, error) {
	var out []string
	for _, dir := range d {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // not for this user
			return out, fmt.Errorf("look for mirrors and certificates of registries: %w", err)
		}
		for _, e := range entries {
			if !slices.Contains(out, e.Name()) {
				out = append(out, e.Name())
			}
		}
	}
	return out, nil
}

func names(registry string) []string {
	if strings.ContainsAny(registry, `/\`) || strings.HasPrefix(registry, ".") {
		return nil
	}
	all := []string{registry, "_default"}
	if i := strings.LastIndex(registry, ":"); i > 0 {
		all = append([]string{registry[:i] + "_" + registry[i+1:] + "_"}, all...)
	}
	return all
}

// Load returns the places of a registry, in the order in which they are asked:
// mirrors, and last the registry itself. nil: nothing is configured for it.
func (d Directories) Load(registry string) ([]Host, error) {
	dir, err := d.Find(registry)
	if err != nil || dir == "" {
		return nil, err
	}
	file := filepath.Join(dir, "hosts.toml")
	text, err := readAtMost(file, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0:
		return certificates(dir)
	case err != nil:
		return nil, fmt.Errorf("the mirrors of %s cannot be read: %w", registry, err)
	}
	all, err := parse(text, dir)
	if err != nil {
		return nil, fmt.Errorf("the mirrors of %s cannot be read: %s: %w", registry, file, err)
	}
	return all, nil
}

// certificates reads a directory as Docker has it: *.crt are authorities, *.cert and
// the *.key beside it a client's.
func certificates(dir string) ([]Host, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	h := Host{Path: apiPath, Resolve: true, Pull: true}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			h.CAs = append(h.CAs, path)
		case ".cert":
			pair := KeyPair{Certificate: path}
			if key := strings.TrimSuffix(path, ".cert") + ".key"; exists(key) {
				pair.Key = key
			}
			h.Client = append(h.Client, pair)
		}
	}
	if len(h.CAs)+len(h.Client) == 0 {
		return nil, nil
	}
	return []Host{h}, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
