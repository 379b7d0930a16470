package signature

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	sigstore "github.com/sigstore/sigstore/pkg/signature"

	"github.com/v6node/v6node/internal/plainfile"
)

// maxKeyFile is how many bytes a file with keys may have.
const maxKeyFile = 4 << 20

// minRSA is how many bits an RSA key must have.
const minRSA = 2048

// ErrKey: a file with keys cannot be used.
var ErrKey = errors.New("not a usable public key")

// Keys are the keys that are trusted. They do not change, and may be used by many
// goroutines.
type Keys struct {
	pgp       openpgp.EntityList
	verifiers []sigstore.Verifier
	names     []string // fingerprints, sorted
}

// Load reads files with public keys: PGP keyrings, armored or binary, and PEM public
// keys, any number of them in one file. Files with private keys are refused.
func Load(paths ...string) (*Keys, error) {
	k := &Keys{}
	for _, p := range paths {
		b, err := plainfile.Read(p, maxKeyFile)
		if err != nil {
			return nil, err
		}
		if err := k.add(p, b); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Parse reads what one such file holds. name is for messages.
func Parse(name string, b []byte) (*Keys, error) {
	k := &Keys{}
	if err := k.add(name, b); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Keys) add(name string, b []byte) error {
	if len(b) > maxKeyFile {
		return fmt.Errorf("%s: %w: the file has more than %d bytes", name, ErrKey, maxKeyFile)
	}
	var err error
	switch block, _ := pem.Decode(b); {
	case block == nil || strings.HasPrefix(block.Type, "PGP "):
		err = k.addPGP(b)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		err = errors.New("it is a private key; export the public one")
	default:
		err = k.addPEM(b)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %v", name, ErrKey, err)
	}
	slices.Sort(k.names)
	return nil
}

func (k *Keys) addPEM(b []byte) error {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			if len(bytes.TrimSpace(b)) > 0 {
				return errors.New("something follows the PEM keys")
			}
			return nil
		}
		pub, err := parsePublic(block)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return err
		}
		v, err := sigstore.LoadVerifier(pub, crypto.SHA256)
		if err != nil {
			return err
		}
		if name := nameOf(der); !slices.Contains(k.names, name) {
			k.verifiers = append(k.verifiers, v)
			k.names = append(k.names, name)
		}
	}
}

func parsePublic(block *pem.Block) (crypto.PublicKey, error) {
	var pub any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		pub, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		pub, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %q is no public key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSA {
			return nil, fmt.Errorf("an RSA key of %d bits is too short", key.N.BitLen())
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("keys of the type %T cannot sign", pub)
	}
	return pub, nil
}

func (k *Keys) addPGP(b []byte) error {
	var list openpgp.EntityList
	if err := guarded(func() (err error) { list, err = readRings(b); return err }); err != nil {
		return err
	}
	for _, e := range list {
		if e.PrivateKey != nil {
			return errors.New("it is a private PGP key; export the public one")
		}
		if name := pgpName(e); !slices.Contains(k.names, name) {
			k.pgp = append(k.pgp, e)
			k.names = append(k.names, name)
		}
	}
	return nil
}

// readRings reads a binary keyring, or armored ones one after the other.
func readRings(b []byte) (openpgp.EntityList, error) {
	if list, err := openpgp.ReadKeyRing(bytes.NewReader(b)); err == nil && len(list) > 0 {
		return list, nil
	}
	var all openpgp.EntityList
	for r := bufio.NewReader(bytes.NewReader(b)); ; {
		block, err := armor.Decode(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		list, err := openpgp.ReadKeyRing(block.Body)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds neither a PGP keyring nor PEM public keys")
	}
	return all, nil
}

// Names are the keys' fingerprints: "pgp:" and the fingerprint of a PGP key, "key:"
// and the SHA-256 of the DER form of another.
func (k *Keys) Names() []string { return slices.Clone(k.names) }

// ID stands for the set of keys: another set has another ID.
func (k *Keys) ID() string {
	h := sha256.New()
	for _, n := range k.names {
		io.WriteString(h, n+"\n")
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func pgpName(e *openpgp.Entity) string {
	return "pgp:" + hex.EncodeToString(e.PrimaryKey.Fingerprint)
}

func nameOf(der []byte) string {
	sum := sha256.Sum256(der)
	return "key:" + hex.EncodeToString(sum[:])
}
