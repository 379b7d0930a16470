package runtime

import "testing"

func TestWiderLimitsAllowWhatEitherAllows(t *testing.T) {
	small := Resources{MemoryLimit: 1 << 20, MemorySwap: 2 << 20, CPUQuota: 50_000, PidsLimit: 10, CpusetCpus: "0"}
	large := Resources{MemoryLimit: 2 << 20, MemorySwap: NoSwapLimit, CPUQuota: 200_000, CPUPeriod: 200_000, PidsLimit: 20, CpusetCpus: "0-1"}
	for _, w := range []Resources{small.Wider(large), large.Wider(small)} {
		if w.MemoryLimit != 2<<20 || w.MemorySwap > 0 || w.CPUQuota*100_000 != 100_000*w.CPUPeriod || w.PidsLimit != 20 || !sameCPUs(w.CpusetCpus, "0-1") {
			t.Errorf("got %+v", w)
		}
		if err := w.check("x"); err != nil {
			t.Error(err)
		}
	}
	if w := small.Wider(Resources{}); w.MemoryLimit != 0 || w.CPUQuota != 0 || w.PidsLimit != 0 {
		t.Errorf("beside no limits: %+v", w)
	}
	if w := (Resources{}).Wider(small); w.MemoryLimit != 0 || w.PidsLimit != 0 || w.CPUQuota != 0 {
		t.Errorf("from no limits: %+v", w)
	}
}
