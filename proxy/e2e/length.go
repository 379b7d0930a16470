package e2e

// EncryptedLen is the length in bytes of the message that Encrypt and
// NewEncrypter make of so many bytes.
func (p *PublicKey) EncryptedLen(plain int64) int64 {
	return int64(p.headerSize()) + (plain+2)/3*4
}
