package proxy

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

const benchSize = 256 << 20

// BenchmarkProxy sends 256 MB through the proxy over loopback connections, with
// algorithm, proxy and server in this process and on the same processors. It
// reports, besides the throughput, its part of what AES-256-CTR alone reaches
// ("of-CTR") and by how much the process grew at most ("extra-MB").
func BenchmarkProxy(b *testing.B) {
	dir := b.TempDir()
	page, blob := filepath.Join(dir, "page"), filepath.Join(dir, "blob")
	own := keyOf("own").Public()
	write(b, page, func(w io.Writer) error {
		if _, err := io.WriteString(w, `{"data":[{"id":1,"result":"`); err != nil {
			return err
		}
		enc, err := own.NewEncrypter(w)
		if err != nil {
			return err
		}
		if _, err := io.CopyN(enc, letters{}, benchSize); err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
		_, err = io.WriteString(w, `"}]}`)
		return err
	})
	write(b, blob, func(w io.Writer) error {
		enc, err := own.EncryptBlob(io.LimitReader(letters{}, benchSize))
		if err != nil {
			return err
		}
		_, err = io.Copy(w, enc)
		return err
	})
	f := newFixture(b, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "POST":
			_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 64<<10))
			w.WriteHeader(201)
		case strings.HasPrefix(r.URL.Path, "/api/result"):
			http.ServeFile(w, r, page)
		case strings.HasPrefix(r.URL.Path, "/api/blobstream"), r.URL.Path == "/api/elsewhere":
			http.ServeFile(w, r, blob)
		default:
			organizations(w, r, abc)
		}
	}, encrypted)

	send := func(path string, body io.Reader, length int64) func() error {
		return func() error {
			req, err := http.NewRequest("POST", f.proxy.URL+path, body)
			if err != nil {
				return err
			}
			req.ContentLength = length
			req.Header.Set("X-Public-Key", keyOf("b").Public().Base64())
			return f.discard(req, 201, 0)
		}
	}
	get := func(path string, want int64) func() error {
		return func() error {
			req, err := http.NewRequest("GET", f.proxy.URL+path, nil)
			if err != nil {
				return err
			}
			return f.discard(req, 200, want)
		}
	}
	for _, c := range []struct {
		name string
		do   func() func() error // fresh each time
	}{
		{"task-encrypt", func() func() error {
			begin, end := `{"organizations":[{"id":2,"input":"`, `"}]}`
			n := int64(benchSize / 3 * 4)
			return send("/task", io.MultiReader(strings.NewReader(begin), io.LimitReader(letters{}, n), strings.NewReader(end)), n+int64(len(begin)+len(end)))
		}},
		{"result-decrypt", func() func() error { return get("/result?task_id=1", benchSize/3*4) }},
		// Nothing but HTTP: what is left for the others to lose.
		{"forward", func() func() error { return get("/elsewhere", benchSize) }},
		{"blob-encrypt", func() func() error { return send("/blobstream", io.LimitReader(letters{}, benchSize), benchSize) }},
		{"blob-decrypt", func() func() error { return get("/blobstream/u", benchSize) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			alone := ctrAlone(b)
			debug.FreeOSMemory()
			before := memory(b, "VmRSS:")
			// Makes the high-water mark begin anew.
			if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
				b.Skip("no high-water mark of the memory: ", err)
			}
			b.SetBytes(benchSize)
			var took time.Duration
			for b.Loop() {
				start := time.Now()
				if err := c.do()(); err != nil {
					b.Fatal(err)
				}
				took += time.Since(start)
			}
			b.ReportMetric(float64(alone)*float64(b.N)/float64(took), "of-CTR")
			b.ReportMetric(float64(memory(b, "VmHWM:")-before)/1e6, "extra-MB")
		})
	}
}

func (f *fixture) discard(req *http.Request, status int, atLeast int64) error {
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := f.proxy.Client().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 64<<10))
	if err != nil || resp.StatusCode != status || n < atLeast {
		return fmt.Errorf("status %d, %d bytes, %w", resp.StatusCode, n, err)
	}
	return nil
}

// ctrAlone is how long AES-256-CTR takes for as much data.
func ctrAlone(b *testing.B) time.Duration {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 32<<10)
	start := time.Now()
	s := cipher.NewCTR(block, make([]byte, 16))
	for range benchSize / len(buf) {
		s.XORKeyStream(buf, buf)
	}
	return time.Since(start)
}

// memory reads a line of /proc/self/status, in bytes.
func memory(b *testing.B, line string) int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("no /proc: ", err)
	}
	for l := range bytes.Lines(text) {
		if fields := strings.Fields(string(l)); len(fields) == 3 && fields[0] == line {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb << 10
		}
	}
	b.Skip("no " + line + " in /proc/self/status")
	return 0
}

func write(b *testing.B, path string, fn func(io.Writer) error) {
	b.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	err = fn(file)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		b.Fatal(err)
	}
}
