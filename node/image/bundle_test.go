package image

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/image/archive"
)

// loadKey makes a key that is trusted.
func loadKey(t testing.TB) (*ecdsa.PrivateKey, *SigningKeys) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "k.pub")
	key := signingKey(t, file)
	keys, err := LoadSigningKeys([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	return key, keys
}

func bundleOf(t testing.TB, key *ecdsa.PrivateKey, digest, predicate string) []byte {
	t.Helper()
	text, err := imagekit.Bundle(key, digest, predicate)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// refer pushes artifacts that hold bundles and refer to an image, at the tag for them too where the registry does not list
// them, and returns them.
func (f *fixture) refer(t testing.TB, repo, digest string, tag bool, change func(*v1.Descriptor), bundles ...[]byte) {
	t.Helper()
	var adds []mutate.IndexAddendum
	for _, b := range bundles {
		img, err := imagekit.Referrer(digest, imagekit.SignPredicate, b)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		f.push(t, repo+"@"+d.String(), img)
		raw, err := img.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		desc := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: d, Size: int64(len(raw))}
		if change != nil {
			change(&desc)
		}
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: desc})
	}
	if tag {
		f.push(t, repo+":"+strings.Replace(digest, ":", "-", 1), mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...))
	}
}

func TestABundleOfATrustedKeyThatRefersToTheImageCounts(t *testing.T) {
	key, keys := loadKey(t)
	stranger, _ := loadKey(t)
	for _, listed := range []bool{true, false} {
		f := newFixture(t, registry.WithReferrersSupport(listed))
		r := newResolver(t, Options{})
		n := 0
		check := func(name string, accepted bool, says string, bundles func(digest string) [][]byte) {
			t.Helper()
			n++
			repo := fmt.Sprintf("org/algo%d", n)
			f.push(t, repo+":v1", testImage(t, "amd64", name))
			res := resolve(t, r, f.host+"/"+repo+":v1")
			f.refer(t, repo, res.Digest, !listed, nil, bundles(res.Digest)...)
			by, err := r.Signed(t.Context(), res, keys)
			if accepted && (err != nil || by != "k.pub") || !accepted && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), "of cosign 3 (a bundle that refers to the image): "+says)) {
				t.Errorf("%s, listed %v: %q, %v", name, listed, by, err)
			}
		}
		sbom := "https://spdx.dev/Document"
		check("none", false, "there is no signature", func(string) [][]byte { return nil })
		check("ours", true, "", func(d string) [][]byte { return [][]byte{bundleOf(t, key, d, signPredicate)} })
		check("a stranger's, nonsense, an SBOM and ours", true, "", func(d string) [][]byte {
			return [][]byte{bundleOf(t, stranger, d, signPredicate), []byte("{}"), bundleOf(t, key, d, sbom), bundleOf(t, key, d, signPredicate)}
		})
		check("a stranger's", false, "none of the keys", func(d string) [][]byte { return [][]byte{bundleOf(t, stranger, d, signPredicate)} })
		check("an SBOM that pretends to be a signature in the list", false, "what was signed says something else of the image", func(d string) [][]byte { return [][]byte{bundleOf(t, key, d, sbom)} })
		check("another image's", false, "the signature is about another image, sha256:000", func(string) [][]byte {
			return [][]byte{bundleOf(t, key, "sha256:"+strings.Repeat("0", 64), signPredicate)}
		})
		check("longer than any", false, "there is no signature", func(string) [][]byte { return [][]byte{make([]byte, archive.MaxBundle+1)} })
		check("too many strangers", false, "none of the keys that this node trusts has signed it, among the first 32 of 33", func(d string) (all [][]byte) {
			for range maxSignatures + 1 {
				all = append(all, bundleOf(t, stranger, d, signPredicate))
			}
			return all
		})
	}
}

func TestASignatureOfEitherFormatIsEnough(t *testing.T) {
	key, keys := loadKey(t)
	stranger, _ := loadKey(t)
	f := newFixture(t)
	r := newResolver(t, Options{})
	for i, c := range []struct {
		tag, refers *ecdsa.PrivateKey
		says        string
	}{{key, stranger, ""}, {stranger, key, ""}, {stranger, stranger, "(the tag sha256-DIGEST.sig): none of the keys that this node trusts has signed it; of cosign 3 (a bundle that refers to the image): none of the keys"}} {
		repo := fmt.Sprintf("org/both%d", i)
		f.push(t, repo+":v1", testImage(t, "amd64", repo))
		res := resolve(t, r, f.host+"/"+repo+":v1")
		payload := payloadOf(res.Digest)
		f.push(t, repo+":"+strings.Replace(res.Digest, ":", "-", 1)+".sig", signatures(t, payload, sign(t, c.tag, payload)))
		f.refer(t, repo, res.Digest, true, nil, bundleOf(t, c.refers, res.Digest, signPredicate))
		by, err := r.Signed(t.Context(), res, keys)
		if c.says == "" && (err != nil || by != "k.pub") || c.says != "" && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%d: %q, %v", i, by, err)
		}
	}
}

func TestWhatTheListOfReferrersSaysOnlyDecidesWhatIsLookedAt(t *testing.T) {
	key, keys := loadKey(t)
	f := newFixture(t)
	r := newResolver(t, Options{})
	for i, c := range []struct {
		change func(*v1.Descriptor)
		ok     bool
	}{
		{func(d *v1.Descriptor) { d.ArtifactType = "application/vnd.dev.sigstore.bundle.v0.3+json" }, true},
		{func(d *v1.Descriptor) { d.Annotations = map[string]string{predicateAnnotation: signPredicate} }, true},
		{func(d *v1.Descriptor) { d.ArtifactType = emptyConfig }, true},
		{func(d *v1.Descriptor) { d.ArtifactType = "application/spdx+json" }, false},
		{func(d *v1.Descriptor) {
			d.Annotations = map[string]string{predicateAnnotation: "https://slsa.dev/provenance/v1"}
		}, false},
		{func(d *v1.Descriptor) { d.MediaType = types.OCIImageIndex }, false},
		{func(d *v1.Descriptor) { d.Digest.Hex = strings.Repeat("0", 64) }, false}, // which is not there
	} {
		repo := fmt.Sprintf("org/list%d", i)
		f.push(t, repo+":v1", testImage(t, "amd64", repo))
		res := resolve(t, r, f.host+"/"+repo+":v1")
		list := ""
		f.refer(t, repo, res.Digest, false, func(d *v1.Descriptor) {
			c.change(d)
			text, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*d}})
			if err != nil {
				t.Fatal(err)
			}
			list = string(text)
		}, bundleOf(t, key, res.Digest, signPredicate))
		f.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			fmt.Fprint(w, list)
			return true
		})
		if _, err := r.Signed(t.Context(), res, keys); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestARegistryThatFailsToTellWhatRefersToAnImage(t *testing.T) {
	_, keys := loadKey(t)
	f := newFixture(t)
	f.push(t, "org/algo:v1", testImage(t, "amd64", "algo"))
	for _, c := range []struct {
		status int
		text   string
		want   error
	}{
		{http.StatusNotFound, "", ErrSignature}, {http.StatusMethodNotAllowed, "", ErrSignature}, {http.StatusNotImplemented, "", ErrSignature},
		{http.StatusForbidden, "", ErrDenied}, {http.StatusInternalServerError, "", ErrUnreachable},
		{http.StatusOK, "{", ErrSignature}, {http.StatusOK, `{"manifests":` + strings.Repeat("[", 20000), ErrSignature}, {http.StatusOK, strings.Repeat(" ", maxBody+1), ErrUnreachable},
	} {
		r := newResolver(t, Options{})
		res := resolve(t, r, f.host+"/org/algo:v1")
		f.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.text)
			return true
		})
		if by, err := r.Signed(t.Context(), res, keys); !errors.Is(err, c.want) {
			t.Errorf("%d %.20s: %q, %v", c.status, c.text, by, err)
		}
	}
}

func TestABundleIsASignatureOrRefused(t *testing.T) {
	key, keys := loadKey(t)
	digest := "sha256:" + strings.Repeat("a", 64)
	good := bundleOf(t, key, digest, signPredicate)
	// of is a bundle with this payload, well signed.
	of := func(kind, payload string) []byte {
		return fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
			base64.StdEncoding.EncodeToString([]byte(payload)), kind, sign(t, key, string(dsse.PAE(kind, []byte(payload)))))
	}
	statement := func(change ...string) string {
		return strings.NewReplacer(change...).Replace(`{"_type":"` + statementType + `","predicateType":"` + signPredicate + `","subject":[{"digest":{"sha256":"` + digest[7:] + `"}}]}`)
	}
	replace := func(old, new string) []byte {
		if !strings.Contains(string(good), old) {
			t.Fatalf("no %q", old)
		}
		return []byte(strings.Replace(string(good), old, new, 1))
	}
	for _, c := range []struct {
		name, says string
		text       []byte
	}{
		{"as it is", "", good},
		{"our own statement", "", of(statementPayload, statement())},
		{"the other name of the format", "", replace("bundle.v0.3+json", "bundle+json;version=0.3")},
		{"another hint", "", replace("a hint", "another")},
		{"fields of later versions", "", replace(`"verificationMaterial":{`, `"later":{"a":[1]},"verificationMaterial":{"tlogEntries":[],`)},
		{"an entry of a log", "", replace(`{"publicKey"`, `{"tlogEntries":[{"logIndex":"1","logId":{"keyId":"AAAA"},"kindVersion":{"kind":"dsse","version":"0.0.1"},"integratedTime":"1","canonicalizedBody":"AAAA"}],"publicKey"`)},
		{"a certificate", "", replace(`"publicKey":{"hint":"a hint"}`, `"certificate":{"rawBytes":"AAAA"}`)},
		{"several subjects", "", of(statementPayload, statement(`[{`, `[{"digest":{"sha256":"00"}},{"digest":{"sha512":"00"}},{`))},
		{"no JSON", "cannot be read", []byte("bundle")},
		{"nothing", "cannot be read", nil},
		{"null", "cannot be read", []byte("null")},
		{"no format", "has the format", []byte("{}")},
		{"too long", "longer than any", make([]byte, archive.MaxBundle+1)},
		{"too deep", "cannot be read", replace(`"verificationMaterial"`, `"x":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`,"verificationMaterial"`)},
		{"a field twice", "cannot be read", replace(`"payloadType"`, `"payload":"","payloadType"`)},
		{"an older format", "has the format", replace("v0.3", "v0.2")},
		{"a later format", "has the format", replace("v0.3", "v0.4")},
		{"a signature of a blob", "has no statement", []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","messageSignature":{"signature":"AAAA"}}`)},
		{"another type of payload", "has no statement", of("application/vnd.dev.cosign.simplesigning.v1+json", payloadOf(digest))},
		{"a type that was not signed", "has no statement", replace(statementPayload, "text/plain")},
		{"no signature", "0 signatures", replace(`[{"sig"`, `[],"x":[{"sig"`)},
		{"two signatures", "2 signatures", replace(`[{"sig"`, `[{"sig":"AAAA"},{"sig"`)},
		{"a signature without its text", "none of the keys", replace(`"sig":"`, `"keyid":"`)},
		{"a long signature", "longer than any", replace(`"sig":"`, `"sig":"`+strings.Repeat("AAAA", 400))},
		{"no statement", "not a statement", of(statementPayload, "text")},
		{"a deep statement", "not a statement", of(statementPayload, statement(`{"_type"`, `{"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`,"_type"`))},
		{"a predicate twice", "not a statement", of(statementPayload, statement(`{"_type"`, `{"predicateType":"x","_type"`))},
		{"a list", "not a statement", of(statementPayload, "[]")},
		{"an empty statement", "says something else", of(statementPayload, "{}")},
		{"a statement of another kind", "not a statement of in-toto, version 1", of(statementPayload, statement("Statement/v1", "Statement/v0.1"))},
		{"another predicate", `says something else of the image ("https://sigstore.dev/cosign/sign/v2")`, of(statementPayload, statement("sign/v1", "sign/v2"))},
		{"another spelling", "says something else", of(statementPayload, statement("predicateType", "PredicateType"))},
		{"another digest", "about another image, sha256:ab", of(statementPayload, statement("aaaaaa", "abaaaa"))},
		{"a digest of another kind", "about another image, none", of(statementPayload, statement("sha256", "sha512"))},
		{"a digest in capitals", "about another image", of(statementPayload, statement("aaaaaa", "AAAAAA"))},
		{"no subject", "about another image, none", of(statementPayload, statement(`[{`, `[],"x":[{`))},
		{"subjects that are none", "about another image, none", of(statementPayload, statement(`[{`, `[null,1,"a",{"digest":1},{"digest":{"sha256":[]}}],"x":[{`))},
		{"the old payload", "none of the keys", replace(`"signatures":[{"sig":"`, `"signatures":[{"sig":"`+sign(t, key, payloadOf(digest))+`","keyid":"`)},
	} {
		i, err := keys.verifyBundle(c.text, digest)
		if c.says == "" && (err != nil || i != 0) || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestKeysOfAllKindsSignInAllWaysOfCosign(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	signer := func(s sigstore.Signer, err error) sigstore.Signer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	curve := func(c elliptic.Curve) *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	p256, p384, p521 := curve(elliptic.P256()), curve(elliptic.P384()), curve(elliptic.P521())
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind string
		key  crypto.Signer
		with sigstore.Signer
	}{
		{"ECDSA P-256", p256, signer(sigstore.LoadECDSASigner(p256, crypto.SHA256))},
		{"ECDSA P-384", p384, signer(sigstore.LoadECDSASigner(p384, crypto.SHA256))},
		{"ECDSA P-384", p384, signer(sigstore.LoadECDSASigner(p384, crypto.SHA384))},
		{"ECDSA P-521", p521, signer(sigstore.LoadECDSASigner(p521, crypto.SHA256))},
		{"ECDSA P-521", p521, signer(sigstore.LoadECDSASigner(p521, crypto.SHA512))},
		{"RSA, 2048 bits", long, signer(sigstore.LoadRSAPKCS1v15Signer(long, crypto.SHA256))},
		{"Ed25519", edwards, signer(sigstore.LoadED25519Signer(edwards))},
		{"Ed25519", edwards, signer(sigstore.LoadED25519phSigner(edwards))},
	} {
		der, err := x509.MarshalPKIXPublicKey(c.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "k.pub")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
			t.Fatal(err)
		}
		keys, err := LoadSigningKeys([]string{file})
		if err != nil || keys.Kinds()[0] != c.kind {
			t.Fatalf("%s: %v", c.kind, err)
		}
		text := func(message string) string {
			sig, err := c.with.SignMessage(strings.NewReader(message))
			if err != nil {
				t.Fatal(err)
			}
			return base64.StdEncoding.EncodeToString(sig)
		}
		if _, err := keys.verify([]byte(payloadOf(digest)), text(payloadOf(digest)), digest); err != nil {
			t.Errorf("%s: %v", c.kind, err)
		}
		if _, err := keys.verify([]byte(payloadOf(digest)), text(payloadOf(digest)+" "), digest); err == nil {
			t.Errorf("%s: a signature of something else is accepted", c.kind)
		}
	}
}

// As cosign 3.1.3 wrote them (testdata/cosign/README.md).
func TestWhatCosignHasWrittenCounts(t *testing.T) {
	read := func(file string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata", "cosign", file))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	digests := map[string]string{}
	for line := range strings.Lines(string(read("digests"))) {
		name, digest, _ := strings.Cut(strings.TrimSpace(line), " ")
		digests[name] = digest
	}
	for _, name := range []string{"p256", "p384", "rsa", "ed25519"} {
		keys, err := LoadSigningKeys([]string{filepath.Join("testdata", "cosign", name+".pub")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys.verifyBundle(read(name+".bundle.json"), digests[name]); err != nil {
			t.Errorf("%s, bundle: %v", name, err)
		}
		if _, err := keys.verify(read(name+".payload"), string(read(name+".sig")), digests[name]); err != nil {
			t.Errorf("%s, payload: %v", name, err)
		}
		if _, err := keys.verifyBundle(read(name+".bundle.json"), digests["index"]); err == nil || !strings.Contains(err.Error(), "about another image, "+digests[name]) {
			t.Errorf("%s, of another image: %v", name, err)
		}
		if _, err := keys.verifyBundle(read("index.bundle.json"), digests["index"]); (err == nil) != (name == "p256") {
			t.Errorf("%s, by another key: %v", name, err)
		}
		if _, err := keys.verifyBundle(read("attestation.bundle.json"), digests["index"]); err == nil || name == "p256" && !strings.Contains(err.Error(), "https://spdx.dev/Document") {
			t.Errorf("%s, an attestation: %v", name, err)
		}
	}
}

func FuzzBundles(f *testing.F) {
	key, keys := loadKey(f)
	digest := "sha256:" + strings.Repeat("a", 64)
	good := bundleOf(f, key, digest, signPredicate)
	var whole bundle.Bundle
	if err := protojson.Unmarshal(good, &whole); err != nil {
		f.Fatal(err)
	}
	payload := whole.GetDsseEnvelope().GetPayload()
	f.Add(good, payload)
	f.Add([]byte("{}"), []byte("{}"))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"signatures":[null]}}`), []byte(`{"subject":[null]}`))
	f.Fuzz(func(t *testing.T, text, statement []byte) {
		var b bundle.Bundle
		if _, err := keys.verifyBundle(text, digest); err == nil && ((protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &b) != nil || !bytes.Equal(b.GetDsseEnvelope().GetPayload(), payload)) {
			t.Errorf("a signature was forged: %q", text)
		}
		_ = states(statement, digest)
	})
}
