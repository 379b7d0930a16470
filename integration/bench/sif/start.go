package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/node/boot"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/runtime/embedded"
	"github.com/v6node/v6node/sif"
)

const childStart = "start"

// The figures that ratios are made of.
const (
	figureFirst  = "(d) SIF file to started container, first time"
	figureScript = "(e) sqfs2tar + layout + ctr import + start"
)

// seconds is how often a container is started of an image that is there.
const seconds = 5

const label = "bench-sif"

// job is what the child process of (d) is told, and where what it says goes.
type job struct {
	Endpoint, Directory, Cache, Name, Logs string
}

// started is what it says, in seconds.
type started struct {
	Resolve, Ensure, Pull, Shed, Start, First float64
	Second, Ordinary                          []float64
}

// start measures (d): resolving, reading, converting, pulling and starting, in a process
// that holds what a node holds of it.
func (b *bench) start(ctx context.Context, f *fixture) (err error) {
	dir := filepath.Join(b.dir, "d")
	d, err := lab.Containerd(ctx, dir, b.bundle, b.plugin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.EndContainerd(d), os.RemoveAll(dir)) }()
	j := job{Endpoint: d.Endpoint(), Directory: filepath.Dir(f.sif), Cache: filepath.Join(dir, "cache"), Name: filepath.Base(f.sif), Logs: filepath.Join(dir, "logs")}
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	store := filepath.Join(dir, "root", "containerd", "io.containerd.content.v1.content")
	both, ours := watchDisk(j.Cache, store), watchDisk(j.Cache)
	out, u, err := b.self(ctx, childStart, string(text))
	var s started
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	peak, left := both.end()
	oursPeak, oursLeft := ours.end()
	if err != nil {
		return err
	}
	for _, x := range []struct {
		figure string
		value  float64
	}{{figureFirst, s.First}, {"(d) of it: reading the file", s.Resolve}, {"(d) of it: converting", s.Ensure}, {"(d) of it: pulling", s.Pull}, {"(d) of it: removing the runtime's copy", s.Shed}, {"(d) of it: sandbox and container", s.Start}} {
		b.add(f, x.figure, "s", x.value)
	}
	for n := range s.Second {
		b.add(f, "(d) SIF file to started container, second time", "ms", 1000*s.Second[n])
		b.add(f, "(d) an ordinary image that is there, to started container", "ms", 1000*s.Ordinary[n])
	}
	b.mega(f, "(d) peak memory", u.peak)
	b.mega(f, "(d) disk beyond the snapshot, peak", peak)
	b.mega(f, "(d) disk beyond the snapshot, left", left)
	b.mega(f, "(d) disk, v6node's own part, peak", oursPeak)
	b.mega(f, "(d) disk, v6node's own part, left", oursLeft)
	return nil
}

// startSIF is the child process of (d).
func startSIF(ctx context.Context, text string) (err error) {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	c, err := runtime.Dial(ctx, j.Endpoint, runtime.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	content, err := embedded.OpenContent(j.Endpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	store, err := sif.Open(ctx, sif.Options{Directories: []string{j.Directory}, CacheDir: j.Cache, Importer: boot.Importer(content)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	r := runner{c: c, logs: j.Logs}
	var s started
	var id string
	took := func(what func() error) float64 {
		began := time.Now()
		if err == nil {
			err = what()
		}
		return time.Since(began).Seconds()
	}
	once := func() {
		pulled := false
		var res sif.Resolved
		var p *sif.Pull
		s.Resolve = took(func() error { res, err = store.Resolve(ctx, "sif:"+j.Name, nil); return err })
		s.Ensure = took(func() error { p, err = store.Ensure(ctx, res, nil); return err })
		s.Pull = took(func() error {
			if _, missing := c.Image(ctx, p.ImageID); errors.Is(missing, runtime.ErrImageNotFound) {
				if _, err := c.PullImage(ctx, p.Reference, &runtime.Auth{Username: p.Username, Password: p.Password}, runtime.PullOptions{}); err != nil {
					return err
				}
				pulled = true
			}
			id = p.ImageID
			return nil
		})
		s.Shed = took(func() error {
			if pulled {
				return errors.Join(content.Shed(ctx, p.Layers), p.Release())
			}
			return p.Release()
		})
		s.Start = took(func() error { return r.start(ctx, id) })
	}
	s.First = took(func() error { once(); return err })
	first := s
	for range seconds {
		first.Second = append(first.Second, took(func() error { once(); return err }))
		first.Ordinary = append(first.Ordinary, took(func() error {
			if _, err := c.Image(ctx, id); err != nil {
				return err
			}
			return r.start(ctx, id)
		}))
	}
	if err = errors.Join(err, r.end(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(first)
}

// runner starts containers and removes them.
type runner struct {
	c     *runtime.Client
	logs  string
	boxes []string
}

// start starts a container of an image.
func (r *runner) start(ctx context.Context, image string) error {
	n := fmt.Sprint(len(r.boxes) + 1)
	sb := &runtime.SandboxSpec{
		Name: label + n, Namespace: label, UID: fmt.Sprint(label, os.Getpid(), "-", n), Hostname: label,
		Labels: map[string]string{label: n}, LogDirectory: filepath.Join(r.logs, n), CgroupParent: r.group(n).Parent(),
	}
	r.boxes = append(r.boxes, "")
	if err := r.group(n).Create(runtime.Resources{}); err != nil {
		return err
	}
	sandbox, err := r.c.RunSandbox(ctx, sb)
	if err != nil {
		return err
	}
	r.boxes[len(r.boxes)-1] = sandbox
	id, err := r.c.CreateContainer(ctx, sandbox, &runtime.ContainerSpec{Name: "algorithm", Image: image, Args: []string{"/bin/true"}, LogPath: "0.log"}, sb)
	if err != nil {
		return err
	}
	return r.c.StartContainer(ctx, id)
}

func (r *runner) group(n string) *runtime.Cgroup {
	return r.c.Cgroup(fmt.Sprint(label, os.Getpid()), n)
}

// end removes what was started.
func (r *runner) end(ctx context.Context) error {
	var errs []error
	for n, id := range r.boxes {
		if id != "" {
			errs = append(errs, r.c.StopSandbox(ctx, id), r.c.RemoveSandbox(ctx, id))
		}
		errs = append(errs, r.group(fmt.Sprint(n+1)).Remove(ctx))
	}
	return errors.Join(errs...)
}
