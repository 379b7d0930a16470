package imageref

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	sif "github.com/v6node/v6node/sif/reference"
)

// ErrInvalid says that a text is not an image reference that this node accepts.
var ErrInvalid = errors.New("invalid image reference")

// maxLength bounds a reference: 255 for the name, 128 for the tag, 71 for the digest, and the separators.
const maxLength = 460

// hub is the registry that a name without one refers to.
const hub = "docker.io"

// DefaultTag is what a reference without tag and digest refers to.
const DefaultTag = "latest"

var digestPattern = regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`)

// Scheme is what kind of image a reference names.
type Scheme string

// The schemes. References of different schemes never name the same image.
const (
	Container Scheme = ""     // an OCI image in a registry: ghcr.io/org/algo:v1
	SIF       Scheme = "sif"  // a SIF file of this machine: sif:NAME
	ORAS      Scheme = "oras" // a SIF file in a registry: oras://ghcr.io/org/algo:v1
)

// Prefix is what a reference begins with, and says its scheme.
func (s Scheme) Prefix() string {
	switch s {
	case SIF:
		return "sif:"
	case ORAS:
		return "oras://"
	}
	return ""
}

// Reference is a parsed, canonical image reference. The zero value is not valid.
type Reference struct {
	Scheme Scheme
	Domain string // registry host, lower case, with the port if one was given: "docker.io", "127.0.0.1:5000"; "" of SIF
	Path   string // repository within the registry: "library/python"; of SIF the name
	Tag    string // as given, or "" when none was
	Digest string // "sha256:..." as given, or "" when none was
}

// Parse reads a reference as Docker and containerd do: "python" is docker.io/library/python. It is stricter
// in three places, each of which is a way to make two readers see two images: the registry is compared in
// lower case, a registry must be recognisable as one (a dot, a port, or localhost), and a digest must be
// SHA-256. What begins with sif: or oras:// names a SIF image and nothing else, so that the repository "sif" of
// Docker Hub must be written as docker.io/library/sif to have a tag. Errors wrap ErrInvalid.
func Parse(s string) (Reference, error) {
	if len(s) > maxLength {
		return Reference{}, fmt.Errorf("%w: it has %d characters, more than %d", ErrInvalid, len(s), maxLength)
	}
	if sif.Is(s) {
		return parseSIF(s)
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %s", ErrInvalid, s, reason(err))
	}
	domain := strings.ToLower(reference.Domain(named))
	if !strings.ContainsAny(domain, ".:") && domain != "localhost" {
		// "FOO/bar" is host FOO to one reader and, in lower case, a Docker Hub repository to the next.
		return Reference{}, fmt.Errorf("%w %q: %q is neither a registry's host name nor a lower-case repository", ErrInvalid, s, reference.Domain(named))
	}
	// In lower case the registry may turn out to be Docker Hub, whose names are completed.
	if named, err = reference.ParseNormalizedNamed(domain + strings.TrimPrefix(named.String(), reference.Domain(named))); err != nil {
		return Reference{}, fmt.Errorf("%w %q: %s", ErrInvalid, s, reason(err))
	}
	r := Reference{Domain: reference.Domain(named), Path: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest().String()
		if !IsDigest(r.Digest) {
			return Reference{}, fmt.Errorf("%w %q: only sha256 digests are accepted", ErrInvalid, s)
		}
	}
	return r, nil
}

// parseSIF reads a reference to a SIF image.
func parseSIF(s string) (Reference, error) {
	n, err := sif.Parse(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r := Reference{Scheme: SIF, Path: n.Name, Digest: n.Digest}
	if n.Scheme == string(ORAS) {
		r = Reference{Scheme: ORAS, Domain: strings.ToLower(n.Registry), Path: n.Repository, Digest: n.Digest}
		if r.Domain == "index."+hub {
			r.Domain = hub
		}
		before, _, _ := strings.Cut(s, "@")
		if n.Tag != "" && strings.HasSuffix(before, ":"+n.Tag) { // and not the default
			r.Tag = n.Tag
		}
	}
	return r, nil
}

// reason drops the library's own prefix, which only repeats what the sentinel says.
func reason(err error) string {
	return strings.TrimPrefix(err.Error(), "invalid reference format: ")
}

// IsDigest reports whether s is a complete SHA-256 digest, "sha256:" and 64 lower-case hexadecimal digits.
func IsDigest(s string) bool { return digestPattern.MatchString(s) }

// Name is the canonical name without tag and digest: "docker.io/library/python", "sif:tools/algo".
func (r Reference) Name() string {
	if r.Scheme == SIF {
		return SIF.Prefix() + r.Path
	}
	return r.Scheme.Prefix() + r.Repository()
}

// Repository is the place in a registry, without a scheme; "" of SIF.
func (r Reference) Repository() string {
	if r.Scheme == SIF {
		return ""
	}
	return r.Domain + "/" + r.Path
}

// String is the canonical reference. A digest wins over a tag, as it does in every runtime: the tag of
// "name:tag@digest" is never looked at and so not repeated.
func (r Reference) String() string {
	switch tag := r.TagOrDefault(); {
	case r.Digest != "":
		return r.Name() + "@" + r.Digest
	case tag != "":
		return r.Name() + ":" + tag
	}
	return r.Name()
}

// TagOrDefault is the tag, "latest" when neither tag nor digest was given, "" for a digest without a tag and for SIF,
// which has no tags.
func (r Reference) TagOrDefault() string {
	if r.Tag == "" && r.Digest == "" && r.Scheme != SIF {
		return DefaultTag
	}
	return r.Tag
}

// Pin is the canonical name at the given digest.
func (r Reference) Pin(digest string) string { return r.Name() + "@" + digest }

// Spellings lists the names (without tag and digest) that mean this repository: the canonical one first and,
// for Docker Hub, the short ones. A short form that another reader could take for a registry of its own is
// left out: docker.io/ghcr.io/org/x is never "ghcr.io/org/x", and docker.io/library/sif never "sif", which with a
// tag behind it names a SIF image.
func (r Reference) Spellings() []string {
	names := []string{r.Name()}
	if r.Domain != hub || r.Scheme != Container {
		return names
	}
	short := []string{r.Path}
	if repo, ok := strings.CutPrefix(r.Path, "library/"); ok {
		short = append(short, repo, hub+"/"+repo)
	}
	for _, s := range short {
		if again, err := Parse(s); err == nil && !sif.Is(s+":") && again.Name() == r.Name() && again.Tag == "" && again.Digest == "" {
			names = append(names, s)
		}
	}
	return names
}
