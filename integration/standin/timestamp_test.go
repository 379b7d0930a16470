package standin

import "testing"

func FuzzAnAcceptedTimestampIsWrittenBackAsTheSameTime(f *testing.F) {
	for _, seed := range []string{
		"2026-11-22T03:13:55.985348+00:00", "2026-11-22T03:13:55.9", "2026-11-22T03:13:55", "2026-11-22T03:13:55.1Z",
		"0000-01-01T00:00:00.0", "2026-02-30T00:00:00.1", "2026-11-22T24:00:00.1", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, verdict := parseTimestamp(text)
		if verdict != timestampGood {
			return
		}
		written := formatTimestamp(at)
		if at.Nanosecond() == 0 {
			written += ".0"
		}
		again, verdict := parseTimestamp(written)
		if verdict != timestampGood || !again.Equal(at) {
			t.Errorf("%q is %v, written %q is %v", text, at, written, again)
		}
	})
}
