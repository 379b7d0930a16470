//go:build integration

package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// freePort is a port on which nobody listens.
func freePort(t *testing.T, address string) string {
	t.Helper()
	l := tcp(t, net.JoinHostPort(address, "0"))
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// daemon starts a program of the test's own, and ends it with the test.
func daemon(t *testing.T, cmd *exec.Cmd, end syscall.Signal) (stop func()) {
	t.Helper()
	// A file, which its children may hold without being waited for.
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(end) // it may have ended
		_ = cmd.Wait()              // by that signal
		if b, err := os.ReadFile(out.Name()); t.Failed() {
			t.Logf("%s said:\n%s%v", cmd.Path, b, err)
		}
		out.Close()
	}
	t.Cleanup(stop)
	return stop
}

// takesConnections waits until somebody listens.
func takesConnections(t *testing.T, address string) {
	t.Helper()
	eventually(t, func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// certificate makes an authority and a certificate for a name, as PEM.
func certificate(t *testing.T, name string) (ca, cert, key []byte) {
	t.Helper()
	encode := func(kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k
	}
	root := &x509.Certificate{
		// A name of its own, by which it is told from others in one list.
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprintf("authority %d", time.Now().UnixNano())}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: root.NotBefore, NotAfter: root.NotAfter, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, keys[0].Public(), keys[0])
	ca = encode("CERTIFICATE", der, err)
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, keys[1].Public(), keys[0])
	cert = encode("CERTIFICATE", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(keys[1])
	return ca, cert, encode("PRIVATE KEY", der, err)
}

// postgresServer starts a PostgreSQL of the test's own that speaks TLS only, and
// returns where it listens and the authority that signed its certificate.
func postgresServer(t *testing.T, name, address, password string) (port, ca string) {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bins) == 0 {
		t.Fatal("PostgreSQL is not installed: apt-get install postgresql")
	}
	slices.Sort(bins)
	bin := bins[len(bins)-1]
	who, err := user.Lookup("postgres") // it refuses to be root's
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(who.Uid) // numbers, on Linux
	gid, _ := strconv.Atoi(who.Gid)
	dir, err := os.MkdirTemp("", "v6pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	authority, cert, key := certificate(t, name)
	port = freePort(t, address)
	data := filepath.Join(dir, "data")
	write := func(file string, content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Setpgid: true}
	write(filepath.Join(dir, "password"), []byte(password))
	init := exec.CommandContext(t.Context(), filepath.Join(bin, "initdb"), "-D", data, "-U", "reader", "--pwfile", filepath.Join(dir, "password"), "--no-sync", "-E", "UTF8", "--locale", "C")
	init.SysProcAttr, init.Dir = as, dir
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	write(filepath.Join(dir, "cert.pem"), cert)
	write(filepath.Join(dir, "key.pem"), key)
	write(filepath.Join(data, "pg_hba.conf"), []byte("hostssl all all all password\n"))
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "listen_addresses="+address, "-c", "port="+port, "-c", "unix_socket_directories="+dir,
		"-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(dir, "cert.pem"), "-c", "ssl_key_file="+filepath.Join(dir, "key.pem"), "-c", "fsync=off")
	server.SysProcAttr, server.Dir = as, dir
	daemon(t, server, syscall.SIGINT) // a fast shutdown
	takesConnections(t, net.JoinHostPort(address, port))
	return port, string(authority)
}

// asked is what the test algorithm's postgres returns.
type asked struct{ Value, Error string }

func realPostgres(t *testing.T, w *world) {
	name, address := machineName(t)
	port, ca := postgresServer(t, name, address, "correct-horse")
	uri := func(host string) string {
		return fmt.Sprintf("postgresql://reader:correct-horse@%s/postgres", net.JoinHostPort(host, port))
	}
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": []map[string]any{
		{"label": "cdm", "uri": uri(name), "type": "omop"},
		// The same server, by a name that is not in its certificate.
		{"label": "alias", "uri": uri("localhost"), "type": "sql"},
	}}})
	ask := func(label, ca string) asked {
		return completed[asked](t, n.call(t, "postgres", kwargs{"label": label, "ca": ca, "query": "select 40 + 2 || ' by ' || current_user"}, databases(label)))
	}
	eventually(t, func() error { // it listens before it answers
		if got := ask("cdm", ca); got.Value != "42 by reader" {
			return fmt.Errorf("the database answers %+v", got)
		}
		return nil
	})
	other, _, _ := certificate(t, name)
	if got := ask("cdm", string(other)); got.Value != "" || !strings.Contains(got.Error, "certificate") {
		t.Errorf("with another authority the database answers %+v", got)
	}
	if address == "127.0.0.1" {
		if got := ask("alias", ca); got.Value != "" || !strings.Contains(got.Error, "not localhost") {
			t.Errorf("under a name that is not its own the database answers %+v", got)
		}
	}
	if strings.Contains(n.Log(1<<20), "correct-horse") {
		t.Error("the node's log shows the password")
	}
}
