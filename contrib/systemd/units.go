// Package systemd has the files by which systemd knows v6node, for whoever
// installs them.
package systemd

import _ "embed"

// Program is where the units say that v6node is.
const Program = "/usr/local/bin/v6node"

// The files, as they are for an installation in /usr/local.
var (
	//go:embed v6node@.service
	SystemUnit []byte
	//go:embed user/v6node.service
	UserUnit []byte
	//go:embed tmpfiles.d/v6node.conf
	Tmpfiles []byte
)
