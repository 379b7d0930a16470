package audit

import (
	"context"
	"time"
)

// followEvery is how long Follow waits between two looks.
const followEvery = 500 * time.Millisecond

// Follow calls fn for the last n whole lines, and then for each that comes,
// until ctx ends or fn returns an error.
func Follow(ctx context.Context, dir string, n int, fn func(*Line) error) error {
	at := map[string]int64{}
	if err := tail(dir, at, n, fn); err != nil {
		return err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := eachNew(dir, at, fn); err != nil {
			return err
		}
	}
}

// Tail calls fn for the last n whole lines.
func Tail(dir string, n int, fn func(*Line) error) error {
	return tail(dir, map[string]int64{}, n, fn)
}

// tail is Tail, and notes in at how far it has read.
func tail(dir string, at map[string]int64, n int, fn func(*Line) error) error {
	var last []Line
	if err := eachNew(dir, at, func(l *Line) error {
		if n <= 0 {
			return nil
		}
		if len(last) == n {
			last = last[1:]
		}
		last = append(last, Line{File: l.File, Number: l.Number, Raw: append([]byte(nil), l.Raw...), Whole: true})
		return nil
	}); err != nil {
		return err
	}
	for i := range last {
		if err := fn(&last[i]); err != nil {
			return err
		}
	}
	return nil
}

// eachNew calls fn for the whole lines behind the offsets, which it moves.
func eachNew(dir string, at map[string]int64, fn func(*Line) error) error {
	names, err := files(dir)
	if err != nil {
		return err
	}
	for i, name := range names {
		// A file before the last one does not grow any more.
		if _, seen := at[name]; seen && i < len(names)-2 {
			continue
		}
		if at[name], err = eachOf(dir, name, at[name], func(l *Line) error {
			if !l.Whole {
				return nil
			}
			return fn(l)
		}); err != nil {
			return err
		}
	}
	return nil
}
