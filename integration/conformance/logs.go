package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func logBehaviours() []behaviour {
	return []behaviour{
		{"logs", "every line arrives once, in order and with its stream", func(ctx context.Context, b *bench) error {
			const n = 3_000 // containerd 1.6 drops what it has not taken 2 s after the end
			out, a, err := b.finish(ctx, args("lines", strconv.Itoa(n)))
			if err != nil {
				return err
			}
			errs, err := a.output("stderr")
			if err != nil {
				return err
			}
			for stream, want := range map[string]struct {
				text      string
				count, by int
			}{"stdout": {out, n, 1}, "stderr": {errs, n / 100, 100}} {
				i := 0
				for line := range strings.Lines(want.text) {
					if line != fmt.Sprintln(i*want.by) {
						return fmt.Errorf("line %d of %s is %.80q", i, stream, line)
					}
					i++
				}
				if i != want.count {
					return fmt.Errorf("%d of %d lines of %s arrived", i, want.count, stream)
				}
			}
			return nil
		}},
		{"logs", "any bytes arrive, also without an end of line", func(ctx context.Context, b *bench) error {
			out, _, err := b.finish(ctx, args("binary"))
			if want := strings.Repeat(string(allBytes()), 1000); err == nil && out != want {
				err = fmt.Errorf("%d bytes arrived of %d, or others", len(out), len(want))
			}
			return err
		}},
		{"logs", "a log that is moved away goes on in a new file that the node can read", rotation},
	}
}

func rotation(ctx context.Context, b *bench) error {
	a, err := b.run(ctx, args("tick"))
	if err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	old := a.log + ".old"
	if err := os.Rename(a.log, old); err != nil {
		return err
	}
	if err := b.rt.ReopenLog(ctx, a.containerID); err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return fmt.Errorf("after the rotation: %w", err)
	}
	before, err := os.Stat(old)
	if err != nil {
		return err
	}
	if err := b.rt.StopContainer(ctx, a.containerID, time.Minute); err != nil {
		return err
	}
	if _, err := a.end(ctx); err != nil {
		return err
	}
	after, err := os.Stat(a.log)
	if err != nil {
		return err
	}
	out, err := a.output("stdout")
	if err != nil {
		return err
	}
	if !strings.HasSuffix(out, "end\n") {
		return fmt.Errorf("the new file ends with %.80q", out[max(0, len(out)-80):])
	}
	now, err := os.Stat(old)
	if err == nil && now.Size() != before.Size() {
		err = errors.New("the runtime writes to the old file still")
	}
	if err == nil && after.Mode().Perm()&0o007 != 0 {
		err = fmt.Errorf("the new file has the mode %s, and everybody can read what algorithms write", after.Mode())
	}
	return err
}
