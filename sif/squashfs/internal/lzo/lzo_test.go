package lzo

import (
	"bytes"
	"strings"
	"testing"
)

// block is one hand-made block and what it means.
type block struct {
	name string
	in   []byte
	out  string
}

const end = "\x11\x00\x00"

func blocks() []block {
	abc := "abcdefghijklmnopqrstuvwxyz"
	return []block{
		{"nothing", []byte(end), ""},
		{"a first run of literals", []byte("\x15abcd" + end), "abcd"},
		{"a first run of two literals, then a short match", []byte("\x13ab\x04\x00" + end), "ab" + "ab"},
		{"a long run of literals", append([]byte("\x00\x08"+abc), end...), abc},
		{"a short match after literals reaches 2 KiB back", append([]byte("\x00"+strings.Repeat("\x00", 8)+"\x08"+strings.Repeat("wxyz", (8*255+8+18)/4)+strings.Repeat("v", (8*255+8+18)%4)+"\x00\x00"), end...),
			strings.Repeat("wxyz", 516) + "vv" + (strings.Repeat("wxyz", 516) + "vv")[2066-2049:][:3]},
		{"a match of four bytes, two literals behind it", []byte("\x15abcd\x62\x00xy" + end), "abcd" + "dddd" + "xy"},
		{"a match of any length that overlaps", []byte("\x15abcd\x20\x01\x0c\x00" + end), "abcd" + strings.Repeat("abcd", 9)[:34]},
	}
}

func TestBlocksDecodeAsTheFormatSays(t *testing.T) {
	for _, b := range blocks() {
		out := make([]byte, len(b.out))
		n, err := Decode(out, b.in)
		if err != nil || string(out[:n]) != b.out {
			t.Errorf("%s: %q, error %v; want %q", b.name, out[:n], err, b.out)
		}
		if len(out) > 0 {
			if _, err := Decode(out[:len(out)-1], b.in); err != ErrTooLong && err != ErrCorrupt {
				t.Errorf("%s: one byte short of room: error %v", b.name, err)
			}
		}
		for i := range b.in {
			if _, err := Decode(out, b.in[:i]); err == nil {
				t.Errorf("%s: accepted when cut to %d bytes", b.name, i)
			}
		}
	}
}

func TestAMatchBeforeTheStartIsRefused(t *testing.T) {
	if _, err := Decode(make([]byte, 100), []byte("\x15abcd\x20\x01\x10\x00"+end)); err != ErrCorrupt {
		t.Fatalf("error %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range blocks() {
		f.Add(b.in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const room, guard = 1 << 14, 64
		buf := bytes.Repeat([]byte{0xa5}, room+guard)
		n, err := Decode(buf[:room:room], in)
		if err == nil && n > room {
			t.Fatalf("%d bytes in %d", n, room)
		}
		if !bytes.Equal(buf[room:], bytes.Repeat([]byte{0xa5}, guard)) {
			t.Fatal("wrote past the buffer")
		}
	})
}
