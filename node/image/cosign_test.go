package image

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/v6node/v6node/internal/imagekit"
)

// signingKey makes a key and the file of its public half.
func signingKey(t testing.TB, file string) *ecdsa.PrivateKey {
	t.Helper()
	key, public, err := imagekit.SigningKey()
	if err == nil {
		err = os.WriteFile(file, public, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func payloadOf(digest string) string {
	return fmt.Sprintf(`{"critical":{"identity":{"docker-reference":"x"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
}

func sign(t testing.TB, key *ecdsa.PrivateKey, payload string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(payload))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// signatures is the image that has signatures, payload and signature by turns.
func signatures(t testing.TB, pairs ...string) v1.Image {
	t.Helper()
	img := v1.Image(empty.Image)
	for i := 0; i < len(pairs); i += 2 {
		var err error
		if img, err = mutate.Append(img, mutate.Addendum{
			Layer: static.NewLayer([]byte(pairs[i]), payloadType), MediaType: payloadType, Annotations: map[string]string{signatureAnnotation: pairs[i+1]},
		}); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func TestOnlyASignatureOfATrustedKeyAboutTheDigestCounts(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.pub"), filepath.Join(dir, "second.pub")
	a, b, stranger := signingKey(t, first), signingKey(t, second), signingKey(t, filepath.Join(dir, "stranger.pub"))
	keys, err := LoadSigningKeys([]string{first, second})
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	r := newResolver(t, Options{})
	f.push(t, "org/algo:v1", testImage(t, "amd64", "algo"))
	res := resolve(t, r, f.host+"/org/algo:v1")
	f.push(t, "org/other:v1", testImage(t, "amd64", "other"))
	other := resolve(t, r, f.host+"/org/other:v1")
	ours, theirs := payloadOf(res.Digest), payloadOf(other.Digest)
	tag := "org/algo:" + strings.Replace(res.Digest, ":", "-", 1) + ".sig"
	check := func(name, signer, says string) {
		t.Helper()
		got, err := r.Signed(t.Context(), res, keys)
		if signer != "" && (err != nil || got != signer) || signer == "" && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	check("none", "", "there is no signature")
	for _, c := range []struct {
		name, signer, says string
		pairs              []string
	}{
		{"the first key", "first.pub", "", []string{ours, sign(t, a, ours)}},
		{"the second key", "second.pub", "", []string{ours, sign(t, b, ours)}},
		{"a stranger's and ours", "second.pub", "", []string{ours, sign(t, stranger, ours), ours, "!", theirs, sign(t, a, theirs), ours, sign(t, b, ours)}},
		{"a stranger's", "", "none of the keys", []string{ours, sign(t, stranger, ours)}},
		{"another image's", "", "about another image", []string{theirs, sign(t, a, theirs)}},
		{"another payload's", "", "none of the keys", []string{ours, sign(t, a, theirs)}},
		{"no text of a signature", "", "cannot be read", []string{ours, ""}},
		{"no base64", "", "cannot be read", []string{ours, "***"}},
		{"something else that we signed", "", "not about an image", []string{`{"digest":"` + res.Digest + `"}`, sign(t, a, `{"digest":"`+res.Digest+`"}`)}},
		{"no signatures in it", "", "there is no signature", nil},
	} {
		f.push(t, tag, signatures(t, c.pairs...))
		check(c.name, c.signer, c.says)
	}
	f.push(t, tag, testIndex(t, "amd64", "linux/amd64"))
	check("an index in its place", "", "what is there is none")
	f.answer(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true })
	if _, err := r.Signed(t.Context(), res, keys); !errors.Is(err, ErrDenied) {
		t.Errorf("a registry that refuses: %v", err)
	}
	if _, err := (Schemes{"": r}).Signed(t.Context(), Resolved{Reference: "sif:x"}, keys); err == nil {
		t.Error("an image of no source is signed")
	}
}

func TestSigningKeysAreReadOrRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(text []byte) string {
		file := filepath.Join(dir, "key.pub")
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := filepath.Join(dir, "good.pub")
	signingKey(t, good)
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}
	long := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8191), E: 65537}
	for _, c := range []struct {
		says    string
		content []byte
	}{
		{"one public key in PEM", []byte("text")}, {"one public key", append(text, text...)}, {"damaged", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})},
		{"none of ECDSA", inPEM(&curve.PublicKey)}, {"none of ECDSA", inPEM(exchange.PublicKey())}, {"none of ECDSA", inPEM(weak)}, {"none of ECDSA", inPEM(long)},
		{"longer than", make([]byte, maxSigningKey+1)},
	} {
		if _, err := LoadSigningKeys([]string{good, write(c.content)}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q: %v", c.says, err)
		}
	}
	if _, err := LoadSigningKeys([]string{filepath.Join(dir, "nowhere")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func FuzzSignatures(f *testing.F) {
	dir := f.TempDir()
	file := filepath.Join(dir, "k.pub")
	key := signingKey(f, file)
	keys, err := LoadSigningKeys([]string{file})
	if err != nil {
		f.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("a", 64)
	f.Add([]byte(payloadOf(digest)), sign(f, key, payloadOf(digest)))
	f.Add([]byte("{}"), "")
	f.Fuzz(func(t *testing.T, payload []byte, signature string) {
		if _, err := keys.verify(payload, signature, digest); err == nil && string(payload) != payloadOf(digest) {
			t.Errorf("a signature was forged: %q", payload)
		}
		_ = about(payload, digest)
	})
}
