// Package copying copies long data for as long as a context allows.
package copying

import (
	"context"
	"errors"
	"io"
)

// step is after how much ctx is looked at and progress told. It is small enough for
// both on a slow disk, and so large that the kernel copies files in few calls.
const step = 4 << 20

// Copy copies r to w until r ends or ctx does; what is written by then stays. From file
// to file the kernel copies, as in io.Copy. progress, which may be nil, is told what is
// copied so far.
func Copy(ctx context.Context, w io.Writer, r io.Reader, progress func(done int64)) error {
	for done := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(w, r, step)
		if done += n; n > 0 && progress != nil {
			progress(done)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
