// Package collect decides what a node may remove to make room, and in which
// order: by age, by a budget, and by what the disk lacks. It knows of things
// only how large they are and when they were used, removes nothing itself, and
// may learn nothing of runs, runtimes or files.
package collect
