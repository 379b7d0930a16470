// Package b64 is standard base64 (RFC 4648, with padding) for bulk data: the
// vantage6 API carries inputs and results of hundreds of megabytes as base64
// inside JSON, and there encoding/base64 costs three times what AES does.
//
// It differs from encoding/base64 in three ways: it looks up two characters at
// a time, it refuses line breaks and stray bits in the last character (what it
// accepts has exactly one spelling), and its streams use a caller-visible,
// constant amount of memory. Nothing but base64 may enter this package.
package b64
