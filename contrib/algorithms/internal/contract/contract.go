// Package contract is what a vantage6 v4 algorithm sees of its container: the
// encoded environment, the input, output and token files, the databases, and the
// node's proxy. The sample algorithms are written with it.
//
// Only the standard library may enter: an algorithm is a small static binary that
// starts in milliseconds.
package contract

import (
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Encode writes a value as the node puts it into the environment: base32 with "!"
// for the padding; empty stays empty.
func Encode(value string) string {
	return strings.ReplaceAll(base32.StdEncoding.EncodeToString([]byte(value)), "=", "!")
}

// Decode is the reverse of Encode.
func Decode(text string) (string, error) {
	value, err := base32.StdEncoding.DecodeString(strings.ReplaceAll(text, "!", "="))
	if err != nil {
		return "", err
	}
	return string(value), nil
}

// Variable returns a decoded variable of the environment. One that is not set is an
// error, one that is empty is not.
func Variable(name string) (string, error) {
	text, set := os.LookupEnv(name)
	if !set {
		return "", fmt.Errorf("the variable %s is not set: was this started by a vantage6 node?", name)
	}
	value, err := Decode(text)
	if err != nil {
		return "", fmt.Errorf("the variable %s is not base32: %w", name, err)
	}
	return value, nil
}

// Input is what the algorithm is asked to do.
type Input struct {
	Method string                     `json:"method"`
	Args   []json.RawMessage          `json:"args"`
	Kwargs map[string]json.RawMessage `json:"kwargs"`
}

// ReadInput reads the input file.
func ReadInput() (*Input, error) {
	data, err := readNamed("INPUT_FILE")
	if err != nil {
		return nil, err
	}
	var in Input
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("the input is not the JSON of a call: %w", err)
	}
	if in.Method == "" {
		return nil, errors.New("the input names no method")
	}
	return &in, nil
}

// Named returns the method of an input that names it before all else, and "" of
// another. It reads no more of the input than that, however long it is.
func Named() (string, error) {
	file, err := OpenInput()
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // only read
	in := json.NewDecoder(file)
	for _, want := range []json.Token{json.Delim('{'), "method"} {
		if got, err := in.Token(); err != nil || got != want {
			return "", nil // ReadInput says what is wrong
		}
	}
	method, err := in.Token()
	name, isText := method.(string)
	if err != nil || !isText {
		return "", nil
	}
	return name, nil
}

// OpenInput opens the input file.
func OpenInput() (*os.File, error) {
	name, err := Variable("INPUT_FILE")
	if err != nil {
		return nil, err
	}
	return os.Open(name)
}

// Arg decodes an argument into v: by name, else by position (-1 = by name only). It
// returns whether the argument was given; null counts as not given.
func (in *Input) Arg(position int, name string, v any) (bool, error) {
	raw, given := in.Kwargs[name]
	if !given && position >= 0 && position < len(in.Args) {
		raw, given = in.Args[position], true
	}
	if !given || string(raw) == "null" {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("the argument %s is not as expected: %w", name, err)
	}
	return true, nil
}

// WriteOutput writes the result as JSON to the output file.
func WriteOutput(v any) error {
	name, err := Variable("OUTPUT_FILE")
	if err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("the result is not JSON: %w", err)
	}
	return os.WriteFile(name, data, 0o600)
}

func readNamed(variable string) ([]byte, error) {
	name, err := Variable(variable)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(name)
}

// Database is one database that the run may use.
type Database struct{ Label, URI, Type string }

// Databases returns the databases of the task, in the task's order.
func Databases() ([]Database, error) {
	labels, err := Variable("USER_REQUESTED_DATABASE_LABELS")
	if err != nil {
		return nil, err
	}
	var list []Database
	for label := range strings.SplitSeq(labels, ",") {
		if label == "" {
			continue
		}
		d := Database{Label: label}
		if d.URI, err = Variable(strings.ToUpper(label) + "_DATABASE_URI"); err != nil {
			return nil, err
		}
		if d.Type, err = Variable(strings.ToUpper(label) + "_DATABASE_TYPE"); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}
