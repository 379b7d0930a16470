package config

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// set gives a key of a section its value.
func (v *value) set(key string, to *value) {
	for i := range v.fields {
		if v.fields[i].key == key {
			v.fields[i].val = to
			return
		}
	}
	v.fields = append(v.fields, field{key: key, val: to})
}

// at finds the value of a key of a section, or nil.
func (v *value) at(key string) *value {
	if v == nil || v.kind != mapping {
		return nil
	}
	for _, f := range v.fields {
		if f.key == key {
			return f.val
		}
	}
	return nil
}

// lineOf is the line of a key of a section.
func (v *value) lineOf(key string) int {
	for _, f := range v.fields {
		if f.key == key {
			return f.line
		}
	}
	return 0
}

// drop takes a key out of a section.
func (v *value) drop(key string) {
	v.fields = slices.DeleteFunc(v.fields, func(f field) bool { return f.key == key })
}

// yaml writes a document below a comment. readDocument reads the same values again.
func (v *value) yaml(head string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(head + "\n")
	if v.kind == mapping && len(v.fields) == 0 {
		return b.Bytes(), nil
	}
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(v.node()); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// node is the value as the library writes it.
func (v *value) node() *yaml.Node {
	n := &yaml.Node{HeadComment: v.head}
	switch v.kind {
	case null:
		n.Kind, n.Tag, n.LineComment = yaml.ScalarNode, "!!null", v.comment
	case list:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if !slices.ContainsFunc(v.items, func(i *value) bool { return i.kind != scalar || i.head+i.comment != "" }) && len(v.items) <= 1 {
			n.Style, n.LineComment = yaml.FlowStyle, v.comment
		}
		for _, i := range v.items {
			n.Content = append(n.Content, i.node())
		}
	case mapping:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if len(v.fields) == 0 {
			n.Style, n.LineComment = yaml.FlowStyle, v.comment
		}
		for _, f := range v.fields {
			key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: f.key, HeadComment: f.head, FootComment: f.foot}
			val := f.val.node()
			if val.Kind != yaml.ScalarNode && val.Style&yaml.FlowStyle == 0 {
				key.LineComment = f.val.comment
			}
			n.Content = append(n.Content, key, val)
		}
	case scalar:
		n.Kind, n.Value, n.LineComment = yaml.ScalarNode, v.text, v.comment
		if v.tag == "!!str" {
			n.Tag = v.tag
		}
		if !v.plain || strings.ContainsAny(v.text, "\n\r") {
			n.Tag, n.Style = "!!str", yaml.DoubleQuotedStyle
		}
	}
	return n
}

// plainValue is the value for encoding/json, with keys in the order of the file.
func (v *value) plainValue() any {
	switch v.kind {
	case list:
		out := make([]any, len(v.items))
		for i, item := range v.items {
			out[i] = item.plainValue()
		}
		return out
	case mapping:
		return orderedFields(v.fields)
	case scalar:
		switch v.tag {
		case "!!bool":
			return v.text == "true"
		case "!!int", "!!float":
			if f, err := strconv.ParseFloat(v.text, 64); err == nil {
				return f
			}
		}
		return v.text
	}
	return nil
}

type orderedFields []field

func (o orderedFields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(f.key)
		if err != nil {
			return nil, err
		}
		val, err := json.Marshal(f.val.plainValue())
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(val)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
