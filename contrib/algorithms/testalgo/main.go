// Command testalgo is an algorithm for the integration tests: it does on purpose
// what algorithms should not do, and reports what a container really sees. It is no
// example to follow.
//
// Methods (arguments by name, results as JSON):
//
//	noop()                   {"started": nanoseconds since 1970 of the first instruction}
//	echo(...)                the input as it arrived
//	env()                    every variable as it is, and decoded where that works
//	probe(connect=[], write=[])
//	                         network, mounts, privileges, visible files; tries to
//	                         connect to "host:port" addresses and to create files
//	http(method, path, header={}, body="", token=None)
//	                         a request to the proxy; {"status", "header", "body"}
//	talk(address, send="")   what a server answers; {"text", "error"}
//	fetch(url, method="GET", body="", ca="")
//	                         an HTTP request through the proxy that the variables
//	                         name; {"status", "header", "body", "error"}
//	postgres(label, query, ca)
//	                         asks a PostgreSQL over TLS; {"value", "error"}
//	count(name="count")      appends a line to /mnt/tmp/NAME; {"count": lines}
//	gate()                   marks each execution in /mnt/tmp/executed, waits until
//	                         /mnt/tmp/open exists; {"executed", "proxy", "error"}
//	rival(mark, database)    spreads a mark over all that runs could share, waits in /mnt/tmp for
//	                         another run that does the same, and looks for what is its; rival.go
//	fill(path, bytes)        writes a file and removes it; {"written", "error"}
//	link_output(target)      replaces the output file by a symbolic link
//	exit(code)               ends with that code, no output
//	no_output()              ends well, no output
//	raw_output(text)         writes text as it is, JSON or not
//	big_output(bytes)        a JSON string of so many bytes
//	spam(lines, width=60)    log lines on standard output, every tenth on error
//	say(text, end)           prints text on both streams and ends "well", by "exit" or "panic",
//	                         with "no output", "too much" of it, or "never"
//	chatter(lines, milliseconds)
//	                         prints lines one by one, all within that time
//	binary_log(bytes)        bytes of all values on both
//	ignore_term(seconds)     sleeps, deaf to SIGTERM
//	on_term(seconds)         sleeps; at SIGTERM writes {"terminated": true} and ends
//	sleep(seconds)
//	fork_daemon(seconds)     leaves a detached child behind that sleeps
//	fork_many(processes)     starts so many children; {"started", "error"}
//	burn(seconds)            keeps all CPUs busy; {"wall", "cpu"} in seconds
//	hoard(path, bytes, seconds, nameless=false)
//	                         writes a file (beside the output without a path), keeps it
//	                         open and sleeps; nameless removes it before
//	mirror(...)              the text of its input as the result, whatever its size; the
//	                         input must name the method first
//	delegate(bytes, organizations)
//	                         sends an input of so many bytes through the blob store for
//	                         the organizations to mirror; {"sent", "received"}, SHA-256
//	fork_bomb(seconds)       processes that start processes
//	oom(bytes, child=false)  allocates and touches memory, itself or in a child
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

func main() {
	started := time.Now()
	if len(os.Args) > 2 {
		child(os.Args[1], os.Args[2])
		return
	}
	if err := run(started); err != nil {
		fmt.Fprintln(os.Stderr, "testalgo:", err)
		os.Exit(1)
	}
}

// child is what the program does when it has started itself.
func child(what, arg string) {
	n, err := strconv.ParseInt(arg, 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testalgo child:", err)
		os.Exit(1)
	}
	switch what {
	case "sleep":
		time.Sleep(time.Duration(n) * time.Millisecond)
	case "allocate":
		allocate(n)
	case "bomb":
		bomb(time.Duration(n) * time.Millisecond)
	}
}

// method gets the input and returns the result; errNoOutput writes none.
type method func(*contract.Input) (any, error)

func run(started time.Time) error {
	switch name, err := contract.Named(); {
	case err != nil:
		return err
	case name == "mirror":
		return mirror()
	}
	in, err := contract.ReadInput()
	if err != nil {
		return err
	}
	methods := map[string]method{
		"noop":        func(*contract.Input) (any, error) { return map[string]int64{"started": started.UnixNano()}, nil },
		"echo":        func(in *contract.Input) (any, error) { return in, nil },
		"env":         environment,
		"probe":       probe,
		"http":        request,
		"talk":        talk,
		"fetch":       fetch,
		"postgres":    postgres,
		"count":       count,
		"gate":        gate,
		"rival":       rival,
		"fill":        fill,
		"link_output": linkOutput,
		"exit":        exit,
		"no_output":   noOutput,
		"raw_output":  rawOutput,
		"big_output":  bigOutput,
		"spam":        spam,
		"say":         say,
		"chatter":     chatter,
		"binary_log":  binaryLog,
		"ignore_term": ignoreTerm,
		"on_term":     onTerm,
		"sleep":       sleep,
		"fork_daemon": forkDaemon,
		"fork_many":   forkMany,
		"oom":         oom,
		"burn":        burn,
		"hoard":       hoard,
		"fork_bomb":   forkBomb,
		"delegate":    delegate,
	}
	do := methods[in.Method]
	if do == nil {
		return fmt.Errorf("there is no method %q", in.Method)
	}
	result, err := do(in)
	if err == errNoOutput {
		return nil
	}
	if err != nil {
		return err
	}
	return contract.WriteOutput(result)
}

// number reads a numeric argument by name.
func number(in *contract.Input, name string, fallback float64) (float64, error) {
	_, err := in.Arg(-1, name, &fallback)
	return fallback, err
}

// environment reports all variables, and what they hold where they are base32.
func environment(*contract.Input) (any, error) {
	raw, decoded := map[string]string{}, map[string]string{}
	for _, line := range os.Environ() {
		name, value, _ := strings.Cut(line, "=")
		raw[name] = value
		if text, err := contract.Decode(value); err == nil {
			decoded[name] = text
		}
	}
	return map[string]any{"raw": raw, "decoded": decoded}, nil
}

// request makes any HTTP request to the proxy.
func request(in *contract.Input) (any, error) {
	verb, path, body, token := "GET", "/", "", ""
	header := map[string][]string{}
	for name, v := range map[string]any{"method": &verb, "path": &path, "body": &body, "token": &token, "header": &header} {
		if _, err := in.Arg(-1, name, v); err != nil {
			return nil, err
		}
	}
	if token != "" {
		header["Authorization"] = []string{"Bearer " + token}
	}
	return ask(verb, path, header, body)
}
