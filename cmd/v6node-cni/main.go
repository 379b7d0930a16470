// Command v6node-cni is the CNI plugin "v6node" and nothing else. A container
// runtime starts it at least twice for each sandbox, and it starts several times
// faster than the v6node program, which can do the same. "v6node cni install"
// puts it into place under the plugin's name.
package main

import "github.com/v6node/v6node/cni"

func main() { cni.PluginMain() }
