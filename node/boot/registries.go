package boot

import (
	"os"
	"path/filepath"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/credentials"
	"github.com/v6node/v6node/node/image/hosts"
	"github.com/v6node/v6node/node/image/imported"
	"github.com/v6node/v6node/runtime/embedded"
)

// Access is how a configuration says that registries are reached: the node by
// itself and its own containerd have one configuration.
func Access(cfg *config.Config) *image.Access {
	logins := make([]image.Login, len(cfg.Registries))
	for i, r := range cfg.Registries {
		logins[i] = image.Login{Registry: r.Registry, Username: r.Username, Password: r.Password.Reveal()}
	}
	o := credentials.Options{Logins: logins, Files: cfg.RegistryAccess.AuthFiles}
	if cfg.RegistryAccess.HostFiles {
		o.Environment = os.Getenv
	}
	own := filepath.Join(cfg.StateDir, node.ManagedStore)
	return &image.Access{Logins: credentials.New(o), Hosts: hosts.Directories(embedded.CertsDirs(own, cfg.RegistryAccess.CertsDirs))}
}

// Imported are the images that were imported for a node.
func Imported(cfg *config.Config) *imported.Store {
	return imported.Open(filepath.Join(cfg.StateDir, imported.Directory))
}

// UserAccess is how registries are reached for whoever has no configuration.
func UserAccess() *image.Access {
	return &image.Access{Logins: credentials.New(credentials.Options{Environment: os.Getenv}), Hosts: embedded.MachineCerts()}
}

// RegistryResolver asks registries as a configuration says, for whoever runs nothing.
func RegistryResolver(cfg *config.Config, version string) *image.Resolver {
	return image.New(image.Options{Access: Access(cfg), RequirePull: true, UserAgent: "v6node/" + version})
}
