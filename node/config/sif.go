package config

import (
	"slices"
)

// SIF is how SIF images are found, checked and converted.
type SIF struct {
	Directories      []string // where sif: references look, in this order; none: they are not used
	RequireSignature bool
	Keys             []string // files with the public keys that are trusted; not empty with RequireSignature
	CacheSize        int64    // bytes kept in StateDir/sif
	MaxImageSize     int64    // bytes of a SIF file, and of an image made of one
	RegistryPort     int      // loopback port that the runtime pulls from; 0 is any free one
}

const (
	defaultSIFCache = 20 << 30
	defaultMaxSIF   = 32 << 30
)

func (d *decoder) sif(s *section, c *Config) {
	v, _ := s.get("sif")
	f := d.section(v, "sif")
	defer f.done()
	c.SIF = SIF{CacheSize: defaultSIFCache, MaxImageSize: defaultMaxSIF}
	c.SIF.Directories = d.paths(f, "directories")
	c.SIF.Keys = d.paths(f, "keys")
	c.SIF.RequireSignature = len(c.SIF.Keys) > 0
	f.yesNo("require_signature", &c.SIF.RequireSignature)
	switch _, line := f.get("require_signature"); {
	case c.SIF.RequireSignature && !f.has("keys"):
		d.fail(line, "sif.keys", "sif.require_signature needs sif.keys: name the files with the public keys of those who may sign")
	case !c.SIF.RequireSignature && len(c.SIF.Keys) > 0:
		d.warn(line, "sif.require_signature", "sif.require_signature is false: unsigned SIF images run, and sif.keys are not used")
	}
	f.size("cache_size", &c.SIF.CacheSize, 0)
	f.size("max_image_size", &c.SIF.MaxImageSize, 1<<20)
	port := int64(0)
	f.integer("registry_port", &port, 0, 65535)
	c.SIF.RegistryPort = int(port)
}

// paths reads a path or a list of paths, and makes them absolute.
func (d *decoder) paths(s *section, key string) []string {
	entries, _ := s.texts(key)
	var out []string
	for _, e := range entries {
		if e.text == "" {
			d.fail(e.line, s.child(key), "%s: an entry is empty; write a path or remove it", s.child(key))
			continue
		}
		p, err := d.absolute(e.text)
		if err != nil {
			d.fail(e.line, s.child(key), "%s: %v", s.child(key), err)
			continue
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
