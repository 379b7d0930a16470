package cni

import "encoding/json"

// managedBy is the mark by which Uninstall and Inspect know a configuration
// that Install wrote. Runtimes ignore the key.
const managedBy = "v6node"

// confList mirrors the part of a CNI configuration list that we write.
type confList struct {
	// CNIVersion is what a runtime from before CNI 1.1 uses; Debian's
	// containerd 1.6.20 refuses anything newer than 1.0.0.
	CNIVersion string `json:"cniVersion"`
	// CNIVersions lets a newer runtime take the highest that it knows, which
	// is what makes it ask for STATUS.
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	ManagedBy   string   `json:"managedBy"`
	// OnlyInlined keeps a runtime from adding what lies in the directory
	// net.d/v6node/ to our network.
	OnlyInlined bool          `json:"loadOnlyInlinedPlugins"`
	Plugins     []confListRef `json:"plugins"`
}

type confListRef struct {
	Type string `json:"type"`
}

// ConfList returns the CNI configuration list of the network NetworkName, to be
// written as ConfName into a runtime's configuration directory. It is the same
// at every call.
func ConfList() []byte {
	data, err := json.MarshalIndent(confList{
		CNIVersion:  "1.0.0",
		CNIVersions: supportedVersions(),
		Name:        NetworkName,
		ManagedBy:   managedBy,
		OnlyInlined: true,
		Plugins:     []confListRef{{Type: PluginName}},
	}, "", "  ")
	if err != nil {
		panic(err) // strings and booleans always encode
	}
	return append(data, '\n')
}

// supportedVersions lists the CNI versions that the plugin speaks, oldest first.
func supportedVersions() []string {
	return []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}
}
