package inflate

import (
	"bytes"
	"compress/zlib"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

func pack(tb testing.TB, data []byte, level int) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// samples are inputs that lead to stored, fixed and dynamic blocks, short and
// long distances, runs, and codes longer than the first table.
func samples() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 70000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	skewed := make([]byte, 200000)
	for i := range skewed {
		skewed[i] = byte(r.ExpFloat64() * 9)
	}
	var text []byte
	for len(text) < 131072 {
		text = append(text, "squashfs "[:r.IntN(9)]...)
		text = append(text, byte('a'+r.IntN(26)), ' ')
		if n := r.IntN(len(text)); r.IntN(4) == 0 {
			text = append(text, text[n:min(len(text), n+r.IntN(300))]...)
		}
	}
	return map[string][]byte{
		"empty": nil, "one byte": {7}, "random": random, "skewed": skewed, "text": text[:131072],
		"zeros": make([]byte, 131072), "short period": bytes.Repeat([]byte("abc"), 40000),
	}
}

func TestStreamsDecodeToWhatWasCompressed(t *testing.T) {
	var d Decoder
	for name, data := range samples() {
		for level := zlib.HuffmanOnly; level <= zlib.BestCompression; level++ {
			packed := pack(t, data, level)
			out := make([]byte, len(data))
			n, err := d.Zlib(out, packed)
			if err != nil || n != len(data) || !bytes.Equal(out, data) {
				t.Errorf("%s, level %d: %d bytes, error %v, equal %t", name, level, n, err, bytes.Equal(out, data))
			}
			roomy := make([]byte, len(data)+1000)
			if n, err := d.Zlib(roomy, append(packed, "behind the stream"...)); err != nil || !bytes.Equal(roomy[:n], data) {
				t.Errorf("%s, level %d, with room: %d bytes, error %v", name, level, n, err)
			}
			if len(data) > 0 {
				if _, err := d.Zlib(out[:len(out)-1], packed); err != ErrTooLong {
					t.Errorf("%s, level %d, one byte short: error %v", name, level, err)
				}
			}
		}
	}
}

func TestATruncatedStreamIsRefusedWhereverItEnds(t *testing.T) {
	var d Decoder
	data := samples()["text"][:20000]
	packed := pack(t, data, 9)
	out := make([]byte, len(data))
	for i := range packed {
		if _, err := d.Zlib(out, packed[:i]); err == nil {
			t.Fatalf("%d of %d bytes were accepted", i, len(packed))
		}
	}
}

func TestAChangedByteIsNoticed(t *testing.T) {
	var d Decoder
	data := samples()["text"][:20000]
	packed := pack(t, data, 9)
	out := make([]byte, len(data))
	for i := range packed {
		packed[i] ^= 0x10
		if n, err := d.Zlib(out, packed); err == nil && !bytes.Equal(out[:n], data) {
			t.Fatalf("a change in byte %d went unnoticed", i)
		}
		packed[i] ^= 0x10
	}
}

func TestTheChecksumIsThatOfTheStandardLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		b := make([]byte, r.IntN(20000))
		fill := r.IntN(3)
		for i := range b {
			switch fill {
			case 0:
				b[i] = 0xff
			case 1:
				b[i] = byte(r.Uint32())
			}
		}
		if got, want := adler(b), adler32.Checksum(b); got != want {
			t.Fatalf("%d bytes, fill %d: %08x, want %08x", len(b), fill, got, want)
		}
	}
}

// FuzzZlib compares with the standard library's decoder on any input.
func FuzzZlib(f *testing.F) {
	for _, data := range samples() {
		for _, level := range []int{zlib.HuffmanOnly, 0, 1, 9} {
			f.Add(pack(f, data[:min(len(data), 3000)], level))
		}
	}
	var d Decoder
	f.Fuzz(func(t *testing.T, in []byte) {
		const room = 1 << 16
		out := make([]byte, room)
		n, err := d.Zlib(out, in)
		var want []byte
		r, wantErr := zlib.NewReader(bytes.NewReader(in))
		if wantErr == nil {
			want, wantErr = io.ReadAll(io.LimitReader(r, room+1))
		}
		if err == nil && (wantErr != nil || !bytes.Equal(out[:n], want)) {
			t.Fatalf("decoded %d bytes; the standard library says %d bytes, %v", n, len(want), wantErr)
		}
		if err != nil && wantErr == nil && len(want) <= room {
			t.Fatalf("refused with %v; the standard library makes %d bytes of it", err, len(want))
		}
	})
}

func BenchmarkZlib(b *testing.B) {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Skip(err)
	}
	data = data[:131072*8]
	var packed [][]byte
	for i := 0; i < len(data); i += 131072 {
		packed = append(packed, pack(b, data[i:i+131072], 9))
	}
	out := make([]byte, 131072)
	var d Decoder
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for _, p := range packed {
			if _, err := d.Zlib(out, p); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkAdler(b *testing.B) {
	data := samples()["skewed"]
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		adler(data)
	}
}
