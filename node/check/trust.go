package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/keyfile"
	"github.com/v6node/v6node/sif/signature"
)

// signing looks at the keys of those whose word on a container image counts.
func (o Options) signing(_ context.Context, report func(Result)) error {
	for _, file := range o.Config.Policies.SigningKeys {
		trusted(reporter(report), "policies.signatures.keys", file, "without it the node does not start", func() (string, error) {
			keys, err := image.LoadSigningKeys([]string{file})
			if err != nil {
				return "", err
			}
			return "a public key (" + keys.Kinds()[0] + ") for signatures of cosign 1, 2 and 3", nil
		})
	}
	return nil
}

// sifKeys looks at the keys of those whose word on a SIF image counts.
func (o Options) sifKeys(r reporter) {
	for _, file := range o.Config.SIF.Keys {
		trusted(r, "sif.keys", file, "a SIF image without an accepted signature does not run", func() (string, error) {
			keys, err := signature.Load(file)
			if err != nil {
				return "", err
			}
			return strings.Join(keys.Names(), ", "), nil
		})
	}
}

// trusted looks at a file with public keys, and at who could put another in its
// place. load says what is in it.
func trusted(r reporter, key, file, otherwise string, load func() (string, error)) {
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", file)
	}
	what := ""
	if err == nil {
		what, err = load()
	}
	if err != nil {
		r.fail(key, "correct "+key+": "+otherwise, "%v", err)
		return
	}
	if why, fix := changeable(file, info); why != "" {
		r.warn(key, fix, "%s: who changes this file decides which images run", why)
		return
	}
	r.ok(key, "%s: %s", file, what)
}

// changeable says who besides root and this user could change a file, and what to
// do about it.
func changeable(file string, info os.FileInfo) (why, fix string) {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Sprintf("others than its owner may write %s (mode %04o)", file, mode), "chmod go-w " + file
	}
	if uid := owner(info); uid != 0 && uid != os.Geteuid() {
		return fmt.Sprintf("%s belongs to user %d", file, uid), fmt.Sprintf("chown %d %s, if user %[3]d is not meant to", os.Geteuid(), file, uid)
	}
	dir := filepath.Dir(file)
	at, err := os.Stat(dir)
	if err != nil {
		return "", ""
	}
	if mode := at.Mode(); mode.Perm()&0o022 != 0 && mode&os.ModeSticky == 0 {
		return fmt.Sprintf("others than its owner may replace files in %s (mode %04o)", dir, mode.Perm()), "chmod go-w " + dir
	}
	return "", ""
}

func owner(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return 0
}

// privateKey looks whether the organization's key can be opened, whether or not
// the server answers.
func (o Options) privateKey(_ context.Context, report func(Result)) error {
	r := reporter(report)
	e := o.Config.Encryption
	key, err := keyfile.Read(e.PrivateKey, e.PassphraseFile)
	if err != nil {
		what, fix := cutAt(err.Error(), ": ")
		if fix == "" {
			fix = "correct encryption.private_key"
		}
		r.fail("", fix, "the private key %s cannot be used: %s", e.PrivateKey, what)
		return nil
	}
	r.ok("", "%s: %d bits, %s", e.PrivateKey, key.Public().Bits(), key.Public().Fingerprint())
	return nil
}
