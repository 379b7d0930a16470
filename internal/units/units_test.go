package units

import (
	"testing"
	"time"
)

func TestSizesAreReadAsPodmanDoes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "5": 5, "5b": 5, "32k": 32 << 10, "32K": 32 << 10, "32kb": 32 << 10, "32KiB": 32 << 10, "512m": 512 << 20, "1.5g": 3 << 29,
		"2 GB": 2 << 30, "1t": 1 << 40, "1p": 1 << 50, "9007199254740993": 9007199254740993,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "m", "-1", "1e3", "0x10", "1x", "1mm", "1  m", "99999p", "1.5.5m", "١m", "1,5m"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q is accepted as %d", in, got)
		}
	}
}

func TestSizesAreWrittenInTheUnitThatFits(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 64 << 20: "64 MiB", 3 << 29: "1.5 GiB", 67_000_000: "63.9 MiB", 1<<30 - 1: "1 GiB", 1 << 50: "1 PiB",
	} {
		if got := FormatSize(in); got != want {
			t.Errorf("%d is %q, want %q", in, got, want)
		}
	}
}

func TestDurationsMayBeSeconds(t *testing.T) {
	for in, want := range map[string]time.Duration{"10": 10 * time.Second, "90s": 90 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond, "0": 0} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "soon", "10 s", "1d"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q is accepted as %v", in, got)
		}
	}
}

func TestWhatIsWrittenForAFileIsReadAgain(t *testing.T) {
	for n, want := range map[int64]string{0: "0", -1: "-1", 1: "1", 1023: "1023", 1024: "1k", 1536: "1536", 64 << 20: "64m", 3 << 30: "3g", 1 << 50: "1p", 2 << 60: "2048p"} {
		got := Size(n)
		if back, err := ParseSize(got); got != want || n >= 0 && (err != nil || back != n) {
			t.Errorf("%d is %q and read as %d, %v; want %q", n, got, back, err, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", time.Hour: "1h", time.Hour + time.Second: "1h0m1s", 720 * time.Hour: "720h", 250 * time.Millisecond: "250ms", 80 * time.Minute: "1h20m",
	} {
		got := Duration(d)
		if back, err := ParseDuration(got); got != want || err != nil || back != d {
			t.Errorf("%v is %q and read as %v, %v; want %q", d, got, back, err, want)
		}
	}
}

func TestListsAreReadAsTheKernelWritesThem(t *testing.T) {
	for in, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8": 5, "0-3,2": 4, "99999": 1} {
		if got, err := ParseList(in); err != nil || len(got) != want {
			t.Errorf("%q has %d numbers (%v), want %d", in, len(got), err, want)
		}
	}
	for _, in := range []string{"", "3-1", "a", "1,", "-1", "100000", "0 1"} {
		if got, err := ParseList(in); err == nil {
			t.Errorf("%q is accepted as %v", in, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"1.5g", "9223372036854775807", "999999999999999999p", "0.000000001b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Fatalf("%q is %d", s, n)
		}
	})
}
