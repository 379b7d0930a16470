package standin

import (
	"regexp"
	"time"
)

// The real server checks a timestamp twice: a schema that accepts about any ISO
// 8601 form (else 400), then a parser that wants one to six fractional digits and
// nothing or exactly +00:00 behind them (else an unhandled error, 500).
var (
	isoForm    = regexp.MustCompile(`^\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{1,2}(:\d{1,2}([.,]\d{1,12})?)?\s*(Z|[+-]\d{2}(:?\d{2})?)?$`)
	parserForm = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{1,6})(\+00:00)?$`)
)

// timestampVerdict says what the server makes of a timestamp.
type timestampVerdict int

const (
	timestampGood timestampVerdict = iota
	timestampRefused
	timestampCrashes
)

func parseTimestamp(text string) (time.Time, timestampVerdict) {
	if !isoForm.MatchString(text) {
		return time.Time{}, timestampRefused
	}
	m := parserForm.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, timestampCrashes
	}
	t, err := time.Parse("2006-01-02T15:04:05.999999999", m[1])
	if err != nil { // a thirteenth month and the like
		return time.Time{}, timestampRefused
	}
	return t, timestampGood
}

// formatTimestamp writes a time as the server does: UTC, no zone, microseconds
// only when there are any.
func formatTimestamp(t time.Time) string {
	t = t.UTC().Truncate(time.Microsecond)
	if t.Nanosecond() == 0 {
		return t.Format("2006-01-02T15:04:05")
	}
	return t.Format("2006-01-02T15:04:05.000000")
}

func timestampOrNil(t *time.Time) any {
	if t == nil {
		return nil
	}
	return formatTimestamp(*t)
}
