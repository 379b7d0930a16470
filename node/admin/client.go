package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	dialTime = 5 * time.Second
	// answerTime is longer than a server takes for an answer.
	answerTime = defaultCallTime + 15*time.Second
)

// Client speaks to the node whose state directory it was made for. It is a
// Station: errors have the node's sentence and kind. Besides, ErrDown says that
// no node answers, ErrRefused that the user may not, ErrProtocol that node and
// program do not fit. Making one does not connect.
type Client struct {
	path string
	http *http.Client
}

var _ Station = (*Client)(nil)

// NewClient makes a client for the node with the given state directory.
func NewClient(stateDir string) *Client {
	c := &Client{path: filepath.Join(stateDir, SocketName)}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, stateDir) },
		DisableCompression: true,
		DisableKeepAlives:  true, // so that nothing is left to close
	}}
	return c
}

// Path is the socket's path.
func (c *Client) Path() string { return c.path }

func dial(ctx context.Context, dir string) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	err = atDir(dir, func(short string) (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", filepath.Join(short, SocketName))
		return err
	})
	return conn, err
}

// Version asks the node for its version, whatever protocol it speaks.
func (c *Client) Version(ctx context.Context) (*Version, error) {
	return get[Version](ctx, c, pathVersion, nil)
}

// Runs is Station.Runs.
func (c *Client) Runs(ctx context.Context, q RunQuery, fn func(*Run) error) error {
	args := url.Values{}
	setFlag(args, "all", q.All)
	return follow(ctx, c, pathRuns, args, fn)
}

// Inspect is Station.Inspect.
func (c *Client) Inspect(ctx context.Context, run int64) (*Inspection, error) {
	return get[Inspection](ctx, c, runPath(pathRun, run), nil)
}

// Logs is Station.Logs.
func (c *Client) Logs(ctx context.Context, run int64, o LogOptions, fn func(*LogLine) error) error {
	args := url.Values{}
	setFlag(args, "follow", o.Follow)
	setTime(args, "since", o.Since)
	if o.Tail != nil {
		args.Set("tail", strconv.Itoa(*o.Tail))
	}
	return follow(ctx, c, runPath(pathLogs, run), args, fn)
}

// Stats is Station.Stats.
func (c *Client) Stats(ctx context.Context, runs []int64) ([]Usage, error) {
	return list[Usage](ctx, c, pathStats, idArgs(runs))
}

// Watch calls fn with what the named runs use, or all when none is named: at
// once and then at each interval, until ctx ends or none of the named ones
// lives. A named run that does not live at the beginning is ErrState.
func (c *Client) Watch(ctx context.Context, runs []int64, interval time.Duration, fn func(*StatsFrame) error) error {
	args := idArgs(runs)
	args.Set("interval", interval.String())
	return follow(ctx, c, pathWatch, args, fn)
}

// Top is Station.Top.
func (c *Client) Top(ctx context.Context, run int64) ([]Process, error) {
	return list[Process](ctx, c, runPath(pathTop, run), nil)
}

// Kill is Station.Kill.
func (c *Client) Kill(ctx context.Context, run int64) error {
	return c.order(ctx, runPath(pathKill, run))
}

// Approve is Station.Approve.
func (c *Client) Approve(ctx context.Context, run int64) error {
	return c.order(ctx, runPath(pathApprove, run))
}

// Deny is Station.Deny.
func (c *Client) Deny(ctx context.Context, run int64, words string) error {
	body, err := json.Marshal(denial{words})
	if err != nil {
		return err
	}
	_, err = call[struct{}](ctx, c, answerTime, http.MethodPost, runPath(pathDeny, run), nil, body)
	return err
}

// Reload is Station.Reload.
func (c *Client) Reload(ctx context.Context) (*Change, error) {
	return call[Change](ctx, c, answerTime, http.MethodPost, pathReload, nil, nil)
}

// Update is Station.Update.
func (c *Client) Update(ctx context.Context, run int64, change LimitChange) (*Limits, error) {
	body, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	return call[Limits](ctx, c, answerTime, http.MethodPatch, runPath(pathLimits, run), nil, body)
}

// Events is Station.Events.
func (c *Client) Events(ctx context.Context, o EventOptions, fn func(*Event) error) error {
	args := url.Values{}
	setFlag(args, "follow", o.Follow)
	setTime(args, "since", o.Since)
	return follow(ctx, c, pathEvents, args, fn)
}

// Queue is Station.Queue.
func (c *Client) Queue(ctx context.Context) ([]Waiting, error) {
	return list[Waiting](ctx, c, pathQueue, nil)
}

// Pause is Station.Pause.
func (c *Client) Pause(ctx context.Context) error { return c.order(ctx, pathPause) }

// Resume is Station.Resume.
func (c *Client) Resume(ctx context.Context) error { return c.order(ctx, pathResume) }

// Info is Station.Info.
func (c *Client) Info(ctx context.Context) (*Info, error) { return get[Info](ctx, c, pathInfo, nil) }

// GC is Station.GC.
func (c *Client) GC(ctx context.Context, o GCOptions) (*GCReport, error) {
	args := url.Values{}
	setFlag(args, "dry_run", o.DryRun)
	setFlag(args, "all", o.All)
	return call[GCReport](ctx, c, 0, http.MethodPost, pathGC, args, nil)
}

func runPath(pattern string, run int64) string {
	const at = "/v1/runs/{run}"
	return "/v1/runs/" + strconv.FormatInt(run, 10) + pattern[len(at):]
}

func idArgs(runs []int64) url.Values {
	args := url.Values{}
	for _, id := range runs {
		args.Add("run", strconv.FormatInt(id, 10))
	}
	return args
}

func setFlag(args url.Values, name string, value bool) {
	if value {
		args.Set(name, "true")
	}
}

func setTime(args url.Values, name string, t time.Time) {
	if !t.IsZero() {
		args.Set(name, t.Format(time.RFC3339Nano))
	}
}

// order sends a command that has no answer but that it was done.
func (c *Client) order(ctx context.Context, path string) error {
	_, err := call[struct{}](ctx, c, answerTime, http.MethodPost, path, nil, nil)
	return err
}

func get[T any](ctx context.Context, c *Client, path string, args url.Values) (*T, error) {
	return call[T](ctx, c, answerTime, http.MethodGet, path, args, nil)
}

func list[T any](ctx context.Context, c *Client, path string, args url.Values) ([]T, error) {
	out, err := get[[]T](ctx, c, path, args)
	if err != nil {
		return nil, err
	}
	return *out, nil
}

// call sends a request and decodes its answer. A limit of 0 is none.
func call[T any](ctx context.Context, c *Client, limit time.Duration, method, path string, args url.Values, body []byte) (*T, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	res, err := c.do(ctx, method, path, args, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if len(raw) > maxAnswer {
		return nil, Problemf(ErrInternal, "the node's answer is larger than %d MiB: report this as a defect", maxAnswer>>20)
	}
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, Problemf(ErrProtocol, "the node's answer cannot be read: %v", err)
	}
	return out, nil
}

// follow calls fn with the items of a stream, until the stream ends.
func follow[T any](ctx context.Context, c *Client, path string, args url.Values, fn func(*T) error) error {
	ctx, cancel := context.WithCancel(ctx) // so that a stream that fn ends is not read to its end
	defer cancel()
	res, err := c.do(ctx, http.MethodGet, path, args, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, maxBody), maxLine)
	lines.Split(wholeLines)
	for lines.Scan() {
		var l wireLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return Problemf(ErrProtocol, "the node's answer cannot be read: %v", err)
		}
		switch {
		case l.Error != nil:
			return decodeError(l.Error)
		case l.End:
			return nil
		}
		item := new(T)
		if err := json.Unmarshal(l.Item, item); err != nil {
			return Problemf(ErrProtocol, "the node's answer cannot be read: %v", err)
		}
		if err := fn(item); err != nil {
			return err
		}
	}
	return c.failed(ctx, lines.Err())
}

// wholeLines splits into lines. A last line without a newline was cut off.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// do sends a request and returns the answer if it is a good one. The caller
// closes its body.
func (c *Client) do(ctx context.Context, method, path string, args url.Values, body []byte) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: "v6node", Path: path, RawQuery: args.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set(headerProtocol, strconv.Itoa(Protocol))
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if err := c.check(res, path); err != nil {
		return nil, errors.Join(err, res.Body.Close())
	}
	return res, nil
}

// check makes an error of an answer that is not what was asked for.
func (c *Client) check(res *http.Response, path string) error {
	switch theirs := res.Header.Get(headerProtocol); {
	case theirs == "":
		return Problemf(ErrProtocol, "what answers at %s is not a v6node", c.path)
	case theirs != strconv.Itoa(Protocol) && path != pathVersion:
		return Problemf(ErrProtocol, "the node (v6node %s) speaks version %s of the administration protocol and this program version %d: use the node's own program",
			strconv.Quote(clip(res.Header.Get(headerVersion))), strconv.Quote(clip(theirs)), Protocol)
	case res.StatusCode == http.StatusOK:
		return nil
	}
	var f wireFailure
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	if err != nil || f.Error == nil {
		return Problemf(ErrInternal, "the node answered %s", res.Status)
	}
	return decodeError(f.Error)
}

// failed says why there is no answer.
func (c *Client) failed(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return Problemf(ErrDown, "no node runs with the state directory %s (there is no %s): start it with v6node run, or name another with --state-dir or --config", filepath.Dir(c.path), c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return Problemf(ErrDown, "no node answers at %s: it has ended; start it with v6node run", c.path)
	case errors.Is(err, fs.ErrPermission):
		return Problemf(ErrRefused, "you may not use %s: run this command as root or as the user who runs the node", c.path)
	case errors.Is(err, context.DeadlineExceeded):
		return Problemf(ErrInternal, "the node did not answer at %s in time: its log may say why", c.path)
	case errors.Is(err, bufio.ErrTooLong):
		return Problemf(ErrProtocol, "a line of the node's answer is longer than %d MiB", maxLine>>20)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Problemf(ErrDown, "the node ended before it had answered in full")
	}
	return fmt.Errorf("ask the node at %s: %w", c.path, err)
}
