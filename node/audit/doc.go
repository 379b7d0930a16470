// Package audit keeps the record of what this node was asked for, what it
// decided and what it let out: an append-only file of JSON lines, each of which
// names the hash of the one before it.
//
// The format. A directory holds files audit-SEQ.jsonl, SEQ being the number of
// the first entry in the file with twelve digits. Each line is one [Entry] as
// JSON and ends with a newline. Its member "seq" counts from 1 without a gap
// over all files, and "prev" is the SHA-256, in hex, of the bytes of the line
// before it without its newline; of the first line of all it is 64 zeros. The
// file head names the number and the hash of the last line.
//
// What that is good for. A line that was changed, removed, added or moved breaks
// the chain at a place that [Verify] names; lines cut off at the end contradict
// head. Whoever can write all of the directory can make a new chain of it: to
// detect that, keep a head elsewhere (the node logs it) and give it to Verify.
//
// An entry is on disk when [Log.Append] returns. After a crash an entry may be
// there twice, never not at all; a line that the crash cut is taken off, and an
// entry says so.
//
// Nothing here knows of servers or runtimes. No secret and nothing of inputs,
// results and databases but their names may enter.
package audit
