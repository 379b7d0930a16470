package config

import "strings"

// nearest finds the word that s most likely was meant to be, or "". Case, and - for _, do not count.
func nearest(s string, words []string) string {
	if len(s) > 64 {
		return ""
	}
	fold := func(w string) string { return strings.ReplaceAll(strings.ToLower(w), "-", "_") }
	best, limit := "", max(2, len(s)/3)+1
	for _, w := range words {
		if d := distance(fold(s), fold(w)); d < limit && d < len(w) {
			best, limit = w, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	before, last, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}
