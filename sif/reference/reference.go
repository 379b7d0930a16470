package reference

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// ErrInvalid: the text is no reference to a SIF image.
var ErrInvalid = errors.New("invalid reference to a SIF image")

// The schemes.
const (
	SIF  = "sif"
	ORAS = "oras"
)

const (
	sifPrefix  = SIF + ":"
	orasPrefix = ORAS + "://"
	maxLength  = 512
	maxNames   = 8 // directories and the file, in a NAME
)

var (
	// component is one part of a NAME: what is no option, hidden file or way out.
	component = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)
	// repository is what the OCI distribution specification allows.
	repository = regexp.MustCompile(`^[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*$`)
	digest     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// Reference is a parsed reference.
type Reference struct {
	Scheme     string
	Name       string // of sif:
	Registry   string // of oras://
	Repository string // of oras://, without the registry
	Tag        string // of oras://
	Digest     string // "" if it was not given
}

// Is reports whether text is meant as a reference to a SIF image, be it a valid one or not.
func Is(text string) bool {
	return strings.HasPrefix(text, sifPrefix) || strings.HasPrefix(text, orasPrefix)
}

// Parse reads a reference.
func Parse(text string) (Reference, error) {
	if len(text) > maxLength {
		return Reference{}, fmt.Errorf("%w: it has %d characters, %d are allowed", ErrInvalid, len(text), maxLength)
	}
	if rest, ok := strings.CutPrefix(text, orasPrefix); ok {
		return parseORAS(text, rest)
	}
	rest, ok := strings.CutPrefix(text, sifPrefix)
	if !ok {
		return Reference{}, fmt.Errorf("%w %q: it begins with neither %s nor %s", ErrInvalid, text, sifPrefix, orasPrefix)
	}
	r := Reference{Scheme: SIF}
	var err error
	if r.Name, r.Digest, err = cutDigest(text, rest); err != nil {
		return Reference{}, err
	}
	parts := strings.Split(r.Name, "/")
	if len(parts) > maxNames {
		return Reference{}, fmt.Errorf("%w %q: it is more than %d directories deep", ErrInvalid, text, maxNames)
	}
	for _, p := range parts {
		if !component.MatchString(p) {
			return Reference{}, fmt.Errorf("%w %q: a name consists of letters, digits and . _ + -, does not begin with a dot, a plus or a hyphen, and has slashes only between directories", ErrInvalid, text)
		}
	}
	return r, nil
}

func parseORAS(text, rest string) (Reference, error) {
	r := Reference{Scheme: ORAS}
	var err error
	if rest, r.Digest, err = cutDigest(text, rest); err != nil {
		return Reference{}, err
	}
	if host, _, ok := strings.Cut(rest, "/"); !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return Reference{}, fmt.Errorf("%w %q: it must name a registry and a repository, as in oras://registry.example.org/group/image:1.0", ErrInvalid, text)
	}
	tag, err := name.NewTag(rest)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %v", ErrInvalid, text, err)
	}
	r.Registry, r.Repository = tag.RegistryStr(), tag.RepositoryStr()
	if !repository.MatchString(r.Repository) {
		return Reference{}, fmt.Errorf("%w %q: a repository consists of lower-case letters and digits, with single . _ - between them, and slashes", ErrInvalid, text)
	}
	if r.Digest == "" || strings.HasSuffix(rest, ":"+tag.TagStr()) {
		r.Tag = tag.TagStr()
	}
	return r, nil
}

func cutDigest(text, rest string) (before, dgst string, err error) {
	before, dgst, found := strings.Cut(rest, "@")
	if found && !digest.MatchString(dgst) {
		return "", "", fmt.Errorf("%w %q: what follows the @ must be sha256: and 64 lower-case hexadecimal digits", ErrInvalid, text)
	}
	return before, dgst, nil
}

// String is the reference as text.
func (r Reference) String() string {
	s := sifPrefix + r.Name
	if r.Scheme == ORAS {
		s = orasPrefix + r.Registry + "/" + r.Repository
		if r.Tag != "" {
			s += ":" + r.Tag
		}
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Pin is the reference with a digest and without a tag: the one image, for ever.
func (r Reference) Pin(digest string) Reference {
	r.Tag, r.Digest = "", digest
	return r
}
