package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/v6node/v6node/internal/plainfile"
)

// maxKeyFile bounds the file of an API key, which is a short line.
const maxKeyFile = 4 << 10

// Load reads the file at path and the API key file that it names. Errors wrap ErrInvalid; they are Problems, or
// say why a file could not be read and wrap the system's reason too.
func Load(path string) (*Config, []Warning, error) {
	c, _, warnings, err := load(path)
	if err != nil {
		c = nil
	}
	return c, warnings, err
}

// load is Load that also returns what the decoder has noted. Warnings are complete also with an error in the file.
func load(path string) (c *Config, d *decoder, warnings []Warning, err error) {
	data, mode, err := readLimited(path, maxFile+1)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: it cannot be read: %w: name the node's file with --config", ErrInvalid, err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: the place of %s cannot be found: %w", ErrInvalid, path, err)
	}
	c, d = parse(path, abs, data)
	warnings, err = d.warnings, d.verdict()
	if mode&0o077 != 0 && (c == nil || c.holdsSecrets()) {
		warnings = append(warnings, permissionWarning(path, "", mode))
	} else if mode&0o022 != 0 {
		warnings = append(warnings, Warning{File: path, Message: fmt.Sprintf("others than its owner may change this file (mode %04o); run: chmod go-w %s", mode, path)})
	}
	if err != nil || c.APIKeyFile == "" {
		return c, d, warnings, err
	}
	key, mode, err := readLimited(c.APIKeyFile, maxKeyFile+1)
	if err != nil {
		return nil, nil, warnings, fmt.Errorf("%w: the API key cannot be read from api_key_file: %w", ErrInvalid, err)
	}
	text := strings.TrimSpace(string(key))
	if text == "" || len(key) > maxKeyFile || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, nil, warnings, Problems{{File: c.APIKeyFile, Key: "api_key_file", Message: "the file named by api_key_file must hold the API key in one line and nothing else"}}
	}
	c.APIKey = NewSecret(text)
	if mode&0o077 != 0 {
		warnings = append(warnings, permissionWarning(c.APIKeyFile, "api_key_file", mode))
	}
	return c, d, warnings, nil
}

func permissionWarning(path, key string, mode fs.FileMode) Warning {
	return Warning{File: path, Key: key, Message: fmt.Sprintf("this file holds secrets and others than its owner may read it (mode %04o); run: chmod 600 %s", mode, path)}
}

// holdsSecrets reports whether the file itself contains something that others must not see.
func (c *Config) holdsSecrets() bool {
	if c.APIKeyFile == "" || len(c.Registries) > 0 || len(c.AlgorithmEnv) > 0 {
		return true
	}
	for _, db := range c.Databases {
		if len(db.Env) > 0 || !db.IsPath() {
			return true
		}
	}
	return false
}

// readLimited reads a regular file of less than limit bytes; of a longer one, the beginning.
func readLimited(path string, limit int64) (data []byte, mode fs.FileMode, err error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err = io.ReadAll(io.LimitReader(f, limit))
	return data, info.Mode().Perm(), err
}
