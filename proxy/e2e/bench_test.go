package e2e

import (
	"crypto/aes"
	"crypto/cipher"
	"io"
	"strings"
	"testing"
)

const benchSize = 256 << 20

// chunks reads as n bytes of text, without cost.
type chunks struct {
	n    int
	text []byte
}

func newChunks(n int) *chunks {
	return &chunks{n: n, text: []byte(strings.Repeat("3.1415926, ", 3000))}
}

func (c *chunks) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.text)
	c.n -= n
	return n, nil
}

// BenchmarkCTR is what the others are measured by: AES-256-CTR alone.
func BenchmarkCTR(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 32<<10)
	b.SetBytes(benchSize)
	for b.Loop() {
		s := cipher.NewCTR(block, make([]byte, 16))
		for n := 0; n < benchSize; n += len(buf) {
			s.XORKeyStream(buf, buf)
		}
	}
}

func BenchmarkEncryptString(b *testing.B) {
	p := testKey(b, "pkcs1.pem").Public()
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		w, err := p.NewEncrypter(io.Discard)
		if err == nil {
			_, err = io.Copy(w, newChunks(benchSize))
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecryptString(b *testing.B) {
	k := testKey(b, "pkcs1.pem")
	plain, err := io.ReadAll(newChunks(benchSize))
	if err != nil {
		b.Fatal(err)
	}
	enc, err := k.Public().Encrypt(plain)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 32<<10)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		r, err := k.NewDecrypter(strings.NewReader(enc))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf)
		if err != nil || n != benchSize {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkBlobThereAndBack(b *testing.B) {
	k := testKey(b, "pkcs1.pem")
	buf := make([]byte, 32<<10)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		enc, err := k.Public().EncryptBlob(newChunks(benchSize))
		if err != nil {
			b.Fatal(err)
		}
		r, err := k.DecryptBlob(enc)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf)
		if err != nil || n != benchSize {
			b.Fatal(n, err)
		}
	}
}
