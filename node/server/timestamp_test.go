package server

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTimesAreWrittenAsTheServerDemands(t *testing.T) {
	ams := time.FixedZone("CEST", 2*3600)
	tests := []struct {
		in   time.Time
		want string
	}{
		{time.Date(2026, 11, 22, 3, 13, 55, 985348000, time.UTC), "2026-11-22T03:13:55.985348+00:00"},
		{time.Date(2026, 11, 22, 3, 13, 55, 0, time.UTC), "2026-11-22T03:13:55.000000+00:00"},
		{time.Date(2026, 11, 22, 3, 13, 55, 999999999, time.UTC), "2026-11-22T03:13:55.999999+00:00"},
		{time.Date(2026, 7, 1, 1, 0, 0, 120000000, ams), "2026-06-30T23:00:00.120000+00:00"},
	}
	for _, tt := range tests {
		if got := formatTime(tt.in); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestTimesOfTheServerAreUTC(t *testing.T) {
	want := time.Date(2026, 11, 22, 3, 13, 55, 985348000, time.UTC)
	for _, in := range []string{
		"2026-11-22T03:13:55.985348", "2026-11-22 03:13:55.985348", "2026-11-22T03:13:55.985348+00:00",
		"2026-11-22T03:13:55.985348Z", "2026-11-22T04:13:55.985348+01:00",
	} {
		got, err := parseTime(in)
		if err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	if got, err := parseTime("2026-11-22T03:13:55"); err != nil || !got.Equal(want.Truncate(time.Second)) {
		t.Errorf("without fraction: got %v, %v", got, err)
	}
	for _, in := range []string{"yesterday", "2026-13-01T00:00:00", "2026-11-22"} {
		if _, err := parseTime(in); err == nil {
			t.Errorf("%s is accepted", in)
		}
	}
	var w struct{ A, B, C wireTime }
	if err := json.Unmarshal([]byte(`{"A":null,"B":"","C":"2026-11-22T03:13:55.985348"}`), &w); err != nil {
		t.Fatal(err)
	}
	if w.A.t != nil || w.B.t != nil || !w.C.t.Equal(want) {
		t.Errorf("got %+v", w)
	}
}
