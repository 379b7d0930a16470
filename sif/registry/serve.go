package registry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ErrNotLoopback: the address can be reached by others.
var ErrNotLoopback = errors.New("the registry for SIF images may only listen on a loopback address")

// Listen opens a listener on a loopback address, such as 127.0.0.1:0, and refuses any other.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, ErrNotLoopback
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", address)
}

// Serve answers requests until ctx ends, and then ends at once: a pull that is cut off is
// asked for again. It closes the listener.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
