package admission

// foreign knows the largest subtask, queued or running here, whose parent runs
// elsewhere. Their parents hold up other nodes until they have run, so room is
// kept for them although nobody here waits for them.
type foreign struct {
	sizes   []map[int64]int // by resource: how many ask for that amount
	largest vector
}

func newForeign(s *scale) *foreign {
	f := &foreign{sizes: make([]map[int64]int, len(s.limit)), largest: s.zero()}
	for d := range f.sizes {
		f.sizes[d] = make(map[int64]int)
	}
	return f
}

func (f *foreign) add(v vector) {
	for d, n := range v {
		f.sizes[d][n]++
	}
	f.largest.raise(v)
}

func (f *foreign) remove(v vector) {
	for d, n := range v {
		if f.sizes[d][n]--; f.sizes[d][n] > 0 {
			continue
		}
		delete(f.sizes[d], n)
		if n < f.largest[d] {
			continue
		}
		f.largest[d] = 0
		for m := range f.sizes[d] {
			f.largest[d] = max(f.largest[d], m)
		}
	}
}
