//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/internal/imagekit"
)

func sandboxScenarios() []scenario {
	return []scenario{
		{"inside a sandbox", insideASandbox},
		{"the network ends at the sandbox", networkEnds},
		{"an image with a user of its own reads its input and writes its output", nonRootImage},
		{"the container's tmp is writable and bounded", boundedTmp},
		{"the job's tmp is shared within the job and not between jobs", jobTmp},
		{"an output that is a link is refused", linkedOutput},
	}
}

// sight is what the test algorithm's probe saw.
type sight struct {
	UID        int                     `json:"uid"`
	GID        int                     `json:"gid"`
	Hostname   string                  `json:"hostname"`
	Status     map[string]string       `json:"status"`
	Interfaces []struct{ Name string } `json:"interfaces"`
	Routes     []string                `json:"routes"`
	RoutesV6   []string                `json:"routes_v6"`
	Listeners  []string                `json:"listeners"`
	Mounts     []string                `json:"mounts"`
	Namespaces map[string]string       `json:"namespaces"`
	Processes  []string                `json:"processes"`
	Files      []seenFile              `json:"files"`
	Root       []string                `json:"root"`
	Hosts      string                  `json:"hosts"`
	ResolvConf string                  `json:"resolv_conf"`
	Readable   map[string]string       `json:"readable"`
	Writable   map[string]string       `json:"writable"`
	Connect    map[string]string       `json:"connect"`
	Environ    []string                `json:"environ"`
}

type seenFile struct {
	Path string
	Size int64
}

// environment is what the test algorithm's env returns.
type environment struct {
	Raw, Decoded map[string]string
}

// fails asserts that the sandbox could not do something.
func fails(t *testing.T, what string, outcomes map[string]string, subject string) {
	t.Helper()
	if why, tried := outcomes[subject]; !tried {
		t.Errorf("the probe did not try %s %s", what, subject)
	} else if why == "" {
		t.Errorf("the sandbox can %s %s", what, subject)
	}
}

// works asserts that it could.
func works(t *testing.T, what string, outcomes map[string]string, subject string) {
	t.Helper()
	if why, tried := outcomes[subject]; !tried || why != "" {
		t.Errorf("the sandbox cannot %s %s: %s", what, subject, why)
	}
}

func insideASandbox(t *testing.T, w *world) {
	alpha := w.alpha(t)
	// Another run of the same node is alive meanwhile.
	other := alpha.hold(t, databases("default", "secret"))
	const database = "/mnt/data/default.csv"
	done := alpha.call(t, "probe", kwargs{"write": []string{database}}, databases("default"))
	got := completed[sight](t, done)
	variables := completed[environment](t, alpha.call(t, "env", nil, databases("default")))
	other.release(t)
	if r := completed[gated](t, alpha.finish(t, other.task)); r.Executed != 1 || r.Proxy != 200 {
		t.Errorf("the other run: %+v", r)
	}

	t.Run("there are lo and eth0 only", func(t *testing.T) {
		var names []string
		for _, i := range got.Interfaces {
			names = append(names, i.Name)
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"eth0", "lo"}) {
			t.Errorf("interfaces %q", names)
		}
	})
	t.Run("there is no route", func(t *testing.T) {
		if len(got.Routes) != 0 {
			t.Errorf("IPv4 routes %q", got.Routes)
		}
		for _, line := range got.RoutesV6 {
			if f := strings.Fields(line); f[len(f)-1] != "lo" {
				t.Errorf("IPv6 route %q", line)
			}
		}
	})
	t.Run("no capability is left", func(t *testing.T) {
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if strings.Trim(got.Status[set], "0") != "" || got.Status[set] == "" {
				t.Errorf("%s is %q", set, got.Status[set])
			}
		}
	})
	t.Run("no new privileges can be gained and system calls are filtered", func(t *testing.T) {
		if got.Status["NoNewPrivs"] != "1" || got.Status["Seccomp"] != "2" {
			t.Errorf("NoNewPrivs %q, Seccomp %q", got.Status["NoNewPrivs"], got.Status["Seccomp"])
		}
	})
	t.Run("the kernel's own files are masked", func(t *testing.T) {
		for _, file := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"} {
			fails(t, "read", got.Readable, file)
			masked := slices.ContainsFunc(got.Mounts, func(m string) bool { return strings.Fields(m)[4] == file })
			if _, err := os.Stat(file); err == nil && !masked {
				t.Errorf("%s exists on this machine and nothing is mounted over it", file)
			}
		}
	})
	t.Run("nothing can be written but the run's own places", func(t *testing.T) {
		for _, dir := range []string{"/", "/etc", "/mnt", "/mnt/data", "/sys", "/proc/sys/kernel", database} {
			fails(t, "write to", got.Writable, dir)
		}
		for _, dir := range []string{"/tmp", "/mnt/tmp"} {
			works(t, "write to", got.Writable, dir)
		}
		if root := mountAt(got.Mounts, "/"); !slices.Contains(strings.Split(root, ","), "ro") {
			t.Errorf("the root filesystem is mounted %q", root)
		}
	})
	t.Run("its own files are visible and no others", func(t *testing.T) {
		data := fmt.Sprintf("/mnt/data/task-%09d", done.ID)
		want := []string{"/mnt", "/mnt/data", database, data, data + "/input", data + "/output", data + "/token", "/mnt/tmp"}
		var have []string
		for _, f := range got.Files {
			have = append(have, f.Path)
		}
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(have, want) {
			t.Errorf("it sees %q, wanted %q", have, want)
		}
		image := []string{"algorithm", "dev", "etc", "mnt", "proc", "sys", "tmp"}
		if w.kind == crioKind {
			image = slices.Insert(image, 5, "run") // in which it says that this is a container
		}
		if !slices.Equal(got.Root, image) {
			t.Errorf("the root directory holds %q, wanted %q", got.Root, image)
		}
	})
	t.Run("it sees no process but its own", func(t *testing.T) {
		if !slices.Equal(got.Processes, []string{"1"}) {
			t.Errorf("processes %q", got.Processes)
		}
		for _, ns := range []string{"net", "pid", "ipc", "uts", "mnt"} {
			if own, err := os.Readlink("/proc/self/ns/" + ns); err != nil || got.Namespaces[ns] == own || got.Namespaces[ns] == "" {
				t.Errorf("its %s namespace is %q, the machine's %q (%v)", ns, got.Namespaces[ns], own, err)
			}
		}
	})
	t.Run("the hosts file names the proxy and nothing of the machine", func(t *testing.T) {
		var names []string
		for line := range strings.Lines(got.Hosts) {
			names = append(names, strings.Fields(line)[1:]...)
		}
		slices.Sort(names)
		if names = slices.Compact(names); !slices.Equal(names, []string{"localhost", "proxyserver"}) {
			t.Errorf("names %q", names)
		}
	})
	t.Run("there is no name server", func(t *testing.T) {
		if strings.Contains(got.ResolvConf, "nameserver") || strings.Contains(got.ResolvConf, "cannot be read") {
			t.Errorf("resolv.conf: %q", got.ResolvConf)
		}
	})
	t.Run("the machine's name is not told", func(t *testing.T) {
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		if want := "run-" + strconv.FormatInt(done.ID, 10); got.Hostname != want || got.Hostname == host {
			t.Errorf("host name %q, wanted %q", got.Hostname, want)
		}
	})
	t.Run("variables of databases that were not asked for are absent", func(t *testing.T) {
		for name := range variables.Raw {
			if strings.Contains(strings.ToLower(name), "secret") {
				t.Errorf("the variable %s is set", name)
			}
		}
		for name, value := range variables.Decoded {
			if strings.Contains(value, "secret") || strings.Contains(value, secretPassword) {
				t.Errorf("the variable %s is %q", name, value)
			}
		}
		if v := variables.Decoded["SUITE_SETTING"]; v != "from the configuration" {
			t.Errorf("algorithm_env arrives as %q", v)
		}
		if v := variables.Decoded["DEFAULT_DATABASE_URI"]; v != database {
			t.Errorf("DEFAULT_DATABASE_URI is %q", v)
		}
	})
	t.Run("a database that was asked for comes with its variables", func(t *testing.T) {
		v := completed[environment](t, alpha.call(t, "env", nil, databases("default", "secret"))).Decoded
		if v["SECRET_DATABASE_URI"] != "/mnt/data/secret.csv" || v["SECRET_DB_PARAM_PASSWORD"] != secretPassword {
			t.Errorf("variables %q", v)
		}
	})
}

// mountAt returns the options of the mount at a place, "" for none.
func mountAt(mounts []string, place string) string {
	for _, m := range mounts {
		if f := strings.Fields(m); f[4] == place {
			return f[5]
		}
	}
	return ""
}

// networkEnds lets a run look for everything that it must not reach, while the
// machine has listeners and another run has its proxy.
func networkEnds(t *testing.T, w *world) {
	alpha, beta := w.alphaBeta(t)
	neighbour := beta.hold(t)
	port := listen(t, "tcp4", "0.0.0.0:0")
	port6 := listen(t, "tcp6", "[::]:0")
	abstract := "@v6it-" + filepath.Base(w.dir) + "-" + strconv.Itoa(w.number())
	listen(t, "unix", abstract)
	registry := w.lab.Registry.Host()
	_, registryPort, err := net.SplitHostPort(registry)
	if err != nil {
		t.Fatal(err)
	}

	unreachable := []string{"8.8.8.8:53", "8.8.8.8:443", "udp:8.8.8.8:53", "[2001:4860:4860::8888]:443", "unix:" + abstract}
	for _, address := range machineAddresses(t) {
		p := port
		if strings.Contains(address, ":") {
			p = port6
		}
		for _, p := range []string{p, strconv.Itoa(w.server.Port()), registryPort} {
			unreachable = append(unreachable, net.JoinHostPort(address, p))
		}
	}
	for _, host := range []string{"127.0.0.2", "proxyserver", "192.0.2.2", "127.0.0.1"} {
		unreachable = append(unreachable, net.JoinHostPort(host, strconv.Itoa(betaPort)))
	}
	own := net.JoinHostPort("proxyserver", strconv.Itoa(alphaPort))
	got := completed[sight](t, alpha.call(t, "probe", kwargs{"connect": append([]string{own}, unreachable...)}))
	works(t, "connect to", got.Connect, own)
	for _, a := range unreachable {
		fails(t, "connect to", got.Connect, a)
	}
	// 127.0.0.2:8080 as the kernel writes it.
	if want := []string{"0200007F:1F90"}; !slices.Equal(got.Listeners, want) {
		t.Errorf("the sockets that listen in the sandbox are %q, wanted %q", got.Listeners, want)
	}
	for _, p := range []int{alphaPort, betaPort} {
		address := net.JoinHostPort("127.0.0.2", strconv.Itoa(p))
		if conn, err := net.DialTimeout("tcp", address, patience); err == nil {
			conn.Close()
			t.Errorf("a proxy can be reached on the machine's own %s", address)
		}
	}
	neighbour.release(t)
	if r := completed[gated](t, beta.finish(t, neighbour.task)); r.Proxy != 200 {
		t.Errorf("the neighbour's own proxy answered %+v", r)
	}
}

// listen opens a listener on the machine that accepts, proves that it can be
// reached, and returns its port.
func listen(t *testing.T, network, address string) (port string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	at := l.Addr().String()
	if network != "unix" {
		if _, port, err = net.SplitHostPort(at); err != nil {
			t.Fatal(err)
		}
		at = net.JoinHostPort("localhost", port)
		if network == "tcp6" {
			at = net.JoinHostPort("::1", port)
		}
	}
	conn, err := net.DialTimeout(network, at, patience)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	return port
}

// machineAddresses are all addresses of this machine, loopback included.
func machineAddresses(t *testing.T) []string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			ip := a.(*net.IPNet).IP
			text := ip.String()
			if ip.IsLinkLocalUnicast() && ip.To4() == nil {
				text += "%eth0" // the only interface from which it could be reached
			}
			list = append(list, text)
		}
	}
	if len(list) < 2 {
		t.Fatalf("this machine has the addresses %q only, which proves little", list)
	}
	return list
}

func nonRootImage(t *testing.T, w *world) {
	alpha := w.alpha(t)
	ref := w.push(t, "suite/nonroot", func(s *imagekit.Spec) { s.User = "1000:1000" })
	got := completed[sight](t, alpha.call(t, "probe", nil, image(ref.Tag), databases("default")))
	want := 1000
	if w.kind == oneIDKind {
		want = 0
	}
	if got.UID != want || got.GID != want {
		t.Errorf("it runs as %d:%d", got.UID, got.GID)
	}
	for _, dir := range []string{"/tmp", "/mnt/tmp"} {
		works(t, "write to", got.Writable, dir)
	}
	for _, dir := range []string{"/", "/etc", "/mnt/data"} {
		fails(t, "write to", got.Writable, dir)
	}
	if caps := got.Status["CapEff"] + got.Status["CapBnd"]; strings.Trim(caps, "0") != "" {
		t.Errorf("capabilities %q", caps)
	}
}

// filled is what the test algorithm's fill returns.
type filled struct {
	Written int64
	Error   string
}

func boundedTmp(t *testing.T, w *world) {
	alpha := w.alpha(t)
	half := completed[filled](t, alpha.call(t, "fill", kwargs{"path": "/tmp/file", "bytes": scratchSize / 2}))
	if half.Error != "" || half.Written < scratchSize/2 {
		t.Errorf("half of /tmp: %+v", half)
	}
	double := completed[filled](t, alpha.call(t, "fill", kwargs{"path": "/tmp/file", "bytes": 2 * scratchSize}))
	if double.Written > scratchSize || !strings.Contains(double.Error, "no space left") {
		t.Errorf("twice of /tmp: %+v", double)
	}
}

func jobTmp(t *testing.T, w *world) {
	alpha := w.alpha(t)
	first := alpha.hold(t)
	task := first.subtask(t, "count", kwargs{"name": "executed"})
	if got := completed[struct{ Count int }](t, alpha.finish(t, task)); got.Count != 2 {
		t.Errorf("a subtask of the job found %d marks, wanted the job's one and its own", got.Count)
	}
	if got := completed[struct{ Count int }](t, alpha.call(t, "count", kwargs{"name": "executed"})); got.Count != 1 {
		t.Errorf("another job found %d marks, wanted its own", got.Count)
	}
	first.release(t)
	if got := completed[gated](t, alpha.finish(t, first.task)); got.Executed != 2 {
		t.Errorf("the first run found %d marks, wanted two", got.Executed)
	}
}

func linkedOutput(t *testing.T, w *world) {
	alpha := w.alpha(t)
	for _, target := range []string{"/etc/shadow", "/mnt/data/default.csv", path.Join(w.dir, "tmp")} {
		done := alpha.call(t, "link_output", kwargs{"target": target}, databases("default"))
		if done.Status != "crashed" || done.Data != nil || !strings.Contains(done.Text, "not a regular file") {
			t.Errorf("a link to %s: %q, result %q, log %q", target, done.Status, done.Data, done.Text)
		}
	}
}
