package e2e

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrivateKeyIsReadFromPKCS1AndPKCS8(t *testing.T) {
	a, b := testKey(t, "pkcs1.pem"), testKey(t, "pkcs8.pem")
	if !a.Public().Equal(b.Public()) {
		t.Fatal("the same key in two forms differs")
	}
	c, err := ParsePrivateKey(append([]byte("comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), a.PEM()...))
	if err != nil || !c.Public().Equal(a.Public()) {
		t.Fatalf("behind another PEM block: %v", err)
	}
}

func TestUnusablePrivateKeysAreRefusedWithTheReason(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, c := range map[string]struct{ text, says string }{
		"empty":              {"", "no PEM block"},
		"public key only":    {string(mustDecode(t, testKey(t, "pkcs1.pem").Public().Base64())), "no PEM block"},
		"passphrase, PKCS#8": {read("pkcs8-passphrase.pem"), "passphrase"},
		"passphrase, PKCS#1": {read("pkcs1-passphrase.pem"), "passphrase"},
		"1024 bits":          {read("short-1024.pem"), "1024 bits"},
		"elliptic curve":     {read("elliptic.pem"), "not an RSA key"},
		"damaged":            {"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "damaged"},
		"too long":           {strings.Repeat("x", maxKeyText+1), "longer"},
	} {
		_, err := ParsePrivateKey([]byte(c.text))
		if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want it to say %q", name, err, c.says)
		}
		if wants := strings.HasPrefix(name, "passphrase"); errors.Is(err, ErrPassphrase) != wants {
			t.Errorf("%s: is ErrPassphrase %v", name, !wants)
		}
	}
}

func mustDecode(t testing.TB, s string) []byte {
	t.Helper()
	p, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublicKeySurvivesTheServersForm(t *testing.T) {
	p := testKey(t, "pkcs1.pem").Public()
	q, err := ParsePublicKey(p.Base64())
	if err != nil || !q.Equal(p) {
		t.Fatalf("got %v", err)
	}
	other, err := GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	if q.Equal(other.Public()) || q.Equal(nil) {
		t.Fatal("different keys are equal")
	}
}

func TestUnusablePublicKeysAreRefused(t *testing.T) {
	pem := func(kind, body string) string {
		return base64.StdEncoding.EncodeToString([]byte("-----BEGIN " + kind + "-----\n" + body + "\n-----END " + kind + "-----\n"))
	}
	for _, s := range []string{"", "*", "AAAA", pem("PUBLIC KEY", "AAAA"), pem("RSA PUBLIC KEY", "AAAA"), pem("CERTIFICATE", "AAAA"), strings.Repeat("A", maxKeyText+4)} {
		if _, err := ParsePublicKey(s); !errors.Is(err, ErrKey) {
			t.Errorf("%.40q: got %v", s, err)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(testKey(f, "pkcs1.pem").Public().Base64())
	f.Add("LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0K")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePublicKey(s)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatalf("unclassified error %v", err)
			}
			return
		}
		if q, err := ParsePublicKey(p.Base64()); err != nil || !q.Equal(p) {
			t.Fatalf("accepted key does not survive: %v", err)
		}
	})
}
