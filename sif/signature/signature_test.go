package signature_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/apptainer/sif/v2/pkg/integrity"
	apptainer "github.com/apptainer/sif/v2/pkg/sif"

	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/internal/imagetest"
	"github.com/v6node/v6node/sif/internal/siftest"
	"github.com/v6node/v6node/sif/signature"
)

// signable is an unsigned image with several objects.
func signable(t testing.TB) string {
	t.Helper()
	return siftest.Write(t,
		siftest.Object{Type: apptainer.DataDeffile, Data: []byte("bootstrap: scratch\n")},
		siftest.JSON("oci-config.json", `{"Cmd":["/bin/true"]}`),
		siftest.System(siftest.Squashfs(t, siftest.Tree{"bin/true": "x"})))
}

func open(t *testing.T, path string) *image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	src, err := image.NewSource(t.Context(), f, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	img, err := image.Open(t.Context(), src, image.Options{Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func verify(t *testing.T, path string, k *signature.Keys) ([]string, error) {
	t.Helper()
	img := open(t, path)
	return signature.Verify(t.Context(), img.File(), img.Used(), k)
}

func keys(t testing.TB, files ...[]byte) *signature.Keys {
	t.Helper()
	var paths []string
	for _, b := range files {
		p := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	k, err := signature.Load(paths...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// wantRefused checks that an error is of one kind, and of no other.
func wantRefused(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, signature.ErrRefused) {
		t.Fatalf("not refused: %v", err)
	}
	for _, k := range []error{signature.ErrUnsigned, signature.ErrPartlySigned, signature.ErrUntrusted, signature.ErrTampered} {
		if errors.Is(err, k) != (k == kind) {
			t.Errorf("got %q, want %q", err, kind)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("not a sentence: %q", err)
	}
}

// method is a way to sign.
type method struct {
	name   string
	sign   []integrity.SignerOpt
	public []byte
}

func methods(t testing.TB) []method {
	e, pgp := siftest.PGP(t)
	s, pem := siftest.Ed25519(t)
	return []method{{"PGP", []integrity.SignerOpt{integrity.OptSignWithEntity(e)}, pgp}, {"DSSE", []integrity.SignerOpt{integrity.OptSignWithSigner(s)}, pem}}
}

func eachMethod(t *testing.T, f func(*testing.T, method)) {
	for _, m := range methods(t) {
		t.Run(m.name, func(t *testing.T) { f(t, m) })
	}
}

func TestASignatureByATrustedKeyIsAccepted(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		path := signable(t)
		siftest.Sign(t, path, m.sign...)
		k := keys(t, m.public)
		names, err := verify(t, path, k)
		if err != nil || !slices.Equal(names, k.Names()) {
			t.Errorf("%v, %v; trusted are %v", names, err, k.Names())
		}
	})
}

func TestImagesSignedByApptainerAreAccepted(t *testing.T) {
	dir := imagetest.GoldenDir(t)
	for sif, key := range map[string]string{"signed-pgp.sif": "signer.asc", "signed-dsse.sif": "signer-ed25519.pub.pem"} {
		k, err := signature.Load(filepath.Join(dir, key))
		if err != nil {
			t.Fatal(err)
		}
		names, err := verify(t, filepath.Join(dir, sif), k)
		if err != nil || !slices.Equal(names, k.Names()) {
			t.Errorf("%s: %v, %v", sif, names, err)
		}
	}
}

func TestAnUnsignedImageIsRefused(t *testing.T) {
	for _, m := range methods(t) {
		_, err := verify(t, signable(t), keys(t, m.public))
		wantRefused(t, err, signature.ErrUnsigned)
	}
}

func TestASignatureByAnUnknownKeyIsRefused(t *testing.T) {
	mine, theirs := methods(t), methods(t)
	for _, m := range theirs {
		path := signable(t)
		siftest.Sign(t, path, m.sign...)
		for _, k := range []*signature.Keys{keys(t, mine[0].public), keys(t, mine[1].public), keys(t, mine[0].public, mine[1].public), {}} {
			_, err := verify(t, path, k)
			wantRefused(t, err, signature.ErrUntrusted)
		}
	}
}

func TestOneTrustedSignatureOfSeveralIsEnough(t *testing.T) {
	mine, theirs := methods(t), methods(t)
	path := signable(t)
	for _, m := range slices.Concat(theirs, mine[:1]) {
		siftest.Sign(t, path, m.sign...)
	}
	names, err := verify(t, path, keys(t, mine[0].public, mine[1].public))
	if want := keys(t, mine[0].public).Names(); err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v", names, err)
	}
}

func TestAnyChangeOfAnObjectIsFound(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		for id := uint32(1); id <= 3; id++ {
			path := signable(t)
			siftest.Sign(t, path, m.sign...)
			var last int64
			siftest.Edit(t, path, func(f *apptainer.FileImage) {
				d, err := f.GetDescriptor(apptainer.WithID(id))
				if err != nil {
					t.Fatal(err)
				}
				last = d.Offset() + d.Size() - 1
				if id == 2 {
					last = d.Offset() + 3 // inside a name, so that it stays JSON
				}
			})
			siftest.Flip(t, path, last)
			_, err := verify(t, path, keys(t, m.public))
			wantRefused(t, err, signature.ErrTampered)
		}
	})
}

func TestAnyChangeOfADescriptorIsFound(t *testing.T) {
	// Offsets in a descriptor: creation time, name, extra. And one in the header: the UUID.
	const table, size = 4096, 585
	for name, off := range map[string]int64{"time": table + 2*size + 41, "name": table + 2*size + 73, "name of the configuration's neighbour": table + 73, "header": 32 + 10 + 3 + 3} {
		eachMethod(t, func(t *testing.T, m method) {
			path := signable(t)
			siftest.Sign(t, path, m.sign...)
			siftest.Flip(t, path, off)
			_, err := verify(t, path, keys(t, m.public))
			if err == nil {
				t.Fatalf("a change of the %s is not found", name)
			}
			wantRefused(t, err, signature.ErrTampered)
		})
	}
}

func TestAChangeOfTheSignedTextIsFound(t *testing.T) {
	for _, m := range methods(t) {
		path := signable(t)
		siftest.Sign(t, path, m.sign...)
		var off int64
		siftest.Edit(t, path, func(f *apptainer.FileImage) {
			d, err := f.GetDescriptor(apptainer.WithDataType(apptainer.DataSignature))
			if err != nil {
				t.Fatal(err)
			}
			b, err := d.GetData()
			if err != nil {
				t.Fatal(err)
			}
			i := strings.Index(string(b), "sha256:")
			if m.name == "DSSE" {
				i = strings.Index(string(b), `"payload":"`) + 40
			}
			off = d.Offset() + int64(i) + 10
		})
		siftest.Flip(t, path, off)
		_, err := verify(t, path, keys(t, m.public))
		want := signature.ErrTampered
		if m.name == "DSSE" {
			want = signature.ErrUntrusted // an envelope that no key fits
		}
		wantRefused(t, err, want)
	}
}

func TestAnObjectThatWasAddedAfterSigningIsFound(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		path := siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": "b"})))
		siftest.Sign(t, path, m.sign...)
		for _, opts := range [][]apptainer.DescriptorInputOpt{
			nil,                       // in the group that is signed
			{apptainer.OptGroupID(2)}, // in a group of its own
			{apptainer.OptNoGroup()},  // in no group
		} {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			more := filepath.Join(t.TempDir(), "more.sif")
			if err := os.WriteFile(more, b, 0o600); err != nil {
				t.Fatal(err)
			}
			siftest.Edit(t, more, func(f *apptainer.FileImage) {
				d, err := apptainer.NewDescriptorInput(apptainer.DataGenericJSON, strings.NewReader(`{"Cmd":["/evil"]}`),
					append(opts, apptainer.OptObjectName("oci-config.json"))...)
				if err == nil {
					err = f.AddObject(d)
				}
				if err != nil {
					t.Fatal(err)
				}
			})
			_, err = verify(t, more, keys(t, m.public))
			wantRefused(t, err, signature.ErrPartlySigned)
		}
	})
}

func TestAnObjectThatWasRemovedAfterSigningIsFound(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		path := signable(t)
		siftest.Sign(t, path, m.sign...)
		siftest.Edit(t, path, func(f *apptainer.FileImage) {
			if err := f.DeleteObject(2); err != nil {
				t.Fatal(err)
			}
		})
		_, err := verify(t, path, keys(t, m.public))
		wantRefused(t, err, signature.ErrTampered)
	})
}

func TestASignatureOfSomeObjectsIsNotEnough(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		path := signable(t)
		siftest.Sign(t, path, append(m.sign, integrity.OptSignObjects(3))...)
		_, err := verify(t, path, keys(t, m.public))
		wantRefused(t, err, signature.ErrPartlySigned)
	})
}

func TestEveryGroupNeedsASignature(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		second := siftest.JSON("oci-config.json", `{"Cmd":["/x"]}`)
		second.Options = append(second.Options, apptainer.OptGroupID(2))
		path := siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": "b"})), second)
		siftest.Sign(t, path, append(m.sign, integrity.OptSignGroup(1))...)
		_, err := verify(t, path, keys(t, m.public))
		wantRefused(t, err, signature.ErrPartlySigned)
		siftest.Sign(t, path, append(m.sign, integrity.OptSignGroup(2))...)
		if _, err := verify(t, path, keys(t, m.public)); err != nil {
			t.Error(err)
		}
	})
}

func TestASignatureOfAnotherImageIsWorthNothing(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		signed := signable(t)
		siftest.Sign(t, signed, m.sign...)
		var text []byte
		siftest.Edit(t, signed, func(f *apptainer.FileImage) {
			d, err := f.GetDescriptor(apptainer.WithDataType(apptainer.DataSignature))
			if err == nil {
				text, err = d.GetData()
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		other := siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"evil": "x"})),
			siftest.Object{Type: apptainer.DataSignature, Data: text, Options: []apptainer.DescriptorInputOpt{apptainer.OptNoGroup(), apptainer.OptLinkedGroupID(1)}})
		if _, err := verify(t, other, keys(t, m.public)); !errors.Is(err, signature.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnOCISIFIsVerifiedAsAWhole(t *testing.T) {
	eachMethod(t, func(t *testing.T, m method) {
		path := siftest.OCISIF(t, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}`,
			siftest.Blob{MediaType: siftest.SquashfsLayer, Data: siftest.Squashfs(t, siftest.Tree{"a": "b"})})
		siftest.Sign(t, path, m.sign...)
		if _, err := verify(t, path, keys(t, m.public)); err != nil {
			t.Error(err)
		}
	})
}

func TestAKeyThatHasExpiredIsNotTrusted(t *testing.T) {
	past := time.Now().Add(-48 * time.Hour)
	e, err := openpgp.NewEntity("Old", "", "old@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return past }, KeyLifetimeSecs: 24 * 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := signable(t)
	siftest.Sign(t, path, integrity.OptSignWithEntity(e), integrity.OptSignWithTime(func() time.Time { return past.Add(time.Hour) }))
	_, err = verify(t, path, keys(t, siftest.PublicPGP(t, e)))
	wantRefused(t, err, signature.ErrUntrusted)
}

func TestFilesWithKeysAreReadInEveryForm(t *testing.T) {
	m, n := methods(t), methods(t)
	var ring strings.Builder
	block, err := armor.Decode(strings.NewReader(string(m[0].public)))
	if err != nil {
		t.Fatal(err)
	}
	list, err := openpgp.ReadKeyRing(block.Body)
	if err != nil || list[0].Serialize(&ring) != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"armored":         {string(m[0].public), 1},
		"binary":          {ring.String(), 1},
		"several armored": {string(m[0].public) + "\n" + string(n[0].public), 2},
		"PEM":             {string(m[1].public), 1},
		"several PEM":     {string(m[1].public) + string(n[1].public), 2},
		"the same twice":  {string(m[1].public) + string(m[1].public), 1},
	} {
		k, err := signature.Parse(name, []byte(c.text))
		if err != nil || len(k.Names()) != c.want {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
}

func TestWhatIsNoPublicKeyIsRefusedWithItsFile(t *testing.T) {
	e, _ := siftest.PGP(t)
	var private strings.Builder
	w, err := armor.Encode(&private, openpgp.PrivateKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.SerializePrivate(w, nil), w.Close()); err != nil {
		t.Fatal(err)
	}
	pem := string(methods(t)[1].public)
	for name, text := range map[string]string{
		"empty":           "",
		"text":            "ssh-ed25519 AAAA",
		"private PGP key": private.String(),
		"private PEM key": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----\n",
		"certificate":     "-----BEGIN CERTIFICATE-----\nMC4=\n-----END CERTIFICATE-----\n",
		"broken PEM":      "-----BEGIN PUBLIC KEY-----\nMC4=\n-----END PUBLIC KEY-----\n",
		"PEM and more":    pem + "more",
		"short RSA key":   "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK8Q+ToR4tWGshaKYRHKJ3ZmMUF6jjwCS/u1A8v1tFbQiVpBlxYB\npaNcT2ENEXBGdmWqr8VwSl0NBIKyq4p0rhsCAwEAAQ==\n-----END PUBLIC KEY-----\n",
		"too large":       pem + strings.Repeat("\n", 5<<20),
	} {
		if _, err := signature.Parse("the file", []byte(text)); !errors.Is(err, signature.ErrKey) || !strings.HasPrefix(err.Error(), "the file: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAnotherSetOfKeysHasAnotherID(t *testing.T) {
	m := methods(t)
	both := keys(t, m[0].public, m[1].public)
	if both.ID() != keys(t, m[1].public, m[0].public).ID() {
		t.Error("the order counts")
	}
	if both.ID() == keys(t, m[0].public).ID() {
		t.Error("another set has the same ID")
	}
}
