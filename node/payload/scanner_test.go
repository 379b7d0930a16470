package payload

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// scan gives a text to a scanner in pieces of n bytes.
func scan(text string, n int) (*Object, error) {
	var s Scanner
	for len(text) > 0 {
		piece := text[:min(n, len(text))]
		text = text[len(piece):]
		if _, err := s.Write([]byte(piece)); err != nil {
			break // Close tells it again
		}
	}
	return s.Close()
}

func TestAnInputSaysItsMethodAndWhereItsArgumentsStand(t *testing.T) {
	for text, want := range map[string][3]string{
		`{"method":"central","args":[1,"]"],"kwargs":{"a":{"method":"inner"}}}`: {"central", `[1,"]"]`, `{"a":{"method":"inner"}}`},
		" \r\n{ \"kwargs\" : {} , \"method\"\t: \" spaced \" } \n":              {"spaced", "", "{}"},
		`{"method":"one","method":"two","args":[1],"args":[2]}`:                 {"two", "[2]", ""},
		`{"method":"one","method":7,"args":null,"kwargs":-0.5e+3}`:              {"", "null", "-0.5e+3"},
		`{"m\u0065thod":"caf\u00e9 \ud83d\ude00","Method":"other"}`:             {"café 😀", "", ""},
		`{"methods":"x","method ":"y","args":true}`:                             {"", "true", ""},
		`{"` + strings.Repeat("k", 1<<20) + `":0,"method":"far"}`:               {"far", "", ""},
		`{"method":{"method":"nested"}}`:                                        {},
		`{}`:                                                                    {},
	} {
		for _, n := range []int{1, 3, len(text)} {
			o, err := scan(text, n)
			if err != nil {
				t.Errorf("%.60s: %v", text, err)
				continue
			}
			got := [3]string{o.Method, text[o.Args.Start:o.Args.End], text[o.Kwargs.Start:o.Kwargs.End]}
			if got != want || o.Size != int64(len(text)) {
				t.Errorf("%.60s in pieces of %d: %q, %d bytes", text, n, got, o.Size)
			}
		}
	}
}

func TestWhatIsNoObjectIsToldFromWhatIsCutShort(t *testing.T) {
	for text, want := range map[string]error{
		"": ErrCut, " ": ErrCut, `{"method":"a"`: ErrCut, `{"method":"a","args":[1,`: ErrCut, `{"a":"\u12`: ErrCut, `{"a":tr`: ErrCut, `{"a":1`: ErrCut,
		`[]`: ErrNotObject, `"a"`: ErrNotObject, `{"a":1}x`: ErrNotObject, `{"a" 1}`: ErrNotObject, `{a:1}`: ErrNotObject, `{"a":01}`: ErrNotObject,
		`{"a":1,}`: ErrNotObject, `{"a":[1,]}`: ErrNotObject, `{"a":[}`: ErrNotObject, `{"a":NaN}`: ErrNotObject, `{"a":"` + "\n" + `"}`: ErrNotObject,
		`{"a":"\x"}`: ErrNotObject, `{"a":1.}`: ErrNotObject, `{"a":-}`: ErrNotObject, `{"a":1e}`: ErrNotObject, `{"a":trux}`: ErrNotObject, "\x00": ErrNotObject,
		`{"a":` + strings.Repeat("[", maxDepth):                 ErrNotObject,
		`{"method":"` + strings.Repeat("m", maxMethod+1) + `"}`: ErrNotObject,
	} {
		if _, err := scan(text, 7); !errors.Is(err, want) {
			t.Errorf("%.60q: %v, not %v", text, err, want)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		`{"method":"a","args":[1,-2.5e3,null],"kwargs":{"b":"\u00e9\n"}}`, `{"method":"a"`, `{}`, `[`, `{"kwargs":{"a":[[]]},"args":0}`, `{"method":"\ud800"}`,
	} {
		f.Add([]byte(seed), 2)
	}
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		o, err := scan(string(text), max(1, n))
		var want map[string]json.RawMessage
		object := json.Valid(text) && strings.HasPrefix(strings.TrimLeft(string(text), " \t\r\n"), "{")
		if (err == nil) != object {
			t.Fatalf("%q: %v, and encoding/json says %v", text, err, object)
		}
		if err != nil {
			if _, whole := scan(string(text), len(text)+1); whole == nil || whole.Error() != err.Error() {
				t.Fatalf("%q: %v in pieces, %v as a whole", text, err, whole)
			}
			return
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		for key, span := range map[string]Span{"args": o.Args, "kwargs": o.Kwargs} {
			if got := text[span.Start:span.End]; string(got) != string(want[key]) {
				t.Fatalf("%q: %s is %q, not %q", text, key, got, want[key])
			}
		}
		var method string
		if json.Unmarshal(want["method"], &method) != nil {
			method = ""
		}
		if o.Method != strings.TrimSpace(method) {
			t.Fatalf("%q: method %q, not %q", text, o.Method, method)
		}
	})
}

func BenchmarkScanner(b *testing.B) {
	text := []byte(`{"method":"a","kwargs":{"data":"` + strings.Repeat("0123456789abcdef", 1<<16) + `"}}`)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var s Scanner
		if _, err := s.Write(text); err != nil {
			b.Fatal(err)
		}
	}
}
