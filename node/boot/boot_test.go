package boot

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/v6node/v6node/node/config"
)

// TestAStartThatIsToStopIsNoFailure: here it waits for a runtime that does not answer.
func TestAStartThatIsToStopIsNoFailure(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "cri.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			stop()
			<-t.Context().Done()
		}
	}()
	cfg, _, err := config.Parse(filepath.Join(dir, "n.yaml"), fmt.Appendf(nil,
		"server_url: http://127.0.0.1:1\napi_key: k\nstate_dir: state\nruntime: {endpoint: 'unix://%s'}\nresources: {enforce: best-effort}\n", socket))
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(ctx, Options{Config: cfg, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("asked to stop, it ended with: %v", err)
	}
	if ctx.Err() == nil {
		t.Error("it did not come as far as the runtime")
	}
}
