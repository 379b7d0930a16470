package policy

import (
	"regexp"
	"slices"
	"strings"

	"github.com/v6node/v6node/node/image/imageref"
)

// permits restates the meaning of one rule in the simplest way there is: list every text that stands for the
// image, and look for the rule among them.
func permits(rule, image, digest, file string) bool {
	ref, err := imageref.Parse(image)
	if err != nil || ref.Digest != "" && ref.Digest != digest {
		return false
	}
	bare := ref.Spellings()
	var full []string
	for _, name := range bare {
		full = append(full, name+"@"+digest)
		if ref.Digest == "" && ref.TagOrDefault() != "" {
			full = append(full, name+":"+ref.TagOrDefault())
		}
	}
	if !strings.ContainsAny(rule, `\^$*+?()[]{}|`) {
		if rule == digest || ref.Scheme == imageref.ORAS && rule == file {
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
	scheme, rest := speaksOfScheme(rule)
	if scheme != ref.Scheme {
		return false
	}
	longest := regexp.MustCompile(rule)
	longest.Longest()
	matches := func(s string) bool { return longest.FindString(s) == s && longest.MatchString(s) }
	if slices.ContainsFunc(full, matches) {
		return true
	}
	return !speaksOfTags(rest) && slices.ContainsFunc(bare, matches)
}
