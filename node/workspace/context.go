package workspace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/node/payload"
)

// argumentsMark is where the arguments go: the first member of the context file,
// since its members are sorted.
const argumentsMark = `"arguments": {}`

// writeContext writes the run context file of schema version 0.1. The arguments,
// which may be long, are copied from the input's file.
func (w *Run) writeContext(s *Spec, sources []source, in *payload.Object) error {
	doc, err := w.runContext(s, sources, in)
	if err != nil {
		return err
	}
	if err := w.fillContext(doc, in); err != nil {
		return fmt.Errorf("write the run context file: %w", err)
	}
	return nil
}

func (w *Run) fillContext(doc []byte, in *payload.Object) (err error) {
	input, err := os.Open(w.input())
	if err != nil {
		return err
	}
	defer input.Close() //nolint:errcheck // only read
	f, err := os.OpenFile(filepath.Join(w.data(), contextName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	// An input without them gives empty ones: the file describes the run, the
	// algorithm judges its input.
	part := func(at payload.Span, none string) io.Reader {
		if at.Len() == 0 {
			return strings.NewReader(none)
		}
		return io.NewSectionReader(input, at.Start, at.Len())
	}
	before, after, _ := bytes.Cut(doc, []byte(argumentsMark))
	_, err = io.Copy(f, io.MultiReader(
		bytes.NewReader(before), strings.NewReader(`"arguments": {"named": `), part(in.Kwargs, "{}"),
		strings.NewReader(`, "positional": `), part(in.Args, "[]"), strings.NewReader("}"), bytes.NewReader(after)))
	return err
}

// runContext is the run context file with argumentsMark in place of the arguments.
func (w *Run) runContext(s *Spec, sources []source, input *payload.Object) ([]byte, error) {
	type object = map[string]any
	inputs := []object{}
	for _, src := range sources {
		if src.mount == nil {
			return nil, fmt.Errorf("%w %q is not a file, and run_context_file knows file databases only: switch it off or use another database", ErrDatabase, src.db.Label)
		}
		in := object{"id": src.db.Label, "uri": src.uri, "type": src.db.Type}
		if args, ok := src.params["arguments"]; ok {
			in["arguments"] = args
		}
		inputs = append(inputs, in)
	}
	return json.MarshalIndent(object{
		"schema_version": "0.1",
		"entrypoint":     object{"name": input.Method},
		"arguments":      object{},
		"executor":       object{"id": s.NodeID, "kind": "vantage6-node"},
		"inputs":         inputs,
		"outputs":        []object{{"id": "result", "uri": w.inside() + "/" + outputName}},
		"x-vantage6": object{
			"run_id": s.RunID, "task_id": s.TaskID, "collaboration_id": s.CollaborationID,
			"token_file":          w.inside() + "/" + tokenName,
			"api_proxy":           object{"host": "http://" + s.ProxyHost, "port": strconv.Itoa(s.ProxyPort), "api_path": ""},
			"temporary_directory": tempFolder,
		},
	}, "", "  ")
}
