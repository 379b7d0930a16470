package inflate

import "encoding/binary"

// adler is the Adler-32 checksum (RFC 1950), eight bytes at a step. The sums are
// wide enough for a run of 1 MiB before they must be reduced.
func adler(p []byte) uint32 {
	const (
		mod = 65521
		run = 1 << 20
		low = 0x00ff00ff00ff00ff // every other byte, in lanes of 16 bits
	)
	a, b := uint64(1), uint64(0)
	for len(p) > 0 {
		q := p[:min(len(p), run)]
		p = p[len(q):]
		for len(q) >= 8 {
			x := binary.LittleEndian.Uint64(q)
			even, odd := x&low, x>>8&low
			// A multiplication sums the lanes, each times its weight, in the highest.
			b += a<<3 + even*0x0008_0006_0004_0002>>48 + odd*0x0007_0005_0003_0001>>48
			a += (even + odd) * 0x0001_0001_0001_0001 >> 48
			q = q[8:]
		}
		for _, c := range q {
			a += uint64(c)
			b += a
		}
		a, b = a%mod, b%mod
	}
	return uint32(b<<16 | a)
}
