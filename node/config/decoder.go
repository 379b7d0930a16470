package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxProblems bounds a report: after so many, the file is something else than a configuration.
const maxProblems = 100

// decoder collects what is wrong and what is known while the sections read their keys.
type decoder struct {
	file     string
	dir      string // where relative paths start
	problems Problems
	warnings []Warning
	known    []string // every key that some section asked for: "policies.allowed_users", "databases[].uri"
	unknown  []unknownKey

	// given has the lines of the keys that the file gives a value, by their full names: "databases[0].uri".
	given map[string]int

	policyLimits []policyLimits // of the rules read so far
}

type unknownKey struct {
	field
	path     string
	siblings []string
}

func (d *decoder) fail(line int, key, format string, a ...any) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{d.file, line, key, hideLogins(fmt.Sprintf(format, a...))})
	}
}

func (d *decoder) warn(line int, key, format string, a ...any) {
	if len(d.warnings) < maxProblems {
		d.warnings = append(d.warnings, Warning{d.file, line, key, hideLogins(fmt.Sprintf(format, a...))})
	}
}

// section is a mapping whose keys are being read. Each key that is asked for becomes known; done reports the
// others. A section that is absent still learns its keys.
type section struct {
	d       *decoder
	path    string // "" for the whole file
	pattern string // path without indices, for the list of known keys
	line    int
	fields  []field
	keys    []string
}

// section reads v, which may be nil (absent), as a mapping.
func (d *decoder) section(v *value, path string) *section {
	s := &section{d: d, path: path, pattern: indices.ReplaceAllString(path, "[]")}
	switch {
	case v == nil || v.kind == null:
	case v.kind == mapping:
		s.line, s.fields = v.line, v.fields
	default:
		d.fail(v.line, path, "%s must be a section with keys of its own, not %s", path, describe(v))
	}
	return s
}

var indices = regexp.MustCompile(`\[[0-9]+\]`)

// child is the full name of a key.
func (s *section) child(key string) string {
	if s.path == "" {
		return key
	}
	return s.path + "." + key
}

// get finds a key and makes it known. Absent and empty (null) are the same: nil.
func (s *section) get(key string) (*value, int) {
	if !slices.Contains(s.keys, key) {
		s.keys = append(s.keys, key)
		full := key
		if s.pattern != "" {
			full = s.pattern + "." + key
		}
		if !slices.Contains(s.d.known, full) {
			s.d.known = append(s.d.known, full)
		}
	}
	for _, f := range s.fields {
		if f.key == key && f.val.kind != null {
			s.d.given[s.child(key)] = f.line
			return f.val, f.line
		}
	}
	return nil, 0
}

// has reports whether the key is given and not empty.
func (s *section) has(key string) bool { v, _ := s.get(key); return v != nil }

// done notes the keys that nothing asked for.
func (s *section) done() {
	for _, f := range s.fields {
		if !slices.Contains(s.keys, f.key) {
			s.d.unknown = append(s.d.unknown, unknownKey{f, s.child(f.key), s.keys})
		}
	}
}

// reportUnknown is called once every section has said which keys it knows.
func (d *decoder) reportUnknown() {
	for _, u := range d.unknown {
		hint := "; docs/configuration.md lists all keys"
		if n := nearest(u.key, u.siblings); n != "" {
			hint = fmt.Sprintf("; did you mean %q?", n)
		} else {
			for _, k := range d.known {
				if strings.HasSuffix(k, "."+u.key) {
					hint = fmt.Sprintf("; did you mean %q, one section away?", k)
					break
				}
			}
		}
		d.fail(u.line, u.path, "unknown key %q%s", clip(u.path), hint)
	}
}

// wrong reports a value of a wrong type. It never shows the value of a secret: those do not come here.
func (s *section) wrong(v *value, key, want string) {
	s.d.fail(v.line, s.child(key), "%s must be %s, not %s", s.child(key), want, describe(v))
}

// describe says what a value is, for a message.
func describe(v *value) string {
	switch v.kind {
	case list:
		return "a list"
	case mapping:
		return "a section"
	case null:
		return "empty"
	}
	switch v.tag {
	case "!!int", "!!float":
		return "the number " + clip(v.text)
	case "!!bool":
		return clip(v.text)
	}
	return fmt.Sprintf("the text %q", clip(v.text))
}

// text reads a text.
func (s *section) text(key string, to *string) bool {
	v, _ := s.get(key)
	if v == nil {
		return false
	}
	if v.kind != scalar || v.tag != "!!str" && v.tag != "!!timestamp" {
		s.wrong(v, key, "a text")
		return false
	}
	if strings.ContainsAny(v.text, "\x00\n\r") {
		s.d.fail(v.line, s.child(key), "%s must be one line of text", s.child(key))
		return false
	}
	*to = v.text
	return true
}

// literal reads any scalar as it stands in the file, so that a password 0123 keeps its zero. Messages do not
// show it.
func (s *section) literal(key string, to *string) bool {
	v, _ := s.get(key)
	if v == nil {
		return false
	}
	if v.kind != scalar {
		s.d.fail(v.line, s.child(key), "%s must be a text, not %s", s.child(key), describe(v))
		return false
	}
	if strings.Contains(v.text, "\x00") {
		s.d.fail(v.line, s.child(key), "%s contains a zero byte", s.child(key))
		return false
	}
	*to = v.text
	return true
}

// secret reads a secret.
func (s *section) secret(key string, to *Secret) bool {
	text := ""
	if !s.literal(key, &text) || text == "" {
		return false
	}
	*to = NewSecret(text)
	return true
}

// oneOf reads one of a few words, without regard to case.
func (s *section) oneOf(key string, to *string, words ...string) bool {
	v, _ := s.get(key)
	text := ""
	if v == nil || !s.text(key, &text) {
		return false
	}
	for _, w := range words {
		if strings.EqualFold(w, text) {
			*to = w
			return true
		}
	}
	hint := ""
	if n := nearest(text, words); n != "" {
		hint = fmt.Sprintf("; did you mean %q?", n)
	}
	s.d.fail(v.line, s.child(key), "%s must be one of %s, not %q%s", s.child(key), strings.Join(words, ", "), clip(text), hint)
	return false
}

// yesNo reads a boolean. yes, no, on and off count too: they do for the reference node (YAML 1.1).
func (s *section) yesNo(key string, to *bool) bool {
	v, _ := s.get(key)
	if v == nil {
		return false
	}
	if v.kind == scalar && (v.tag == "!!bool" || v.tag == "!!str" && v.plain) {
		switch strings.ToLower(v.text) {
		case "true", "yes", "on":
			*to = true
			return true
		case "false", "no", "off":
			*to = false
			return true
		}
	}
	s.wrong(v, key, "true or false")
	return false
}

// integer reads a whole number, quoted or not.
func (s *section) integer(key string, to *int64, low, high int64) bool {
	v, _ := s.get(key)
	if v == nil {
		return false
	}
	if v.kind == scalar && (v.tag == "!!int" || v.tag == "!!str") {
		if n, err := strconv.ParseInt(v.text, 10, 64); err == nil && n >= low && n <= high {
			*to = n
			return true
		}
	}
	s.wrong(v, key, fmt.Sprintf("a whole number from %d to %d", low, high))
	return false
}

// size reads a size in Podman's syntax.
func (s *section) size(key string, to *int64, low int64) bool {
	v, _ := s.get(key)
	if v == nil {
		return false
	}
	if v.kind != scalar || v.tag != "!!int" && v.tag != "!!str" {
		s.wrong(v, key, "a size such as 512m")
		return false
	}
	n, err := ParseSize(v.text)
	if err == nil && n < low {
		err = fmt.Errorf("%s is less than the smallest that works, %d bytes", clip(v.text), low)
	}
	if err != nil {
		s.d.fail(v.line, s.child(key), "%s: %v", s.child(key), err)
		return false
	}
	*to = n
	return true
}

// duration reads a duration.
func (s *section) duration(key string, to *time.Duration, low, high time.Duration) bool {
	v, _ := s.get(key)
	if v == nil {
		return false
	}
	if v.kind != scalar || v.tag != "!!int" && v.tag != "!!str" {
		s.wrong(v, key, "a duration such as 30s")
		return false
	}
	n, err := ParseDuration(v.text)
	if err == nil && (n < low || n > high) {
		err = fmt.Errorf("%s is outside %s to %s", clip(v.text), low, high)
	}
	if err != nil {
		s.d.fail(v.line, s.child(key), "%s: %v", s.child(key), err)
		return false
	}
	*to = n
	return true
}

// file reads a path and makes it absolute. An empty text is the same as no key.
func (s *section) file(key string, to *string) bool {
	v, _ := s.get(key)
	text := ""
	if v == nil || !s.text(key, &text) || text == "" {
		return false
	}
	p, err := s.d.absolute(text)
	if err != nil {
		s.d.fail(v.line, s.child(key), "%s: %v", s.child(key), err)
		return false
	}
	*to = p
	return true
}

// absolute completes a path. What a shell would expand is refused, because nothing here expands it.
func (d *decoder) absolute(p string) (string, error) {
	switch {
	case strings.HasPrefix(p, "~"):
		return "", fmt.Errorf("%q starts with ~, which is not expanded; write the whole path", clip(p))
	case strings.Contains(p, "${") || strings.HasPrefix(p, "$"):
		return "", fmt.Errorf("%q contains a variable, which is not expanded; write the path itself", clip(p))
	case isWindowsPath(p):
		return "", fmt.Errorf("%q is a Windows path; this node runs on Linux: write the path there", clip(p))
	case strings.Contains(p, "://"):
		return "", fmt.Errorf("%q is an address; write a path", clip(p))
	case filepath.IsAbs(p):
		return filepath.Clean(p), nil
	}
	return filepath.Join(d.dir, p), nil
}

var windowsPath = regexp.MustCompile(`\A([A-Za-z]:[\\/]|\\\\)`)

func isWindowsPath(p string) bool { return windowsPath.MatchString(p) }

// entry is one element of a list of texts.
type entry struct {
	text string
	line int
}

// texts reads a text or number, or a list of them. given tells an empty list from no key.
func (s *section) texts(key string) (entries []entry, given bool) {
	v, _ := s.get(key)
	if v == nil {
		return nil, false
	}
	items := []*value{v}
	if v.kind == list {
		items = v.items
	}
	for _, item := range items {
		if item.kind != scalar || item.tag == "!!bool" || item.tag == "!!float" {
			s.d.fail(item.line, s.child(key), "%s must be a text or a list of texts; it contains %s", s.child(key), describe(item))
			continue
		}
		entries = append(entries, entry{item.text, item.line})
	}
	return entries, true
}

var identifier = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]{0,127}\z`)

// env reads a mapping of variables. Messages show names, never values.
func (s *section) env(key string, check func(name string) error) Env {
	v, line := s.get(key)
	if v == nil {
		return nil
	}
	if v.kind != mapping {
		s.d.fail(line, s.child(key), "%s must be a section of names and values", s.child(key))
		return nil
	}
	env := Env{}
	for _, f := range v.fields {
		name := s.child(key) + "." + clip(f.key)
		switch {
		case !identifier.MatchString(f.key):
			s.d.fail(f.line, name, "%s: a variable's name has letters, digits and _ only and starts with none of the digits", name)
			continue
		case f.val.kind == null:
			env[f.key] = ""
			continue
		case f.val.kind != scalar:
			s.d.fail(f.line, name, "%s must be a text or a number", name)
			continue
		case strings.Contains(f.val.text, "\x00"):
			s.d.fail(f.line, name, "%s contains a zero byte", name)
			continue
		}
		if err := check(f.key); err != nil {
			s.d.fail(f.line, name, "%s: %v", name, err)
			continue
		}
		env[f.key] = f.val.text
	}
	return env
}
