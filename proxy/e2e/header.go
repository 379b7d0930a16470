package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"io"

	"github.com/v6node/v6node/proxy/internal/b64"
)

// ErrDecrypt is the answer to every message that cannot be decrypted: wrong
// key, damaged, cut short or not a message at all. It never says which.
var ErrDecrypt = errors.New("cannot be decrypted: it is damaged or was encrypted for another key")

const sep = '$'

// newHeader draws key and iv and returns the first two parts of a message, both
// separators included, and the key stream.
func (p *PublicKey) newHeader() ([]byte, cipher.Stream, error) {
	var random [keySize + ivSize]byte
	rand.Read(random[:]) // never fails
	key, iv := random[:keySize], random[keySize:]
	wrapped, err := p.wrap(key)
	if err != nil {
		return nil, nil, err
	}
	stream, err := newStream(key, iv)
	if err != nil {
		return nil, nil, err
	}
	header := make([]byte, p.headerSize())
	n := b64.Encode(header, wrapped)
	header[n] = sep
	b64.Encode(header[n+1:], iv)
	header[len(header)-1] = sep
	return header, stream, nil
}

func (p *PublicKey) headerSize() int {
	return b64.EncodedLen(p.rsa.Size()) + 1 + ivTextSize + 1
}

// readHeader reads the first two parts of a message from r, and not a byte more.
func (k *PrivateKey) readHeader(r io.Reader) (cipher.Stream, error) {
	header := make([]byte, k.Public().headerSize())
	if _, err := io.ReadFull(r, header); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, ErrDecrypt
		}
		return nil, err
	}
	keyText, rest, ok := bytes.Cut(header, []byte{sep})
	if !ok || len(rest) != ivTextSize+1 || rest[ivTextSize] != sep {
		return nil, ErrDecrypt
	}
	block := make([]byte, b64.MaxDecodedLen(len(keyText)))
	n, err := b64.Decode(block, keyText)
	if err != nil {
		return nil, ErrDecrypt
	}
	var iv [ivTextSize]byte
	m, err := b64.Decode(iv[:], rest[:ivTextSize])
	if err != nil || m != ivSize {
		return nil, ErrDecrypt
	}
	key, err := k.unwrap(block[:n])
	if err != nil {
		return nil, err
	}
	return newStream(key, iv[:ivSize])
}

func newStream(key, iv []byte) (cipher.Stream, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewCTR(block, iv), nil
}
