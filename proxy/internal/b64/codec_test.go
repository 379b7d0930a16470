package b64

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"testing"
)

func TestCodecAgreesWithTheStandardLibraryAtEveryLength(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 400 {
		plain := make([]byte, n)
		for i := range plain {
			plain[i] = byte(r.Uint32())
		}
		want := base64.StdEncoding.EncodeToString(plain)
		if got := EncodeToString(plain); got != want {
			t.Fatalf("encode %d bytes: got %q, want %q", n, got, want)
		}
		got, err := DecodeString(want)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("decode %d bytes: %v", n, err)
		}
		buf := []byte(want)
		m, err := Decode(buf, buf)
		if err != nil || !bytes.Equal(buf[:m], plain) {
			t.Fatalf("decode %d bytes in place: %v", n, err)
		}
	}
}

func FuzzDecodeAcceptsExactlyWhatStrictBase64Accepts(f *testing.F) {
	for _, s := range []string{"", "=", "AA==", "AB==", "AAA=", "AAB=", "AAAA", "A===", "AAAA====", "AAAA\n", "AA=A", "ab+/ab+/ab+/ab+/ab+/ab+/", "eyJ=eyJ="} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		want, err := base64.StdEncoding.Strict().DecodeString(string(in))
		ok := err == nil && !bytes.ContainsAny(in, "\r\n")
		got, err := DecodeString(string(in))
		if ok != (err == nil) {
			t.Fatalf("%q: standard library accepts %v, we say %v", in, ok, err)
		}
		if ok && !bytes.Equal(got, want) {
			t.Fatalf("%q: got %x, want %x", in, got, want)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	src, dst := make([]byte, 48<<10), make([]byte, 64<<10)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		Encode(dst, src)
	}
}

func BenchmarkDecode(b *testing.B) {
	src, text := make([]byte, 48<<10), make([]byte, 64<<10)
	for i := range src {
		src[i] = byte(i * 7)
	}
	Encode(text, src)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		Decode(src, text)
	}
}
