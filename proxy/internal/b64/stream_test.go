package b64

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func sample(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*i + i>>8)
	}
	return p
}

func TestStreamsAgreeWithTheStandardLibraryWhateverThePieces(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 4, 5, 100, plainChunk - 1, plainChunk, plainChunk + 1, 3*plainChunk + 2} {
		plain := sample(n)
		want := base64.StdEncoding.EncodeToString(plain)
		for _, piece := range []int{1, 2, 7, 1000, 1 << 20} {
			var text bytes.Buffer
			w := NewWriter(&text, nil)
			for p := plain; len(p) > 0; p = p[min(piece, len(p)):] {
				if _, err := w.Write(p[:min(piece, len(p))]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil || text.String() != want {
				t.Fatalf("write %d bytes in pieces of %d: %v", n, piece, err)
			}
			r := NewReader(strings.NewReader(want))
			var got []byte
			for buf := make([]byte, piece); ; {
				m, err := r.Read(buf)
				got = append(got, buf[:m]...)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, plain) {
				t.Fatalf("read %d bytes in pieces of %d: differs", n, piece)
			}
		}
		got, err := io.ReadAll(NewReader(iotest.DataErrReader(iotest.OneByteReader(strings.NewReader(want)))))
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("read %d bytes from a byte-wise source: %v", n, err)
		}
		var text bytes.Buffer
		w := NewWriter(&text, nil)
		if _, err := w.ReadFrom(iotest.HalfReader(bytes.NewReader(plain))); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil || text.String() != want {
			t.Fatalf("ReadFrom of %d bytes: %v", n, err)
		}
	}
}

func TestReaderPassesOnAnErrorOfItsSource(t *testing.T) {
	broken := errors.New("connection reset")
	_, err := io.ReadAll(NewReader(io.MultiReader(strings.NewReader("AAAAAAAA"), iotest.ErrReader(broken))))
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
}

func TestReaderRefusesPaddingBeforeTheEnd(t *testing.T) {
	for _, s := range []string{"AA==AAAA", "A", "AAAAA", "AAA=A", "AAAA\n", "AA*A"} {
		if _, err := io.ReadAll(NewReader(strings.NewReader(s))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func TestWriterReportsAFailedWriteAtClose(t *testing.T) {
	r, pw := io.Pipe()
	r.Close()
	w := NewWriter(pw, nil)
	w.Write([]byte("abc"))
	if err := w.Close(); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("got %v", err)
	}
	if err := w.Close(); err == nil {
		t.Fatal("the second Close hides the failure")
	}
}

func TestAnEncoderAgreesWithTheStandardLibraryAndPadsNothingThatBreaksOff(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 100, plainChunk - 1, plainChunk, plainChunk + 1, 3*plainChunk + 2} {
		plain := sample(n)
		want := base64.StdEncoding.EncodeToString(plain)
		for _, r := range []io.Reader{bytes.NewReader(plain), iotest.HalfReader(bytes.NewReader(plain)), iotest.DataErrReader(bytes.NewReader(plain))} {
			got, err := io.ReadAll(NewEncoder(r))
			if err != nil || string(got) != want {
				t.Fatalf("%d bytes: %d characters instead of %d, %v", n, len(got), len(want), err)
			}
		}
		broken := io.MultiReader(bytes.NewReader(plain), iotest.ErrReader(io.ErrUnexpectedEOF))
		got, err := io.ReadAll(iotest.OneByteReader(NewEncoder(broken)))
		if err != io.ErrUnexpectedEOF || !strings.HasPrefix(want, string(got)) || strings.Contains(string(got), "=") {
			t.Fatalf("%d bytes that break off: %d characters, %v", n, len(got), err)
		}
	}
}
