package policy

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// store is one compiled entry of allowed_algorithm_stores.
type store struct {
	text  string
	match func(address string) bool // of a plain address
}

// compileStore reads one entry: an address, or a regular expression for whole addresses.
func compileStore(text string) (store, error) {
	switch {
	case text == "" || strings.TrimSpace(text) != text:
		return store{}, fmt.Errorf("%q is empty or has spaces around it; write the address of a store or a regular expression", text)
	case len(text) > maxRule:
		return store{}, fmt.Errorf("the entry has %d characters, more than %d; split it", len(text), maxRule)
	case strings.ContainsAny(text, `\^$*+?()[]{}|`):
		if _, err := regexp.Compile(text); err != nil {
			return store{}, fmt.Errorf("%q is not a regular expression that Go's RE2 accepts (%w); look-around and back-references do not exist there", text, err)
		}
		whole, err := regexp.Compile(`\A(?:` + text + `)\z`)
		if err != nil {
			return store{}, fmt.Errorf("%q cannot be used as a regular expression: %w", text, err)
		}
		return store{text, func(address string) bool {
			return whole.MatchString(address) || whole.MatchString(address+"/")
		}}, nil
	}
	want, ok := plainAddress(text)
	if !ok {
		return store{}, fmt.Errorf("%q is neither the address of a store, such as https://store.example.org, nor a regular expression", text)
	}
	return store{text, func(address string) bool { return address == want }}, nil
}

// plainAddress is the one spelling of a store's address: the case of scheme and host, a port that is the scheme's
// own and a slash at the end mean nothing. An address with a user or a query is none.
func plainAddress(text string) (string, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", false
	}
	host := strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, map[string]string{"https": ":443", "http": ":80"}[u.Scheme])
	return u.Scheme + "://" + host + strings.TrimRight(u.EscapedPath(), "/"), true
}

// store applies allowed_algorithm_stores.
func (p *Policy) store(r Request) Decision {
	if r.StoreID == 0 {
		return refuse("This node runs only tasks from the algorithm stores that it lists, and this task comes from none (allowed_algorithm_stores).")
	}
	if r.StoreAddresses == nil {
		return refuse("This node could not find the address of algorithm store %d, which its policy needs.", r.StoreID)
	}
	found, err := r.StoreAddresses()
	if err != nil {
		return refuse("This node could not find the address of algorithm store %d, which its policy needs: %v.", r.StoreID, err)
	}
	for _, text := range found {
		address, ok := plainAddress(text)
		if !ok {
			continue
		}
		if i := slices.IndexFunc(p.stores, func(s store) bool { return s.match(address) }); i >= 0 {
			return allow("The algorithm store %s is allowed by %q in allowed_algorithm_stores.", shorten(address), p.stores[i].text)
		}
	}
	return refuse("This node does not allow the algorithm store %d (%s): nothing in allowed_algorithm_stores matches it.", r.StoreID, shorten(strings.Join(found, ", ")))
}
