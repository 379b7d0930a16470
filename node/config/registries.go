package config

// registryAccess reads the section registries.
func (d *decoder) registryAccess(s *section, c *Config) {
	v, _ := s.get("registries")
	f := d.section(v, "registries")
	defer f.done()
	c.RegistryAccess = RegistryAccess{HostFiles: true}
	c.RegistryAccess.AuthFiles = d.paths(f, "auth_files")
	f.yesNo("host_logins", &c.RegistryAccess.HostFiles)
	c.RegistryAccess.CertsDirs = d.paths(f, "certs_dirs")
}
