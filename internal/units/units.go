// Package units reads and writes sizes, durations and lists of CPUs as an
// administrator does, in configuration files, on the command line and in
// messages. It is pure.
package units

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var sizePattern = regexp.MustCompile(`\A([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([kmgtp]?)(?:i?b)?\z`)

// ParseSize reads a size as Podman and Docker do: a number and b, k, m, g, t or
// p (also kb, KiB, ...), where k is 1024 bytes. A number alone is bytes.
func ParseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write a number and b, k, m, g or t, such as 512m or 1.5g", Clip(s))
	}
	shift := 10 * strings.Index(" kmgtp", m[2])
	if m[2] == "" {
		shift = 0
	}
	if !strings.Contains(m[1], ".") { // exact
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || n > math.MaxInt64>>shift {
			return 0, fmt.Errorf("%q is too large a size", Clip(s))
		}
		return n << shift, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if f *= math.Pow(2, float64(shift)); err != nil || f >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large a size", Clip(s))
	}
	return int64(f), nil
}

// FormatSize writes a size with one decimal where it has one: "64 MiB",
// "1.5 GiB". Less than 1 KiB is bytes.
func FormatSize(n int64) string {
	f, unit := float64(n), "bytes"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if math.Abs(f) < 1023.95 || unit == "bytes" && math.Abs(f) < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) + " " + unit
}

// ParseDuration reads a duration: a number and ms, s, m or h ("90s", "1m30s"),
// or a number of seconds alone.
func ParseDuration(s string) (time.Duration, error) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write a number and ms, s, m or h, such as 30s", Clip(s))
	}
	return d, nil
}

// Size writes a size so that ParseSize reads the same: in the largest unit that
// leaves no rest. Less than zero stands for itself.
func Size(n int64) string {
	if n <= 0 {
		return strconv.FormatInt(n, 10)
	}
	unit := 0
	for unit < 5 && n%1024 == 0 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + strings.TrimSpace(" kmgtp"[unit:unit+1])
}

// Duration writes a duration so that ParseDuration reads the same, "12h" or
// "1m30s".
func Duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var listPattern = regexp.MustCompile(`\A[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*\z`)

// ParseList reads the kernel's list format, "0-3,8". It accepts no more than
// 1024 bytes, and numbers below 100 000.
func ParseList(s string) (map[int]bool, error) {
	bad := fmt.Errorf("%q is not a list of numbers; write them as the kernel does, such as 0-3,8", Clip(s))
	if len(s) > 1024 || !listPattern.MatchString(s) {
		return nil, bad
	}
	set := map[int]bool{}
	for part := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errors.Join(errA, errB) != nil || a > b {
			return nil, bad
		}
		for n := a; n <= b; n++ {
			set[n] = true
		}
	}
	return set, nil
}

// Clip keeps a long text out of messages.
func Clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
