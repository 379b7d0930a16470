package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// burn keeps every CPU busy and reports what it got.
func burn(in *contract.Input) (any, error) {
	d, err := pause(in)
	if err != nil {
		return nil, err
	}
	before, err := cpuTime() // the start of the program is not to be measured
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for range runtime.NumCPU() {
		go func() {
			for time.Since(began) < d {
			}
		}()
	}
	time.Sleep(d)
	after, err := cpuTime()
	return map[string]float64{"wall": time.Since(began).Seconds(), "cpu": (after - before).Seconds()}, err
}

// cpuTime is what this process has used so far.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// hoard writes a file and keeps it open, without a name if asked to.
func hoard(in *contract.Input) (any, error) {
	path, nameless := "", false
	if _, err := in.Arg(-1, "path", &path); err != nil {
		return nil, err
	}
	if _, err := in.Arg(-1, "nameless", &nameless); err != nil {
		return nil, err
	}
	n, err := number(in, "bytes", 1<<20)
	if err != nil {
		return nil, err
	}
	d, err := pause(in)
	if err != nil {
		return nil, err
	}
	if path == "" { // beside the output
		if path, err = contract.Variable("OUTPUT_FILE"); err != nil {
			return nil, err
		}
		path += ".hoard"
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if nameless {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		time.Sleep(d / 10) // so that it is not gone before anybody looked
	}
	block := make([]byte, 1<<16)
	for written := 0; written < int(n); written += len(block) {
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
	}
	time.Sleep(d)
	return map[string]bool{"kept": true}, nil
}

// forkBomb starts children that do the same, until time is up.
func forkBomb(in *contract.Input) (any, error) {
	d, err := pause(in)
	if err != nil {
		return nil, err
	}
	bomb(d)
	return map[string]bool{"survived": true}, nil
}

func bomb(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if self("bomb", time.Until(end).Milliseconds()).Start() != nil {
			time.Sleep(time.Millisecond)
		}
	}
}
