package userns

import (
	"errors"
	"fmt"
	"strconv"
)

// systemsOwn are ids that nobody hands out: systemd's containers end below them,
// and above them ids are negative to some programs.
var systemsOwn = idRange{first: 0x70000000, count: 0x10000000}

// SubIDs returns the range of ids, of users and of groups alike, that containers
// may be given: what /etc/subuid and /etc/subgid give to the name, or else one
// that is by custom nobody's. The error says what to write into the two files.
func SubIDs(name string) (first, count uint32, err error) { return machine{root: "/"}.subIDs(name) }

func (m machine) subIDs(name string) (first, count uint32, err error) {
	users, err := m.ranges("etc/subuid")
	if err != nil {
		return 0, 0, fmt.Errorf("read /etc/subuid: %w", err)
	}
	groups, err := m.ranges("etc/subgid")
	if err != nil {
		return 0, 0, fmt.Errorf("read /etc/subgid: %w", err)
	}
	u, inUsers := rangeOf(users, name)
	g, inGroups := rangeOf(groups, name)
	if !inUsers && !inGroups {
		for _, r := range append(users, groups...) {
			if r.overlaps(systemsOwn) {
				return 0, 0, fmt.Errorf("the ids from %d to %d, which containers get, belong to %s as well: give v6node others by a line such as `%s:FIRST:6553600` in /etc/subuid and in /etc/subgid",
					systemsOwn.first, systemsOwn.first+systemsOwn.count-1, r.who, name)
			}
		}
		return uint32(systemsOwn.first), uint32(systemsOwn.count), nil
	}
	begin, end := max(u.first, g.first), min(u.first+u.count, g.first+g.count)
	if begin == 0 || end-begin < minIDs {
		return 0, 0, errors.New("the lines of " + name + " in /etc/subuid and /etc/subgid have fewer than " + strconv.Itoa(minIDs) +
			" ids in common: write the same range into both, with " + strconv.Itoa(minIDs) + " ids for each run that may live at the same time")
	}
	return uint32(begin), uint32(end - begin), nil
}

func (r idRange) overlaps(s idRange) bool {
	return r.first < s.first+s.count && s.first < r.first+r.count
}

// rangeOf returns the first range of a name.
func rangeOf(all []idRange, name string) (idRange, bool) {
	for _, r := range all {
		if r.who == name {
			return r, true
		}
	}
	return idRange{}, false
}
