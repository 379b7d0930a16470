package policy

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/v6node/v6node/node/image/imageref"
)

// maxRule bounds one entry of a list.
const maxRule = 1024

// verdict is what one rule says about one image.
type verdict int

const (
	no      verdict = iota
	perhaps         // the digest would decide, and is not known yet
	yes
)

// candidate is an image as the rules see it.
type candidate struct {
	ref      imageref.Reference
	digest   string                       // "" while unknown
	file     string                       // of an oras:// image the digest of the SIF file; "" while unknown
	digestOf func(string) (string, error) // may be nil
}

// rule is one compiled entry of a list of images.
type rule struct {
	text  string
	match func(candidate) (verdict, error)
}

// compileRule reads one entry of a list of images. Its errors name the entry and say how to write it.
func compileRule(text string) (rule, error) {
	switch {
	case text == "" || strings.TrimSpace(text) != text:
		return rule{}, fmt.Errorf("%q is empty or has spaces around it; write an image, a digest or a regular expression", text)
	case len(text) > maxRule:
		return rule{}, fmt.Errorf("the entry has %d characters, more than %d; split it", len(text), maxRule)
	case imageref.IsDigest(text):
		return rule{text, func(c candidate) (verdict, error) { return c.has(text), nil }}, nil
	case strings.ContainsAny(text, `\^$*+?()[]{}|`):
		return compileExpression(text)
	}
	want, err := imageref.Parse(text)
	if err != nil {
		return rule{}, fmt.Errorf("%q is neither an image nor a regular expression: %w", text, err)
	}
	return rule{text, func(c candidate) (verdict, error) { return matchReference(want, c) }}, nil
}

// known asks only once there is a digest to ask about.
func known(c candidate, same func() bool) verdict {
	switch {
	case c.digest == "":
		return perhaps
	case same():
		return yes
	}
	return no
}

// has applies an entry that is a digest: of the image, or of the SIF file that an artifact in a registry holds.
func (c candidate) has(digest string) verdict {
	switch {
	case c.digest == digest, c.file == digest:
		return yes
	case c.digest == "", c.ref.Scheme == imageref.ORAS && c.file == "":
		return perhaps
	}
	return no
}

// matchReference applies an entry that is an image reference.
func matchReference(want imageref.Reference, c candidate) (verdict, error) {
	if want.Name() != c.ref.Name() {
		return no, nil
	}
	switch {
	case want.Digest != "":
		return known(c, func() bool { return c.digest == want.Digest }), nil
	case want.Tag == "", c.ref.Digest == "" && c.ref.TagOrDefault() == want.Tag:
		return yes, nil
	case c.digest == "":
		return perhaps, nil
	case c.digestOf == nil:
		return no, nil
	}
	// Another tag, or a digest, of the same repository: allowed when it is the very same image.
	got, err := c.digestOf(want.String())
	if err != nil {
		return no, fmt.Errorf("the digest of %s, which the policy allows, cannot be found: %w", want, err)
	}
	if got != "" && got == c.digest {
		return yes, nil
	}
	return no, nil
}

// compileExpression reads an entry that is a regular expression.
func compileExpression(text string) (rule, error) {
	// First alone: a text such as `a)|(b` would compile only inside our own parentheses.
	if _, err := regexp.Compile(text); err != nil {
		return rule{}, fmt.Errorf("%q is not a regular expression that Go's RE2 accepts (%w); look-around and back-references do not exist there", text, err)
	}
	whole, err := regexp.Compile(`\A(?:` + text + `)\z`)
	if err != nil {
		return rule{}, fmt.Errorf("%q cannot be used as a regular expression: %w", text, err)
	}
	scheme, rest := speaksOfScheme(text)
	if scheme == imageref.Container && otherSchemes.MatchString(text) {
		return rule{}, fmt.Errorf("%q is about SIF images and others in one expression, which must begin with sif: or oras:// to be about SIF images; write two entries", text)
	}
	tags := speaksOfTags(rest)
	return rule{text, func(c candidate) (verdict, error) {
		if c.ref.Scheme != scheme {
			return no, nil
		}
		for _, name := range c.ref.Spellings() {
			if !tags && whole.MatchString(name) {
				return yes, nil
			}
			// A tag beside a digest is never looked at by a runtime, so it proves nothing.
			if tag := c.ref.TagOrDefault(); tag != "" && c.ref.Digest == "" && whole.MatchString(name+":"+tag) {
				return yes, nil
			}
			if c.digest != "" && whole.MatchString(name+"@"+c.digest) {
				return yes, nil
			}
		}
		if c.digest == "" && tags {
			return perhaps, nil
		}
		return no, nil
	}}, nil
}

var (
	// opening is what may stand before the first character of what an expression matches.
	opening = regexp.MustCompile(`\A(?:\^|\\A|\(\?[a-zA-Z-]+\)|\((?:\?(?:[a-zA-Z-]*:|P?<\w+>))?)*`)
	// otherSchemes is a scheme at the beginning of an alternative.
	otherSchemes = regexp.MustCompile(`[|(^](?:\?[a-zA-Z-]*:)?(?:sif:|oras:)`)
)

// speaksOfScheme tells which kind of image an expression is about: SIF images only if it begins with their scheme, so
// that ".*" or ".*/sif:.*", meant for registries, allows no file, and "sif:.*" no image of a registry. rest is the
// expression without its schemes.
func speaksOfScheme(text string) (_ imageref.Scheme, rest string) {
	body := text[len(opening.FindString(text)):]
	for _, s := range []imageref.Scheme{imageref.SIF, imageref.ORAS} {
		if strings.HasPrefix(body, s.Prefix()) {
			return s, strings.ReplaceAll(text, s.Prefix(), "")
		}
	}
	return imageref.Container, text
}

// speaksOfTags reports whether an expression mentions a tag or digest separator. Such an expression
// ("algo(:v1)?") means the tags it names, so matching the bare name must not allow all of them. In doubt it
// says true, which only ever allows less.
func speaksOfTags(text string) bool {
	return strings.ContainsAny(otherColons.ReplaceAllString(text, ""), ":@")
}

// otherColons are the colons that separate no tag: those of the syntax, (?:...), (?i:...) and [[:alpha:]],
// and that of a registry's port, which alone can be followed by digits and a slash.
var otherColons = regexp.MustCompile(`\(\?[a-zA-Z-]*:|\[:\^?[a-z]+:\]|:(?:[0-9]{1,5}|\\d\+|\[0-9\]\+)/`)
