package e2e

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	minKeyBits = 2048
	maxKeyBits = 16384
	maxKeyText = 64 << 10 // bytes of PEM or base64 that are looked at
)

var (
	// ErrKey says that a text is not a usable key. What wraps it says why.
	ErrKey = errors.New("not a usable key")
	// ErrPassphrase says that a private key is protected by a passphrase. It
	// wraps ErrKey.
	ErrPassphrase = fmt.Errorf("%w: it is protected by a passphrase; write a copy without one (openssl pkey -in KEY -out NEWKEY) and name that", ErrKey)
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
				return nil, ErrPassphrase
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
			return nil, ErrPassphrase
		case "EC PRIVATE KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY":
			return nil, fmt.Errorf("%w: a PEM block %q is not an RSA private key in PKCS#1 or PKCS#8", ErrKey, block.Type)
		}
	}
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
