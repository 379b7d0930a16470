// Package image finds out what an image reference means: which digest, whether it runs on this machine, and with
// which login its registry is asked.
//
// It reads manifests and configurations, never layers: pulling is the runtime's work. A reference is resolved
// once and from then on called by its digest, so that what was checked is what runs. The package may import the
// runtime's types and imageref; policy, server and node may not enter.
package image
