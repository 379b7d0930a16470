// Package lzo decodes one LZO1X block, the form in which squashfs stores LZO
// data. It was written from the description of the format in the Linux
// documentation (Documentation/staging/lzo.rst); it never reads or writes outside
// the two buffers, and needs no memory.
package lzo

import (
	"encoding/binary"
	"errors"
)

var (
	// ErrCorrupt means that the block breaks the format or ends too early.
	ErrCorrupt = errors.New("invalid LZO data")
	// ErrTooLong means that the block decodes to more than the buffer holds.
	ErrTooLong = errors.New("LZO data decode to more than the block may hold")
)

// Instructions below 16 mean different things after different instructions.
const (
	afterMatch    = 0 // no literals since the last match; 1 to 3: as many
	afterLiterals = 4 // a run of four or more literals
)

// Decode decodes src into dst and returns how many bytes it made. What follows
// the end-of-stream instruction is ignored.
func Decode(dst, src []byte) (int, error) {
	ip, op, state := 0, 0, afterMatch
	if len(src) > 0 && src[0] > 17 { // only the first instruction: a short run of literals
		n := int(src[0]) - 17
		ip = 1
		var err error
		if ip, op, err = literals(dst, src, ip, op, n); err != nil {
			return 0, err
		}
		state = min(n, afterLiterals)
	}
	for ip < len(src) {
		t := int(src[ip])
		ip++
		var n, dist, next int
		switch {
		case t >= 64: // up to 8 bytes from up to 2 KiB back
			if ip >= len(src) {
				return 0, ErrCorrupt
			}
			n = t>>5 + 1
			dist = int(src[ip])<<3 + t>>2&7 + 1
			next = t & 3
			ip++
		case t >= 16: // any length, from up to 16 KiB (t >= 32) or 48 KiB back
			mask := 31
			if t < 32 {
				mask = 7
			}
			n = t & mask
			if n == 0 {
				var ok bool
				if n, ip, ok = extended(src, ip, len(dst)); !ok {
					return 0, ErrCorrupt
				}
				n += mask
			}
			n += 2
			if len(src)-ip < 2 {
				return 0, ErrCorrupt
			}
			v := int(binary.LittleEndian.Uint16(src[ip:]))
			ip += 2
			dist, next = v>>2, v&3
			if t >= 32 {
				dist++
			} else {
				dist += t & 8 << 11
				if dist == 0 {
					if n != 3 {
						return 0, ErrCorrupt
					}
					return op, nil // end of stream
				}
				dist += 16384
			}
		case state == afterMatch: // a run of literals
			n = t
			if n == 0 {
				var ok bool
				if n, ip, ok = extended(src, ip, len(dst)); !ok {
					return 0, ErrCorrupt
				}
				n += 15
			}
			var err error
			if ip, op, err = literals(dst, src, ip, op, n+3); err != nil {
				return 0, err
			}
			state = afterLiterals
			continue
		default: // two bytes from up to 1 KiB back, or three from 2 to 3 KiB back
			if ip >= len(src) {
				return 0, ErrCorrupt
			}
			n, dist = 2, int(src[ip])<<2+t>>2+1
			if state == afterLiterals {
				n, dist = 3, dist+2048
			}
			next = t & 3
			ip++
		}
		if dist > op {
			return 0, ErrCorrupt
		}
		if len(dst)-op < n {
			return 0, ErrTooLong
		}
		op = match(dst, op, dist, n)
		if next > 0 {
			var err error
			if ip, op, err = literals(dst, src, ip, op, next); err != nil {
				return 0, err
			}
		}
		state = next
	}
	return 0, ErrCorrupt // no end-of-stream instruction
}

// extended reads a length that did not fit its instruction: 255 for each zero
// byte and the first other one. A length past limit cannot be right.
func extended(src []byte, ip, limit int) (n, next int, ok bool) {
	for ip < len(src) {
		b := int(src[ip])
		ip++
		if b != 0 {
			return n + b, ip, true
		}
		if n += 255; n > limit {
			return 0, 0, false
		}
	}
	return 0, 0, false
}

func literals(dst, src []byte, ip, op, n int) (int, int, error) {
	if len(src)-ip < n {
		return 0, 0, ErrCorrupt
	}
	if len(dst)-op < n {
		return 0, 0, ErrTooLong
	}
	copy(dst[op:op+n], src[ip:ip+n])
	return ip + n, op + n, nil
}

func match(dst []byte, op, dist, n int) int {
	end := op + n
	from := op - dist
	if dist >= n {
		copy(dst[op:end], dst[from:from+n])
		return end
	}
	for ; op < end; op, from = op+1, from+1 {
		dst[op] = dst[from]
	}
	return end
}
