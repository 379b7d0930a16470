// Command bench measures v6node on this machine and prints a table and, with
// -json, the same as JSON. Everything is measured in one run, against bare CRI
// calls and bare AES, so that ratios can be compared between machines.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
)

// Row is one figure.
type Row struct {
	Group string  `json:"group"` // the letter of the measurement
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Note  string  `json:"note,omitempty"`
}

type bench struct {
	programs lab.Programs
	plugin   string
	dir      string
	rows     []Row
	quick    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var (
		root  = flag.String("root", ".", "the checkout, after `make`")
		out   = flag.String("json", "", "also write the figures to this file")
		only  = flag.String("only", "abcdefghi", "the measurements to make, by letter")
		quick = flag.Bool("quick", false, "fewer repetitions")
	)
	flag.Parse()
	abs, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	b := &bench{plugin: filepath.Join(abs, "bin", "v6node-cni"), quick: *quick}
	if b.programs, err = lab.Find(filepath.Join(abs, "bin", "v6node"), []string{filepath.Join(abs, "bundle")}); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "v6node-bench-"); err != nil {
		return err
	}
	defer func() {
		if rmErr := os.RemoveAll(b.dir); err == nil {
			err = rmErr
		}
	}()
	for _, m := range []struct {
		letters string
		measure func(context.Context) error
	}{{"abce", b.runs}, {"d", b.rounds}, {"f", b.proxy}, {"g", b.queue}, {"h", b.recovery}, {"i", b.blobs}} {
		if !strings.ContainsAny(*only, m.letters) {
			continue
		}
		if err := m.measure(ctx); err != nil {
			return err
		}
	}
	slices.SortStableFunc(b.rows, func(x, y Row) int { return strings.Compare(x.Group, y.Group) })
	b.print()
	if *out == "" {
		return nil
	}
	text, err := json.MarshalIndent(b.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(text, '\n'), 0o644)
}

// open makes a world of a measurement's own, and the containerd that its nodes
// share.
func (b *bench) open(ctx context.Context, name string) (l *lab.Lab, endpoint string, end func() error, err error) {
	d, err := lab.Containerd(ctx, filepath.Join(b.dir, name), b.programs.Bundle, b.plugin)
	if err != nil {
		return nil, "", nil, err
	}
	dir := filepath.Join(b.dir, name+"-lab")
	if err = os.MkdirAll(dir, 0o700); err == nil {
		l, err = lab.New(ctx, dir, b.programs, standin.Options{})
	}
	if err != nil {
		return nil, "", nil, errors.Join(err, lab.EndContainerd(d))
	}
	return l, d.Endpoint(), func() error { return errors.Join(l.Close(), lab.EndContainerd(d)) }, nil
}

func (b *bench) add(group, name string, value float64, unit, note string) {
	b.rows = append(b.rows, Row{group, name, value, unit, note})
	fmt.Fprintf(os.Stderr, "measured (%s) %s: %.3f %s\n", group, name, value, unit)
}

// seconds adds the median of durations, with their range as the note.
func (b *bench) seconds(group, name string, ds []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	median := s[len(s)/2]
	b.add(group, name, median.Seconds()*1000, "ms", fmt.Sprintf("median of %d, %.0f to %.0f", len(s), s[0].Seconds()*1000, s[len(s)-1].Seconds()*1000))
	return median
}

func (b *bench) times(n int) int {
	if b.quick {
		return max(1, n/4)
	}
	return n
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\tFIGURE\tVALUE\tUNIT\tNOTE")
	for _, r := range b.rows {
		fmt.Fprintf(w, "(%s)\t%s\t%.2f\t%s\t%s\n", r.Group, r.Name, r.Value, r.Unit, r.Note)
	}
	_ = w.Flush() // standard output
}
