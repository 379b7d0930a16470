package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// description prints names with their values, in sections.
type description struct {
	w    *tabwriter.Writer
	open bool
}

func newDescription(w io.Writer) *description {
	return &description{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (d *description) section(title string) {
	if d.open {
		fmt.Fprintln(d.w)
	}
	d.open = true
	fmt.Fprintln(d.w, printable(title))
}

func (d *description) entry(name, value string) {
	if name == "" {
		fmt.Fprintf(d.w, "  %s\n", printable(dash(value)))
		return
	}
	fmt.Fprintf(d.w, "  %s:\t%s\n", printable(name), printable(dash(value)))
}

// optional leaves out what has no value.
func (d *description) optional(name, value string) {
	if value != "" {
		d.entry(name, value)
	}
}

func (d *description) print() error { return d.w.Flush() }
