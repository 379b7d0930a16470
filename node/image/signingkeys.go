package image

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"

	sigstore "github.com/sigstore/sigstore/pkg/signature"

	"github.com/v6node/v6node/internal/plainfile"
)

// Bounds of the keys. RSA keys of other lengths cosign does not take.
const (
	maxSigningKey  = 16 << 10
	maxSigningKeys = 64
	minRSA, maxRSA = 2048, 4096
)

// SigningKeys are the public keys of those whose word on an image counts.
type SigningKeys struct {
	names []string
	kinds []string
	keys  [][]sigstore.Verifier // of each key the ways in which cosign signs with it
}

// LoadSigningKeys reads public keys in PEM, as `cosign generate-key-pair` and `cosign import-key-pair` write them. A key
// is called as its file.
func LoadSigningKeys(files []string) (*SigningKeys, error) {
	if len(files) > maxSigningKeys {
		return nil, fmt.Errorf("there are %d keys, more than %d", len(files), maxSigningKeys)
	}
	k := &SigningKeys{}
	for _, file := range files {
		text, err := plainfile.Read(file, maxSigningKey)
		if err != nil {
			return nil, fmt.Errorf("a public key of policies.signatures.keys cannot be read: %w", err)
		}
		kind, key, err := parseSigningKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s, of policies.signatures.keys, %w", file, err)
		}
		k.names, k.kinds, k.keys = append(k.names, filepath.Base(file)), append(k.kinds, kind), append(k.keys, key)
	}
	return k, nil
}

// Kinds are the algorithms of the keys, as in "ECDSA P-256".
func (k *SigningKeys) Kinds() []string { return k.kinds }

func parseSigningKey(text []byte) (kind string, ways []sigstore.Verifier, err error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return "", nil, errors.New("does not hold one public key in PEM, as cosign.pub does")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", nil, errors.New("holds a public key that is damaged or of an unknown kind")
	}
	return waysOf(key)
}

// waysOf are the ways in which versions of cosign sign with a key. Older ones took SHA-256 for all
// curves, newer ones take a hash of the curve's length, and Ed25519 keys sign in either way of RFC 8032, Ed25519ph being that for logs.
func waysOf(key crypto.PublicKey) (kind string, ways []sigstore.Verifier, err error) {
	add := func(v sigstore.Verifier, failed error) {
		ways, err = append(ways, v), errors.Join(err, failed)
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		hashes := map[elliptic.Curve][]crypto.Hash{
			elliptic.P256(): {crypto.SHA256}, elliptic.P384(): {crypto.SHA384, crypto.SHA256}, elliptic.P521(): {crypto.SHA512, crypto.SHA256},
		}[key.Curve]
		kind = "ECDSA " + key.Params().Name
		for _, h := range hashes {
			add(sigstore.LoadECDSAVerifier(key, h))
		}
	case *rsa.PublicKey:
		kind = fmt.Sprintf("RSA, %d bits", key.N.BitLen())
		if n := key.N.BitLen(); n >= minRSA && n <= maxRSA {
			add(sigstore.LoadRSAPKCS1v15Verifier(key, crypto.SHA256))
		}
	case ed25519.PublicKey:
		kind = "Ed25519"
		add(sigstore.LoadED25519Verifier(key))
		add(sigstore.LoadED25519phVerifier(key))
	}
	if err != nil || len(ways) == 0 {
		return "", nil, fmt.Errorf("holds a key that is none of ECDSA (P-256, P-384, P-521), RSA (%d to %d bits) and Ed25519", minRSA, maxRSA)
	}
	return kind, ways, nil
}

// signer tells which key has signed a message.
func (k *SigningKeys) signer(message, signature []byte) (int, error) {
	for i, ways := range k.keys {
		for _, v := range ways {
			if v.VerifySignature(bytes.NewReader(signature), bytes.NewReader(message)) == nil {
				return i, nil
			}
		}
	}
	return 0, errors.New("none of the keys that this node trusts has signed it")
}
