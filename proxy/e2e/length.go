package e2e

import (
	"crypto/aes"
	"encoding/base64"
)

// EncryptedLen is the length in bytes of the message that Encrypt and
// NewEncrypter make of so many bytes.
func (p *PublicKey) EncryptedLen(plain int64) int64 {
	header := base64.StdEncoding.EncodedLen(p.rsa.Size()) + len("$") + base64.StdEncoding.EncodedLen(aes.BlockSize) + len("$")
	return int64(header) + (plain+2)/3*4
}
