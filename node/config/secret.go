package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// hidden stands for a secret wherever it would be shown.
const hidden = "***"

// Secret is a text that no way of printing, logging or marshalling shows.
type Secret struct{ text string }

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal is the text itself. Call it where the secret is used, and keep the result out of errors.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// String hides the secret, and says whether there is one.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return hidden
}

// Format hides the secret from every verb, also from %#v and %x.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText hides the secret from encoders of JSON, YAML and text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret from log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Env is a set of variables whose values may be secret: printing shows only the names.
type Env map[string]string

// String lists the names.
func (e Env) String() string {
	names := slices.Sorted(maps.Keys(e))
	for i, n := range names {
		names[i] = n + "=" + hidden
	}
	return "{" + strings.Join(names, " ") + "}"
}

// Format hides the values from every verb.
func (e Env) Format(f fmt.State, _ rune) { fmt.Fprint(f, e.String()) }

// MarshalJSON hides the values.
func (e Env) MarshalJSON() ([]byte, error) { return json.Marshal(e.masked()) }

// MarshalYAML hides the values.
func (e Env) MarshalYAML() (any, error) { return e.masked(), nil }

// LogValue hides the values from log/slog.
func (e Env) LogValue() slog.Value { return slog.StringValue(e.String()) }

func (e Env) masked() map[string]string {
	if e == nil {
		return nil
	}
	m := make(map[string]string, len(e))
	for k := range e {
		m[k] = hidden
	}
	return m
}

// shownDatabase is what may be shown of a Database.
type shownDatabase struct {
	Label     string            `json:"label" yaml:"label"`
	URI       string            `json:"uri" yaml:"uri"`
	Type      string            `json:"type" yaml:"type"`
	MountMode string            `json:"mount_mode,omitempty" yaml:"mount_mode,omitempty"`
	Env       map[string]string `json:"env,omitempty" yaml:"env,omitempty"`
}

func (d Database) shown() shownDatabase {
	s := shownDatabase{Label: d.Label, URI: d.URI, Type: d.Type, Env: d.Env.masked()}
	if d.IsPath() {
		s.MountMode = d.MountMode
		return s
	}
	s.URI = hideInAddress(d.URI)
	return s
}

// hideInAddress leaves scheme, host and port of an address. Credentials may be in any other part: the user, the
// query, an option after a semicolon.
func hideInAddress(uri string) string {
	scheme, host := splitAddress(uri)
	if scheme == "" || host == unnamed {
		return hidden
	}
	return scheme + "://" + host + "/" + hidden
}

// unnamed stands for a host that cannot be told from a password.
const unnamed = "its host"

// splitAddress finds the scheme and the host with its port in addresses such as postgres://u:p@db:5432/x,
// jdbc:sqlserver://db:1433;password=p and jdbc:postgresql://db/x?password=p. Where an @ comes late, what looks
// like the host may be the middle of a password, so there is none.
func splitAddress(uri string) (scheme, host string) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return "", unnamed
	}
	end := strings.IndexAny(rest, "/;?#\\, ")
	if end < 0 {
		end = len(rest)
	}
	host = rest[strings.LastIndexByte(rest[:end], '@')+1 : end]
	if host == "" || strings.Contains(rest[end:], "@") || !schemePattern.MatchString(scheme) {
		return "", unnamed
	}
	return scheme, host
}

// login finds what may be a user name with a password, and a password among the options of an address. A digest behind
// an image's tag looks like the former.
var login = regexp.MustCompile(`(?i)[a-z][a-z0-9+.:-]*://[^\s"]*@|[^\s"/@:]*:[^\s"@]*@(?:sha256:)?|(?:password|passwd|pwd|secret|token)=[^\s"&;]*`)

// hideLogins takes passwords out of a message. An address can stand wherever somebody has written one by mistake, so
// every message goes through here.
func hideLogins(message string) string {
	return login.ReplaceAllStringFunc(message, func(found string) string {
		scheme, _, address := strings.Cut(found, "://")
		switch {
		case strings.HasSuffix(found, "@sha256:"):
			return found
		case address:
			return scheme + "://" + hidden + "@"
		case strings.HasSuffix(found, "@"):
			return hidden + "@"
		}
		option, _, _ := strings.Cut(found, "=")
		return option + "=" + hidden
	})
}

var schemePattern = regexp.MustCompile(`\A[A-Za-z][A-Za-z0-9+.:-]{0,63}\z`)

// String shows the database without its credentials.
func (d Database) String() string {
	s := d.shown()
	return fmt.Sprintf("{%s %s %s %s %s}", s.Label, s.Type, s.URI, s.MountMode, d.Env)
}

// Format hides the credentials from every verb.
func (d Database) Format(f fmt.State, _ rune) { fmt.Fprint(f, d.String()) }

// MarshalJSON hides the credentials.
func (d Database) MarshalJSON() ([]byte, error) { return json.Marshal(d.shown()) }

// MarshalYAML hides the credentials.
func (d Database) MarshalYAML() (any, error) { return d.shown(), nil }

// LogValue hides the credentials from log/slog.
func (d Database) LogValue() slog.Value { return slog.StringValue(d.String()) }
