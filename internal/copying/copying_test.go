package copying

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAllIsCopiedAndTold(t *testing.T) {
	for _, size := range []int{0, 1, step - 1, step, step + 1, 2 * step} {
		want := bytes.Repeat([]byte{'x'}, size)
		var got bytes.Buffer
		var told []int64
		if err := Copy(t.Context(), &got, bytes.NewReader(want), func(done int64) { told = append(told, done) }); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d of %d bytes were copied, or others", got.Len(), size)
		}
		if !slices.IsSorted(told) || size > 0 && (len(told) == 0 || told[len(told)-1] != int64(size)) || size == 0 && len(told) > 0 {
			t.Errorf("of %d bytes it told %d", size, told)
		}
	}
}

func TestACopyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := io.MultiReader(strings.NewReader("x"), zeros{})
	if err := Copy(ctx, io.Discard, endless, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsOfBothSidesAreReturned(t *testing.T) {
	broken := errors.New("broken")
	if err := Copy(t.Context(), io.Discard, iotest.ErrReader(broken), nil); !errors.Is(err, broken) {
		t.Errorf("reading: %v", err)
	}
	r, w := io.Pipe()
	r.CloseWithError(broken)
	if err := Copy(t.Context(), w, zeros{}, nil); !errors.Is(err, broken) {
		t.Errorf("writing: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
