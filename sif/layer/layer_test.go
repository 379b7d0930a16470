package layer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/sif/internal/imagetest"
	"github.com/v6node/v6node/sif/layer"
	"github.com/v6node/v6node/sif/squashfs"
)

// write makes a layer in memory and holds the stated digest and size to it.
func write(t *testing.T, img *squashfs.FS, o layer.Options) (layer.Result, []byte) {
	t.Helper()
	var b bytes.Buffer
	r, err := layer.Write(t.Context(), &b, img, o)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	if want := "sha256:" + hex.EncodeToString(sum[:]); r.DiffID != want || r.Size != int64(b.Len()) {
		t.Fatalf("said %s and %d bytes, wrote %s and %d", r.DiffID, r.Size, want, b.Len())
	}
	return r, b.Bytes()
}

func withoutSockets(nodes map[string]imagetest.Node) map[string]imagetest.Node {
	out := maps.Clone(nodes)
	maps.DeleteFunc(out, func(_ string, n imagetest.Node) bool { return n.Type == "socket" })
	return out
}

func TestLayersOfImagesMadeByApptainerHoldWhatTheKernelShows(t *testing.T) {
	for _, g := range imagetest.Goldens(t) {
		t.Run(g.Name, func(t *testing.T) {
			img, err := squashfs.Open(g.File, g.Offset, g.Size, squashfs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r, tar := write(t, img, layer.Options{})
			imagetest.Equal(t, imagetest.ListTar(t, bytes.NewReader(tar)), g.Nodes)
			if r.Entries != int64(len(g.Nodes)) || r.Sockets != 0 {
				t.Errorf("%d entries and %d sockets, want %d and none", r.Entries, r.Sockets, len(g.Nodes))
			}
		})
	}
}

func TestALayerHoldsWhatTheImageWasMadeFrom(t *testing.T) {
	for _, v := range []imagetest.Variant{
		{Name: "gzip", BlockSize: 4 << 10, Args: []string{"-comp", "gzip", "-b", "4096"}},
		{Name: "zstd", BlockSize: 128 << 10, Args: []string{"-comp", "zstd"}},
		{Name: "lz4", BlockSize: 1 << 20, Args: []string{"-comp", "lz4", "-b", "1M"}},
	} {
		t.Run(v.Name, func(t *testing.T) {
			src := imagetest.NewSource(t, v.BlockSize)
			r, tar := write(t, imagetest.Open(t, src.Image(t, v.Args...)), layer.Options{})
			imagetest.Equal(t, imagetest.ListTar(t, bytes.NewReader(tar)), withoutSockets(src.Nodes))
			if r.Sockets != 1 {
				t.Errorf("%d sockets left out, want 1", r.Sockets)
			}
		})
	}
}

func TestTheSystemsTarReadsALayer(t *testing.T) {
	bin, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("there is no tar")
	}
	src := imagetest.NewSource(t, 128<<10)
	_, b := write(t, imagetest.Open(t, src.Image(t, "-no-xattrs")), layer.Options{})
	cmd := exec.Command(bin, "-x", "-f", "-", "--exclude=special", "--exclude=none", "--no-same-owner", "-p")
	cmd.Dir, cmd.Stdin = t.TempDir(), bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := imagetest.WithoutXattrs(src.Nodes)
	maps.DeleteFunc(want, func(p string, _ imagetest.Node) bool { return strings.HasPrefix(p, "special") || p == "modes/none" })
	got := imagetest.ListDir(t, cmd.Dir)
	for p, n := range got { // tar was told not to set owners
		n.UID, n.GID = want[p].UID, want[p].GID
		got[p] = n
	}
	imagetest.Equal(t, got, want)
}

func TestTheSameTreeHasTheSameDigestOnAnyNumberOfCores(t *testing.T) {
	src := imagetest.NewSource(t, 64<<10)
	img := src.Image(t, "-comp", "zstd", "-b", "64K")
	first, _ := write(t, imagetest.Open(t, img), layer.Options{})
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, procs := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(procs)
		for _, workers := range []int{0, 1, 5} {
			st, err := img.Stat()
			if err != nil {
				t.Fatal(err)
			}
			fs, err := squashfs.Open(img, 0, st.Size(), squashfs.Options{Workers: workers, ReadAhead: 1, FragmentCache: 1, MetadataCache: 1})
			if err != nil {
				t.Fatal(err)
			}
			if r, err := layer.Write(t.Context(), nil, fs, layer.Options{}); err != nil || r != first {
				t.Errorf("GOMAXPROCS %d, %d workers: %+v, error %v; want %+v", procs, workers, r, err, first)
			}
		}
	}
	// The compression is not part of the tree.
	if again, _ := write(t, imagetest.Open(t, src.Image(t, "-comp", "gzip", "-b", "64K")), layer.Options{}); again != first {
		t.Errorf("compressed otherwise: %+v, want %+v", again, first)
	}
}

// The digest of a known tree is part of what this package promises: policies name it.
func TestTheDigestOfAKnownTreeStays(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"a": "one", "b/" + strings.Repeat("long", 30): "two", "ü": "three"} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o644), os.Chmod(p, 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(
		os.Symlink("a", filepath.Join(dir, "s")),
		os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "h")),
		os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "b"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	img := imagetest.Open(t, imagetest.Make(t, dir, "-no-xattrs", "-force-uid", "7", "-force-gid", "3000000"))
	r, _ := write(t, img, layer.Options{})
	if want := known; r.DiffID != want {
		t.Errorf("digest %s, want %s", r.DiffID, want)
	}
}

const known = "sha256:17f11ee5cac16fc43d65f7e7639d37d577138e9d1adc27388a2bcd3ed93c146c"

func TestOverlayWhiteoutsBecomeOCIWhiteoutsWhenAskedFor(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	pseudo := filepath.Join(t.TempDir(), "pseudo")
	if err := os.WriteFile(pseudo, []byte("d/gone c 000 0 0 0 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opaque := unix.Setxattr(filepath.Join(dir, "d"), "trusted.overlay.opaque", []byte("y"), 0) == nil // only root can
	img := imagetest.Open(t, imagetest.Make(t, dir, "-pf", pseudo))

	_, b := write(t, img, layer.Options{})
	nodes := imagetest.ListTar(t, bytes.NewReader(b))
	if nodes["d/gone"].Type != "char" || nodes["d"].Xattrs != "" {
		t.Errorf("not asked for: %+v", nodes)
	}
	_, b = write(t, img, layer.Options{OverlayWhiteouts: true})
	nodes = imagetest.ListTar(t, bytes.NewReader(b))
	if n, ok := nodes["d/.wh.gone"]; !ok || n.Type != "file" || n.Size != 0 {
		t.Errorf("no whiteout: %+v", nodes)
	}
	if _, ok := nodes["d/gone"]; ok {
		t.Errorf("the device is still there: %+v", nodes)
	}
	if _, ok := nodes["d/.wh..wh..opq"]; ok != opaque {
		t.Errorf("opaque marker %t, want %t", ok, opaque)
	}
}

func TestANameThatIsAWhiteoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".wh.passwd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := layer.Write(t.Context(), nil, imagetest.Open(t, imagetest.Make(t, dir)), layer.Options{})
	if !errors.Is(err, layer.ErrUnrepresentable) || !strings.Contains(err.Error(), ".wh.passwd") {
		t.Fatalf("error %v", err)
	}
}

func TestALayerThatGrowsTooLargeIsRefused(t *testing.T) {
	src := imagetest.NewSource(t, 128<<10)
	_, err := layer.Write(t.Context(), nil, imagetest.Open(t, src.Image(t)), layer.Options{MaxBytes: 1 << 20})
	if !errors.Is(err, squashfs.ErrLimit) {
		t.Fatalf("error %v", err)
	}
}

type failing struct{ after int }

var errFull = errors.New("no space left")

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestAFailureToWriteEndsTheConversionWithThatError(t *testing.T) {
	src := imagetest.NewSource(t, 128<<10)
	img := imagetest.Open(t, src.Image(t))
	for _, after := range []int{0, 1 << 20, 10 << 20} {
		if _, err := layer.Write(t.Context(), &failing{after}, img, layer.Options{}); !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: error %v", after, err)
		}
	}
}

func TestAnEndedContextEndsTheConversion(t *testing.T) {
	src := imagetest.NewSource(t, 128<<10)
	img := imagetest.Open(t, src.Image(t))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := layer.Write(ctx, nil, img, layer.Options{Progress: func(n int64) {
		if n > 1<<20 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
}
