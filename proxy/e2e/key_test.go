package e2e

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
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

// protectedForm is what a protected key consists of, for keys that openssl would not write.
type protectedForm struct {
	Algorithm struct {
		ID     asn1.ObjectIdentifier
		Params struct {
			KDF struct {
				ID     asn1.ObjectIdentifier
				Params any
			}
			Cipher struct {
				ID asn1.ObjectIdentifier
				IV []byte
			}
		}
	}
	Data []byte
}

func protected(t testing.TB, kdf asn1.ObjectIdentifier, params any, change ...func(*protectedForm)) []byte {
	t.Helper()
	var f protectedForm
	f.Algorithm.ID = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	f.Algorithm.Params.KDF.ID, f.Algorithm.Params.KDF.Params = kdf, params
	f.Algorithm.Params.Cipher.ID, f.Algorithm.Params.Cipher.IV = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, make([]byte, 16)
	f.Data = make([]byte, 32)
	for _, c := range change {
		c(&f)
	}
	der, err := asn1.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
}

func TestAProtectedKeyOpensWithItsPassphraseOnly(t *testing.T) {
	key := testKey(t, "pkcs8.pem")
	text, err := key.ProtectedPEM([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key.rsa), []byte("correct horse"), x509.PEMCipherAES256) //nolint:staticcheck // it is about old keys
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"PKCS#8": text, "the old form": pem.EncodeToMemory(der)} {
		asked := 0
		got, err := ParseProtectedKey(text, func() ([]byte, error) { asked++; return []byte("correct horse"), nil })
		if err != nil || !got.Public().Equal(key.Public()) || asked != 1 {
			t.Errorf("%s: %v, asked %d times", name, err, asked)
		}
		if _, err := ParseProtectedKey(text, func() ([]byte, error) { return []byte("battery staple"), nil }); !errors.Is(err, ErrWrongPassphrase) {
			t.Errorf("%s opens with another passphrase: %v", name, err)
		}
		if _, err := ParsePrivateKey(text); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s opens without: %v", name, err)
		}
	}
	if _, err := key.ProtectedPEM(nil); err == nil {
		t.Error("an empty passphrase protects")
	}
	if got, err := ParseProtectedKey(key.PEM(), func() ([]byte, error) { t.Error("asked"); return nil, nil }); err != nil || got == nil {
		t.Errorf("a key without a passphrase: %v", err)
	}
}

func TestAProtectedKeyMayNotAskForHoursOfWork(t *testing.T) {
	pbkdf2, scrypt := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	type rounds struct {
		Salt   []byte
		Rounds int
	}
	type cost struct {
		Salt    []byte
		N, R, P int
	}
	salt := make([]byte, 16)
	for name, text := range map[string][]byte{
		"rounds": protected(t, pbkdf2, rounds{salt, 1 << 40}), "no rounds": protected(t, pbkdf2, rounds{salt, 0}), "negative rounds": protected(t, pbkdf2, rounds{salt, -1}),
		"memory": protected(t, scrypt, cost{salt, 1 << 40, 8, 1}), "blocks": protected(t, scrypt, cost{salt, 1 << 14, 1 << 30, 1}), "lanes": protected(t, scrypt, cost{salt, 1 << 14, 8, 1 << 30}),
		"a short iv":     protected(t, pbkdf2, rounds{salt, 1}, func(f *protectedForm) { f.Algorithm.Params.Cipher.IV = salt[:3] }),
		"half a block":   protected(t, pbkdf2, rounds{salt, 1}, func(f *protectedForm) { f.Data = salt[:7] }),
		"a block of DES": protected(t, pbkdf2, rounds{salt, 1}, func(f *protectedForm) { f.Algorithm.Params.Cipher.ID = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7} }),
		"another cipher": protected(t, pbkdf2, rounds{salt, 1}, func(f *protectedForm) { f.Algorithm.Params.Cipher.ID = asn1.ObjectIdentifier{1, 2} }),
		"another way":    protected(t, asn1.ObjectIdentifier{1, 2, 3}, rounds{salt, 1}),
	} {
		if _, err := ParseProtectedKey(text, func() ([]byte, error) { return []byte("x"), nil }); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzProtectedKeys(f *testing.F) {
	for _, name := range []string{"pkcs1.pem", "pkcs8.pem", "pkcs8-passphrase.pem", "pkcs1-passphrase.pem", "elliptic.pem"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add(protected(f, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, struct {
		Salt   []byte
		Rounds int
	}{make([]byte, 16), 3}))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseProtectedKey(text, func() ([]byte, error) { return []byte("x"), nil })
		if (key == nil) == (err == nil) || err != nil && !errors.Is(err, ErrKey) {
			t.Errorf("%v, %v", key, err)
		}
	})
}
