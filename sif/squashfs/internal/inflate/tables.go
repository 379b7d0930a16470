package inflate

import "math/bits"

const (
	maxBits = 15
	maxLit  = 288
	maxDist = 32

	litBits  = 11
	litMask  = 1<<litBits - 1
	distBits = 8
	distMask = 1<<distBits - 1
	preBits  = 7

	// The most entries that a code of this many symbols can need with a first
	// table of this size: "enough 288 11 15" and "enough 32 8 15" of zlib's
	// examples give 2342 and 402.
	litSize  = 2342
	distSize = 402
)

// One table entry. Low six bits: how many bits the symbol takes, those of a
// length's or distance's extra bits included.
//
//	literal:  bits 8-15 the byte, 16-23 the one after it, 24-25 how many of the two count
//	length:   bits 8-11 the code's own bits, 16-30 the base
//	distance: the same
//	special:  end of block; or, with pointer, bits 8-11 how many bits index the
//	          second table, 16-30 where it starts; or, alone, no such code
const (
	literal    = 1 << 31
	special    = 1 << 15
	pointer    = 1 << 14
	endOfBlock = 1 << 13
)

var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	preOrder    = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

func litEntry(sym uint16, n uint32) uint32 {
	switch {
	case sym < 256:
		return literal | 1<<24 | uint32(sym)<<8 | n
	case sym == 256:
		return special | endOfBlock | n
	case int(sym-257) < len(lengthBase):
		i := sym - 257
		return uint32(lengthBase[i])<<16 | n<<8 | (n + uint32(lengthExtra[i]))
	}
	return special
}

func distEntry(sym uint16, n uint32) uint32 {
	if int(sym) >= len(distBase) {
		return special
	}
	return uint32(distBase[sym])<<16 | n<<8 | (n + uint32(distExtra[sym]))
}

func preEntry(sym uint16, n uint32) uint32 { return uint32(sym)<<16 | n }

func (d *Decoder) fixedTables() error {
	for i := range maxLit {
		switch {
		case i < 144:
			d.lengths[i] = 8
		case i < 256:
			d.lengths[i] = 9
		case i < 280:
			d.lengths[i] = 7
		default:
			d.lengths[i] = 8
		}
	}
	for i := range maxDist {
		d.lengths[maxLit+i] = 5
	}
	return d.tables(maxLit, maxDist)
}

func (d *Decoder) dynamicTables() error {
	head, ok := d.take(14)
	if !ok {
		return ErrCorrupt
	}
	nlit, ndist, npre := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if nlit > 286 || ndist > 30 {
		return ErrCorrupt
	}
	var pre [19]uint8
	for _, i := range preOrder[:npre] {
		n, ok := d.take(3)
		if !ok {
			return ErrCorrupt
		}
		pre[i] = uint8(n)
	}
	if !d.build(d.pre[:], preBits, pre[:], preEntry, false) {
		return ErrCorrupt
	}
	for i := 0; i < nlit+ndist; {
		d.fill()
		e := d.pre[d.bits&(1<<preBits-1)]
		if e&special != 0 || uint(e&63) > d.nbits {
			return ErrCorrupt
		}
		d.bits >>= e & 63
		d.nbits -= uint(e & 63)
		sym := e >> 16
		if sym < 16 {
			d.lengths[i] = uint8(sym)
			i++
			continue
		}
		var value uint8
		var width, base uint
		switch sym {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			value, width, base = d.lengths[i-1], 2, 3
		case 17:
			width, base = 3, 3
		default:
			width, base = 7, 11
		}
		extra, ok := d.take(width)
		n := int(base) + int(extra)
		if !ok || i+n > nlit+ndist {
			return ErrCorrupt
		}
		for range n {
			d.lengths[i] = value
			i++
		}
	}
	if d.lengths[256] == 0 { // a block that cannot end
		return ErrCorrupt
	}
	return d.tables(nlit, ndist)
}

func (d *Decoder) tables(nlit, ndist int) error {
	if !d.build(d.lit[:], litBits, d.lengths[:nlit], litEntry, true) ||
		!d.build(d.dist[:], distBits, d.lengths[nlit:nlit+ndist], distEntry, true) {
		return ErrCorrupt
	}
	// Pairs of short literals become one entry. Downwards, because the entry
	// of what follows always lies lower and must still be a single one.
	for i := litMask; i >= 0; i-- {
		e := d.lit[i]
		if e&literal == 0 {
			continue
		}
		n := e & 63
		next := d.lit[i>>n]
		if next&literal != 0 && n+next&63 <= litBits {
			d.lit[i] = literal | 2<<24 | next<<8&0xff0000 | e&0xff00 | (n + next&63)
		}
	}
	return nil
}

// build makes the decoding table of one canonical Huffman code: a first table
// indexed by the next width bits and, for longer codes, second tables behind it.
// It refuses codes that are over-subscribed, and incomplete ones except where
// RFC 1951 and zlib allow them: no code at all, or a single one of one bit.
func (d *Decoder) build(table []uint32, width int, lengths []uint8, entry func(sym uint16, n uint32) uint32, sparse bool) bool {
	d.count = [maxBits + 1]uint16{}
	for _, n := range lengths {
		d.count[n]++
	}
	longest := maxBits
	for longest > 0 && d.count[longest] == 0 {
		longest--
	}
	left := 1
	var offset [maxBits + 2]uint16
	for n := 1; n <= maxBits; n++ {
		left = left<<1 - int(d.count[n])
		if left < 0 {
			return false
		}
		offset[n+1] = offset[n] + d.count[n]
	}
	if left > 0 {
		if !sparse || longest > 1 {
			return false
		}
		for i := range table[:1<<width] {
			table[i] = special
		}
	}
	for sym, n := range lengths {
		if n != 0 {
			d.sorted[offset[n]] = uint16(sym)
			offset[n]++
		}
	}

	// code is the current code, first bit lowest, as the stream has it.
	var code uint32
	i, size := 0, 1 // size: how much of the first table is filled, in powers of two
	for n := 1; n <= longest && n <= width; n++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for range d.count[n] {
			e := entry(d.sorted[i], uint32(n))
			table[code] = e
			i++
			code = next(code, n)
		}
	}
	for ; size < 1<<width; size *= 2 {
		copy(table[size:2*size], table[:size])
	}
	if longest <= width {
		return true
	}

	// Codes longer than the first table: those with the same first bits share
	// a second table, just wide enough for the longest of them.
	end, start, sub := 1<<width, 0, 0
	prefix := uint32(1 << 31)
	for n := width + 1; n <= longest; n++ {
		for left := int(d.count[n]); left > 0; left-- {
			if p := code & (1<<width - 1); p != prefix {
				prefix = p
				sub = n - width
				for room := left; room < 1<<sub && sub+width < longest; {
					sub++
					room = room<<1 + int(d.count[width+sub])
				}
				start = end
				end += 1 << sub
				if end > len(table) {
					return false
				}
				table[prefix] = special | pointer | uint32(start)<<16 | uint32(sub)<<8
			}
			e := entry(d.sorted[i], uint32(n))
			i++
			for at := code >> width; at < 1<<sub; at += 1 << (n - width) {
				table[start+int(at)] = e
			}
			code = next(code, n)
		}
	}
	return true
}

// next gives the code after one of n bits, in reversed bit order.
func next(code uint32, n int) uint32 {
	c := bits.Reverse32(code) >> (32 - n)
	return bits.Reverse32(c+1) >> (32 - n)
}
