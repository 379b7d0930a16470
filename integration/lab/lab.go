// Package lab builds a vantage6 world on one machine for the demonstration, the
// integration tests and the benchmarks: the stand-in server, an image registry
// on loopback, and real v6node processes. What it starts it ends.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

// Programs are the executables that a lab needs, by absolute path.
type Programs struct {
	// V6node is the program under test; Bundle the directory with the managed
	// containerd and the sample algorithms.
	V6node, Bundle string
}

// Find returns v6node and the first of the directories that holds a bundle
// with the sample algorithms.
func Find(v6node string, bundles []string) (Programs, error) {
	for _, dir := range bundles {
		p := Programs{V6node: v6node, Bundle: dir}
		if _, err := os.Stat(p.Algorithm("average")); dir != "" && err == nil {
			return p, nil
		}
	}
	return Programs{}, fmt.Errorf("the sample algorithms are in none of %q: build them with `make`, or name their bundle with --bundle-dir", bundles)
}

// Algorithm is the path of a sample algorithm's static binary.
func (p Programs) Algorithm(name string) string {
	return filepath.Join(p.Bundle, "algorithms", name)
}

// Lab is one world. Its methods may be called from several goroutines.
type Lab struct {
	Dir      string
	Server   *standin.Server
	Registry *imagekit.Registry
	programs Programs
	stop     context.CancelFunc
}

// New makes a world in dir, which exists. The caller closes it.
func New(ctx context.Context, dir string, p Programs, o standin.Options) (*Lab, error) {
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	registry, err := imagekit.Serve(own, imagekit.RegistryOptions{})
	if err != nil {
		stop()
		return nil, err
	}
	srv, err := standin.New(o)
	if err != nil {
		registry.Close()
		stop()
		return nil, err
	}
	return &Lab{Dir: dir, Server: srv, Registry: registry, programs: p, stop: stop}, nil
}

// Close ends server and registry. Nodes are ended by those who started them.
func (l *Lab) Close() error {
	l.Server.Close()
	l.Registry.Close()
	l.stop()
	return nil
}

// Push packs a static binary into an image and serves it.
func (l *Lab) Push(repository, binary string, change ...func(*imagekit.Spec)) (imagekit.Ref, error) {
	s := imagekit.Spec{Binary: binary, Files: imagekit.Skeleton(), Env: []string{"PKG_NAME=" + filepath.Base(binary)}}
	for _, c := range change {
		c(&s)
	}
	img, err := imagekit.Build(s)
	if err != nil {
		return imagekit.Ref{}, err
	}
	ref, err := l.Registry.Push(repository, "latest", img)
	if err != nil {
		return imagekit.Ref{}, fmt.Errorf("serve %s: %w", repository, err)
	}
	return ref, nil
}

// errEnded says that a node's process is no more.
var errEnded = errors.New("the node has ended")
