package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file. A real one has a few kilobytes and a hundred nodes.
const (
	maxFile  = 256 << 10
	maxDepth = 24
	maxNodes = 20_000 // after aliases are replaced, which is what stops an alias bomb
)

type kind int

const (
	null kind = iota
	scalar
	list
	mapping
)

// value is a YAML value with its position, aliases and merge keys already replaced.
type value struct {
	kind   kind
	tag    string // of a scalar: !!str, !!int, !!float, !!bool, !!timestamp
	plain  bool   // a scalar without quotes
	text   string
	line   int
	items  []*value
	fields []field // in the order of the file

	names         bool   // a mapping whose keys are the administrator's: variables, services
	head, comment string // comments above it, as an element of a list, and behind it
}

type field struct {
	key        string
	line       int
	val        *value
	head, foot string // comments above and below
}

// readDocument turns the bytes of a file into values.
func readDocument(file string, data []byte) (*value, Problems) {
	fail := func(line int, format string, a ...any) (*value, Problems) {
		return nil, Problems{{File: file, Line: line, Message: fmt.Sprintf(format, a...)}}
	}
	if len(data) > maxFile {
		return fail(0, "the file has more than %d KiB, which no configuration needs", maxFile>>10)
	}
	if !utf8.Valid(data) {
		return fail(0, "the file is not UTF-8 text; save it as UTF-8")
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	switch err := dec.Decode(&root); {
	case errors.Is(err, io.EOF):
		return &value{kind: null, line: 1}, nil
	case err != nil:
		line, msg := yamlError(err)
		return fail(line, "the file is not valid YAML: %s", msg)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return fail(second.Line, "a second YAML document (---) starts here; keep one")
	} else if !errors.Is(err, io.EOF) {
		line, msg := yamlError(err)
		return fail(line, "the file is not valid YAML: %s", msg)
	}
	b := &builder{file: file}
	v := b.value(&root, 0)
	if len(b.problems) > 0 {
		return nil, b.problems
	}
	return v, nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// yamlError takes the line out of the library's message.
func yamlError(err error) (int, string) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine.FindStringSubmatch(msg); m[1] != "" {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
		msg = msg[len(m[0]):]
	}
	return line, clip(msg)
}

type builder struct {
	file     string
	nodes    int
	stopped  bool // a bound was reached: build nothing more
	problems Problems
}

func (b *builder) fail(line int, format string, a ...any) *value {
	if len(b.problems) < maxProblems {
		b.problems = append(b.problems, Problem{File: b.file, Line: line, Message: fmt.Sprintf(format, a...)})
	}
	return &value{kind: null, line: line}
}

func (b *builder) value(n *yaml.Node, depth int) *value {
	if b.stopped {
		return &value{kind: null, line: n.Line}
	}
	if b.nodes++; b.nodes > maxNodes || depth > maxDepth {
		b.stopped = true
		return b.fail(n.Line, "the file is nested, or repeated with aliases, beyond what a configuration needs")
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) != 1 {
			return &value{kind: null, line: 1}
		}
		v := b.value(n.Content[0], depth)
		v.head = n.HeadComment
		return v
	case yaml.AliasNode:
		return b.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		v := &value{kind: list, line: n.Line}
		for _, c := range n.Content {
			if b.stopped {
				break
			}
			item := b.value(c, depth+1)
			item.head = c.HeadComment
			v.items = append(v.items, item)
		}
		return v
	case yaml.MappingNode:
		return b.mapping(n, depth)
	}
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return &value{kind: null, line: n.Line, comment: n.LineComment}
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp", "!!merge":
		return &value{kind: scalar, tag: tag, plain: n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0, text: n.Value, line: n.Line, comment: n.LineComment}
	default:
		return b.fail(n.Line, "the YAML tag %q has no meaning here; remove it", clip(tag))
	}
}

func (b *builder) mapping(n *yaml.Node, depth int) *value {
	v := &value{kind: mapping, line: n.Line}
	have := map[string]int{}
	var merged []*value
	for i := 0; i+1 < len(n.Content) && !b.stopped; i += 2 {
		k := n.Content[i]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			b.fail(n.Content[i].Line, "a key must be a word, not a list or a mapping")
			continue
		}
		child := b.value(n.Content[i+1], depth+1)
		if k.ShortTag() == "!!merge" {
			merged = append(merged, child)
			continue
		}
		if line, ok := have[k.Value]; ok {
			b.fail(n.Content[i].Line, "the key %q is given twice, first in line %d; keep one", clip(k.Value), line)
			continue
		}
		have[k.Value] = n.Content[i].Line
		if child.comment == "" {
			child.comment = k.LineComment
		}
		v.fields = append(v.fields, field{key: k.Value, line: n.Content[i].Line, val: child, head: k.HeadComment, foot: k.FootComment})
	}
	// Merged keys stand behind the mapping's own, and an earlier merge before a later one, as in YAML 1.1.
	for len(merged) > 0 {
		m := merged[0]
		merged = merged[1:]
		switch m.kind {
		case list:
			merged = append(append([]*value{}, m.items...), merged...)
		case mapping:
			for _, f := range m.fields {
				if _, ok := have[f.key]; !ok {
					have[f.key] = f.line
					v.fields = append(v.fields, f)
				}
			}
		default:
			b.fail(m.line, "<< must name a mapping")
		}
	}
	return v
}
