package proxy

import (
	"net/url"
	"testing"
)

func TestAnIncompleteConfigurationIsRefused(t *testing.T) {
	good := func() Config {
		return Config{Upstream: &Upstream{Base: mustURL("https://server.example/api/")}, Run: Run{Token: token}, Keys: NewKeyCache(KeyCacheOptions{})}
	}
	a, err := New(good())
	if err != nil || a.base.String() != "https://server.example/api" {
		t.Fatalf("%v, %v", a, err)
	}
	for name, spoil := range map[string]func(*Config){
		"no server":      func(c *Config) { c.Upstream = nil },
		"no address":     func(c *Config) { c.Upstream = &Upstream{} },
		"relative":       func(c *Config) { c.Upstream.Base = &url.URL{Path: "/api"} },
		"other scheme":   func(c *Config) { c.Upstream.Base = mustURL("ftp://server.example/api") },
		"no token":       func(c *Config) { c.Run.Token = "" },
		"token of two":   func(c *Config) { c.Run.Token = "a\r\nb" },
		"no key cache":   func(c *Config) { c.Keys = nil },
		"no host at all": func(c *Config) { c.Upstream.Base = mustURL("http:///api") },
	} {
		c := good()
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
