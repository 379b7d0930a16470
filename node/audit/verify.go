package audit

import (
	"context"
	"errors"
	"fmt"
)

// Damage is a place where a chain is not what was written. Verify, Open and
// Log.Examine return it.
type Damage struct {
	File string // in the directory
	Line int    // from 1; 0 for the file as a whole
	// Problem is a sentence about that line.
	Problem string
}

func (d *Damage) Error() string {
	if d.Line == 0 {
		return fmt.Sprintf("the audit log is damaged: %s: %s", d.File, d.Problem)
	}
	return fmt.Sprintf("the audit log is damaged: %s, line %d: %s", d.File, d.Line, d.Problem)
}

// Report is what Verify has found.
type Report struct {
	Files   int    `json:"files"`
	Entries uint64 `json:"entries"`
	// First is the number of the first entry: more than 1 where older files
	// were taken away.
	First uint64 `json:"first,omitempty"`
	Head  Head   `json:"head"`
}

// Verify reads the whole chain of a directory, also while a node writes to it.
// A *Damage says where it is broken. known, if not nil, is the head of an
// earlier time, which must be part of the chain.
func Verify(dir string, known *Head) (Report, error) {
	return verify(context.Background(), dir, known)
}

func verify(ctx context.Context, dir string, known *Head) (Report, error) {
	// What head names now is on disk by now.
	head, err := readHead(dir)
	if err != nil {
		return Report{}, err
	}
	names, err := files(dir)
	if err != nil {
		return Report{}, err
	}
	c := checker{head: head, known: known}
	r := Report{Files: len(names)}
	for _, name := range names {
		c.fileBegins = true
		if _, err := eachOf(dir, name, 0, func(l *Line) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return c.line(l)
		}); err != nil {
			return r, err
		}
	}
	r.Entries, r.First, r.Head = c.entries, c.first, c.last
	return r, c.end()
}

// checker follows a chain line by line.
type checker struct {
	head  Head
	known *Head

	fileBegins bool
	entries    uint64
	first      uint64
	last       Head
	lastFile   string
	lastLine   int
}

func (c *checker) line(l *Line) error {
	if !l.Whole {
		return nil // being written, or cut by a crash and taken off by the next start
	}
	e, err := l.Entry()
	if err != nil {
		return err
	}
	begins := c.fileBegins
	c.fileBegins = false
	damaged := func(form string, args ...any) error {
		return &Damage{File: l.File, Line: l.Number, Problem: fmt.Sprintf(form, args...)}
	}
	switch {
	case begins && l.File != fileName(e.Seq):
		return damaged("the file begins with entry %d, which its name does not say: entries were removed, or the file renamed", e.Seq)
	case c.entries == 0:
		if e.Seq == 1 && e.Prev != first {
			return damaged("it is the first entry and names a predecessor: it was changed")
		}
		c.first = e.Seq
	case e.Seq != c.last.Seq+1:
		return damaged("entry %d follows entry %d: entries were removed, added or moved here", e.Seq, c.last.Seq)
	case e.Prev != c.last.Hash:
		return &Damage{File: c.lastFile, Line: c.lastLine, Problem: fmt.Sprintf(
			"entry %d is not what entry %d was chained to: one of the two was changed", c.last.Seq, e.Seq)}
	}
	c.entries++
	c.last = Head{e.Seq, hashOf(l.Raw)}
	c.lastFile, c.lastLine = l.File, l.Number
	for _, h := range []*Head{&c.head, c.known} {
		if h != nil && h.Seq == e.Seq && h.Hash != c.last.Hash {
			return damaged("entry %d is not the one that was written: its hash is %s and was %s", e.Seq, c.last.Hash, h.Hash)
		}
	}
	return nil
}

// end judges what can only be known when all was read.
func (c *checker) end() error {
	if c.known != nil && c.entries > 0 && c.known.Seq < c.first {
		return fmt.Errorf("entry %d is not here: the chain begins with entry %d; put the older files back to check it", c.known.Seq, c.first)
	}
	for _, h := range []*Head{&c.head, c.known} {
		if h != nil && h.Seq > c.last.Seq {
			return &Damage{File: c.lastFile, Line: c.lastLine, Problem: fmt.Sprintf("the last entry is %d and there was an entry %d: entries were removed from the end", c.last.Seq, h.Seq)}
		}
	}
	if c.head == (Head{}) && c.entries > 0 {
		return &Damage{File: headName, Problem: "it is missing: it was removed, and entries may have been removed from the end"}
	}
	return nil
}

// IsDamage tells whether an error says that a chain is broken.
func IsDamage(err error) bool {
	var d *Damage
	return errors.As(err, &d)
}
