package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// errNoOutput ends a method well without writing the output file.
var errNoOutput = errors.New("no output")

func exit(in *contract.Input) (any, error) {
	code, err := number(in, "code", 1)
	if err != nil {
		return nil, err
	}
	fmt.Printf("leaving with exit code %d\n", int(code))
	os.Exit(int(code))
	return nil, nil
}

func noOutput(*contract.Input) (any, error) { return nil, errNoOutput }

func rawOutput(in *contract.Input) (any, error) {
	text := ""
	if _, err := in.Arg(-1, "text", &text); err != nil {
		return nil, err
	}
	name, err := contract.Variable("OUTPUT_FILE")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return nil, errNoOutput
}

// bigOutput streams, so that the result may be larger than the memory limit.
func bigOutput(in *contract.Input) (any, error) {
	n, err := number(in, "bytes", 1<<20)
	if err != nil {
		return nil, err
	}
	name, err := contract.Variable("OUTPUT_FILE")
	if err != nil {
		return nil, err
	}
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(file, 1<<20)
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	w.WriteByte('"') // a bufio.Writer keeps its first error for Flush
	for left := int(n); left > 0; left -= len(block) {
		w.Write(block[:min(left, len(block))])
	}
	w.WriteByte('"')
	if err := errors.Join(w.Flush(), file.Close()); err != nil {
		return nil, err
	}
	return nil, errNoOutput
}

func spam(in *contract.Input) (any, error) {
	lines, err := number(in, "lines", 1000)
	if err != nil {
		return nil, err
	}
	width, err := number(in, "width", 60)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriter(os.Stdout)
	filler := strings.Repeat(".", max(0, int(width)))
	for i := range int(lines) {
		to := io.Writer(out)
		if i%10 == 9 {
			if err := out.Flush(); err != nil {
				return nil, err
			}
			to = os.Stderr
		}
		fmt.Fprintf(to, "line %d %s\n", i, filler)
	}
	return map[string]int{"lines": int(lines)}, out.Flush()
}

func binaryLog(in *contract.Input) (any, error) {
	n, err := number(in, "bytes", 4096)
	if err != nil {
		return nil, err
	}
	data := make([]byte, int(n))
	for i := range data {
		data[i] = byte(i)
	}
	for _, w := range []*os.File{os.Stdout, os.Stderr} {
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	return map[string]int{"bytes": len(data)}, nil
}

func pause(in *contract.Input) (time.Duration, error) {
	s, err := number(in, "seconds", 60)
	return time.Duration(s * float64(time.Second)), err
}

func sleep(in *contract.Input) (any, error) {
	d, err := pause(in)
	if err != nil {
		return nil, err
	}
	fmt.Println("sleeping")
	time.Sleep(d)
	return map[string]bool{"slept": true}, nil
}

func ignoreTerm(in *contract.Input) (any, error) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return sleep(in)
}

func onTerm(in *contract.Input) (any, error) {
	d, err := pause(in)
	if err != nil {
		return nil, err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("waiting for SIGTERM")
	select {
	case <-term:
		return map[string]bool{"terminated": true}, nil
	case <-time.After(d):
		return map[string]bool{"terminated": false}, nil
	}
}

// self starts this program again as a child.
func self(what string, n int64) *exec.Cmd {
	return exec.Command("/proc/self/exe", what, strconv.FormatInt(n, 10))
}

func forkDaemon(in *contract.Input) (any, error) {
	d, err := pause(in)
	if err != nil {
		return nil, err
	}
	cmd := self("sleep", d.Milliseconds())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	return map[string]int{"daemon": pid}, cmd.Process.Release()
}

func forkMany(in *contract.Input) (any, error) {
	n, err := number(in, "processes", 100)
	if err != nil {
		return nil, err
	}
	result := map[string]any{"started": 0, "error": ""}
	for i := range int(n) {
		if err := self("sleep", 60_000).Start(); err != nil {
			result["error"] = err.Error()
			break
		}
		result["started"] = i + 1
	}
	return result, nil
}

func oom(in *contract.Input) (any, error) {
	n, err := number(in, "bytes", 1<<30)
	if err != nil {
		return nil, err
	}
	inChild := false
	if _, err := in.Arg(-1, "child", &inChild); err != nil {
		return nil, err
	}
	if !inChild {
		allocate(int64(n))
		return map[string]bool{"survived": true}, nil
	}
	err = self("allocate", int64(n)).Run()
	text := ""
	if err != nil {
		text = err.Error()
	}
	return map[string]any{"survived": true, "child": text}, nil
}

// allocate takes memory in steps and writes to every page of it.
func allocate(n int64) {
	const step = 1 << 20
	var kept [][]byte
	for left := n; left > 0; left -= step {
		block := make([]byte, step)
		for i := 0; i < step; i += 4096 {
			block[i] = 1
		}
		kept = append(kept, block)
	}
	fmt.Printf("allocated %d MiB\n", len(kept))
}

// count leaves a mark for each execution in the job's temporary directory.
func count(in *contract.Input) (any, error) {
	name := "count"
	if _, err := in.Arg(-1, "name", &name); err != nil {
		return nil, err
	}
	dir, err := contract.Variable("TEMPORARY_FOLDER")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, filepath.Base(name))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.WriteString("executed\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	return map[string]int{"count": bytes.Count(data, []byte("\n"))}, err
}

// ask makes a request through the proxy and reports the answer.
func ask(verb, path string, header http.Header, body string) (any, error) {
	c, err := contract.NewClient()
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(verb, path, header, strings.NewReader(body))
	if err != nil {
		return map[string]any{"status": 0, "error": err.Error()}, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return map[string]any{"status": resp.StatusCode, "error": err.Error()}, nil
	}
	return map[string]any{"status": resp.StatusCode, "header": resp.Header, "body": string(data)}, nil
}
