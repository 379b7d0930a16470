package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/sif/internal/siftest"
)

// fileOf writes a file that begins like a SIF.
func fileOf(tb testing.TB, size int) (string, []byte) {
	tb.Helper()
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	copy(b[magicOffset:], magicNumber)
	path := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path, b
}

func TestASourceReadsWhatTheFileHolds(t *testing.T) {
	path, b := fileOf(t, 40*chunkSize+1234) // more chunks than are kept
	src := source(t, path)
	sum := sha256.Sum256(b)
	if src.Digest() != "sha256:"+hex.EncodeToString(sum[:]) || src.Size() != int64(len(b)) {
		t.Errorf("%s, %d bytes", src.Digest(), src.Size())
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		off := r.IntN(len(b) + 10)
		p := make([]byte, r.IntN(2*chunkSize))
		n, err := src.ReadAt(p, int64(off))
		want := b[min(off, len(b)):min(off+len(p), len(b))]
		if !bytes.Equal(p[:n], want) || (n < len(p)) != errors.Is(err, io.EOF) {
			t.Fatalf("%d bytes at %d: got %d, %v", len(p), off, n, err)
		}
	}
}

func TestAByteThatChangesIsNeverRead(t *testing.T) {
	path, b := fileOf(t, 3*chunkSize)
	src := source(t, path)
	at := int64(2*chunkSize + 17)
	siftest.Flip(t, path, at)
	p := make([]byte, 10)
	if _, err := src.ReadAt(p, at-chunkSize); err != nil {
		t.Errorf("a chunk that did not change: %v", err)
	}
	if n, err := src.ReadAt(p, at); n != 0 || !errors.Is(err, ErrChanged) {
		t.Errorf("%d, %v", n, err)
	}
	if err := src.Unchanged(); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	siftest.Flip(t, path, at)
	if n, err := src.ReadAt(p, at); n != len(p) || err != nil || !bytes.Equal(p, b[at:at+10]) {
		t.Errorf("the byte is as it was, but: %d, %v", n, err)
	}
}

// A writer that puts everything back, time included, is noticed by what is read.
func TestAConversionNeverSeesWhatWasNotHashed(t *testing.T) {
	path := siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": strings.Repeat("text\n", 100000)}, "-noD", "-noF")))
	img := open(t, path)
	off := img.layers[0].off + img.layers[0].size/2
	siftest.Flip(t, path, off)
	_, err := img.Convert(t.Context(), func(int) (io.Writer, error) { return nil, nil }, ConvertOptions{})
	if !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatBecomesShorterIsNoticed(t *testing.T) {
	path, _ := fileOf(t, 2*chunkSize)
	src := source(t, path)
	if err := os.Truncate(path, chunkSize+5); err != nil {
		t.Fatal(err)
	}
	if _, err := src.ReadAt(make([]byte, 10), 2*chunkSize-100); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatIsTouchedDuringAConversionIsRefused(t *testing.T) {
	path := siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": "b"})))
	img := open(t, path)
	_, err := img.Convert(t.Context(), func(int) (io.Writer, error) {
		return nil, os.Chmod(path, 0o600^0o044)
	}, ConvertOptions{})
	if !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNoSIFIsToldWithoutReadingIt(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(dir, "sparse")
	if err := errors.Join(os.WriteFile(sparse, nil, 0o600), os.Truncate(sparse, 1<<40)); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, sparse, empty} {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewSource(t.Context(), f, 0, nil); !errors.Is(err, ErrNotSIF) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestAFileThatIsTooLargeIsRefused(t *testing.T) {
	path, b := fileOf(t, 1000)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSource(t.Context(), f, int64(len(b))-1, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("got %v", err)
	}
}

func TestReadingASourceEndsWithItsContext(t *testing.T) {
	path, _ := fileOf(t, 3*chunkSize)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := NewSource(ctx, f, 0, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkSource(b *testing.B) {
	path, data := fileOf(b, 64<<20)
	b.Run("open", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			source(b, path)
		}
	})
	b.Run("read", func(b *testing.B) {
		src := source(b, path)
		buf := make([]byte, 100_000)
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			for off := int64(0); off < src.Size(); off += int64(len(buf)) {
				if _, err := src.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			}
		}
	})
}
