package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrDatabase marks every error that concerns a database of the node.
var ErrDatabase = errors.New("database")

// Database is one data source that the node's configuration offers.
type Database struct {
	Label, Type string
	// URI is an absolute path of a file or folder, or an address that the
	// algorithm's driver understands.
	URI string
	// Env is handed to the algorithm as <LABEL>_DB_PARAM_<KEY>.
	Env map[string]string
	// CopyPlace mounts a file where the reference node puts its copy,
	// /mnt/data/<file name>, and not at /mnt/<label><suffix>.
	CopyPlace bool
	// Private gives the run a copy of a file, which it may change and which goes
	// with the workspace.
	Private bool
	// Writable lets runs change a folder, up to SizeLimit bytes on the disk.
	Writable  bool
	SizeLimit int64
}

// Request is one database that a task names, with the parameters that the
// researcher gave (a JSON object, or empty).
type Request struct{ Label, Parameters string }

// source is a requested database made ready: where it is mounted, if it is on
// this machine's file system, and what the algorithm is told.
type source struct {
	db     Database
	mount  *Mount
	uri    string // as the algorithm sees it
	params map[string]json.RawMessage
	from   string // of what mount is a copy, "" for the database itself
}

// resolveDatabases looks up what the task names. Files and folders must exist.
func resolveDatabases(have []Database, wanted []Request) ([]source, error) {
	var out []source
	for _, w := range wanted {
		i := slices.IndexFunc(have, func(d Database) bool { return d.Label == w.Label })
		if i < 0 {
			return nil, fmt.Errorf("%w %q is not offered by this node: name one of its own (%s)", ErrDatabase, w.Label, labelList(have))
		}
		if slices.ContainsFunc(out, func(s source) bool { return s.db.Label == w.Label }) {
			continue
		}
		s := source{db: have[i], uri: have[i].URI}
		if w.Parameters != "" {
			if err := json.Unmarshal([]byte(w.Parameters), &s.params); err != nil {
				return nil, fmt.Errorf("%w %q: its parameters are not a JSON object: %w", ErrDatabase, w.Label, err)
			}
		}
		if path, ok := LocalPath(s.db.URI); ok {
			m, err := mountOf(s.db, path)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(out, func(o source) bool { return o.mount != nil && o.mount.Container == m.Container }) {
				return nil, fmt.Errorf("%w %q: another database of this task has a file of the same name: set mount_mode: ro for one of them", ErrDatabase, w.Label)
			}
			s.mount, s.uri = m, m.Container
		}
		out = append(out, s)
	}
	return out, nil
}

// LocalPath tells whether a database's URI is a path of this machine, and
// which. Absolute paths and file:// URIs are.
func LocalPath(uri string) (string, bool) {
	if filepath.IsAbs(uri) {
		return filepath.Clean(uri), true
	}
	if u, err := url.Parse(uri); err == nil && u.Scheme == "file" && (u.Host == "" || u.Host == "localhost") && filepath.IsAbs(u.Path) {
		return filepath.Clean(u.Path), true
	}
	return "", false
}

// Mount is how a run would see a database of this machine's file system: an
// error wraps ErrDatabase and says why it could not. It is nil for a service.
func (d Database) Mount() (*Mount, error) {
	path, ok := LocalPath(d.URI)
	if !ok {
		return nil, nil
	}
	return mountOf(d, path)
}

// mountOf gives the mount of a file or folder.
func mountOf(db Database, path string) (*Mount, error) {
	label := db.Label
	// The mount is made of the resolved path, so that a link swapped after
	// this check cannot lead elsewhere.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, unreadable(label, path, err)
	}
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK, 0) // not to hang on a fifo
	if err != nil {
		return nil, unreadable(label, path, err)
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, unreadable(label, path, err)
	}
	m := &Mount{Host: real, Container: "/mnt/" + label, ReadOnly: true}
	switch {
	case info.Mode().IsRegular() && db.CopyPlace:
		m.Container = dataFolder + "/" + filepath.Base(path)
	case info.Mode().IsRegular():
		m.Container += filepath.Ext(path)
	case info.IsDir():
		m.ReadOnly = !db.Writable
	default:
		return nil, fmt.Errorf("%w %q: %s is neither a file nor a folder: correct its uri in the node's configuration", ErrDatabase, label, path)
	}
	return m, nil
}

func unreadable(label, path string, err error) error {
	what := "cannot be read"
	if errors.Is(err, fs.ErrNotExist) {
		what = "does not exist"
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // the path is in the sentence already
	}
	return fmt.Errorf("%w %q: %s %s (%w): correct its uri in the node's configuration or the file's permissions", ErrDatabase, label, path, what, err)
}

func labelList(have []Database) string {
	if len(have) == 0 {
		return "it has none"
	}
	labels := make([]string, len(have))
	for i, d := range have {
		labels[i] = d.Label
	}
	return strings.Join(labels, ", ")
}

// databaseEnv adds a database's variables: where it is, its type, the
// credentials of its own and the researcher's parameters.
func databaseEnv(e *environment, s source) error {
	prefix := strings.ToUpper(s.db.Label) + "_"
	if err := e.setAll([2]string{prefix + "DATABASE_URI", s.uri}, [2]string{prefix + "DATABASE_TYPE", s.db.Type}); err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(s.db.Env)) {
		if err := e.set(prefix+"DB_PARAM_"+strings.ToUpper(k), s.db.Env[k]); err != nil {
			return err
		}
	}
	for _, k := range []string{"query", "sheet_name"} {
		if raw, ok := s.params[k]; ok {
			if err := e.set(prefix+strings.ToUpper(k), plainText(raw)); err != nil {
				return err
			}
		}
	}
	if raw, ok := s.params["preprocessing"]; ok {
		return e.set(prefix+"PREPROCESSING", string(raw)) // the tools parse it as JSON
	}
	return nil
}

// plainText turns a JSON string into its content and leaves anything else as
// JSON text.
func plainText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}
