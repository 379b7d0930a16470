package runtime

import (
	"context"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The runtimes report why a pull failed mostly in words. These are the words
// of containerd 1.6 to 2.4 and of CRI-O (containers/image), in lower case.
// The order matters: containerd says "not found" for a missing platform too.
var pullTexts = []struct {
	kind  error
	say   string
	words []string
}{
	{ErrNoSpace, "a file system of the container runtime is full; make room and try again", []string{
		"no space left on device", "disk quota exceeded",
	}},
	{ErrReadOnly, "a file system of the container runtime is read-only; mend its disk and try again", []string{
		"read-only file system",
	}},
	{ErrWrongPlatform, "the image exists, but not for this machine's operating system and architecture; ask its maker for one", []string{
		"no match for platform", "no image found in image index", "no image found in manifest list", "does not match the specified platform",
	}},
	{ErrRegistryUnreachable, "the registry limits how much may be pulled; wait, or configure credentials", []string{
		"429 too many requests", "toomanyrequests",
	}},
	{ErrRegistryUnreachable, "the registry's certificate is not trusted by the container runtime; configure its CA there", []string{
		"x509:", "tls: ",
	}},
	{ErrRegistryUnreachable, "the registry does not speak HTTPS; configure it in the container runtime as one that is reached by HTTP", []string{
		"server gave http response to https client",
	}},
	{ErrRegistryUnreachable, "the registry cannot be reached; check its name, the network and the proxy settings of the container runtime", []string{
		"no such host", "connection refused", "connection reset", "i/o timeout", "no route to host", "network is unreachable",
		"server misbehaving", "temporary failure in name resolution", "tls handshake timeout", "client.timeout", "broken pipe",
		"pinging container registry", "registryunavailable", "proxyconnect", "awaiting response headers",
	}},
	{ErrRegistryUnreachable, "the registry failed; try again later", []string{
		"500 internal server error", "502 bad gateway", "503 service unavailable", "504 gateway", "unexpected eof",
		"received unexpected http status: 5", "failed size validation", "unexpected commit digest",
	}},
	{ErrRegistryDenied, "the registry refuses access, or has no such image; check the name and the credentials in docker_registries", []string{
		"401 unauthorized", "403 forbidden", "unauthorized", "denied", "insufficient_scope", "authorization failed",
		"no basic auth credentials", "authentication required", "invalid username/password", "failed to authorize",
	}},
	{ErrImageNotFound, "the registry has no such image; check its name", []string{
		"manifest unknown", "name unknown", "name_unknown", "manifest_unknown", "404 not found", "not found", "not_found",
	}},
	{ErrInvalid, "it is not a valid image reference", []string{
		"invalid reference format", "failed to parse image reference", "repository name must be lowercase",
	}},
	{ErrPullStalled, "the runtime gave the pull up because nothing arrived from the registry; check the network, then try again", []string{
		"context canceled", "context deadline exceeded",
	}},
}

var (
	quotedText = regexp.MustCompile(`"[^"]*"`)
	urlText    = regexp.MustCompile(`https?://\S+`)
)

// pullError finds the kind of a failed pull. Names and addresses are taken out
// of the text first: an image may be called "denied".
func pullError(op, ref string, err error) error {
	e := &Error{Op: op, Cause: err}
	if status.Code(err) == codes.Unavailable && !strings.Contains(strings.ToLower(causeText(err)), "registry") {
		return callError(context.Background(), op, 0, err)
	}
	text := strings.ToLower(causeText(err))
	text = urlText.ReplaceAllString(text, " ")
	text = quotedText.ReplaceAllString(text, " ")
	for _, name := range namesOf(ref) {
		text = strings.ReplaceAll(text, name, " ")
	}
	for _, t := range pullTexts {
		for _, w := range t.words {
			if strings.Contains(text, w) {
				e.Kind, e.text = t.kind, t.say+" ("+causeText(err)+")"
				return e
			}
		}
	}
	if status.Code(err) == codes.NotFound {
		e.Kind = ErrImageNotFound
	}
	return e
}

// namesOf returns the forms in which a message may repeat a reference.
func namesOf(ref string) []string {
	ref = strings.ToLower(ref)
	name, _, _ := strings.Cut(ref, "@")
	repo := name
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		repo = name[:i]
	}
	names := []string{ref, name, repo}
	if _, path, ok := strings.Cut(repo, "/"); ok {
		names = append(names, path)
	}
	return names
}
