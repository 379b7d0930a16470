// Package inflate decodes one zlib stream (RFC 1950, RFC 1951) that is wholly in
// memory into a buffer that is wholly in memory.
//
// A squashfs block is exactly that, and knowing both ends makes the decoder
// several times faster than one that reads from an io.Reader: bits are loaded
// eight bytes at a time, matches are copied eight bytes at a time, and nothing is
// copied through a window. It uses no unsafe code and allocates nothing after
// the Decoder itself.
package inflate

import (
	"encoding/binary"
	"errors"
)

var (
	// ErrCorrupt means that the stream breaks the format or ends too early.
	ErrCorrupt = errors.New("invalid zlib data")
	// ErrTooLong means that the stream decodes to more than the buffer holds.
	ErrTooLong = errors.New("zlib data decode to more than the block may hold")
	// ErrChecksum means that the decoded bytes do not have the stated Adler-32.
	ErrChecksum = errors.New("zlib checksum mismatch")
)

// Decoder holds the tables of one decoding. It may be reused for any number of
// streams, by one goroutine at a time. The zero value is ready.
type Decoder struct {
	lit     [litSize]uint32
	dist    [distSize]uint32
	pre     [1 << preBits]uint32
	lengths [maxLit + maxDist]uint8
	count   [maxBits + 1]uint16
	sorted  [maxLit]uint16

	in     []byte
	pos    int    // next byte of in to load
	bits   uint64 // loaded bits, next one lowest
	nbits  uint   // how many of bits count; what lies above them repeats in[pos:]
	out    []byte
	outPos int
}

// Zlib decodes the zlib stream at the start of src into dst and returns how many
// bytes it made. What follows the stream in src is ignored, as the kernel does.
func (d *Decoder) Zlib(dst, src []byte) (int, error) {
	const trailer = 4
	if len(src) < 2+trailer || src[0]&0x0f != 8 || src[0]>>4 > 7 ||
		(uint(src[0])<<8|uint(src[1]))%31 != 0 || src[1]&0x20 != 0 {
		return 0, ErrCorrupt
	}
	d.in, d.pos, d.bits, d.nbits = src, 2, 0, 0
	d.out, d.outPos = dst, 0
	err := d.blocks()
	n, end := d.outPos, d.pos-int(d.nbits/8)
	d.in, d.out = nil, nil
	if err != nil {
		return 0, err
	}
	if end < 0 || len(src)-end < trailer {
		return 0, ErrCorrupt
	}
	if adler(dst[:n]) != binary.BigEndian.Uint32(src[end:]) {
		return 0, ErrChecksum
	}
	return n, nil
}

func (d *Decoder) blocks() error {
	for {
		head, ok := d.take(3)
		if !ok {
			return ErrCorrupt
		}
		var err error
		switch head >> 1 {
		case 0:
			err = d.stored()
		case 1:
			if err = d.fixedTables(); err == nil {
				err = d.symbols()
			}
		case 2:
			if err = d.dynamicTables(); err == nil {
				err = d.symbols()
			}
		default:
			err = ErrCorrupt
		}
		if err != nil || head&1 != 0 {
			return err
		}
	}
}

// fill loads whole bytes until 56 to 63 bits are there or src ends.
func (d *Decoder) fill() {
	for d.nbits < 56 && d.pos < len(d.in) {
		d.bits |= uint64(d.in[d.pos]) << (d.nbits & 63)
		d.pos++
		d.nbits += 8
	}
}

// take removes n bits (at most 32) from the stream.
func (d *Decoder) take(n uint) (uint32, bool) {
	if d.nbits < n {
		d.fill()
		if d.nbits < n {
			return 0, false
		}
	}
	v := uint32(d.bits & (1<<(n&63) - 1))
	d.bits >>= n & 63
	d.nbits -= n
	return v, true
}

func (d *Decoder) stored() error {
	d.pos -= int(d.nbits / 8) // give whole bytes back; the rest of a byte is padding
	d.bits, d.nbits = 0, 0
	if d.pos < 0 || len(d.in)-d.pos < 4 {
		return ErrCorrupt
	}
	n := int(binary.LittleEndian.Uint16(d.in[d.pos:]))
	if n != int(^binary.LittleEndian.Uint16(d.in[d.pos+2:])) {
		return ErrCorrupt
	}
	d.pos += 4
	if len(d.in)-d.pos < n {
		return ErrCorrupt
	}
	if len(d.out)-d.outPos < n {
		return ErrTooLong
	}
	copy(d.out[d.outPos:], d.in[d.pos:d.pos+n])
	d.pos += n
	d.outPos += n
	return nil
}

// The fast loop stays this far from both ends, so that it needs no checks of its
// own: three pairs of literals, one match of 258 bytes copied in eights, and
// two loads of eight bytes.
const (
	outMargin = 6 + 258 + 16
	inMargin  = 2 * 8
)

// symbols decodes literals and matches up to the end-of-block code.
func (d *Decoder) symbols() error {
	in, out := d.in, d.out
	pos, op := d.pos, d.outPos
	bits, nbits := d.bits, d.nbits
	lit, dist := &d.lit, &d.dist

	inEnd, outEnd := len(in)-inMargin, len(out)-outMargin
	for pos <= inEnd && op <= outEnd {
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
		pos += int((63 - nbits) >> 3)
		nbits |= 56

		e := lit[bits&litMask]
		if e&literal != 0 {
			binary.LittleEndian.PutUint16(out[op:], uint16(e>>8))
			op += int(e >> 24 & 3)
			bits >>= e & 63
			nbits -= uint(e & 63)
			e = lit[bits&litMask]
			if e&literal != 0 {
				binary.LittleEndian.PutUint16(out[op:], uint16(e>>8))
				op += int(e >> 24 & 3)
				bits >>= e & 63
				nbits -= uint(e & 63)
				e = lit[bits&litMask]
				if e&literal != 0 {
					binary.LittleEndian.PutUint16(out[op:], uint16(e>>8))
					op += int(e >> 24 & 3)
					bits >>= e & 63
					nbits -= uint(e & 63)
					continue
				}
			}
		}
		if e&special != 0 {
			if e&pointer == 0 {
				if e&endOfBlock == 0 {
					return ErrCorrupt
				}
				d.bits, d.nbits = bits>>(e&63), nbits-uint(e&63)
				d.pos, d.outPos = pos, op
				return nil
			}
			at := uint64(e>>16) + bits>>litBits&(1<<(e>>8&15)-1)
			if at >= litSize {
				return ErrCorrupt
			}
			e = lit[at]
			if e&literal != 0 {
				out[op] = byte(e >> 8)
				op++
				bits >>= e & 63
				nbits -= uint(e & 63)
				continue
			}
			if e&special != 0 {
				if e&endOfBlock == 0 {
					return ErrCorrupt
				}
				d.bits, d.nbits = bits>>(e&63), nbits-uint(e&63)
				d.pos, d.outPos = pos, op
				return nil
			}
		}
		n := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15))
		bits >>= e & 63
		nbits -= uint(e & 63)

		bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
		pos += int((63 - nbits) >> 3)
		nbits |= 56
		e = dist[bits&distMask]
		if e&special != 0 {
			if e&pointer == 0 {
				return ErrCorrupt
			}
			at := uint64(e>>16) + bits>>distBits&(1<<(e>>8&15)-1)
			if at >= distSize {
				return ErrCorrupt
			}
			e = dist[at]
			if e&special != 0 {
				return ErrCorrupt
			}
		}
		off := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15))
		bits >>= e & 63
		nbits -= uint(e & 63)

		from := op - off
		if from < 0 {
			return ErrCorrupt
		}
		end := op + n
		if off >= 8 {
			binary.LittleEndian.PutUint64(out[op:], binary.LittleEndian.Uint64(out[from:]))
			binary.LittleEndian.PutUint64(out[op+8:], binary.LittleEndian.Uint64(out[from+8:]))
			if n > 16 {
				if off >= n && n > 64 {
					copy(out[op:end], out[from:from+n])
				} else {
					for op, from = op+16, from+16; op < end; op, from = op+8, from+8 {
						binary.LittleEndian.PutUint64(out[op:], binary.LittleEndian.Uint64(out[from:]))
					}
				}
			}
		} else if off == 1 {
			v := uint64(out[from]) * 0x0101010101010101
			for ; op < end; op += 8 {
				binary.LittleEndian.PutUint64(out[op:], v)
			}
		} else {
			for ; op < end; op, from = op+1, from+1 {
				out[op] = out[from]
			}
		}
		op = end
	}
	d.pos, d.outPos, d.bits, d.nbits = pos, op, bits, nbits
	return d.symbolsSlowly()
}

// symbolsSlowly does the same near the ends of the buffers, checking each step.
func (d *Decoder) symbolsSlowly() error {
	for {
		d.fill()
		e := d.lit[d.bits&litMask]
		if e&literal == 0 && e&special != 0 && e&pointer != 0 {
			at := uint64(e>>16) + d.bits>>litBits&(1<<(e>>8&15)-1)
			if at >= litSize {
				return ErrCorrupt
			}
			e = d.lit[at]
		}
		if uint(e&63) > d.nbits {
			return ErrCorrupt
		}
		if e&literal != 0 {
			n := int(e >> 24 & 3)
			if len(d.out)-d.outPos < n {
				return ErrTooLong
			}
			d.out[d.outPos] = byte(e >> 8)
			if n == 2 {
				d.out[d.outPos+1] = byte(e >> 16)
			}
			d.outPos += n
			d.bits >>= e & 63
			d.nbits -= uint(e & 63)
			continue
		}
		if e&special != 0 {
			if e&endOfBlock == 0 {
				return ErrCorrupt
			}
			d.bits >>= e & 63
			d.nbits -= uint(e & 63)
			return nil
		}
		n := int(e>>16) + int(d.bits&(1<<(e&63)-1)>>(e>>8&15))
		d.bits >>= e & 63
		d.nbits -= uint(e & 63)

		d.fill()
		e = d.dist[d.bits&distMask]
		if e&special != 0 && e&pointer != 0 {
			at := uint64(e>>16) + d.bits>>distBits&(1<<(e>>8&15)-1)
			if at >= distSize {
				return ErrCorrupt
			}
			e = d.dist[at]
		}
		if e&special != 0 || uint(e&63) > d.nbits {
			return ErrCorrupt
		}
		off := int(e>>16) + int(d.bits&(1<<(e&63)-1)>>(e>>8&15))
		d.bits >>= e & 63
		d.nbits -= uint(e & 63)

		if off > d.outPos {
			return ErrCorrupt
		}
		if len(d.out)-d.outPos < n {
			return ErrTooLong
		}
		for end := d.outPos + n; d.outPos < end; d.outPos++ {
			d.out[d.outPos] = d.out[d.outPos-off]
		}
	}
}
