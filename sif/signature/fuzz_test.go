package signature_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"
	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/internal/fuzztest"
	"github.com/v6node/v6node/sif/internal/siftest"
	"github.com/v6node/v6node/sif/signature"
)

// FuzzKeys takes any bytes for a file with keys.
func FuzzKeys(f *testing.F) {
	for _, m := range methods(f) {
		f.Add(m.public)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzztest.Bounded(t, 64<<20, func() {
			k, err := signature.Parse("x", b)
			if (err == nil) != (k != nil) || err != nil && !errors.Is(err, signature.ErrKey) {
				t.Errorf("%v, %v", k, err)
			}
		})
	})
}

// signed is a signed image in memory.
type signed struct {
	file []byte
	sig  apptainer.Descriptor
	keys *signature.Keys
	want string // what it converts to, without its time
}

func signedImages(f *testing.F) []signed {
	var out []signed
	for _, m := range methods(f) {
		path := signable(f)
		siftest.Sign(f, path, m.sign...)
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		s := signed{file: b, keys: keys(f, m.public)}
		siftest.Edit(f, path, func(i *apptainer.FileImage) {
			if s.sig, err = i.GetDescriptor(apptainer.WithDataType(apptainer.DataSignature)); err != nil {
				f.Fatal(err)
			}
		})
		if s.want, err = s.use(f, b); err != nil {
			f.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// use verifies and converts, and gives what came out.
func (s *signed) use(tb testing.TB, b []byte) (string, error) {
	tb.Helper()
	fd, err := unix.MemfdCreate("sif", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "sif")
	if _, err := file.Write(b); err != nil {
		tb.Fatal(err)
	}
	src, err := image.NewSource(tb.Context(), file, 0, nil)
	if err != nil {
		return "", err
	}
	defer src.Close()
	img, err := image.Open(tb.Context(), src, image.Options{Architecture: "amd64"})
	if err != nil {
		return "", err
	}
	if _, err := signature.Verify(tb.Context(), img.File(), img.Used(), s.keys); err != nil {
		if !errors.Is(err, signature.ErrRefused) {
			tb.Fatalf("unexpected kind of error: %v", err)
		}
		return "", err
	}
	res, err := img.Convert(tb.Context(), func(int) (io.Writer, error) { return nil, nil }, image.ConvertOptions{})
	if err != nil {
		return "", err
	}
	var cfg map[string]any
	if err := json.Unmarshal(res.Config, &cfg); err != nil {
		tb.Fatal(err)
	}
	delete(cfg, "created") // of the header's times a signature says nothing
	text, err := json.Marshal(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text), nil
}

// FuzzTamper changes a few bytes of a signed image. Either that is noticed, or what comes
// out is what was signed.
func FuzzTamper(f *testing.F) {
	images := signedImages(f)
	for n, s := range images {
		for _, off := range []int{40, 64, 100, 4096 + 20, 4096 + 585 + 17, 4096 + 2*585 + 201, len(s.file) / 2, int(s.sig.Offset()) + 10} {
			f.Add(uint8(n), uint32(off), []byte{1})
		}
		// A second image behind the first one, with its descriptor pointing there.
		f.Add(uint8(n), uint32(4096+2*585+17), binary.LittleEndian.AppendUint64(nil, uint64(s.sig.Offset())))
	}
	f.Fuzz(func(t *testing.T, which uint8, off uint32, by []byte) {
		s := images[int(which)%len(images)]
		b := bytes.Clone(s.file)
		for n := range by {
			b[(int(off)+n)%len(b)] ^= by[n]
		}
		got, err := s.use(t, b)
		if err == nil && got != s.want {
			t.Fatalf("accepted, and converted to\n%s\nwhat was signed is\n%s", got, s.want)
		}
	})
}

// FuzzSignature puts any bytes in the place of the signature. One that is accepted must
// hold for this image and no other.
func FuzzSignature(f *testing.F) {
	images := signedImages(f)
	for n, s := range images {
		sig := s.file[s.sig.Offset():][:s.sig.Size()]
		for m := range images {
			f.Add(uint8(m), sig)
		}
		f.Add(uint8(n), sig[:len(sig)/2])
		f.Add(uint8(n), []byte("{}"))
		f.Add(uint8(n), []byte(`{"payloadType":"","payload":"","signatures":[{"keyid":"","sig":""}]}`))
	}
	f.Fuzz(func(t *testing.T, which uint8, sig []byte) {
		s := images[int(which)%len(images)]
		b := append(bytes.Clone(s.file[:s.sig.Offset()]), sig...)
		descriptor := 4096 + 585*(int(s.sig.ID())-1)
		binary.LittleEndian.PutUint64(b[descriptor+25:], uint64(len(sig)))
		fuzztest.Bounded(t, 256<<20, func() {
			if _, err := s.use(t, b); err != nil {
				return
			}
			// The last byte of the definition file, which is signed and not converted.
			b[bytes.Index(b, []byte("bootstrap: scratch\n"))] ^= 1
			if _, err := s.use(t, b); err == nil {
				t.Fatal("accepted for an image that is another")
			}
		})
	})
}
