package main

import (
	"strings"
	"testing"
)

// TestAWrongCommandLineHasOneSentenceAndOneCode: whoever in the program finds the mistake, the library that reads
// command lines included.
func TestAWrongCommandLineHasOneSentenceAndOneCode(t *testing.T) {
	for line, want := range map[string]string{
		"pss":                       `there is no command "pss": v6node --help lists them`,
		"help pss":                  `there is no command "pss": v6node --help lists them`,
		"audit pss":                 `there is no command "pss": v6node audit --help lists them`,
		"ps --bogus":                "flag provided but not defined: -bogus",
		"ps -o yaml":                `the output format "yaml" is not known: use table or json`,
		"ps extra":                  `ps takes no argument, but got "extra"`,
		"ps --filter x":             `the filter "x" is not KEY=VALUE`,
		"policy test":               "no image is named",
		"cni show extra":            `cni show takes no arguments, but got "extra"`,
		"cni install --runtime x":   `the runtime "x" is not known`,
		"config check -c /no/where": "",
	} {
		out, err, code := v6node(t, t.Context(), strings.Fields(line)...)
		if code != exitUsage {
			t.Errorf("%s: exit code %d, %s", line, code, err)
		}
		if want == "" && err == "" && out != "" { // what failed is the command's output
			continue
		}
		if out != "" || !strings.HasPrefix(err, "v6node: "+want) || strings.Count(err, "v6node: ") != 1 || strings.Count(err, "\n") != 1 {
			t.Errorf("%s: printed %q, said %q, want one sentence with %q", line, out, err, want)
		}
	}
}
