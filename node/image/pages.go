package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxPages bounds the pages of one list of referrers. maxBody bounds all of them together.
const maxPages = 64

// paged makes the pages of a list of referrers one answer (OCI distribution-spec 1.1, "Listing Referrers"): the registry
// library reads the first only. The further ones are asked for as the first was, login included, and therefore of the same
// host only. A list that cannot be read to its end is an error, never a shorter list.
type paged struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p paged) RoundTrip(req *http.Request) (*http.Response, error) {
	first, err := p.RoundTripper.RoundTrip(req)
	if err != nil || req.Method != http.MethodGet || path.Base(path.Dir(req.URL.Path)) != "referrers" || first.StatusCode != http.StatusOK {
		return first, err
	}
	var list pages
	for resp, at := first, req.URL; ; {
		next, err := list.next(at, resp.Header.Values("Link"))
		if err == nil && next == nil && resp == first {
			return first, nil // as it came
		}
		if err == nil {
			err = list.read(resp.Body)
		}
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return nil, fmt.Errorf("the list of what refers to the image cannot be read: %w", err)
		}
		if next == nil {
			return list.answer(first)
		}
		further := req.Clone(req.Context())
		further.URL, at = next, next
		if resp, err = p.RoundTripper.RoundTrip(further); err != nil {
			return nil, err
		}
		switch code := resp.StatusCode; {
		case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
			return resp, nil // what is done then is done for the whole list
		case code != http.StatusOK:
			err := errors.Join(fmt.Errorf("the list of what refers to the image cannot be read: page %d: %w", list.count+1, answer{status: code}), resp.Body.Close())
			return nil, err
		}
	}
}

// pages are what was read of a list.
type pages struct {
	index v1.IndexManifest
	count int
	bytes int64
	seen  map[string]bool
}

// next is where the page behind the one at an address is, nil behind the last.
func (l *pages) next(at *url.URL, links []string) (*url.URL, error) {
	target, found, err := nextLink(links)
	if err != nil || !found {
		return nil, err
	}
	to, err := at.Parse(target)
	if err != nil {
		return nil, errors.New("its next page has an address that cannot be read")
	}
	if to.Scheme != at.Scheme || !strings.EqualFold(to.Host, at.Host) || to.User != nil {
		return nil, fmt.Errorf("its next page is said to be at %s, and only those at %s are read", short(to.Scheme+"://"+to.Host), at.Scheme+"://"+at.Host)
	}
	if ns := at.Query().Get("ns"); ns != "" { // the registry that a mirror is asked about
		q := to.Query()
		q.Set("ns", ns)
		to.RawQuery = q.Encode()
	}
	if l.seen == nil {
		l.seen = map[string]bool{at.String(): true}
	}
	if l.seen[to.String()] {
		return nil, errors.New("its pages lead in a circle")
	}
	l.seen[to.String()] = true
	if len(l.seen) > maxPages {
		return nil, fmt.Errorf("it has more than %d pages", maxPages)
	}
	return to, nil
}

// read takes one page.
func (l *pages) read(body io.Reader) error {
	l.count++
	text, err := io.ReadAll(io.LimitReader(body, maxBody-l.bytes+1))
	if err != nil {
		return err
	}
	if l.bytes += int64(len(text)); l.bytes > maxBody {
		return fmt.Errorf("it is longer than %d MiB", maxBody>>20)
	}
	m, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("page %d is no image index", l.count)
	}
	all := append(l.index.Manifests, m.Manifests...)
	if l.count == 1 {
		l.index = *m
	}
	l.index.Manifests = all
	return nil
}

// answer is the answer to the first page, with what stands in all of them.
func (l *pages) answer(first *http.Response) (*http.Response, error) {
	text, err := json.Marshal(l.index)
	if err != nil {
		return nil, fmt.Errorf("the list of what refers to the image cannot be read: %w", err)
	}
	first.Header.Del("Link")
	first.Header.Del("Content-Length")
	first.Body, first.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return first, nil
}

// errLink: whether there is a next page cannot be told.
var errLink = errors.New("the header Link, which says whether there is a next page, cannot be read")

// nextLink finds the target of rel="next" in Link headers (RFC 8288).
func nextLink(links []string) (target string, found bool, err error) {
	for _, rest := range links {
		for {
			if rest = strings.TrimLeft(rest, " \t,"); rest == "" {
				break
			}
			target, parameters, ok := strings.Cut(strings.TrimPrefix(rest, "<"), ">")
			if rest[0] != '<' || !ok {
				return "", false, errLink
			}
			if found, rest, ok = isNext(parameters); !ok {
				return "", false, errLink
			}
			if found {
				return target, true, nil
			}
		}
	}
	return "", false, nil
}

// isNext reads the parameters of one link, up to the comma behind them, and tells whether its relation is "next".
func isNext(s string) (next bool, rest string, ok bool) {
	for first := true; ; {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == ',' {
			return next, s, true
		}
		if s[0] != ';' {
			return false, "", false
		}
		s = strings.TrimLeft(s[1:], " \t")
		end := strings.IndexAny(s, "=;,")
		if end < 0 {
			end = len(s)
		}
		key, value := strings.TrimRight(s[:end], " \t"), ""
		if s = s[end:]; strings.HasPrefix(s, "=") {
			if value, s, ok = parameter(strings.TrimLeft(s[1:], " \t")); !ok {
				return false, "", false
			}
		}
		if strings.EqualFold(key, "rel") && first { // the first counts
			first = false
			for relation := range strings.FieldsSeq(value) {
				next = next || strings.EqualFold(relation, "next")
			}
		}
	}
}

// parameter reads a value, a word or a string in quotes.
func parameter(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, " \t;,")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
