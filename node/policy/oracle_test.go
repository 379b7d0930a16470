package policy

import (
	"regexp"
	"slices"
	"strings"

	"github.com/v6node/v6node/node/image/imageref"
)

// permits restates the meaning of one rule in the simplest way there is: list every text that stands for the
// image, and look for the rule among them.
func permits(rule, image, digest string) bool {
	ref, err := imageref.Parse(image)
	if err != nil || ref.Digest != "" && ref.Digest != digest {
		return false
	}
	bare := ref.Spellings()
	var full []string
	for _, name := range bare {
		full = append(full, name+"@"+digest)
		if ref.Digest == "" {
			full = append(full, name+":"+ref.TagOrDefault())
		}
	}
	if !strings.ContainsAny(rule, `\^$*+?()[]{}|`) {
		if rule == digest {
			return true
		}
		want, err := imageref.Parse(rule)
		if err != nil {
			return false
		}
		if want.Tag == "" && want.Digest == "" {
			return want.Name() == ref.Name()
		}
		return slices.Contains(full, want.String())
	}
	longest := regexp.MustCompile(rule)
	longest.Longest()
	matches := func(s string) bool { return longest.FindString(s) == s && longest.MatchString(s) }
	if slices.ContainsFunc(full, matches) {
		return true
	}
	return !speaksOfTags(rule) && slices.ContainsFunc(bare, matches)
}
