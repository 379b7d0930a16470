package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/node/payload"
)

// Errors of reading what an algorithm left behind.
var (
	// ErrNoOutput: the algorithm wrote nothing to its output file.
	ErrNoOutput = errors.New("the algorithm wrote no output")
	// ErrUnsafeOutput: the output is not the plain file that it must be.
	ErrUnsafeOutput = errors.New("the algorithm's output is not a regular file")
)

// Names that the container sees.
const (
	dataFolder = "/mnt/data"
	tempFolder = "/mnt/tmp"
	inputName  = "input"
	outputName = "output"
	tokenName  = "token"
	// connectionsName is not for the container.
	connectionsName = "connections"
	contextVar      = "RUN_CONTEXT_FILE"
	contextName     = "run_context.json"
)

// Mount is one bind mount of the algorithm container.
type Mount struct {
	Host, Container string
	ReadOnly        bool
}

// Root is the directory below which all workspaces of a node live:
// runs/<run id> for each run, jobs/<job id> for what the runs of one job
// share, and logs/<run id> for the log of a run that is over.
type Root struct{ Dir string }

// Spec says what a run is to see.
type Spec struct {
	RunID, TaskID, JobID, NodeID, CollaborationID int64
	// Input writes the run's input, as the algorithm reads it (decrypted), to an empty file, and says what is
	// in it. The file is not complete before it returns, and nobody else can read it.
	Input func(*os.File) (*payload.Object, error)
	// Databases the node offers, and which of them the task names.
	Databases []Database
	Requested []Request
	// AlgorithmEnv comes from the configuration and goes to every run.
	AlgorithmEnv map[string]string
	// ProxyHost and ProxyPort are where the run's proxy listens; ProxyAddress
	// is the host's loopback address inside the sandbox.
	ProxyHost    string
	ProxyPort    int
	ProxyAddress string
	// Hosts are further lines of the run's /etc/hosts.
	Hosts string
	// Variables go to every run of this kind, before AlgorithmEnv.
	Variables map[string]string
	// Connections is what the node keeps with the run, for Connections.
	Connections []byte
	// TmpfsSize is the size of the container's /tmp in bytes, ShmSize that of
	// its /dev/shm; without the latter the runtime makes one.
	TmpfsSize, ShmSize int64
	// RunContext adds the run context file (schema 0.1).
	RunContext bool
}

// Run is one run's workspace.
type Run struct {
	root Root
	id   int64
	// Env and Mounts are what the container gets.
	Env    []Variable
	Mounts []Mount

	sources []source
}

// Open returns the workspace of a run that was prepared before, without Env,
// Mounts and databases.
func (r Root) Open(runID int64) *Run { return &Run{root: r, id: runID} }

// Prepare makes the workspace of a run. It replaces what an earlier attempt of
// the same run left. On an error nothing of it remains.
func (r Root) Prepare(ctx context.Context, s *Spec) (_ *Run, err error) {
	w := r.Open(s.RunID)
	sources, err := resolveDatabases(s.Databases, s.Requested)
	if err != nil {
		return nil, err
	}
	if err := w.Remove(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Remove())
		}
	}()
	if err := w.makeDirs(s); err != nil {
		return nil, fmt.Errorf("make the files of run %d: %w", s.RunID, err)
	}
	if err := w.lendFolders(sources); err != nil {
		return nil, err
	}
	if err := w.copyPrivate(ctx, sources); err != nil {
		return nil, err
	}
	input, err := w.writeInput(s)
	if err != nil {
		return nil, err
	}
	env, err := w.environment(s, sources, input)
	if err != nil {
		return nil, err
	}
	w.sources = sources
	w.Env = env.encoded(contextVar)
	w.Mounts = []Mount{
		{Host: w.data(), Container: w.inside()},
		{Host: w.path("hosts"), Container: "/etc/hosts", ReadOnly: true},
		{Host: w.path("resolv.conf"), Container: "/etc/resolv.conf", ReadOnly: true},
		{Host: w.path("tmp"), Container: "/tmp"},
		{Host: r.job(s.JobID), Container: tempFolder},
	}
	if s.ShmSize > 0 {
		w.Mounts = append(w.Mounts, Mount{Host: w.path("shm"), Container: "/dev/shm"})
	}
	for _, src := range sources {
		if src.mount != nil {
			w.Mounts = append(w.Mounts, *src.mount)
		}
	}
	return w, nil
}

func (w *Run) makeDirs(s *Spec) error {
	if err := os.MkdirAll(w.LogDir(), 0o700); err != nil {
		return err
	}
	if err := openDir(w.data()); err != nil {
		return err
	}
	if err := openDir(w.root.job(s.JobID)); err != nil {
		return err
	}
	if err := mountMemory(w.path("tmp"), s.TmpfsSize, 0); err != nil {
		return err
	}
	if s.ShmSize > 0 {
		if err := mountMemory(w.path("shm"), s.ShmSize, unix.MS_NOEXEC); err != nil {
			return err
		}
	}
	hosts := fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost\n%s\t%s\n", s.ProxyAddress, s.ProxyHost) + s.Hosts
	for _, f := range []struct {
		path    string
		mode    os.FileMode
		content []byte
	}{
		{w.path("hosts"), 0o644, []byte(hosts)},
		{w.path(connectionsName), 0o600, s.Connections},
		{w.path("resolv.conf"), 0o644, []byte("# this run has no name server\n")},
		{filepath.Join(w.data(), outputName), 0o666, nil},
		{filepath.Join(w.data(), tokenName), 0o644, nil},
	} {
		if err := writeFile(f.path, f.content, f.mode); err != nil {
			return err
		}
	}
	return nil
}

func (w *Run) input() string { return filepath.Join(w.data(), inputName) }

// writeInput writes the input. Only what is complete can be read by the algorithm's
// user, whoever that is.
func (w *Run) writeInput(s *Spec) (_ *payload.Object, err error) {
	f, err := os.OpenFile(w.input(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the input of run %d: %w", w.id, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in, err := s.Input(f)
	if err != nil {
		return nil, err
	}
	return in, f.Chmod(0o644)
}

func (w *Run) environment(s *Spec, sources []source, input *payload.Object) (*environment, error) {
	labels := make([]string, len(sources))
	for i, src := range sources {
		labels[i] = src.db.Label
	}
	e := new(environment)
	err := e.setAll(
		[2]string{"INPUT_FILE", w.inside() + "/" + inputName},
		[2]string{"OUTPUT_FILE", w.inside() + "/" + outputName},
		[2]string{"TOKEN_FILE", w.inside() + "/" + tokenName},
		[2]string{"TEMPORARY_FOLDER", tempFolder},
		[2]string{"HOST", "http://" + s.ProxyHost},
		[2]string{"PORT", strconv.Itoa(s.ProxyPort)},
		[2]string{"API_PATH", ""},
		[2]string{"USER_REQUESTED_DATABASE_LABELS", strings.Join(labels, ",")},
		// The tools look up the type of every label named here, so it lists
		// only the databases whose variables this run has.
		[2]string{"DB_LABELS", strings.Join(labels, ",")},
	)
	if err != nil {
		return nil, err
	}
	for _, src := range sources {
		if err := databaseEnv(e, src); err != nil {
			return nil, err
		}
	}
	for _, variables := range []map[string]string{s.Variables, s.AlgorithmEnv} {
		for _, k := range slices.Sorted(maps.Keys(variables)) {
			if err := e.set(k, variables[k]); err != nil {
				return nil, err
			}
		}
	}
	if s.RunContext {
		if err := w.writeContext(s, sources, input); err != nil {
			return nil, err
		}
		if err := e.set(contextVar, w.inside()+"/"+contextName); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// WriteToken stores the container token, without a newline: once for the
// algorithm, and once where the algorithm cannot change it.
func (w *Run) WriteToken(token string) error {
	for path, mode := range map[string]os.FileMode{
		filepath.Join(w.data(), tokenName): 0o644,
		w.path(tokenName):                  0o600,
	} {
		if err := writeFile(path, []byte(token), mode); err != nil {
			return fmt.Errorf("write the token of run %d: %w", w.id, err)
		}
	}
	return nil
}

// Token reads the node's own copy of the container token back, after a restart
// of the node.
func (w *Run) Token() (string, error) {
	b, err := os.ReadFile(w.path(tokenName))
	if err != nil {
		return "", fmt.Errorf("read the token of run %d: %w", w.id, err)
	}
	return string(b), nil
}

// Connections reads back what Prepare was given, after a restart of the node; it
// is empty for a run that was prepared without.
func (w *Run) Connections() ([]byte, error) {
	b, err := os.ReadFile(w.path(connectionsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the connections of run %d: %w", w.id, err)
	}
	return b, nil
}

// Output opens what the algorithm wrote. The file is the algorithm's, so a
// link, a pipe or a device in its place is refused (ErrUnsafeOutput), and an
// empty or missing file is ErrNoOutput. The caller closes it.
func (w *Run) Output() (*os.File, int64, error) {
	f, size, err := openRegular(filepath.Join(w.data(), outputName))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, 0, ErrNoOutput
	case err != nil:
		return nil, 0, err
	case size == 0:
		return nil, 0, errors.Join(ErrNoOutput, f.Close())
	}
	return f, size, nil
}

// LogDir is where the runtime writes the container's log; LogPath is the log's
// file name in it.
func (w *Run) LogDir() string { return w.path("log") }

// LogFile is the absolute path of the container's log.
func (w *Run) LogFile() string { return filepath.Join(w.LogDir(), LogName) }

// ShippedFile is where the node notes up to where it has sent the log.
func (w *Run) ShippedFile() string { return w.path("shipped") }

// TrafficFile is where the node notes what the run's connections have carried.
func (w *Run) TrafficFile() string { return w.path("traffic") }

// LogName is the file name of the container's log in LogDir.
const LogName = "algorithm.log"

// Remove deletes the run's workspace. It is idempotent.
func (w *Run) Remove() error {
	for _, name := range []string{"tmp", "shm"} {
		if err := unmountMemory(w.path(name)); err != nil {
			return fmt.Errorf("unmount the scratch of run %d: %w", w.id, err)
		}
	}
	if err := os.RemoveAll(w.dir()); err != nil {
		return fmt.Errorf("remove the files of run %d: %w", w.id, err)
	}
	return nil
}

// ReleaseJob takes a job's shared scratch directory away if it is empty, or
// whatever it holds when all is set; a run that is prepared later finds a new
// one. The caller makes sure that no run of the job is in work on this node, and
// that none is taken into work before the return. That is soon: content is only
// set aside, for the caller to delete by the function that is returned, never
// nil. What a crash leaves of it is deleted by RemoveReleased.
func (r Root) ReleaseJob(jobID int64, all bool) (remove func() error, err error) {
	remove = func() error { return nil }
	err = os.Remove(r.job(jobID))
	if errors.Is(err, unix.ENOTEMPTY) && all {
		var aside string
		if aside, err = r.setAside(r.job(jobID)); err == nil {
			remove = func() error { return os.RemoveAll(aside) }
		}
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || (!all && errors.Is(err, unix.ENOTEMPTY)) {
		return remove, nil
	}
	return remove, fmt.Errorf("remove the scratch of job %d: %w", jobID, err)
}

// setAside moves a directory out of the way and returns where it is now.
func (r Root) setAside(dir string) (string, error) {
	if err := os.MkdirAll(r.released(), 0o700); err != nil {
		return "", err
	}
	aside, err := os.MkdirTemp(r.released(), "job-")
	if err != nil {
		return "", err
	}
	return aside, os.Rename(dir, filepath.Join(aside, filepath.Base(dir)))
}

// RemoveReleased deletes what was set aside. A ReleaseJob at the same moment may
// fail, and succeeds when it is repeated.
func (r Root) RemoveReleased() error { return os.RemoveAll(r.released()) }

func (r Root) released() string { return filepath.Join(r.Dir, "released") }

// Jobs lists the jobs that have a scratch directory, with the time at which it
// was last changed.
func (r Root) Jobs() (map[int64]time.Time, error) {
	all, err := ids(filepath.Join(r.Dir, "jobs"))
	if err != nil {
		return nil, err
	}
	out := make(map[int64]time.Time, len(all))
	for _, id := range all {
		if info, err := os.Stat(r.job(id)); err == nil {
			out[id] = info.ModTime()
		}
	}
	return out, nil
}

// RunIDs lists the runs that have a workspace.
func (r Root) RunIDs() ([]int64, error) { return ids(filepath.Join(r.Dir, "runs")) }

func ids(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, e := range entries {
		if id, err := strconv.ParseInt(e.Name(), 10, 64); err == nil {
			out = append(out, id)
		}
	}
	return out, nil
}

func (w *Run) dir() string             { return filepath.Join(w.root.Dir, "runs", strconv.FormatInt(w.id, 10)) }
func (w *Run) path(name string) string { return filepath.Join(w.dir(), name) }
func (w *Run) data() string            { return w.path("data") }
func (w *Run) inside() string          { return fmt.Sprintf("%s/task-%09d", dataFolder, w.id) }
func (r Root) job(id int64) string     { return filepath.Join(r.Dir, "jobs", strconv.FormatInt(id, 10)) }

// openDir makes a directory that any user of the container may write to.
func openDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, 0o777) // past the umask
}

// writeFile writes a file with exactly this mode, whatever the umask.
func writeFile(path string, content []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	_, err = f.Write(content)
	return err
}

// openRegular opens a file that an algorithm may have replaced: it follows no
// link in the last place, does not block on a pipe and takes regular files only.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, 0, ErrUnsafeOutput
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.Join(ErrUnsafeOutput, f.Close())
	}
	return f, info.Size(), nil
}
