package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// formatTime writes a time as the server can read it: it demands a fraction of one to six digits
// and accepts no zone but exactly +00:00.
func formatTime(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000000") + "+00:00"
}

// parseTime reads the server's times, which carry no zone and are UTC; one with a zone is read too.
func parseTime(s string) (time.Time, error) {
	s = strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{"2006-01-02T15:04:05", time.RFC3339} {
		// Parse accepts a fraction after the seconds where the layout has none.
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("the server sent %q, which is not a time", s)
}

// wireTime is an optional time in an answer; null and "" leave it nil.
type wireTime struct{ t *time.Time }

func (w *wireTime) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == nil || *s == "" {
		w.t = nil
		return nil
	}
	t, err := parseTime(*s)
	if err != nil {
		return err
	}
	w.t = &t
	return nil
}
