// Package jsonstream copies a JSON text while it changes single strings in it,
// in constant memory however long the strings are: an input or result of a
// vantage6 task is one string of up to hundreds of megabytes.
//
// The text is walked by the caller: Object and Array call back for each member,
// and the callback takes the value with one of the other methods. What is not
// looked at is copied as it is, and checked: a text that Go's encoding/json
// would refuse is refused here. Nothing that knows the vantage6 API may enter.
package jsonstream
