package tunnel

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
)

// HostKey is what is known of a server's key. The zero value accepts none.
type HostKey struct {
	print string // SHA256:...
	kind  string // of the key, where the whole of it was given
}

// ParseHostKey reads a fingerprint (SHA256:..., as ssh-keygen -l prints it), or a
// whole public key ("ssh-ed25519 AAAA...", as ssh-keyscan prints it, also with
// the host in front).
func ParseHostKey(text string) (HostKey, error) {
	text = strings.TrimSpace(text)
	if hash, ok := strings.CutPrefix(text, "SHA256:"); ok {
		if b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(hash, "=")); err != nil || len(b) != 32 {
			return HostKey{}, errors.New("it is not a whole fingerprint, which has 43 characters behind SHA256:")
		}
		return HostKey{print: strings.TrimRight(text, "=")}, nil
	}
	if strings.HasPrefix(text, "MD5:") || strings.Count(text, ":") == 15 {
		return HostKey{}, errors.New("MD5 fingerprints can be forged; write that of ssh-keygen -l, which begins with SHA256:")
	}
	for line := text; line != ""; {
		if key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil && len(rest) == 0 {
			return HostKey{print: ssh.FingerprintSHA256(key), kind: key.Type()}, nil
		}
		_, line, _ = strings.Cut(line, " ") // a host in front
	}
	return HostKey{}, errors.New("it is neither a fingerprint (SHA256:...) nor a public key (ssh-ed25519 AAAA...); ask the machine's administrator for the output of ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
}

// String is the fingerprint, SHA256:... .
func (k HostKey) String() string { return k.print }

// IsZero tells whether no key is accepted.
func (k HostKey) IsZero() bool { return k.print == "" }

// kinds of key, the usual one first, and the algorithms by which a server shows
// that it has one.
var kinds = [][]string{
	{ssh.KeyAlgoED25519},
	{ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521},
	{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
}

// attempts are lists of algorithms with which to ask for the key that is known:
// a server has several keys and shows one, and a fingerprint does not tell which
// it is of.
func (k HostKey) attempts() [][]string {
	switch k.kind {
	case "":
		return kinds
	case ssh.KeyAlgoRSA:
		return kinds[2:]
	}
	return [][]string{{k.kind}}
}

// verify is the ssh.HostKeyCallback.
func (k HostKey) verify(_ string, _ net.Addr, key ssh.PublicKey) error {
	if got := ssh.FingerprintSHA256(key); k.IsZero() || got != k.print {
		return &hostKeyError{fmt.Sprintf("it shows the %s key %s and not %s", key.Type(), got, k.print)}
	}
	return nil
}

// hostKeyError is ErrHostKey with what was shown.
type hostKeyError struct{ what string }

func (e *hostKeyError) Error() string {
	return ErrHostKey.Error() + " (" + e.what + "): find out from its administrator whether its key has changed, and if so correct the fingerprint"
}

func (e *hostKeyError) Unwrap() error { return ErrHostKey }
