package e2e

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"io"
	"strings"

	"github.com/v6node/v6node/proxy/internal/b64"
)

// Encrypt returns plain as a message in the string form.
func (p *PublicKey) Encrypt(plain []byte) (string, error) {
	var enc strings.Builder
	enc.Grow(p.headerSize() + b64.EncodedLen(len(plain)))
	w, err := p.NewEncrypter(&enc)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(plain); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return enc.String(), nil
}

// Decrypt returns the payload of a message in the string form, with the rules
// of NewDecrypter. The error is ErrDecrypt.
func (k *PrivateKey) Decrypt(enc string) ([]byte, error) {
	r, err := k.NewDecrypter(strings.NewReader(enc))
	if err != nil {
		return nil, err
	}
	plain := bytes.NewBuffer(make([]byte, 0, b64.MaxDecodedLen(max(0, len(enc)-k.Public().headerSize()))+bytes.MinRead))
	if _, err := plain.ReadFrom(r); err != nil {
		return nil, err
	}
	return plain.Bytes(), nil
}

// NewEncrypter writes the beginning of a message in the string form to w and
// returns a writer that takes the payload. Close writes the end; it does not
// close w. A message without Close is cut short. Memory is constant. Not safe
// for concurrent use.
func (p *PublicKey) NewEncrypter(w io.Writer) (io.WriteCloser, error) {
	header, stream, err := p.newHeader()
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(header); err != nil {
		return nil, err
	}
	return b64.NewWriter(w, stream.XORKeyStream), nil
}

// NewDecrypter returns a reader of the payload of the message in r, which is in
// the string form, and reads r to its end. Memory is constant.
//
// A payload is text (vantage6 sends JSON): one that is not UTF-8 from its first
// byte is noise and gives ErrDecrypt, and one that is base64 of JSON, as the web
// UI writes it, is decoded. Both are decided on the first 4 KiB. Every fault of
// the message is ErrDecrypt; errors of r are passed on. What was read before an
// error is not authenticated, like everything in this format. Not safe for
// concurrent use.
func (k *PrivateKey) NewDecrypter(r io.Reader) (io.Reader, error) {
	stream, err := k.readHeader(r)
	if err != nil {
		return nil, err
	}
	return newPayload(&cipher.StreamReader{S: stream, R: uniform{b64.NewReader(r), ErrDecrypt}})
}

// uniform gives base64's error another name: that which all faults of a message have.
type uniform struct {
	r    io.Reader
	name error
}

func (u uniform) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if errors.Is(err, b64.ErrCorrupt) {
		err = u.name
	}
	return n, err
}
