package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// gateLook is how often gate looks whether it may end.
const gateLook = 10 * time.Millisecond

// gate leaves a mark for each execution in the job's temporary directory, waits
// there for a file "open", and then tries the proxy.
func gate(*contract.Input) (any, error) {
	dir, err := contract.Variable("TEMPORARY_FOLDER")
	if err != nil {
		return nil, err
	}
	marks := filepath.Join(dir, "executed")
	file, err := os.OpenFile(marks, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.WriteString("executed\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	fmt.Println("waiting at the gate")
	for {
		_, err := os.Stat(filepath.Join(dir, "open"))
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		time.Sleep(gateLook)
	}
	result := map[string]any{"error": ""}
	data, err := os.ReadFile(marks)
	if err != nil {
		return nil, err
	}
	result["executed"] = bytes.Count(data, []byte("\n"))
	c, err := contract.NewClient()
	if err != nil {
		return nil, err
	}
	resp, err := c.Do("GET", "/organization", nil, nil)
	if err != nil {
		result["error"] = err.Error()
		return result, nil
	}
	result["proxy"] = resp.StatusCode
	return result, resp.Body.Close()
}

// linkOutput puts a symbolic link in the place of the output file.
func linkOutput(in *contract.Input) (any, error) {
	target := ""
	if _, err := in.Arg(-1, "target", &target); err != nil {
		return nil, err
	}
	name, err := contract.Variable("OUTPUT_FILE")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(name), os.Symlink(target, name)); err != nil {
		return nil, err
	}
	return nil, errNoOutput
}

// fill writes a file until it has so many bytes or there is no more room.
func fill(in *contract.Input) (any, error) {
	path := ""
	if _, err := in.Arg(-1, "path", &path); err != nil {
		return nil, err
	}
	n, err := number(in, "bytes", 1<<20)
	if err != nil {
		return nil, err
	}
	file, err := os.Create(path)
	if err != nil {
		return map[string]any{"written": 0, "error": err.Error()}, nil
	}
	block, written := make([]byte, 1<<16), 0
	for written < int(n) && err == nil {
		var k int
		k, err = file.Write(block)
		written += k
	}
	text := ""
	if err := errors.Join(err, file.Close(), os.Remove(path)); err != nil {
		text = err.Error()
	}
	return map[string]any{"written": written, "error": text}, nil
}
