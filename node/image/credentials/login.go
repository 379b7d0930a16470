package credentials

import "strings"

// Login is what a registry wants before it shows an image: a user name with a
// password, or a token.
type Login struct {
	Registry string // "host[:port]", or with "/path" for the repositories below; docker.io for Docker Hub
	Username string
	Password string
	// IdentityToken is exchanged for a token at the registry's authorization service.
	IdentityToken string
	// RegistryToken is shown to the registry as it is.
	RegistryToken string
}

// String hides the secrets.
func (l Login) String() string { return l.Username + "@" + l.Registry }

// GoString hides the secrets.
func (l Login) GoString() string { return l.String() }

// empty tells whether there is nothing to log in with.
func (l Login) empty() bool {
	return l.Username == "" && l.Password == "" && l.IdentityToken == "" && l.RegistryToken == ""
}

const hub = "docker.io"

// Normalize is the one spelling of a registry or repository: a scheme, the path
// of an old API and the other names of Docker Hub are left out, the host is in
// lower case.
func Normalize(text string) string {
	name, isURL := text, false
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(name, scheme); ok {
			name, isURL = rest, true
			break
		}
	}
	host, path, _ := strings.Cut(strings.TrimRight(name, "/"), "/")
	host = strings.ToLower(host)
	if isURL && (path == "v1" || path == "v2") {
		path = ""
	}
	switch host {
	case "index." + hub, "registry-1." + hub, "registry." + hub:
		host = hub
	}
	if path == "" {
		return host
	}
	return host + "/" + path
}

// covers tells whether what is said about a registry or a path is about a
// repository too.
func covers(key, repository string) bool { return strings.HasPrefix(repository+"/", key+"/") }

// longest returns the login that says most about a repository.
func longest(all []Login, repository string) (best Login, ok bool) {
	for _, l := range all {
		if at := Normalize(l.Registry); covers(at, repository) && (!ok || len(at) > len(best.Registry)) {
			best, ok = l, true
			best.Registry = at
		}
	}
	return best, ok
}
