package jsonstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func copyAll(r io.Reader) (string, error) {
	var out bytes.Buffer
	c := New(r, &out)
	err := c.Value()
	if err == nil {
		err = c.End()
	}
	return out.String(), err
}

var texts = []string{
	`{}`, `[]`, `""`, ` [ ] `, `{ "a" : [ 1 , 2.5e-3 , true , null , "x" ] , "b" : { "c" : "d\"\\\/\u00e9" } }`,
	`17`, `-0.5`, `true`, `nul`, `nulll`, `01`, `1 2`, `{"a":1,}`, `[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{1:2}`, `{"a" 1}`,
	"\"a\nb\"", `"\x"`, `"\u12g4"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ud83d\n"`, `"`, `"\`, `[`, `{`, `]`, ``, ` `, `[1]]`, `NaN`,
	`{"a":{"a":{"a":[[[{}]]]}}}`, `{"":""}`, `{"\u0061":1}`, "\xff", "\"\xff\"", `{"a":1 "b":2}`, `[1 2]`, `[{}{}]`, `tru`, `-`,
}

func checkCopy(t *testing.T, text string) {
	t.Helper()
	got, err := copyAll(strings.NewReader(text))
	if valid := json.Valid([]byte(text)); valid != (err == nil) {
		t.Fatalf("%q: encoding/json accepts %v, we answer %v", text, valid, err)
	}
	slow, err2 := copyAll(iotest.OneByteReader(strings.NewReader(text)))
	if slow != got || (err == nil) != (err2 == nil) {
		t.Fatalf("%q: read byte by byte it is %q, %v instead of %q, %v", text, slow, err2, got, err)
	}
	if err != nil {
		if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrTooLong) {
			t.Fatalf("%q: unclassified error %v", text, err)
		}
		return
	}
	var a, b any
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return // a number out of range
	}
	if err := json.Unmarshal([]byte(got), &b); err != nil || !reflect.DeepEqual(a, b) {
		t.Fatalf("%q became %q, %v", text, got, err)
	}
}

func TestCopierAcceptsAndKeepsExactlyWhatIsJSON(t *testing.T) {
	for _, text := range texts {
		checkCopy(t, text)
	}
	checkCopy(t, `["`+strings.Repeat("long ", 100_000)+`",1]`)
}

func FuzzCopier(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return // our limits on keys, numbers and depth begin there
		}
		checkCopy(t, text)
	})
}

func TestStringsAreChangedWhateverTheirEscapesAndLength(t *testing.T) {
	long := strings.Repeat("abc/def+", 20_000)
	for _, content := range []string{"", "x", "a/b", "é\t\"\\", "😀", long} {
		quoted, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{string(quoted), strings.ReplaceAll(string(quoted), "/", `\/`), strings.ReplaceAll(string(quoted), "/", `\u002f`)} {
			var out bytes.Buffer
			var seen string
			c := New(iotest.HalfReader(strings.NewReader(`{"keep":1,"change": `+form+`,"end":[]}`)), &out)
			err := c.Object(func(key string) error {
				if key != "change" {
					return c.Value()
				}
				return c.String(func(r io.Reader, w io.Writer) error {
					p, err := io.ReadAll(r)
					seen = string(p)
					fmt.Fprintf(w, "%d", len(p))
					return err
				})
			})
			if err == nil {
				err = c.End()
			}
			want := fmt.Sprintf(`{"keep":1,"change":"%d","end":[]}`, len(content))
			if err != nil || seen != content || out.String() != want {
				t.Fatalf("%.40q: read %.40q, wrote %.80q, %v", content, seen, out.String(), err)
			}
		}
	}
}

func TestWhatAChangeLeavesUnreadIsSkipped(t *testing.T) {
	var out bytes.Buffer
	c := New(strings.NewReader(`["`+strings.Repeat("x", 100_000)+`","y"]`), &out)
	err := c.Array(func() error {
		return c.String(func(r io.Reader, w io.Writer) error {
			_, err := io.CopyN(w, r, 1)
			return err
		})
	})
	if err != nil || c.End() != nil || out.String() != `["x","y"]` {
		t.Fatalf("got %.40q, %v", out.String(), err)
	}
}

func TestCapturedMembersAreLeftOutAndCanBePutBackLater(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":"x","a":1,"c":2}`: `{"a":1,"b":"x","c":2}`,
		`{"a":1,"b":"x"}`:       `{"a":1}`,
		`{"b":"x"}`:             `{}`,
		`{"c":0,"b":"x","a":1}`: `{"c":0,"a":1,"b":"x"}`,
	} {
		var out bytes.Buffer
		var held []byte
		c := New(strings.NewReader(in), &out)
		err := c.Object(func(key string) (err error) {
			switch key {
			case "b":
				held, err = c.Capture(100)
			case "a":
				if err = c.Value(); err == nil && held != nil {
					c.Extra("b")
					_, err = c.Write(held)
				}
			default:
				err = c.Value()
			}
			return err
		})
		if err == nil {
			err = c.End()
		}
		if err != nil || out.String() != want {
			t.Errorf("%s: got %s, %v, want %s", in, out.String(), err, want)
		}
	}
}

func TestWhatMustBeHeldInMemoryIsLimited(t *testing.T) {
	long := strings.Repeat("1", 1<<20)
	for name, text := range map[string]string{"key": `{"` + long + `":1}`, "number": long} {
		if _, err := copyAll(strings.NewReader(text)); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := New(strings.NewReader(`"`+long+`"`), io.Discard).Capture(100); !errors.Is(err, ErrTooLong) {
		t.Errorf("capture: got %v", err)
	}
	if _, err := copyAll(strings.NewReader(strings.Repeat("[", 1<<20))); !errors.Is(err, ErrSyntax) {
		t.Errorf("depth: got %v", err)
	}
}

func TestErrorsOfReaderAndWriterArePassedOn(t *testing.T) {
	broken := errors.New("connection reset")
	if _, err := copyAll(io.MultiReader(strings.NewReader(`{"a":"b`), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("reader: got %v", err)
	}
	pr, pw := io.Pipe()
	pr.CloseWithError(broken)
	c := New(strings.NewReader(`{"a":"b"}`), pw)
	err := c.Value()
	if err == nil {
		err = c.End()
	}
	if !errors.Is(err, broken) {
		t.Errorf("writer: got %v", err)
	}
}
