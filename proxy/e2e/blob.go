package e2e

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"io"

	"github.com/v6node/v6node/proxy/internal/b64"
)

// A blob is any bytes: unlike a message in the string form it is not looked at,
// and one for another key reads as noise.

// EncryptBlob returns a reader of what r holds, as a message in the blob form.
// Memory is constant, errors of r are passed on. Not safe for concurrent use.
func (p *PublicKey) EncryptBlob(r io.Reader) (io.Reader, error) {
	header, stream, err := p.newHeader()
	if err != nil {
		return nil, err
	}
	return io.MultiReader(bytes.NewReader(header), &cipher.StreamReader{S: stream, R: r}), nil
}

// BlobOverhead is by how many bytes a message in the blob form is longer than
// its content.
func (p *PublicKey) BlobOverhead() int { return p.headerSize() }

// DecryptBlob returns a reader of the content of the message in r, which is in
// the blob form. The error is ErrDecrypt, or one of r. Memory is constant. Not
// safe for concurrent use.
func (k *PrivateKey) DecryptBlob(r io.Reader) (io.Reader, error) {
	stream, err := k.readHeader(r)
	if err != nil {
		return nil, err
	}
	return &cipher.StreamReader{S: stream, R: r}, nil
}

// NewPayloadReader applies the rules of NewDecrypter (text, or base64 of JSON as
// the web UI writes it) to a decrypted stream. It is for blobs that hold a
// run's input.
func NewPayloadReader(r io.Reader) (io.Reader, error) { return newPayload(r) }

// ErrEncoding is the error of a blob of an open collaboration that is not base64.
var ErrEncoding = errors.New("is not base64")

// EncodeBlob returns a reader of what r holds in the form that blobs have where the collaboration is not
// encrypted: base64. Memory is constant, errors of r are passed on. Not safe for concurrent use.
func EncodeBlob(r io.Reader) io.Reader { return b64.NewEncoder(r) }

// DecodeBlob returns a reader of the content of such a blob. The error is ErrEncoding, or one of r. Memory is
// constant. Not safe for concurrent use.
func DecodeBlob(r io.Reader) io.Reader { return uniform{b64.NewReader(r), ErrEncoding} }
