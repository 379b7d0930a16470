package config

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

// ParseSize reads a size as Podman and Docker do: a number and b, k, m, g, t or p (also kb, KiB, ...), where k is
// 1024 bytes. A number alone is bytes.
func ParseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write a number and b, k, m, g or t, such as 512m or 1.5g", clip(s))
	}
	shift := 10 * strings.Index(" kmgtp", m[2])
	if m[2] == "" {
		shift = 0
	}
	if !strings.Contains(m[1], ".") { // exact
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || n > math.MaxInt64>>shift {
			return 0, fmt.Errorf("%q is too large a size", clip(s))
		}
		return n << shift, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if f *= math.Pow(2, float64(shift)); err != nil || f >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large a size", clip(s))
	}
	return int64(f), nil
}

// ParseDuration reads a duration: a number and ms, s, m or h ("90s", "1m30s"), or a number of seconds alone.
func ParseDuration(s string) (time.Duration, error) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write a number and ms, s, m or h, such as 30s", clip(s))
	}
	return d, nil
}

var cpuListPattern = regexp.MustCompile(`\A[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*\z`)

// checkCPUList checks the kernel's list format: "0-3,8".
func checkCPUList(s string) error {
	bad := fmt.Errorf("%q is not a list of numbers; write them as the kernel does, such as 0-3,8", clip(s))
	if len(s) > 1024 || !cpuListPattern.MatchString(s) {
		return bad
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			continue
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errors.Join(errA, errB) != nil || a > b {
			return bad
		}
	}
	return nil
}

// clip keeps a long text out of messages.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
