// Package reach decides what a run can connect to besides the vantage6 API, and
// where that stands in its sandbox: the databases that its task names, services,
// tunnels, and the proxy for the whitelist.
//
// It decides only. Listeners are opened by node/engine and served by proxy/... .
package reach
