package policy

import (
	"fmt"

	"github.com/v6node/v6node/node/image/imageref"
)

// Pattern matches images as an entry of allowed_algorithms does. It is immutable
// and safe for concurrent use.
type Pattern struct{ rule rule }

// Match is what a Pattern says about an image.
type Match int

// The answers. Unsure only comes without a digest, which would decide.
const (
	Differs Match = iota
	Unsure
	Matches
)

// CompilePattern reads one entry. Its errors name it and say how to write it.
func CompilePattern(text string) (*Pattern, error) {
	r, err := compileRule(text)
	if err != nil {
		return nil, err
	}
	return &Pattern{r}, nil
}

// Match compares an image, as a task names it, and the digest it resolved to,
// "" while that is unknown. file and digestOf are as in Request.
func (p *Pattern) Match(image, digest, file string, digestOf func(ref string) (string, error)) (Match, error) {
	ref, err := imageref.Parse(image)
	if err != nil {
		return Differs, fmt.Errorf("the image of the task cannot be used: %w", err)
	}
	if digest == "" {
		digest = ref.Digest
	}
	v, err := p.rule.match(candidate{ref: ref, digest: digest, file: file, digestOf: digestOf})
	switch {
	case err != nil:
		return Differs, err
	case v == yes:
		return Matches, nil
	case v == perhaps:
		return Unsure, nil
	}
	return Differs, nil
}
