package workspace

import (
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"
)

// Variable is one environment variable of the algorithm container.
type Variable struct{ Name, Value string }

// identifier is what the reference node accepts as a variable's name.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// reservedVariable is set by the image itself and read in plain by the
// algorithm tools, so that a node must never set it.
const reservedVariable = "PKG_NAME"

// Encode gives a value the form in which algorithm tools expect it: base32
// (RFC 4648, section 6) with "=" replaced by "!". An empty value stays empty.
func Encode(value string) string {
	return strings.ReplaceAll(base32.StdEncoding.EncodeToString([]byte(value)), "=", "!")
}

// environment collects variables in a stable order; a name set twice keeps its
// first place and takes the last value.
type environment struct {
	list  []Variable
	index map[string]int
}

func (e *environment) set(name, value string) error {
	switch {
	case !identifier.MatchString(name):
		return fmt.Errorf("environment variable %q is not an identifier: use letters, digits and underscores only", name)
	case name == reservedVariable:
		return fmt.Errorf("environment variable %s belongs to the algorithm's image: remove it from algorithm_env", name)
	}
	if e.index == nil {
		e.index = make(map[string]int)
	}
	if i, ok := e.index[name]; ok {
		e.list[i].Value = value
		return nil
	}
	e.index[name] = len(e.list)
	e.list = append(e.list, Variable{Name: name, Value: value})
	return nil
}

// setAll sets pairs of name and value and returns the first error.
func (e *environment) setAll(pairs ...[2]string) error {
	for _, p := range pairs {
		if err := e.set(p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}

// encoded returns all variables with their values encoded, except plain ones.
func (e *environment) encoded(plain string) []Variable {
	out := make([]Variable, len(e.list))
	for i, v := range e.list {
		if v.Name != plain {
			v.Value = Encode(v.Value)
		}
		out[i] = v
	}
	return out
}
