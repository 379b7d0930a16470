package standin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// object is a JSON object of an answer.
type object map[string]any

// reply is what a handler answers with.
type reply struct {
	code   int
	body   any           // sent as JSON, unless stream is set
	stream io.ReadCloser // sent as application/octet-stream, without a length
	header http.Header   // additional headers
}

func ok(body any) *reply { return &reply{code: http.StatusOK, body: body} }

func refuse(code int, msg string) *reply { return &reply{code: code, body: object{"msg": msg}} }

// crash is the answer to what the real server does not handle.
func crash() *reply {
	return refuse(http.StatusInternalServerError, "An unexpected error occurred on the server!")
}

// incorrect is the answer to a body that the schema refuses.
func incorrect(field, why string) *reply {
	return &reply{code: http.StatusBadRequest, body: object{
		"msg": "Request body is incorrect", "errors": object{field: []string{why}},
	}}
}

func (p *reply) send(w http.ResponseWriter) {
	for k, v := range p.header {
		w.Header()[k] = v
	}
	if p.stream != nil {
		p.sendStream(w)
		return
	}
	data, err := json.Marshal(p.body)
	if err != nil {
		panic("standin: answer is not JSON: " + err.Error()) // our own maps only
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(p.code)
	w.Write(append(data, '\n'))
}

// sendStream sends a body as it is read. One that cannot be read to its end breaks
// the connection.
func (p *reply) sendStream(w http.ResponseWriter) {
	defer p.stream.Close() //nolint:errcheck // only read
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(p.code)
	_ = http.NewResponseController(w).Flush() // else a short body gets a length
	if _, err := io.Copy(w, p.stream); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// call is one request of an authenticated holder.
type call struct {
	s   *Server
	r   *http.Request
	who identity
}

// fields is a JSON object of a request, decoded key by key so that absent and null
// can be told apart.
type fields map[string]json.RawMessage

// body reads the request's JSON object.
func (c *call) body(w http.ResponseWriter) (fields, *reply) {
	data, err := io.ReadAll(http.MaxBytesReader(w, c.r.Body, c.s.opt.MaxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, refuse(http.StatusRequestEntityTooLarge, "Request body is too large")
		}
		return nil, refuse(http.StatusBadRequest, "Request body could not be read")
	}
	if !strings.HasPrefix(c.r.Header.Get("Content-Type"), "application/json") {
		return nil, refuse(http.StatusUnsupportedMediaType, "Did not attempt to load JSON data because the request Content-Type was not 'application/json'.")
	}
	var f fields
	if err := json.Unmarshal(data, &f); err != nil || f == nil {
		return nil, refuse(http.StatusBadRequest, "The browser (or proxy) sent a request that this server could not understand.")
	}
	return f, nil
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(bytes.TrimSpace(raw), []byte("null")) }

// allow refuses keys that are not named.
func (f fields) allow(keys ...string) *reply {
next:
	for k := range f {
		for _, known := range keys {
			if k == known {
				continue next
			}
		}
		return incorrect(k, "Unknown field.")
	}
	return nil
}

// text returns a string field; present tells whether it was there. Null and other
// types are refused.
func (f fields) text(key string) (value string, present bool, bad *reply) {
	raw, present := f[key]
	if !present {
		return "", false, nil
	}
	if isNull(raw) {
		return "", true, incorrect(key, "Field may not be null.")
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", true, incorrect(key, "Not a valid string.")
	}
	return value, true, nil
}

// number returns a positive integer field, 0 when it is absent.
func (f fields) number(key string) (value int64, bad *reply) {
	raw, present := f[key]
	if !present {
		return 0, nil
	}
	if isNull(raw) {
		return 0, incorrect(key, "Field may not be null.")
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return 0, incorrect(key, "Not a valid integer.")
	}
	if value < 1 {
		return 0, incorrect(key, "Must be greater than or equal to 1.")
	}
	return value, nil
}

// pathID returns the number in the path.
func (c *call) pathID() int64 { return atoi(c.r.PathValue("id")) }

// query returns a number from the query, 0 when it is absent or no number.
func (c *call) query(key string) int64 { return atoi(c.r.URL.Query().Get(key)) }

func atoi(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
