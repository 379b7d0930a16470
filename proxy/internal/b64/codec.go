package b64

import (
	"encoding/binary"
	"errors"
	"sync"
)

// ErrCorrupt says that the text is not canonical base64.
var ErrCorrupt = errors.New("not canonical base64")

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// invalid marks a pair of characters that is not two base64 digits.
const invalid = 0x8000

// codec holds the lookup tables. They are built once, on first use.
type codec struct {
	pair   [1 << 12]uint16 // 12 bits -> two characters, little endian
	unpair [1 << 16]uint16 // two characters, little endian -> 12 bits or invalid
}

var shared = sync.OnceValue(func() *codec {
	c := new(codec)
	for i := range c.unpair {
		c.unpair[i] = invalid
	}
	for v := range c.pair {
		two := uint16(alphabet[v>>6]) | uint16(alphabet[v&63])<<8
		c.pair[v] = two
		c.unpair[two] = uint16(v)
	}
	return c
})

// EncodedLen is the length of the base64 text of n bytes.
func EncodedLen(n int) int { return (n + 2) / 3 * 4 }

// Encode writes the padded base64 text of src to dst, which must have
// EncodedLen(len(src)) bytes, and returns that length.
func Encode(dst, src []byte) int { return shared().encode(dst, src) }

// EncodeToString returns the padded base64 text of src.
func EncodeToString(src []byte) string {
	dst := make([]byte, EncodedLen(len(src)))
	Encode(dst, src)
	return string(dst)
}

func (c *codec) encode(dst, src []byte) int {
	n := EncodedLen(len(src))
	dst = dst[:n]
	pair := &c.pair
	for len(src) >= 16 && len(dst) >= 16 {
		a := binary.BigEndian.Uint64(src)
		b := binary.BigEndian.Uint64(src[6:])
		binary.LittleEndian.PutUint64(dst,
			uint64(pair[a>>52])|uint64(pair[a>>40&0xfff])<<16|
				uint64(pair[a>>28&0xfff])<<32|uint64(pair[a>>16&0xfff])<<48)
		binary.LittleEndian.PutUint64(dst[8:],
			uint64(pair[b>>52])|uint64(pair[b>>40&0xfff])<<16|
				uint64(pair[b>>28&0xfff])<<32|uint64(pair[b>>16&0xfff])<<48)
		src, dst = src[12:], dst[16:]
	}
	for len(src) >= 3 {
		v := uint32(src[0])<<16 | uint32(src[1])<<8 | uint32(src[2])
		binary.LittleEndian.PutUint32(dst, uint32(pair[v>>12])|uint32(pair[v&0xfff])<<16)
		src, dst = src[3:], dst[4:]
	}
	switch len(src) {
	case 1:
		binary.LittleEndian.PutUint16(dst, pair[uint16(src[0])<<4])
		dst[2], dst[3] = '=', '='
	case 2:
		v := uint32(src[0])<<16 | uint32(src[1])<<8
		binary.LittleEndian.PutUint16(dst, pair[v>>12])
		dst[2], dst[3] = byte(pair[v&0xfff]), '='
	}
	return n
}

// MaxDecodedLen is an upper bound of the number of bytes in n characters.
func MaxDecodedLen(n int) int { return n / 4 * 3 }

// Decode writes the bytes of the padded base64 text src to dst, which must
// have MaxDecodedLen(len(src)) bytes, and returns how many they are. dst and
// src may be the same slice. The error is ErrCorrupt, and says nothing about
// where: what is decoded here is usually ciphertext.
func Decode(dst, src []byte) (int, error) {
	return shared().decode(dst, src, true)
}

// decode decodes whole quanta; only when final may the last one be padded.
func (c *codec) decode(dst, src []byte, final bool) (int, error) {
	if len(src)%4 != 0 {
		return 0, ErrCorrupt
	}
	n := 0
	dst = dst[:MaxDecodedLen(len(src))]
	unpair := &c.unpair
	for len(src) >= 16 && len(dst)-n >= 16 {
		a := binary.LittleEndian.Uint64(src)
		b := binary.LittleEndian.Uint64(src[8:])
		a0, a1, a2, a3 := unpair[uint16(a)], unpair[uint16(a>>16)], unpair[uint16(a>>32)], unpair[uint16(a>>48)]
		b0, b1, b2, b3 := unpair[uint16(b)], unpair[uint16(b>>16)], unpair[uint16(b>>32)], unpair[uint16(b>>48)]
		if (a0|a1|a2|a3|b0|b1|b2|b3)&invalid != 0 {
			break // padding, or an error that the last loop finds
		}
		out := dst[n : n+16]
		binary.BigEndian.PutUint64(out, uint64(a0)<<52|uint64(a1)<<40|uint64(a2)<<28|uint64(a3)<<16)
		binary.BigEndian.PutUint64(out[6:], uint64(b0)<<52|uint64(b1)<<40|uint64(b2)<<28|uint64(b3)<<16)
		n += 12
		src = src[16:]
	}
	for len(src) > 0 {
		hi := unpair[uint16(src[0])|uint16(src[1])<<8]
		lo := unpair[uint16(src[2])|uint16(src[3])<<8]
		if (hi|lo)&invalid == 0 {
			v := uint32(hi)<<12 | uint32(lo)
			dst[n], dst[n+1], dst[n+2] = byte(v>>16), byte(v>>8), byte(v)
			n += 3
			src = src[4:]
			continue
		}
		if hi&invalid != 0 || len(src) != 4 || !final || src[3] != '=' {
			return n, ErrCorrupt
		}
		if src[2] == '=' {
			if hi&0xf != 0 {
				return n, ErrCorrupt
			}
			dst[n] = byte(hi >> 4)
			return n + 1, nil
		}
		lo = unpair[uint16(src[2])|uint16('A')<<8]
		if lo&invalid != 0 || lo>>6&3 != 0 {
			return n, ErrCorrupt
		}
		v := uint32(hi)<<12 | uint32(lo)
		dst[n], dst[n+1] = byte(v>>16), byte(v>>8)
		return n + 2, nil
	}
	return n, nil
}

// DecodeString returns the bytes of the padded base64 text s.
func DecodeString(s string) ([]byte, error) {
	dst := make([]byte, MaxDecodedLen(len(s)))
	n, err := Decode(dst, []byte(s))
	if err != nil {
		return nil, err
	}
	return dst[:n], nil
}
