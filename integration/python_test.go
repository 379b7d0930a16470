//go:build integration

package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/internal/imagekit"
)

// pythonScript is an algorithm in Python's own words: it asks a PostgreSQL over
// TLS, and an HTTPS endpoint, both found and verified by their names, which the
// C library looks up.
const pythonScript = `
import base64, json, os, socket, ssl, struct, urllib.parse, urllib.request

def var(name):
    return base64.b32decode(os.environ[name].replace("!", "=")).decode()

kwargs = json.load(open(var("INPUT_FILE")))["kwargs"]
trust = ssl.create_default_context(cadata=kwargs["ca"])

def postgres(uri, query):
    u = urllib.parse.urlsplit(uri)
    raw = socket.create_connection((u.hostname, u.port), 30)
    raw.sendall(struct.pack("!II", 8, 80877103))
    assert raw.recv(1) == b"S"
    c = trust.wrap_socket(raw, server_hostname=u.hostname)
    stream = c.makefile("rb")
    def say(kind, body):
        c.sendall(kind + struct.pack("!I", len(body) + 4) + body)
    say(b"", struct.pack("!I", 3 << 16) + f"user\0{u.username}\0database\0{u.path[1:]}\0\0".encode())
    value, asked = None, False
    while True:
        kind, size = struct.unpack("!cI", stream.read(5))
        body = stream.read(size - 4)
        if kind == b"R" and struct.unpack("!I", body[:4])[0] == 3:
            say(b"p", u.password.encode() + b"\0")
        elif kind == b"E":
            raise Exception(body)
        elif kind == b"D":
            value = body[6:].decode()
        elif kind == b"Z":
            if asked:
                return value
            asked = True
            say(b"Q", query.encode() + b"\0")

answer = {
    "row": postgres(var("CDM_DATABASE_URI"), "select 6 * 7"),
    "triple": urllib.request.urlopen(var("GRAPH_DATABASE_URI"), b"ASK {}", 30, context=trust).read().decode(),
}
with open(var("OUTPUT_FILE"), "w") as out:
    json.dump(answer, out)
`

// pythonImage packs this machine's Python with its library.
func pythonImage(t *testing.T, w *world) imagekit.Ref {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path('stdlib'))").Output()
	if err != nil {
		t.Fatalf("Python is not installed: apt-get install python3 (%v)", err)
	}
	program, library, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	files := append(imagekit.Skeleton(), imagekit.File{Path: "/algorithm.py", Mode: 0o644, Data: []byte(pythonScript)})
	add := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, imagekit.File{Path: path, Mode: 0o755, Data: b})
	}
	linked := []string{program}
	if err := filepath.WalkDir(library, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains([]string{"__pycache__", "test", "tests", "dist-packages", "site-packages", "idlelib", "lib2to3", "tkinter", "pydoc_data", "ensurepip"}, e.Name()):
			return fs.SkipDir
		case e.Type().IsRegular() && (strings.HasSuffix(path, ".py") || strings.HasSuffix(path, ".so")):
			add(path)
			if strings.HasSuffix(path, ".so") {
				linked = append(linked, path)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if out, err = exec.CommandContext(t.Context(), "ldd", linked...).Output(); err != nil {
		t.Fatalf("ldd: %v", err)
	}
	seen := map[string]bool{}
	for _, f := range strings.Fields(string(out)) {
		if filepath.IsAbs(f) && !strings.HasSuffix(f, ":") && !seen[f] {
			seen[f] = true
			add(f)
		}
	}
	img, err := imagekit.Build(imagekit.Spec{
		Binary: program, Path: program, Files: files, Entrypoint: []string{program, "-B", "/algorithm.py"}, Env: []string{"PKG_NAME=python"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := w.lab.Registry.Push("suite/python", "latest", img)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func fromPython(t *testing.T, w *world) {
	name, address := machineName(t)
	python := pythonImage(t, w)
	port, ca := postgresServer(t, name, address, "correct-horse")
	webCA, cert, key := certificate(t, name)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{
		Listener: tcp(t, net.JoinHostPort(address, "0")), TLS: &tls.Config{Certificates: []tls.Certificate{pair}},
		Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body) // a short one is shown by the answer
			fmt.Fprintf(w, "%s %s", r.URL.Path, body)
		})},
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": []map[string]any{
		{"label": "cdm", "uri": fmt.Sprintf("postgresql://reader:correct-horse@%s/postgres", net.JoinHostPort(name, port)), "type": "omop"},
		{"label": "graph", "uri": fmt.Sprintf("https://%s:%d/ds/query", name, srv.Listener.Addr().(*net.TCPAddr).Port), "type": "sparql"},
	}}})
	type answer struct{ Row, Triple string }
	eventually(t, func() error { // the server listens before it answers
		e := n.call(t, "python", kwargs{"ca": ca + string(webCA)}, image(python.Tag), databases("cdm", "graph"))
		if strings.Contains(e.Text, "starting up") {
			return fmt.Errorf("the database is not there yet: %s", e.Text)
		}
		if got := completed[answer](t, e); got != (answer{"42", "/ds/query ASK {}"}) {
			t.Errorf("Python gets %+v", got)
		}
		return nil
	})
}
