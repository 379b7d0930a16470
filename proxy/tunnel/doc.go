// Package tunnel keeps SSH connections to other machines and opens connections
// through them, as ssh -L does.
package tunnel
