package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// maxConf bounds what the plugin reads from its standard input. A real
// configuration has some 200 bytes; a GC request adds about 100 per sandbox.
const maxConf = 1 << 20

// errConf is wrapped by every complaint about the plugin's configuration.
var errConf = errors.New("invalid configuration of the CNI plugin " + PluginName)

// errUnsupportedField is wrapped as well when a key is known to CNI but asks
// for something that this network refuses to be.
var errUnsupportedField = errors.New("unsupported field")

// pluginConf is what a runtime passes to the plugin.
type pluginConf struct {
	CNIVersion string
	Name       string
	// Loopback is true when the plugin was asked for as LoopbackName.
	Loopback bool
	// Prev is the result of an earlier ADD; nil when the runtime sent none.
	Prev *types100.Result
}

// parseConf reads the plugin's configuration. It is strict because a key that
// is silently ignored (an ipam, a port mapping) would leave an administrator
// believing in a network that does not exist. It never panics, whatever data is.
func parseConf(data []byte) (*pluginConf, error) {
	if len(data) > maxConf {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", errConf, maxConf)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	var raw map[string]json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("%w: %w", errConf, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: something follows the JSON object", errConf)
	}

	var c pluginConf
	var pluginType string
	var prev json.RawMessage
	for key, value := range raw {
		var err error
		switch key {
		case "cniVersion":
			err = json.Unmarshal(value, &c.CNIVersion)
		case "name":
			err = json.Unmarshal(value, &c.Name)
		case "type":
			err = json.Unmarshal(value, &pluginType)
		case "prevResult":
			prev = value
		case "cni.dev/valid-attachments", "cni.dev/attachments":
			// Sent with GC. There is no state that could be collected.
		case "args":
			// Meant for any plugin that cares, says the specification.
		case "ipam", "dns", "capabilities", "runtimeConfig", "ipMasq":
			return nil, fmt.Errorf("%w: %w %q: this network has one fixed address and no way out",
				errConf, errUnsupportedField, key)
		default:
			return nil, fmt.Errorf("%w: %w %q", errConf, errUnsupportedField, key)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: key %q: %w", errConf, key, err)
		}
	}
	switch pluginType {
	case PluginName:
	case LoopbackName:
		c.Loopback = true
	default:
		return nil, fmt.Errorf("%w: type is %q, not %q or %q", errConf, pluginType, PluginName, LoopbackName)
	}
	if !slices.Contains(supportedVersions(), c.CNIVersion) {
		return nil, fmt.Errorf("%w: cniVersion %q is none of %v", errConf, c.CNIVersion, supportedVersions())
	}
	if c.Name == "" {
		return nil, fmt.Errorf("%w: it has no name", errConf)
	}
	if prev != nil && !bytes.Equal(prev, []byte("null")) {
		result, err := parseResult(c.CNIVersion, prev)
		if err != nil {
			return nil, fmt.Errorf("%w: prevResult: %w", errConf, err)
		}
		c.Prev = result
	}
	return &c, nil
}

// parseResult reads a result of the given CNI version. Before 1.0.0 a result
// need not name its version. Other keys than a result's are dropped, since the
// decoder would take "Interfaces" for "interfaces".
func parseResult(version string, data []byte) (*types100.Result, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	// The converters below follow every entry of these lists.
	if err := refuseNulls(fields); err != nil {
		return nil, err
	}
	known := map[string]any{"cniVersion": version}
	for _, key := range []string{"interfaces", "ips", "routes", "dns"} {
		if fields[key] != nil {
			known[key] = fields[key]
		}
	}
	data, err := json.Marshal(known)
	if err != nil {
		return nil, err
	}
	result, err := create.Create(version, data)
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(result)
}

// refuseNulls refuses null entries in the lists of a result.
func refuseNulls(fields map[string]json.RawMessage) error {
	for _, key := range []string{"interfaces", "ips", "routes"} {
		if fields[key] == nil {
			continue
		}
		var list []json.RawMessage
		if err := json.Unmarshal(fields[key], &list); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		for _, entry := range list {
			if bytes.Equal(entry, []byte("null")) {
				return fmt.Errorf("%s has a null entry", key)
			}
		}
	}
	return nil
}
