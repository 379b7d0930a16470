package hosts

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/v6node/v6node/internal/plainfile"
)

// Bounds of a file: a person's has some lines.
const (
	maxFile  = 256 << 10
	maxHosts = 64
)

func readAtMost(file string, most int64) ([]byte, error) {
	f, err := plainfile.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s is longer than %d KiB", file, most>>10)
	}
	return text, err
}

// settings are what a file says of one host. Some keys take more than one type.
type settings struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// parse reads a hosts.toml. Relative files are in dir.
func parse(text []byte, dir string) ([]Host, error) {
	var in struct {
		settings
		Server string              `toml:"server"`
		Host   map[string]settings `toml:"host"`
	}
	if err := toml.Unmarshal(text, &in); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		return nil, err
	}
	if len(in.Host) > maxHosts {
		return nil, fmt.Errorf("it has more than %d hosts", maxHosts)
	}
	var out []Host
	for _, name := range inOrder(text) {
		s, ok := in.Host[name]
		if !ok {
			continue // a table of another kind
		}
		h, err := s.host(name, dir)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", name, err)
		}
		h.Mirror = true
		out = append(out, h)
	}
	if len(out) != len(in.Host) {
		return nil, errors.New(`each host must have a table of its own, [host."https://mirror.example.org"]`)
	}
	own, err := in.host(in.Server, dir)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return append(out, own), nil
}

// inOrder are the names of the hosts as they stand in the file: that is the order
// in which they are asked, and decoding loses it.
func inOrder(text []byte) []string {
	var p unstable.Parser
	p.Reset(text)
	var out []string
	seen := map[string]bool{}
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var words []string
		for key := e.Key(); key.Next(); {
			words = append(words, string(key.Node().Data))
		}
		if len(words) >= 2 && words[0] == "host" && !seen[words[1]] {
			seen[words[1]] = true
			out = append(out, words[1])
		}
	}
	return out
}

func (s *settings) host(at, dir string) (Host, error) {
	h := Host{Path: apiPath, SkipVerify: s.SkipVerify}
	if at != "" {
		if err := h.address(at, s.OverridePath); err != nil {
			return Host{}, err
		}
	}
	if len(s.Capabilities) == 0 {
		h.Resolve, h.Pull = true, true
	}
	for _, c := range s.Capabilities {
		switch strings.ToLower(c) {
		case "pull":
			h.Pull = true
		case "resolve":
			h.Resolve = true
		case "push", "referrers": // the node does neither
		default:
			return Host{}, fmt.Errorf("the capability %q is none of pull, resolve, push and referrers", c)
		}
	}
	var err error
	if h.CAs, err = files(s.CA, dir); err != nil {
		return Host{}, fmt.Errorf("ca: %w", err)
	}
	if h.Client, err = pairs(s.Client, dir); err != nil {
		return Host{}, fmt.Errorf("client: %w", err)
	}
	for name, value := range s.Header {
		values, err := texts(value)
		if err != nil {
			return Host{}, fmt.Errorf("header %q: %w", name, err)
		}
		if h.Header == nil {
			h.Header = http.Header{}
		}
		for _, v := range values {
			h.Header.Add(name, v)
		}
	}
	if s.DialTimeout != "" {
		if h.DialTime, err = time.ParseDuration(s.DialTimeout); err != nil || h.DialTime <= 0 {
			return Host{}, fmt.Errorf("dial_timeout: %q is not a duration such as 5s", s.DialTimeout)
		}
	}
	return h, nil
}

// address reads "https://mirror.example.org/path", or without a scheme.
func (h *Host) address(text string, override bool) error {
	if !strings.HasPrefix(text, "http") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("it is not an address such as https://mirror.example.org")
	}
	h.Scheme, h.Host, h.Path = u.Scheme, u.Host, u.Path
	if h.Path != "" {
		h.Path = path.Clean(h.Path)
	}
	if !override && !strings.HasSuffix(h.Path, apiPath) {
		h.Path = strings.TrimSuffix(h.Path, "/") + apiPath
	}
	return nil
}

// texts reads a text or a list of them.
func texts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, errors.New("it must be a text or a list of texts")
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, errors.New("it must be a text or a list of texts")
}

func files(v any, dir string) ([]string, error) {
	out, err := texts(v)
	for i, f := range out {
		out[i] = inDir(f, dir)
	}
	return out, err
}

// pairs reads a file, a list of files, or a list of [certificate, key].
func pairs(v any, dir string) ([]KeyPair, error) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []KeyPair
	for _, item := range list {
		names, err := files(item, dir)
		_, nested := item.([]any)
		switch {
		case err != nil:
			return nil, err
		case nested && len(names) != 2:
			return nil, errors.New("a pair must be [certificate, key]")
		case nested:
			out = append(out, KeyPair{names[0], names[1]})
		case len(names) == 1:
			out = append(out, KeyPair{Certificate: names[0]})
		}
	}
	return out, nil
}

func inDir(file, dir string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}
