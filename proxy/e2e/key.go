package e2e

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"
)

const (
	minKeyBits = 2048
	maxKeyBits = 16384
	maxKeyText = 64 << 10 // bytes of PEM or base64 that are looked at
)

var (
	// ErrKey says that a text is not a usable key. What wraps it says why.
	ErrKey = errors.New("not a usable key")
	// ErrPassphrase says that a private key is protected by a passphrase that was
	// not given. It wraps ErrKey.
	ErrPassphrase = fmt.Errorf("%w: it is protected by a passphrase, which was not given", ErrKey)
	// ErrWrongPassphrase says that a passphrase does not open a private key, or that
	// the key is damaged, which cannot be told apart. It wraps ErrKey.
	ErrWrongPassphrase = fmt.Errorf("%w: the passphrase does not open it, or it is damaged", ErrKey)
)

// PublicKey is an organization's public key. It is immutable and safe for
// concurrent use.
type PublicKey struct{ rsa *rsa.PublicKey }

// PrivateKey is an organization's private key. It is immutable and safe for
// concurrent use.
type PrivateKey struct {
	rsa *rsa.PrivateKey
	// secret keys the function that makes the session key of a message whose
	// padding is not valid: the same key each time, so that asking twice tells
	// nothing.
	secret []byte
}

// GeneratePrivateKey makes a new key of so many bits (2048 to 16384).
func GeneratePrivateKey(bits int) (*PrivateKey, error) {
	if err := checkBits("private", bits); err != nil {
		return nil, err
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("generate RSA key: %w", err)
	}
	return newPrivateKey(k), nil
}

func newPrivateKey(k *rsa.PrivateKey) *PrivateKey {
	mac := hmac.New(sha256.New, []byte("v6node implicit rejection"))
	mac.Write(x509.MarshalPKCS1PrivateKey(k))
	return &PrivateKey{rsa: k, secret: mac.Sum(nil)}
}

// ParsePrivateKey reads an RSA private key in PEM: PKCS#1 or PKCS#8, without a
// passphrase. Other PEM blocks in the text are skipped. Errors wrap ErrKey.
func ParsePrivateKey(text []byte) (*PrivateKey, error) {
	return ParseProtectedKey(text, func() ([]byte, error) { return nil, ErrPassphrase })
}

// ParseProtectedKey is ParsePrivateKey that also reads keys with a passphrase, for
// which it asks once if the key has one: PKCS#8 with PBES2, and PEM's old form. An
// error of passphrase is returned as it is.
func ParseProtectedKey(text []byte, passphrase func() ([]byte, error)) (*PrivateKey, error) {
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("%w: the private key's file is longer than %d bytes", ErrKey, maxKeyText)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, fmt.Errorf("%w: no PEM block with an RSA private key in it", ErrKey)
		}
		switch block.Type {
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
				return openOld(block, passphrase)
			}
			k, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%w: the PKCS#1 private key is damaged", ErrKey)
			}
			return checkPrivate(k)
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%w: the PKCS#8 private key is damaged or of an unknown kind", ErrKey)
			}
			r, ok := k.(*rsa.PrivateKey)
			if !ok {
				return nil, fmt.Errorf("%w: the private key is not an RSA key", ErrKey)
			}
			return checkPrivate(r)
		case "ENCRYPTED PRIVATE KEY":
			return openPKCS8(block, passphrase)
		case "EC PRIVATE KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY":
			return nil, fmt.Errorf("%w: a PEM block %q is not an RSA private key in PKCS#1 or PKCS#8", ErrKey, block.Type)
		}
	}
}

func openPKCS8(block *pem.Block, passphrase func() ([]byte, error)) (*PrivateKey, error) {
	secret, err := passphrase()
	if err != nil {
		return nil, err
	}
	if err := checkProtection(block.Bytes); err != nil {
		return nil, err
	}
	k, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes, secret)
	if err != nil {
		return nil, ErrWrongPassphrase
	}
	r, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: the private key is not an RSA key", ErrKey)
	}
	return checkPrivate(r)
}

// openOld reads the form of PEM that OpenSSL wrote before PKCS#8. Its protection is
// weak, but keys of many organizations have it.
func openOld(block *pem.Block, passphrase func() ([]byte, error)) (*PrivateKey, error) {
	secret, err := passphrase()
	if err != nil {
		return nil, err
	}
	der, err := x509.DecryptPEMBlock(block, secret) //nolint:staticcheck // see above
	if err != nil {
		return nil, ErrWrongPassphrase
	}
	k, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return nil, ErrWrongPassphrase
	}
	return checkPrivate(k)
}

// maxRounds bounds how long a key may take to open: some seconds.
const maxRounds = 10_000_000

// checkProtection looks at a protected key before the library does, which panics at
// some damaged ones: and at how much work one asks for, so that it cannot keep the
// node busy for hours.
func checkProtection(der []byte) error {
	type algorithm struct {
		ID     asn1.ObjectIdentifier
		Params asn1.RawValue `asn1:"optional"`
	}
	var outer struct {
		Algorithm struct {
			ID     asn1.ObjectIdentifier
			Params struct{ KDF, Cipher algorithm }
		}
		Data []byte
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return ErrWrongPassphrase
	}
	var pbkdf2 struct {
		Salt   []byte
		Rounds int
		Length int       `asn1:"optional"`
		PRF    algorithm `asn1:"optional"`
	}
	var scrypt struct {
		Salt    []byte
		N, R, P int
		Length  int `asn1:"optional"`
	}
	block := 16
	switch id := outer.Algorithm.Params.Cipher.ID.String(); {
	case strings.HasPrefix(id, "2.16.840.1.101.3.4.1."): // AES
	case id == "1.2.840.113549.3.7": // triple DES
		block = 8
	default:
		return fmt.Errorf("%w: it is protected by a cipher that is not known (%s); openssl pkcs8 -topk8 writes one that is", ErrKey, id)
	}
	var iv []byte
	if _, err := asn1.Unmarshal(outer.Algorithm.Params.Cipher.Params.FullBytes, &iv); err != nil || len(iv) != block || len(outer.Data)%block != 0 {
		return ErrWrongPassphrase
	}
	params := outer.Algorithm.Params.KDF.Params.FullBytes
	switch id := outer.Algorithm.Params.KDF.ID.String(); id {
	case "1.2.840.113549.1.5.12": // PBKDF2
		if _, err := asn1.Unmarshal(params, &pbkdf2); err != nil || pbkdf2.Rounds < 1 || pbkdf2.Rounds > maxRounds {
			return ErrWrongPassphrase
		}
	case "1.3.6.1.4.1.11591.4.11": // scrypt
		if _, err := asn1.Unmarshal(params, &scrypt); err != nil || scrypt.N < 2 || scrypt.N > 1<<20 || scrypt.R < 1 || scrypt.R > 16 || scrypt.P < 1 || scrypt.P > 16 {
			return ErrWrongPassphrase
		}
	default:
		return fmt.Errorf("%w: it is protected in a way that is not known (%s); openssl pkcs8 -topk8 writes one that is", ErrKey, id)
	}
	return nil
}

func checkPrivate(k *rsa.PrivateKey) (*PrivateKey, error) {
	if err := checkBits("private", k.N.BitLen()); err != nil {
		return nil, err
	}
	return newPrivateKey(k), nil
}

func checkBits(kind string, bits int) error {
	if bits < minKeyBits || bits > maxKeyBits {
		return fmt.Errorf("%w: the %s key has %d bits, and %d to %d are accepted", ErrKey, kind, bits, minKeyBits, maxKeyBits)
	}
	return nil
}

// PEM returns the key as unprotected PKCS#8 PEM.
func (k *PrivateKey) PEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.rsa)
	if err != nil {
		panic(err) // cannot happen: the key is a valid RSA key
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// ProtectedPEM returns the key as PKCS#8 PEM that the passphrase opens: AES-256,
// PBKDF2 with SHA-256.
func (k *PrivateKey) ProtectedPEM(passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	der, err := pkcs8.MarshalPrivateKey(k.rsa, passphrase, &pkcs8.Opts{
		Cipher:  pkcs8.AES256CBC,
		KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 600_000, HMACHash: crypto.SHA256},
	})
	if err != nil {
		return nil, fmt.Errorf("protect the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), nil
}

// Bits is the key's length.
func (p *PublicKey) Bits() int { return p.rsa.N.BitLen() }

// Fingerprint names the key: SHA256: and the base64 of the hash of its
// SubjectPublicKeyInfo.
func (p *PublicKey) Fingerprint() string {
	der, err := x509.MarshalPKIXPublicKey(p.rsa)
	if err != nil {
		panic(err) // cannot happen: the key is a valid RSA key
	}
	sum := sha256.Sum256(der)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Public returns the public half.
func (k *PrivateKey) Public() *PublicKey { return &PublicKey{rsa: &k.rsa.PublicKey} }

// ParsePublicKey reads a public key as the server keeps it: base64 of the PEM
// text of its SubjectPublicKeyInfo. Errors wrap ErrKey.
func ParsePublicKey(b64 string) (*PublicKey, error) {
	if b64 == "" {
		return nil, fmt.Errorf("%w: the public key is empty", ErrKey)
	}
	if len(b64) > maxKeyText {
		return nil, fmt.Errorf("%w: the public key is longer than %d bytes", ErrKey, maxKeyText)
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(b64))
	if err != nil {
		return nil, fmt.Errorf("%w: the public key is not base64", ErrKey)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: the public key is not base64 of a PEM text", ErrKey)
	}
	var key *rsa.PublicKey
	switch block.Type {
	case "PUBLIC KEY":
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: the public key is damaged or of an unknown kind", ErrKey)
		}
		r, ok := k.(*rsa.PublicKey)
		if !ok {
			return nil, fmt.Errorf("%w: the public key is not an RSA key", ErrKey)
		}
		key = r
	case "RSA PUBLIC KEY":
		if key, err = x509.ParsePKCS1PublicKey(block.Bytes); err != nil {
			return nil, fmt.Errorf("%w: the PKCS#1 public key is damaged", ErrKey)
		}
	default:
		return nil, fmt.Errorf("%w: a PEM block %.40q is not a public key", ErrKey, block.Type)
	}
	if err := checkBits("public", key.N.BitLen()); err != nil {
		return nil, err
	}
	return &PublicKey{rsa: key}, nil
}

// Base64 returns the key as the server keeps it: base64 of the PEM text of its
// SubjectPublicKeyInfo.
func (p *PublicKey) Base64() string {
	der, err := x509.MarshalPKIXPublicKey(p.rsa)
	if err != nil {
		panic(err) // cannot happen: the key is a valid RSA key
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Equal reports whether both are the same key. It accepts nil.
func (p *PublicKey) Equal(o *PublicKey) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.rsa.Equal(o.rsa)
}
