package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"unicode"
)

func (s *Server) routes() {
	st := s.o.Station
	get := func(path string, h http.Handler) { s.mux.Handle("GET "+path, h) }
	post := func(path string, h http.Handler) { s.mux.Handle("POST "+path, h) }

	get(pathVersion, s.unary(s.o.CallTime, func(*request) (unaryCall, error) {
		return func(context.Context) (any, error) { return Version{Version: s.o.Version, Protocol: Protocol}, nil }, nil
	}))
	get(pathRuns, s.stream(func(r *request) (streamCall, error) {
		q := RunQuery{All: r.flag("all")}
		return func(ctx context.Context, send func(any) error) error {
			return st.Runs(ctx, q, func(run *Run) error { return send(run) })
		}, nil
	}))
	get(pathRun, s.unary(s.o.CallTime, func(r *request) (unaryCall, error) {
		run := r.run()
		return func(ctx context.Context) (any, error) { return st.Inspect(ctx, run) }, nil
	}))
	get(pathLogs, s.stream(func(r *request) (streamCall, error) {
		run, o := r.run(), LogOptions{Follow: r.flag("follow"), Since: r.time("since"), Tail: r.count("tail")}
		return func(ctx context.Context, send func(any) error) error {
			return st.Logs(ctx, run, o, func(l *LogLine) error { return send(l) })
		}, nil
	}))
	get(pathTop, s.unary(s.o.CallTime, func(r *request) (unaryCall, error) {
		run := r.run()
		return func(ctx context.Context) (any, error) { return st.Top(ctx, run) }, nil
	}))
	get(pathStats, s.unary(s.o.CallTime, func(r *request) (unaryCall, error) {
		runs := r.ids("run")
		return func(ctx context.Context) (any, error) { return st.Stats(ctx, runs) }, nil
	}))
	get(pathWatch, s.stream(func(r *request) (streamCall, error) {
		runs, interval := r.ids("run"), r.interval("interval")
		return func(ctx context.Context, send func(any) error) error {
			return watch(ctx, st, runs, interval, func(f *StatsFrame) error { return send(f) })
		}, nil
	}))
	get(pathEvents, s.stream(func(r *request) (streamCall, error) {
		o := EventOptions{Follow: r.flag("follow"), Since: r.time("since")}
		return func(ctx context.Context, send func(any) error) error {
			return st.Events(ctx, o, func(e *Event) error { return send(e) })
		}, nil
	}))
	get(pathQueue, s.unary(s.o.CallTime, func(*request) (unaryCall, error) {
		return func(ctx context.Context) (any, error) { return st.Queue(ctx) }, nil
	}))
	get(pathInfo, s.unary(s.o.CallTime, func(*request) (unaryCall, error) {
		return func(ctx context.Context) (any, error) { return st.Info(ctx) }, nil
	}))

	post(pathKill, s.unary(s.o.CallTime, func(r *request) (unaryCall, error) {
		run := r.run()
		return s.audited("kill", []any{"run", run}, func(ctx context.Context) (any, error) { return struct{}{}, st.Kill(ctx, run) }), nil
	}))
	post(pathApprove, s.unary(s.o.CallTime, func(r *request) (unaryCall, error) {
		run := r.run()
		return s.audited("approve", []any{"run", run}, func(ctx context.Context) (any, error) { return struct{}{}, st.Approve(ctx, run) }), nil
	}))
	post(pathDeny, s.unary(s.o.CallTime, func(r *request) (unaryCall, error) {
		run := r.run()
		var d denial
		if err := r.decode(&d); err != nil {
			return nil, err
		}
		if len(d.Words) > MaxWords || strings.ContainsFunc(d.Words, unicode.IsControl) {
			return nil, Problemf(ErrInvalid, "the reason of a denial is one line of at most %d bytes", MaxWords)
		}
		return s.audited("deny", []any{"run", run, "reason", d.Words}, func(ctx context.Context) (any, error) { return struct{}{}, st.Deny(ctx, run, d.Words) }), nil
	}))
	post(pathReload, s.unary(s.o.CallTime, func(*request) (unaryCall, error) {
		return s.audited("reload", nil, func(ctx context.Context) (any, error) { return st.Reload(ctx) }), nil
	}))
	post(pathPause, s.unary(s.o.CallTime, func(*request) (unaryCall, error) {
		return s.audited("pause", nil, func(ctx context.Context) (any, error) { return struct{}{}, st.Pause(ctx) }), nil
	}))
	post(pathResume, s.unary(s.o.CallTime, func(*request) (unaryCall, error) {
		return s.audited("resume", nil, func(ctx context.Context) (any, error) { return struct{}{}, st.Resume(ctx) }), nil
	}))
	s.mux.Handle("PATCH "+pathLimits, s.unary(s.o.CallTime, func(r *request) (unaryCall, error) {
		run := r.run()
		var c LimitChange
		if err := r.decode(&c); err != nil {
			return nil, err
		}
		if c.Empty() {
			return nil, Problemf(ErrInvalid, "no limit to change was named")
		}
		return s.audited("update", []any{"run", run, "change", string(r.body)}, func(ctx context.Context) (any, error) { return st.Update(ctx, run, c) }), nil
	}))
	// Removing images takes as long as it takes.
	post(pathGC, s.unary(0, func(r *request) (unaryCall, error) {
		o := GCOptions{DryRun: r.flag("dry_run"), All: r.flag("all")}
		return s.audited("gc", []any{"dry_run", o.DryRun, "all", o.All}, func(ctx context.Context) (any, error) { return st.GC(ctx, o) }), nil
	}))

	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, Problemf(ErrProtocol, "the node (v6node %s) does not know the request %s %q: use the node's own program", s.o.Version, r.Method, clip(r.URL.Path)))
	})
}

// audited writes down who changed what.
func (s *Server) audited(command string, what []any, call unaryCall) unaryCall {
	return func(ctx context.Context) (any, error) {
		peer, _ := PeerFrom(ctx)
		answer, err := call(ctx)
		attrs := slices.Concat([]any{"command", command, "uid", peer.UID, "pid", peer.PID}, what)
		if err != nil {
			attrs = append(attrs, "error", err)
		}
		s.o.Log.InfoContext(ctx, "administrator's command", attrs...)
		if s.o.Changed != nil {
			s.o.Changed(ctx, peer, command, what, err)
		}
		return answer, err
	}
}

// clip keeps a long text out of messages.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
