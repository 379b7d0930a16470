// Package config reads the configuration file of a node: that of the reference vantage6 v4 node, as it is, and
// the sections that this node adds.
//
// A file is taken whole or not at all. Everything wrong in it is reported at once, each with its line; a key
// that the reference node has and this one does not need gives one warning that says what replaces it; a key
// that would restrict something and cannot be honoured yet refuses the file. Nothing is ever ignored in
// silence. Nothing in a file is expanded: no ~, no variables; relative paths start at the file's directory.
//
// The room reads files and nothing else: no network, no look at databases or keys, no defaults that depend on
// what a server says. The meaning of the policies is in node/policy. docs/configuration.md lists every key; a
// test holds it to the parser.
package config
