package admin

import (
	"encoding/json"
	"time"
)

// Protocol is the version of the protocol that this program speaks.
const Protocol = 1

// Headers that both sides send: the protocol's version and the program's.
const (
	headerProtocol = "V6node-Admin-Protocol"
	headerVersion  = "V6node-Version"
)

// Version is the answer to "GET /version", the one request that is the same in
// all versions of the protocol.
type Version struct {
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
}

// Paths of the protocol. In those with {run} that is the run's id.
const (
	pathVersion = "/version"
	pathRuns    = "/v1/runs"
	pathRun     = "/v1/runs/{run}"
	pathLogs    = "/v1/runs/{run}/logs"
	pathTop     = "/v1/runs/{run}/processes"
	pathKill    = "/v1/runs/{run}/kill"
	pathLimits  = "/v1/runs/{run}/limits"
	pathStats   = "/v1/stats"
	pathWatch   = "/v1/stats/watch"
	pathEvents  = "/v1/events"
	pathQueue   = "/v1/queue"
	pathPause   = "/v1/pause"
	pathResume  = "/v1/resume"
	pathInfo    = "/v1/info"
	pathGC      = "/v1/gc"
	pathApprove = "/v1/runs/{run}/approve"
	pathDeny    = "/v1/runs/{run}/deny"
	pathReload  = "/v1/reload"
)

// Sizes that neither side exceeds or accepts.
const (
	maxHeader = 32 << 10
	maxBody   = 64 << 10
	maxAnswer = 32 << 20
	maxLine   = 4 << 20 // of a stream
)

// wireLine is one line of a stream. The last line has End or Error, and a
// stream without such a line was cut off.
type wireLine struct {
	Item  json.RawMessage `json:"item,omitempty"`
	End   bool            `json:"end,omitempty"`
	Error *wireError      `json:"error,omitempty"`
}

// wireFailure is the body of an answer that is not 200.
type wireFailure struct {
	Error *wireError `json:"error"`
}

// Bounds of the interval of Client.Watch.
const (
	MinInterval = 100 * time.Millisecond
	MaxInterval = time.Hour
)

// StatsFrame is what all watched runs use at one moment, in the order of ids.
type StatsFrame struct {
	Time time.Time `json:"time"`
	Runs []Stats   `json:"runs"`
}

// MaxWords bounds what a denial says, in bytes.
const MaxWords = 1024

// denial is the body of a denial.
type denial struct {
	Words string `json:"words"`
}
