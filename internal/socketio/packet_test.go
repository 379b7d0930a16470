package socketio

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func id(n uint64) *uint64 { return &n }

func TestPacketsOfTheRecordedProtocolAreDecoded(t *testing.T) {
	tests := []struct {
		in   string
		want Packet
	}{
		{`0/tasks,{}`, Packet{Type: Connect, Namespace: "/tasks", Data: []byte(`{}`)}},
		{`0{"sid":"x"}`, Packet{Type: Connect, Namespace: "/", Data: []byte(`{"sid":"x"}`)}},
		{`0/tasks`, Packet{Type: Connect, Namespace: "/tasks"}},
		{`1/tasks,`, Packet{Type: Disconnect, Namespace: "/tasks"}},
		{`2/tasks,["sync"]`, Packet{Type: EventPacket, Namespace: "/tasks", Data: []byte(`["sync"]`)}},
		{`2/tasks,12["a",{"b":"/c,"}]`, Packet{Type: EventPacket, Namespace: "/tasks", ID: id(12), Data: []byte(`["a",{"b":"/c,"}]`)}},
		{`3/tasks,7[]`, Packet{Type: Ack, Namespace: "/tasks", ID: id(7), Data: []byte(`[]`)}},
		{`4/tasks,{"message":"no"}`, Packet{Type: ConnectErr, Namespace: "/tasks", Data: []byte(`{"message":"no"}`)}},
		{`2/tasks?token=x,["sync"]`, Packet{Type: EventPacket, Namespace: "/tasks", Data: []byte(`["sync"]`)}},
	}
	for _, tt := range tests {
		got, err := DecodePacket([]byte(tt.in))
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestMalformedPacketsAreRefused(t *testing.T) {
	for _, in := range []string{
		"", "9", "x", "2/tasks,", "2/tasks,{}", `2/tasks,["a"`, "3/tasks,1", `2["a"]trailing`,
		"2/tasks,99999999999999999999[]", "0/" + strings.Repeat("n", 256) + ",{}",
	} {
		if _, err := DecodePacket([]byte(in)); !errors.Is(err, ErrPacket) {
			t.Errorf("%.40q: got %v, want ErrPacket", in, err)
		}
	}
	for _, in := range []string{`51-/tasks,["a",{"_placeholder":true,"num":0}]`, `61-/tasks,1[]`} {
		if _, err := DecodePacket([]byte(in)); !errors.Is(err, ErrBinary) {
			t.Errorf("%q: got %v, want ErrBinary", in, err)
		}
	}
}

func TestAnEventNeedsAName(t *testing.T) {
	for _, in := range []string{`[]`, `[1]`, `[null]`, `[{"a":1}]`} {
		if _, err := decodeEvent([]byte(in)); !errors.Is(err, ErrPacket) {
			t.Errorf("%s: got %v, want ErrPacket", in, err)
		}
	}
	e, err := decodeEvent([]byte(`[ "new_task" , {"id":1} ]`))
	if err != nil || e.Name != "new_task" || len(e.Args) != 1 {
		t.Errorf("got %+v, %v", e, err)
	}
}

func FuzzDecodePacket(f *testing.F) {
	for _, s := range []string{
		`0/tasks,{}`, `1/tasks,`, `2/tasks,["sync"]`, `2["a",1,null]`, `2/a?b=c,12["x"]`, `3/tasks,7[]`,
		`4/tasks,{"message":"no"}`, `51-["b"]`, `2/`, `2/,`, "2\n[\"a\"] ", `018446744073709551616{}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := DecodePacket(in)
		if err != nil {
			if !errors.Is(err, ErrPacket) && !errors.Is(err, ErrBinary) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := DecodePacket(p.Encode())
		if err != nil {
			t.Fatalf("%q decodes, its encoding %q does not: %v", in, p.Encode(), err)
		}
		if !reflect.DeepEqual(p, again) {
			t.Fatalf("%q: %+v became %+v", in, p, again)
		}
		if p.Type == EventPacket {
			if e, err := decodeEvent(p.Data); err == nil {
				args := make([]any, len(e.Args))
				for i := range e.Args {
					args[i] = e.Args[i]
				}
				if _, err := encodeEvent(e.Name, args); err != nil {
					t.Fatalf("event of %q cannot be encoded again: %v", in, err)
				}
			}
		}
	})
}
