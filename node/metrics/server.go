package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/v6node/v6node/node/health"
)

// Limits of the server: a scrape is small and quick, and a few at a time are
// enough.
const (
	readTime    = 10 * time.Second
	writeTime   = 30 * time.Second
	idleTime    = 2 * time.Minute
	endTime     = 5 * time.Second
	maxScrapes  = 4
	maxHeaders  = 16 << 10
	contentText = "text/plain; charset=utf-8"
	contentJSON = "application/json"
)

// Health answers for the node's loops and conditions.
type Health interface {
	// Alive tells which loops make progress, without waiting.
	Alive() health.Report
	// Ready tells which conditions for taking runs are met.
	Ready(ctx context.Context) health.Report
}

// Options of a Server. All are required.
type Options struct {
	Recorder *Recorder
	Source   Source
	Health   Health
	Version  string // of v6node
	Log      *slog.Logger
}

// Server answers /metrics, /healthz and /readyz.
type Server struct{ o Options }

// NewServer makes a server.
func NewServer(o Options) *Server { return &Server{o} }

// registry holds everything that is exported. ctx ends with what serves it.
func (s *Server) registry(ctx context.Context) (*prometheus.Registry, error) {
	all := append(s.o.Recorder.collectors(),
		state{ctx: ctx, source: s.o.Source, health: s.o.Health, version: s.o.Version},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg := prometheus.NewRegistry()
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return reg, nil
}

// handler answers the paths. ctx ends with what serves it.
func (s *Server) handler(ctx context.Context) (http.Handler, error) {
	reg, err := s.registry(ctx)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn), MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, s.o.Health.Alive(), "healthy")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, s.o.Health.Ready(r.Context()), "ready")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentText)
		s.write(w, "v6node: /metrics for Prometheus, /healthz, /readyz\n")
	})
	return mux, nil
}

// answer sends a report as text or, to those who ask for it, as JSON: 200 when
// all is well, 503 when not.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, rep health.Report, word string) {
	code, text := http.StatusOK, word+"\n"
	if !rep.OK {
		code, text = http.StatusServiceUnavailable, "not "+text
	}
	for _, i := range rep.Items {
		message := "ok"
		if !i.OK {
			message = i.Message
		}
		text += i.Name + ": " + message + "\n"
	}
	w.Header().Set("Cache-Control", "no-store")
	content := contentText
	if prefersJSON(r.Header.Get("Accept")) {
		b, err := json.Marshal(rep)
		if err != nil {
			s.o.Log.Error("the health report cannot be sent as JSON", "error", err)
			code = http.StatusInternalServerError
		}
		content, text = contentJSON, string(b)+"\n"
	}
	w.Header().Set("Content-Type", content)
	w.WriteHeader(code)
	s.write(w, text)
}

func (s *Server) write(w io.Writer, text string) {
	if _, err := io.WriteString(w, text); err != nil {
		s.o.Log.Debug("an answer about the node's health was not taken", "error", err)
	}
}

// prefersJSON reads an Accept header (RFC 9110, section 12.5.1): JSON must be
// named and be wanted more than text.
func prefersJSON(accept string) bool {
	best := map[string]float64{}
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		best[kind] = max(best[kind], q)
	}
	return best["application/json"] > best["text/plain"]
}

// Serve answers on the listener until ctx ends, then closes it. Requests under
// way are finished, in a few seconds at most. It returns an error only where it
// ends by itself.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h, err := s.handler(ctx)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	srv := &http.Server{
		Handler: h, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	err = srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-ended
	return err
}
