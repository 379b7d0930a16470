package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// DirName is the chain's directory in a node's state directory.
const DirName = "audit"

// Event is what an entry tells of.
type Event string

// The events.
const (
	NodeStarted Event = "node-started"
	NodeStopped Event = "node-stopped"
	// Decided: the policy has allowed or refused a run.
	Decided Event = "decided"
	// Started: the algorithm is about to be started on the data.
	Started Event = "started"
	// Ended: the outcome of a run is known.
	Ended Event = "ended"
	// Delivered: the server has acknowledged the outcome.
	Delivered Event = "delivered"
	// Undelivered: the server no longer has the run, and gets nothing.
	Undelivered Event = "undelivered"
	// Approved, Denied: the administrator's word on a run that waited for it.
	Approved Event = "approved"
	Denied   Event = "denied"
	// Reloaded: the configuration was read again.
	Reloaded Event = "reloaded"
	// Steered: the administrator has intervened.
	Steered Event = "steered"
	// Recovered: a crash had cut the last line, which was taken off.
	Recovered Event = "recovered"
	// Damaged: the chain was found broken when the node started.
	Damaged Event = "damaged"
)

// Entry is one line. Numbers of the server are 0 and left out where there are
// none; times are UTC.
type Entry struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Prev string    `json:"prev"`

	Event Event  `json:"event"`
	Node  string `json:"node,omitempty"` // the instance, as in the runtime's labels

	Run           int64 `json:"run,omitempty"`
	Task          int64 `json:"task,omitempty"`
	Parent        int64 `json:"parent,omitempty"` // task
	Collaboration int64 `json:"collaboration,omitempty"`
	Organization  int64 `json:"organization,omitempty"` // that asked
	User          int64 `json:"user,omitempty"`         // who asked

	Image     string   `json:"image,omitempty"`  // as asked for
	Pinned    string   `json:"pinned,omitempty"` // with the digest that runs
	Function  string   `json:"function,omitempty"`
	Databases []string `json:"databases,omitempty"` // labels

	Allowed *bool `json:"allowed,omitempty"`
	// Reason is why the policy, the outcome or the administrator's act is what
	// it is.
	Reason string `json:"reason,omitempty"`

	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	ExitCode   *int      `json:"exit_code,omitempty"`
	Status     string    `json:"status,omitempty"`    // the server's word
	Outcome    string    `json:"outcome,omitempty"`   // the node's
	BytesOut   *int64    `json:"bytes_out,omitempty"` // of the result, before encryption
	// Connections are all ways out that the run had beside its result.
	Connections []Connection `json:"connections,omitempty"`

	Actor string `json:"actor,omitempty"` // the administrator's user
}

// Others stands for what has no place of its own in an entry.
const Others = "others"

// Connection is one way out of a run and what it has carried: bytes of the connection or, of HTTP, of
// requests and of the bodies of answers.
type Connection struct {
	At          string `json:"at"`               // HOST:PORT as the algorithm names it, or Others
	Kind        string `json:"kind"`             // tcp, unix, tunnel, whitelist, vantage6, or Others
	Target      string `json:"target,omitempty"` // where it leads; of the whitelist also Others
	Connections int64  `json:"connections"`      // or requests
	Failed      int64  `json:"failed,omitempty"`
	Sent        int64  `json:"sent"` // by the algorithm
	Received    int64  `json:"received"`
	AtLeast     bool   `json:"at_least,omitempty"` // a part may not have been counted, because the node was killed
}

// Bounds of what others can put into an entry, in bytes and items.
const (
	maxText  = 4096
	maxItems = 256
)

// maxLine bounds a line that is read: longer than any that is written.
const maxLine = (4 + 4*maxItems) * maxText * 6

// first is the predecessor of the first entry.
var first = strings.Repeat("0", hex.EncodedLen(sha256.Size))

// line is the entry as it is written, without the newline.
func (e Entry) line() ([]byte, error) {
	for _, s := range []*string{&e.Image, &e.Pinned, &e.Function, &e.Reason, &e.Status, &e.Outcome, &e.Actor} {
		*s = bounded(*s)
	}
	kept := e.Databases[:min(len(e.Databases), maxItems)]
	e.Databases = nil
	for _, d := range kept {
		e.Databases = append(e.Databases, bounded(d))
	}
	e.Connections = few(e.Connections)
	for i := range e.Connections {
		c := &e.Connections[i]
		c.At, c.Target = bounded(c.At), bounded(c.Target)
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write an audit entry as JSON: %w", err)
	}
	return b, nil
}

// few copies connections. Of too many the last ones become one, so that no byte is missing.
func few(all []Connection) []Connection {
	kept := slices.Clone(all[:min(len(all), maxItems)])
	if len(all) <= maxItems {
		return kept
	}
	rest := Connection{At: Others, Kind: Others}
	for _, c := range all[maxItems-1:] {
		rest.Connections += c.Connections
		rest.Failed += c.Failed
		rest.Sent += c.Sent
		rest.Received += c.Received
		rest.AtLeast = rest.AtLeast || c.AtLeast
	}
	kept[maxItems-1] = rest
	return kept
}

func bounded(s string) string {
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}
