// Package forward carries connections of one run to one place outside.
//
// The run is hostile: how many connections it has at a time, and how fast it
// makes new ones, is bounded for all its forwards together by a Gate.
package forward
