package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Config says where the server is and how to speak to it. URL and APIKey are required.
type Config struct {
	// URL is the server's address, https://host, http://host, or with wss or ws; it may carry a
	// port and a path. Port, if not 0, is added to it. APIPath is appended to its path, unless
	// the path already ends with it; "" means that the API is at the root.
	URL     string
	Port    int
	APIPath string
	APIKey  string
	// CAFile is a PEM file of authorities that are trusted besides the system's.
	CAFile string
	// Log gets what happens to the session; nil means nothing is logged.
	Log *slog.Logger
	// PollInterval is the longest time between two reminders to list the open runs. Default 30 s.
	PollInterval time.Duration
	// MaxRun bounds one run in an answer, input included, in bytes. Default 1 GiB.
	MaxRun int64
	// Version is the node's version for the User-Agent header. Default "dev".
	Version string
	// Timing overrides the session's intervals; the zero value is what a real server needs.
	Timing Timing
}

// Timing holds the intervals of a session. A zero field takes the default.
type Timing struct {
	Sync         time.Duration // wait for the server's greeting after the socket is up; 15 s
	FirstPing    time.Duration // first application ping after that; 5 s
	PingEvery    time.Duration // later application pings; 60 s (a node unheard of for 65 s counts as offline)
	BackoffMin   time.Duration // longest first delay before a reconnect; 1 s
	BackoffMax   time.Duration // longest delay before a reconnect; 30 s
	Stable       time.Duration // a connection that lived so long resets the delay; 60 s
	RefreshAhead time.Duration // renew the token so long before it expires; 600 s
	Call         time.Duration // limit of one small request, all in all; 60 s
	Stall        time.Duration // limit on no progress in any request; 90 s
	Store        time.Duration // the same once the server has all of a blob, which it may have yet to store; 10 min
	Echo         time.Duration // wait for the echo of a run's log before its outcome is sent; 2 s
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.Sync, 15*time.Second)
	set(&t.FirstPing, 5*time.Second)
	set(&t.PingEvery, 60*time.Second)
	set(&t.BackoffMin, time.Second)
	set(&t.BackoffMax, 30*time.Second)
	set(&t.Stable, 60*time.Second)
	set(&t.RefreshAhead, 600*time.Second)
	set(&t.Call, 60*time.Second)
	set(&t.Stall, 90*time.Second)
	set(&t.Store, 10*time.Minute)
	set(&t.Echo, 2*time.Second)
	return t
}

// addresses builds the base of the REST API and the address of the event socket, which is at the
// root of the host whatever the API's path.
func addresses(c Config) (api, socket *url.URL, err error) {
	if c.URL == "" {
		return nil, nil, errors.New("server_url is missing: set it to the address of the vantage6 server, such as https://vantage6.example.org")
	}
	u, err := url.Parse(strings.TrimSpace(c.URL))
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return nil, nil, fmt.Errorf("server_url %q is not an address: write it like https://vantage6.example.org", c.URL)
	}
	switch u.Scheme {
	case "https", "http":
	case "wss":
		u.Scheme = "https"
	case "ws":
		u.Scheme = "http"
	default:
		return nil, nil, fmt.Errorf("server_url %q has the scheme %q: use https:// or http://", c.URL, u.Scheme)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, nil, fmt.Errorf("server_url %q may consist of scheme, host, port and path only", u.Redacted())
	}
	if c.Port < 0 || c.Port > 65535 {
		return nil, nil, fmt.Errorf("port %d is not a port number: use 1 to 65535", c.Port)
	}
	if c.Port != 0 {
		if own := u.Port(); own != "" && own != strconv.Itoa(c.Port) {
			return nil, nil, fmt.Errorf("server_url %q and port %d name two different ports: remove one of them", c.URL, c.Port)
		}
		host := u.Hostname()
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		u.Host = host
		if !(u.Scheme == "https" && c.Port == 443 || u.Scheme == "http" && c.Port == 80) {
			u.Host += ":" + strconv.Itoa(c.Port)
		}
	}
	apiPath := path.Clean("/" + c.APIPath)
	base := path.Clean("/" + u.Path)
	if apiPath != "/" && base != apiPath && !strings.HasSuffix(base, apiPath) {
		base = path.Join(base, apiPath)
	}
	if base == "/" {
		base = ""
	}
	u.Path, u.RawPath = base, ""
	return u, &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/socket.io/"}, nil
}
