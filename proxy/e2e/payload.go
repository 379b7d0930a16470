package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/v6node/v6node/proxy/internal/b64"
)

const payloadPrefix = 4 << 10 // a multiple of 4

// newPayload reads the beginning of a decrypted stream, decides what it is, and
// returns a reader of the payload in it.
func newPayload(r io.Reader) (io.Reader, error) {
	prefix := make([]byte, payloadPrefix)
	n, err := io.ReadFull(r, prefix)
	whole := err == io.EOF || err == io.ErrUnexpectedEOF
	if err != nil && !whole {
		return nil, err
	}
	prefix = prefix[:n]
	if !isText(prefix, whole) {
		return nil, ErrDecrypt
	}
	all := io.MultiReader(bytes.NewReader(prefix), r)
	if isBase64OfJSON(prefix, whole) {
		return uniform{b64.NewReader(all), ErrDecrypt}, nil
	}
	return all, nil
}

// isText reports whether p is UTF-8; the last character of a mere beginning may
// be cut.
func isText(p []byte, whole bool) bool {
	if !whole {
		for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
			if c := p[len(p)-i]; utf8.RuneStart(c) {
				if !utf8.FullRune(p[len(p)-i:]) {
					p = p[:len(p)-i]
				}
				break
			}
		}
	}
	return utf8.Valid(p)
}

// isBase64OfJSON tells the web UI's payloads. There is no doubt about a text:
// the characters that JSON begins with are not those that base64 of JSON begins
// with.
func isBase64OfJSON(p []byte, whole bool) bool {
	if len(p) == 0 || len(p)%4 != 0 {
		return false
	}
	plain := make([]byte, b64.MaxDecodedLen(len(p)))
	n, err := b64.Decode(plain, p)
	if err != nil {
		return false
	}
	plain = plain[:n]
	if !isText(plain, whole) {
		return false
	}
	if whole {
		return json.Valid(plain)
	}
	return beginsJSON(plain)
}

// beginsJSON reports whether p can be continued to a JSON text.
func beginsJSON(p []byte) bool {
	d := json.NewDecoder(bytes.NewReader(p))
	for {
		if _, err := d.Token(); err != nil {
			// Only a text that ends too early is a beginning.
			return err == io.ErrUnexpectedEOF || err == io.EOF
		}
	}
}
