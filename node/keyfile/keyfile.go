// Package keyfile reads and makes the file of an organization's private key.
package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/v6node/v6node/internal/plainfile"
	"github.com/v6node/v6node/proxy/e2e"
)

// PassphraseVariable is where a passphrase is looked for if no file is named.
const PassphraseVariable = "V6NODE_KEY_PASSPHRASE"

// Bounds of the files.
const (
	maxKey        = 64 << 10
	maxPassphrase = 4 << 10
)

// ErrPermissions says that others may read a file that they must not.
var ErrPermissions = errors.New("others may read or change it")

// Passphrase is the one in a file, or without one that in the environment. It is not empty.
func Passphrase(file string) ([]byte, error) {
	if file == "" {
		if text := os.Getenv(PassphraseVariable); text != "" {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("%w: name a file with it as encryption.passphrase_file (or --passphrase-file), or set %s", e2e.ErrPassphrase, PassphraseVariable)
	}
	text, err := read(file, maxPassphrase)
	if err != nil {
		return nil, fmt.Errorf("the passphrase cannot be read: %w", err)
	}
	line := strings.TrimRight(string(text), "\r\n")
	if line == "" || strings.ContainsAny(line, "\r\n") {
		return nil, fmt.Errorf("the file %s must hold the passphrase in one line and nothing else", file)
	}
	return []byte(line), nil
}

// Read reads a private key, with the passphrase of Passphrase if the key has one.
func Read(file, passphraseFile string) (*e2e.PrivateKey, error) {
	text, err := read(file, maxKey)
	if err != nil {
		return nil, err
	}
	return e2e.ParseProtectedKey(text, func() ([]byte, error) { return Passphrase(passphraseFile) })
}

// read reads a file that holds a secret: a regular one that no stranger may read, and nobody but its owner write.
func read(path string, limit int64) (data []byte, err error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return nil, fmt.Errorf("%w (mode %04o): chmod 600 %s", ErrPermissions, mode, path)
	}
	return plainfile.ReadAll(f, limit)
}

// Create writes a new private key, with mode 0600, and never over something that exists. An empty passphrase is none.
func Create(path string, key *e2e.PrivateKey, passphrase []byte) (err error) {
	text := key.PEM()
	if len(passphrase) > 0 {
		if text, err = key.ProtectedPEM(passphrase); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already and stays as it is: name another file, or move that one away: what was encrypted for a lost key is lost: %w", path, fs.ErrExist)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o600) // whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path)) // half a key is none
	}
	return err
}
