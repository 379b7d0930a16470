// Package journal writes logs for systemd's journal: one line a record, without a time
// of its own (the journal has one), and with the level in front as syslog's priority
// (sd-daemon(3)), which the journal takes off and filters by.
package journal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Prefixes of lines, by priority.
const (
	Error   = "<3>"
	Warning = "<4>"
	Info    = "<6>"
	Debug   = "<7>"
)

// Connected tells whether a file is the journal's: systemd names the one that it gave to
// a service in JOURNAL_STREAM, as device and inode (systemd.exec(5)). The variable
// alone says nothing: a program that was started by the service inherits it.
func Connected(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// Handler writes records as text, as slog.TextHandler does but for time and prefix.
type Handler struct {
	out  *output
	text slog.Handler
}

// output is shared by a handler and all that were made of it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
	w   io.Writer
}

// NewHandler makes a handler for records from a level on.
func NewHandler(w io.Writer, level slog.Leveler) *Handler {
	out := &output{w: w}
	return &Handler{out: out, text: slog.NewTextHandler(&out.buf, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
				return slog.Attr{}
			}
			return a
		},
	})}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.text.Enabled(ctx, l) }

// Handle implements slog.Handler. A record is one write.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.buf.Reset()
	h.out.buf.WriteString(prefix(r.Level))
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.w.Write(h.out.buf.Bytes())
	return err
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{out: h.out, text: h.text.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{out: h.out, text: h.text.WithGroup(name)}
}

func prefix(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return Error
	case l >= slog.LevelWarn:
		return Warning
	case l >= slog.LevelInfo:
		return Info
	}
	return Debug
}
