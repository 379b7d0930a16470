package oras

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/copying"
)

// Download writes the file to f. What f has already is taken for its start, from an
// earlier download that was interrupted; when the digest turns out to be wrong, f is
// emptied. On any other error f keeps what has arrived, for the next attempt. progress,
// which may be nil, is told how many bytes there are.
func (c *Client) Download(ctx context.Context, a Artifact, f *os.File, progress func(int64)) error {
	err := c.download(ctx, a, f, progress)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("download %s: %w", a.Reference, err)
	}
	return nil
}

func (c *Client) download(ctx context.Context, a Artifact, f *os.File, progress func(int64)) error {
	err := c.each(ctx, a.Reference, func(p Place) bool { return p.Content }, func(p Place, last bool) error {
		attempts := c.o.Attempts
		if !last {
			attempts = 1 // the next place has it too
		}
		return c.downloadFrom(ctx, p, a, f, attempts, progress)
	})
	if err != nil {
		return err
	}
	return verify(ctx, a, f)
}

func (c *Client) downloadFrom(ctx context.Context, p Place, a Artifact, f *os.File, attempts int, progress func(int64)) error {
	session, err := c.open(ctx, p, a.Reference)
	if err != nil {
		return err
	}
	wait := backoff.New(backoff.Server)
	for failures := 0; ; {
		have, err := length(f, a.Size)
		if err != nil {
			return err
		}
		if have == a.Size {
			return nil
		}
		err = c.part(ctx, session, a, f, have, progress)
		now, lerr := length(f, a.Size)
		switch {
		case lerr != nil:
			return lerr
		case err == nil:
			continue
		case ctx.Err() != nil || !retryable(err):
			return err
		case now > have:
			failures = 0
			wait.Reset()
		}
		if failures++; failures >= attempts {
			return err
		}
		if err := backoff.Sleep(ctx, wait.Next()); err != nil {
			return err
		}
	}
}

// length is how much of the file there is. More than there can be is nothing.
func length(f *os.File, most int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() > most {
		return 0, f.Truncate(0)
	}
	return info.Size(), nil
}

// part asks for everything from have on, and writes what comes.
func (c *Client) part(ctx context.Context, s *session, a Artifact, f *os.File, have int64, progress func(int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.o.Stall, func() { cancel(errStalled) })
	defer watchdog.Stop()

	header := http.Header{"Accept-Encoding": {"identity"}}
	if have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := s.get(ctx, "blobs/"+a.Digest, header)
	if err != nil {
		return kindOf(cause(ctx, err))
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		have = 0 // from the start, whatever was asked for
	case code == http.StatusPartialContent:
		var first int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &first); err != nil || first != have {
			return fmt.Errorf("%w: another part of the file", ErrDigest)
		}
	case code == http.StatusRequestedRangeNotSatisfiable && have > 0:
		return f.Truncate(0)
	default:
		return kindOf(transport.CheckError(resp, http.StatusOK))
	}
	if err := f.Truncate(have); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			watchdog.Reset(c.o.Stall)
			if have+int64(n) > a.Size {
				return fmt.Errorf("%w: more than %d bytes", ErrDigest, a.Size)
			}
			if _, err := f.WriteAt(buf[:n], have); err != nil {
				return err
			}
			have += int64(n)
			if progress != nil {
				progress(have)
			}
		}
		switch {
		case errors.Is(err, io.EOF) && have == a.Size:
			return nil
		case errors.Is(err, io.EOF):
			return kindOf(io.ErrUnexpectedEOF)
		case err != nil:
			return kindOf(cause(ctx, err))
		}
	}
}

// cause is why a request was given up, if it was.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

func retryable(err error) bool { return errors.Is(err, ErrUnreachable) }

// verify reads the whole file, of which a part may be from another day.
func verify(ctx context.Context, a Artifact, f *os.File) error {
	hash := sha256.New()
	if err := copying.Copy(ctx, hash, io.NewSectionReader(f, 0, a.Size), nil); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != a.Digest {
		return errors.Join(fmt.Errorf("%w: a file with the digest %s instead of %s", ErrDigest, got, a.Digest), f.Truncate(0))
	}
	return nil
}
