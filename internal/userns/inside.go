package userns

import (
	"os"
	"strconv"
	"strings"
)

// Inside tells whether this process is in a user namespace that is not the
// machine's first, whose map of user ids is the identity over all 32 bits.
func Inside() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !identity(string(b))
}

// MachineRoot tells whether this process is root of the machine, and not only of a
// user namespace.
func MachineRoot() bool { return os.Geteuid() == 0 && !Inside() }

// OneID tells whether this process is in a user namespace in which a single user
// id is mapped: no process can be another user there, and no file be given to one.
func OneID() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && oneID(string(b))
}

func oneID(uidMap string) bool {
	f := strings.Fields(uidMap)
	return len(f) == 3 && f[2] == "1"
}

func identity(uidMap string) bool {
	f := strings.Fields(uidMap)
	return len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}

// Stranger is the id that owners and groups of files appear to have which have
// none in this namespace, so that no process in it can be them. It is -1 in the
// machine's first namespace, where all have one.
func Stranger() int64 {
	if !Inside() {
		return -1
	}
	const usual = 65534
	b, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return usual
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return usual
	}
	return n
}

// OnHost returns a user id of this namespace as it is outside of it.
func OnHost(uid int64) (int64, bool) {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return 0, false
	}
	return lookUp(string(b), uid)
}

// lookUp reads user_namespaces(7)'s map: lines of first id inside, first id
// outside, count.
func lookUp(idMap string, id int64) (int64, bool) {
	for line := range strings.Lines(idMap) {
		var n [3]int64
		f := strings.Fields(line)
		if len(f) != len(n) {
			continue
		}
		ok := true
		for i := range n {
			var err error
			n[i], err = strconv.ParseInt(f[i], 10, 64)
			ok = ok && err == nil
		}
		if ok && id >= n[0] && id-n[0] < n[2] {
			return n[1] + id - n[0], true
		}
	}
	return 0, false
}
