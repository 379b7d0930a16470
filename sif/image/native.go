package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"

	"github.com/v6node/v6node/sif/squashfs"
)

// Where Apptainer keeps what it knows of an image, inside its root file system.
const (
	runscript   = ".singularity.d/runscript"
	labelsFile  = ".singularity.d/labels.json"
	environment = ".singularity.d/env/90-environment.sh"
	postScript  = ".singularity.d/env/91-environment.sh" // what %post wrote
	dockerEnv   = ".singularity.d/env/10-docker2singularity.sh"
	ociConfig   = "oci-config.json" // name of the JSON object
)

const (
	maxScript   = 1 << 20
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// entryScript runs a program with the image's environment. The image's scripts may
// replace and extend what the program finds, but what the caller set explicitly wins,
// as with apptainer run --env; of these three, which every runtime sets, the scripts
// have the last word. The shell replaces itself, so that signals reach the program.
const entryScript = `v6node_given=$(export -p)
for v6node_script in /.singularity.d/env/*.sh; do
	[ ! -f "$v6node_script" ] || . "$v6node_script"
done
v6node_path=$PATH v6node_home=${HOME-} v6node_libs=${LD_LIBRARY_PATH-}
eval "$v6node_given"
export PATH="$v6node_path"
[ -z "$v6node_home" ] || export HOME="$v6node_home"
[ -z "$v6node_libs" ] || export LD_LIBRARY_PATH="$v6node_libs"
exec "$@"`

// entry is the entrypoint that runs a program with the image's environment.
func entry(program ...string) []string {
	return append([]string{"/bin/sh", "-c", entryScript, "sh"}, program...)
}

// openNative reads the configuration of a native SIF.
func (i *Image) openNative(ctx context.Context, d apptainer.Descriptor) error {
	kind, part, arch, err := d.PartitionMetadata()
	if err != nil {
		return corrupt("partition %d: %v", d.ID(), err)
	}
	if part != apptainer.PartPrimSys {
		return fmt.Errorf("%w: object %d is one, but not the primary one", ErrNoSystem, d.ID())
	}
	switch kind {
	case apptainer.FsSquash:
	case apptainer.FsEncryptedSquashfs, apptainer.FsGocryptfsSquashfs:
		return fmt.Errorf("%w: its root file system can only be read with a key; build the image without encryption", ErrEncrypted)
	case apptainer.FsExt3:
		return fmt.Errorf("%w: only squashfs is supported; build the image anew with Apptainer", ErrExt3)
	default:
		return fmt.Errorf("%w: it is %s (%d) and only squashfs is supported", ErrFileSystem, kind, kind)
	}
	if err := i.wantArchitecture(arch); err != nil {
		return err
	}
	root, err := squashfs.Open(i.src, d.Offset(), d.Size(), i.opts.Squashfs)
	if err != nil {
		return err
	}
	i.use(d)
	i.layers = []layerSource{{off: d.Offset(), size: d.Size(), squashfs: true}}
	return i.configure(ctx, root)
}

// configure makes the configuration of a native SIF: from the OCI configuration that
// Apptainer keeps for images out of registries where there is one, else from the
// scripts in the image.
//
// Who builds on an image out of a registry may write a %runscript or %environment all
// the same, and then means it: Apptainer runs the scripts. So the OCI entrypoint
// counts only as long as the runscript is the one that Apptainer wrote for it.
func (i *Image) configure(ctx context.Context, root *squashfs.FS) error {
	s := scripts{ctx: ctx, root: root}
	script, own := s.program(runscript), false
	if len(script) > 0 {
		own = !hasLine(script, "OCI_ENTRYPOINT=") || !hasLine(script, "OCI_CMD=")
	}
	withEnv := hasCode(s.file(environment)) || hasCode(s.file(postScript))
	labels, dockerVars := s.labels(), s.file(dockerEnv) != nil
	if s.err != nil {
		return s.err
	}
	cfg, found, err := i.ociConfig()
	if err != nil {
		return err
	}
	if !found {
		i.Config = Config{Env: []string{defaultPath}, Labels: labels}
		if script != nil {
			i.Config.Entrypoint = entry("/" + runscript)
		}
		return nil
	}
	i.Config = cfg
	for name, value := range labels {
		if _, ok := i.Config.Labels[name]; !ok && !strings.HasPrefix(name, "org.label-schema.") {
			if i.Config.Labels == nil {
				i.Config.Labels = map[string]string{}
			}
			i.Config.Labels[name] = value
		}
	}
	switch {
	case own:
		i.Config.Entrypoint, i.Config.Cmd = entry("/"+runscript), nil
	case withEnv && len(cfg.Entrypoint)+len(cfg.Cmd) > 0:
		i.Config.Entrypoint = entry(cfg.Entrypoint...)
	default:
		return nil
	}
	if dockerVars {
		// These variables come from a script too, so that %environment can replace them.
		i.Config.Env = slices.DeleteFunc(slices.Clone(cfg.Env), func(v string) bool { return !strings.HasPrefix(v, "PATH=") })
	}
	return nil
}

// ociConfig reads the JSON object with the OCI configuration, if there is one.
func (i *Image) ociConfig() (cfg Config, found bool, err error) {
	for _, d := range i.descriptors() {
		if d.DataType() != apptainer.DataGenericJSON || d.Name() != ociConfig {
			continue
		}
		if found {
			return Config{}, false, corrupt("it has two OCI configurations")
		}
		found = true
		b, err := readObject(d, maxJSON)
		if err != nil {
			return Config{}, false, err
		}
		if err := unmarshal(b, &cfg, "the OCI configuration"); err != nil {
			return Config{}, false, err
		}
		i.use(d)
	}
	return cfg, found, nil
}

// scripts reads small files; the first failure ends it. What is missing is nil.
type scripts struct {
	ctx  context.Context
	root *squashfs.FS
	err  error
}

func (s *scripts) file(path string) []byte { return s.read(path, 0) }

// program is a file that can be executed; Apptainer does without any other.
func (s *scripts) program(path string) []byte { return s.read(path, 0o111) }

// read reads a regular file that has one of these permissions, if any are given.
func (s *scripts) read(path string, permissions fs.FileMode) []byte {
	if s.err != nil {
		return nil
	}
	e, err := s.root.Lookup(s.ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		s.err = err
		return nil
	}
	if !e.Mode.IsRegular() || permissions != 0 && e.Mode&permissions == 0 {
		return nil
	}
	if e.Size > maxScript {
		s.err = tooMuch("/%s has %d bytes, %d are allowed", path, e.Size, maxScript)
		return nil
	}
	b := bytes.NewBuffer(make([]byte, 0, e.Size))
	if _, err := s.root.WriteFile(s.ctx, e, b); err != nil {
		s.err = err
		return nil
	}
	return b.Bytes()
}

// labels reads the image's labels. Apptainer does without them when they are unreadable,
// and so does this.
func (s *scripts) labels() map[string]string {
	var all map[string]any
	if b := s.file(labelsFile); b == nil || unmarshal(b, &all, labelsFile) != nil {
		return nil
	}
	maps.DeleteFunc(all, func(_ string, v any) bool { _, ok := v.(string); return !ok })
	if len(all) == 0 {
		return nil
	}
	labels := map[string]string{}
	for k, v := range all {
		labels[k] = v.(string)
	}
	return labels
}

// hasLine reports whether a line of the script starts with prefix.
func hasLine(script []byte, prefix string) bool {
	for line := range strings.Lines(string(script)) {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// hasCode reports whether the script has anything but comments.
func hasCode(script []byte) bool {
	for line := range strings.Lines(string(script)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}
