package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrUnable means that this user cannot have a user namespace on this machine
// as it is set up. The text says what to do about it.
var ErrUnable = errors.New("v6node cannot run without root here")

func unable(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrUnable, fmt.Errorf(format, a...))
}

// minIDs is how many subordinate ids are needed: as many as images use.
const minIDs = 65536

// Require checks what any namespace needs. It changes nothing. All that is
// missing is in one error, which wraps ErrUnable.
func Require() error { return thisMachine().require() }

// RequireIDs checks in the same way what a namespace needs besides, in which there
// are more users than the one who makes it.
func RequireIDs() error { return thisMachine().requireIDs(currentUser()) }

func thisMachine() machine {
	return machine{root: "/", look: exec.LookPath, subids: getsubids}
}

// machine is what Require looks at.
type machine struct {
	root   string
	look   func(program string) (string, error)
	subids func(flag, name string) string // the answer of getsubids(1), "" for none
}

// owner is the user in question.
type owner struct {
	uid  int
	name string // "" when the machine has no name for it
}

func (o owner) String() string {
	if o.name == "" {
		return strconv.Itoa(o.uid)
	}
	return o.name
}

func currentUser() owner {
	o := owner{uid: os.Geteuid()}
	if u, err := user.LookupId(strconv.Itoa(o.uid)); err == nil {
		o.name = u.Username
	}
	return o
}

func (m machine) require() error {
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	if n, ok := m.number("proc/sys/user/max_user_namespaces"); ok && n == 0 {
		add(unable("the kernel makes no user namespaces: as root, run `sysctl -w user.max_user_namespaces=10000`, and write the same to a file in /etc/sysctl.d"))
	}
	if n, ok := m.number("proc/sys/kernel/unprivileged_userns_clone"); ok && n == 0 {
		add(unable("user namespaces are for root only on this machine: as root, run `sysctl -w kernel.unprivileged_userns_clone=1`, and write the same to a file in /etc/sysctl.d"))
	}
	return errors.Join(append(errs, m.programs("util-linux", "util-linux", "nsenter", "unshare"))...)
}

// programs names those that are missing, with the package that has them in Debian
// and in Enterprise Linux.
func (m machine) programs(debian, enterprise string, names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := m.look(name); err != nil {
			errs = append(errs, unable("the program %s is missing: as root, run `apt-get install %s` (on Fedora and Enterprise Linux `dnf install %s`)", name, debian, enterprise))
		}
	}
	return errors.Join(errs...)
}

func (m machine) requireIDs(o owner) error {
	errs := []error{m.programs("uidmap", "shadow-utils", "newuidmap", "newgidmap")}
	add := func(err error) { errs = append(errs, err) }
	for _, kind := range []struct{ file, flag, option string }{{"etc/subuid", "", "--add-subuids"}, {"etc/subgid", "-g", "--add-subgids"}} {
		have, err := m.subordinate(kind.file, o)
		if have < minIDs && m.subids != nil {
			have = max(have, countIDs(m.subids(kind.flag, o.String())))
		}
		if err != nil {
			add(unable("/%s cannot be read: %w", kind.file, err))
		} else if have < minIDs {
			first := m.free(kind.file)
			add(unable("the user %s has %d subordinate ids in /%s and containers need %d: as root, run `usermod %s %d-%d %s`",
				o, have, kind.file, minIDs, kind.option, first, first+minIDs-1, o))
		}
	}
	return errors.Join(errs...)
}

func (m machine) number(file string) (int, bool) {
	b, err := os.ReadFile(filepath.Join(m.root, file))
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return n, err == nil
}

// idRange is a line of subuid(5) or subgid(5).
type idRange struct {
	who          string
	first, count int
}

// maxIDFile bounds what is read of /etc/subuid.
const maxIDFile = 16 << 20

func (m machine) ranges(file string) ([]idRange, error) {
	path := filepath.Join(m.root, file)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxIDFile {
		return nil, fmt.Errorf("it has %d bytes", info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseRanges(string(b)), nil
}

// parseRanges skips what is not a range, as newuidmap does.
func parseRanges(text string) []idRange {
	var all []idRange
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil {
			all = append(all, idRange{f[0], int(first), int(count)})
		}
	}
	return all
}

// subordinate counts a user's ids.
func (m machine) subordinate(file string, o owner) (int, error) {
	all, err := m.ranges(file)
	n := 0
	for _, r := range all {
		if r.who == strconv.Itoa(o.uid) || o.name != "" && r.who == o.name {
			n += r.count
		}
	}
	return n, err
}

// free proposes the first id of a range that no user has.
func (m machine) free(file string) int {
	const usual = 100000
	next := usual
	all, err := m.ranges(file)
	if err != nil {
		return usual
	}
	for _, r := range all {
		next = max(next, r.first+r.count)
	}
	return next
}

// getsubids asks for ids that are kept elsewhere than in the two files, in an
// LDAP directory for one.
func getsubids(flag, name string) string {
	args := []string{name}
	if flag != "" {
		args = []string{flag, name}
	}
	out, err := exec.Command("getsubids", args...).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// countIDs reads lines such as "0: alice 100000 65536".
func countIDs(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if count, err := strconv.ParseUint(f[len(f)-1], 10, 32); err == nil && len(f) == 4 {
			n += int(count)
		}
	}
	return n
}
