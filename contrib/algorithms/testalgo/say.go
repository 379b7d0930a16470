package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// say prints a text and ends in the way that is asked for.
func say(in *contract.Input) (any, error) {
	var text, end string
	if _, err := in.Arg(-1, "text", &text); err != nil {
		return nil, err
	}
	if _, err := in.Arg(-1, "end", &end); err != nil {
		return nil, err
	}
	fmt.Println("said:", text)
	fmt.Fprintln(os.Stderr, "complained:", text)
	switch end {
	case "exit":
		os.Exit(3)
	case "panic":
		panic(text)
	case "no output":
		return nil, errNoOutput
	case "too much":
		return strings.Repeat(text, 2<<20/max(1, len(text))), nil
	case "never":
		time.Sleep(time.Hour)
	}
	return map[string]bool{"ended": true}, nil
}

// chatter prints lines at equal distances.
func chatter(in *contract.Input) (any, error) {
	lines, err := number(in, "lines", 10)
	if err != nil {
		return nil, err
	}
	within, err := number(in, "milliseconds", 1000)
	if err != nil {
		return nil, err
	}
	for i := range int(lines) {
		fmt.Printf("line %d\n", i)
		time.Sleep(time.Duration(within / lines * float64(time.Millisecond)))
	}
	return map[string]int{"lines": int(lines)}, nil
}
