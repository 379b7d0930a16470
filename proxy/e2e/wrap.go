package e2e

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/subtle"
)

const (
	keySize     = 32 // AES-256
	keyTextSize = 44 // base64 of it, padded: the web UI's form
	ivSize      = 16
	ivTextSize  = 24
)

// wrap encrypts a session key for the organization.
func (p *PublicKey) wrap(key []byte) ([]byte, error) {
	//lint:ignore SA1019 the protocol's padding
	return rsa.EncryptPKCS1v15(rand.Reader, p.rsa, key)
}

// unwrap returns the session key in an RSA block. A block whose padding is not
// valid, or which holds something else than 32 bytes or base64 of them, gives a
// key that only the owner of the private key can compute, always the same for
// this block, in the same time: whoever sends blocks cannot tell the cases
// apart. The error is for blocks that are no number below the modulus, which
// everybody can see.
func (k *PrivateKey) unwrap(block []byte) ([]byte, error) {
	if len(block) != k.rsa.Size() {
		return nil, ErrDecrypt
	}
	mac := hmac.New(sha512.New, k.secret)
	mac.Write(block)
	noise := mac.Sum(nil)
	key := noise[:keySize]
	// What remains here when the padding is wrong is not base64: it is all zero.
	text := make([]byte, keyTextSize)

	// crypto/rsa extracts a key of one known length in constant time, and there
	// are two lengths.
	//lint:ignore SA1019 the protocol's padding
	if err := rsa.DecryptPKCS1v15SessionKey(nil, k.rsa, block, key); err != nil {
		return nil, ErrDecrypt
	}
	//lint:ignore SA1019 the protocol's padding
	if err := rsa.DecryptPKCS1v15SessionKey(nil, k.rsa, block, text); err != nil {
		return nil, ErrDecrypt
	}
	var fromText [keySize]byte
	ok := decodeKeyText(&fromText, text)
	subtle.ConstantTimeCopy(ok, key, fromText[:])
	return key, nil
}

// decodeKeyText decodes the 44 characters of a padded base64 key without
// branches or look-ups that depend on them, and returns 1 when they are valid.
func decodeKeyText(dst *[keySize]byte, text []byte) int {
	ok := subtle.ConstantTimeByteEq(text[keyTextSize-1], '=')
	var acc uint32
	n := 0
	for i := 0; i < keyTextSize; i += 4 {
		acc = 0
		for j := range 4 {
			var v int
			if i+j < keyTextSize-1 { // the position is no secret
				var valid int
				v, valid = sextet(text[i+j])
				ok &= valid
			}
			acc = acc<<6 | uint32(v)
		}
		for shift := 16; shift >= 0 && n < keySize; shift -= 8 {
			dst[n] = byte(acc >> shift)
			n++
		}
	}
	// 43 characters are 258 bits: the last two must be zero.
	return ok & subtle.ConstantTimeEq(int32(acc>>6&3), 0)
}

// sextet returns the value of a base64 digit, and 1 if it is one.
func sextet(c byte) (v, valid int) {
	in := func(lo, hi byte, base int) {
		hit := subtle.ConstantTimeLessOrEq(int(lo), int(c)) & subtle.ConstantTimeLessOrEq(int(c), int(hi))
		v |= -hit & (int(c) - int(lo) + base)
		valid |= hit
	}
	in('A', 'Z', 0)
	in('a', 'z', 26)
	in('0', '9', 52)
	in('+', '+', 62)
	in('/', '/', 63)
	return v & 63, valid
}
