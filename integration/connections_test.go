//go:build integration

package integration

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
)

func connectionScenarios() []scenario {
	return []scenario{
		{"a run reaches its databases under their own names and no other's", databasesApart},
		{"a SPARQL endpoint is asked by its URI, with its certificate verified", sparql},
		{"a database that does not answer is told in the log", deadDatabase},
		{"connections are open again after the node was killed", connectionsAfterKill},
		{"a scan finds one database, one proxy for the whitelist, and nothing else", oneEach},
		{"a whitelisted pair is for some runs only", pairsForSome},
		{"a real PostgreSQL is asked over TLS, with its certificate verified by its name", realPostgres},
		{"PostgreSQL and a SPARQL endpoint are asked from Python", fromPython},
		{"a tunnel through a real sshd comes back when that restarts", realSSHD},
		{"services are found under their names, also a socket", servicesFound},
		{"an administrator sees what a run's connections carry, and it is on record", connectionsCounted},
	}
}

// talked is what the test algorithm's talk returns.
type talked struct{ Text, Error string }

// says starts a server on this machine that answers each connection with its
// name and what it was sent, and returns its port.
func says(t *testing.T, address, name string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			all.Go(func() {
				defer c.Close()
				if b, err := io.ReadAll(c); err == nil {
					fmt.Fprintf(c, "%s heard %s", name, b)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// machineName is a name by which this machine knows itself, and the address
// behind it. It is another name than localhost.
func machineName(t *testing.T) (name, address string) {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := net.LookupHost(name)
	if err != nil {
		t.Fatalf("this machine does not know its own name: write %q into /etc/hosts (%v)", name, err)
	}
	return name, addresses[0]
}

// sqlDatabase is a database of a configuration that listens somewhere.
func sqlDatabase(label, host, port string) map[string]any {
	return map[string]any{"label": label, "uri": "postgresql://user:password@" + net.JoinHostPort(host, port) + "/x", "type": "sql"}
}

// listening is how the kernel writes the sockets that listen, as probe does.
func listening(t *testing.T, addresses ...string) []string {
	t.Helper()
	var list []string
	for _, a := range addresses {
		tcp, err := net.ResolveTCPAddr("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		ip := tcp.IP.To4()
		list = append(list, fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port))
	}
	slices.Sort(list)
	return list
}

// lowPort is a port below 1024 that is free on an address of this machine.
func lowPort(t *testing.T, address string) string {
	t.Helper()
	for port := 700; port < 1024; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
		if err == nil {
			l.Close()
			return fmt.Sprint(port)
		}
	}
	t.Fatal("this machine has no free port below 1024")
	return ""
}

// inside does something in the network of a run, as its algorithm could.
func (n *node) inside(t *testing.T, run int64, do func() error) {
	t.Helper()
	sandboxes := n.sandboxes(t, run)
	if len(sandboxes) != 1 {
		t.Fatalf("run %d has %d sandboxes", run, len(sandboxes))
	}
	s, err := n.runtime(t).SandboxStatus(within(t), sandboxes[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	// As the node sees it, which without root has mounts of its own.
	ns, err := cni.OpenNetns(filepath.Join("/proc", fmt.Sprint(n.PID()), "root", s.NetNS))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(do); err != nil {
		t.Fatal(err)
	}
}

func databasesApart(t *testing.T, w *world) {
	name, address := machineName(t)
	low := lowPort(t, "127.0.0.1")
	first, second := says(t, net.JoinHostPort(address, "0"), "first"), says(t, net.JoinHostPort(address, "0"), "second")
	third, fourth := says(t, "127.0.0.1:"+low, "third"), says(t, "127.0.0.9:0", "fourth")
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": []map[string]any{
		sqlDatabase("first", name, first), sqlDatabase("second", name, second), sqlDatabase("third", "localhost", third), sqlDatabase("fourth", "127.0.0.9", fourth),
		sqlDatabase("far", "198.51.100.7", "5432"),
	}}})
	neighbour := n.hold(t, databases("first", "second", "third", "fourth", "far")) // has all of them meanwhile
	at := map[string]string{
		"first": net.JoinHostPort(name, first), "second": net.JoinHostPort(name, second), "third": net.JoinHostPort("localhost", third),
		"fourth": net.JoinHostPort("127.0.0.9", fourth), "far": "198.51.100.7:5432",
	}
	for _, c := range []struct {
		labels, listeners []string
	}{
		{nil, nil},
		{[]string{"first"}, []string{"127.0.0.3:" + first}},
		{[]string{"second", "third"}, []string{"127.0.0.3:" + second, "127.0.0.1:" + third}},
		{[]string{"first", "second", "fourth"}, []string{"127.0.0.3:" + first, "127.0.0.3:" + second, "127.0.0.9:" + fourth}},
		{[]string{"far"}, []string{"198.51.100.7:5432"}},
	} {
		targets := []string{"127.0.0.3:" + first, "127.0.0.3:" + second, "198.51.100.8:5432", "198.51.100.7:5433"}
		for _, a := range at {
			targets = append(targets, a)
		}
		for _, a := range machineAddresses(t) {
			for _, p := range []string{first, second, third, fourth} {
				targets = append(targets, net.JoinHostPort(a, p))
			}
		}
		got := completed[sight](t, n.call(t, "probe", kwargs{"connect": targets}, databases(c.labels...)))
		slices.Sort(got.Listeners)
		if want := listening(t, append([]string{"127.0.0.2:8080"}, c.listeners...)...); !slices.Equal(got.Listeners, want) {
			t.Errorf("with %q the sockets %q listen in the sandbox, wanted %q", c.labels, got.Listeners, want)
		}
		for _, target := range targets {
			allowed := slices.Contains(c.listeners, target)
			for _, label := range c.labels {
				allowed = allowed || at[label] == target
			}
			if allowed {
				works(t, fmt.Sprintf("with %q connect to", c.labels), got.Connect, target)
			} else {
				fails(t, fmt.Sprintf("with %q connect to", c.labels), got.Connect, target)
			}
		}
		if named := slices.ContainsFunc(c.listeners, func(l string) bool { return strings.HasPrefix(l, "127.0.0.3:") }); strings.Contains(got.Hosts, "127.0.0.3\t"+name) != named {
			t.Errorf("with %q the hosts file is %q", c.labels, got.Hosts)
		}
		for _, label := range c.labels {
			if label == "far" {
				continue
			}
			r := n.call(t, "talk", kwargs{"address": at[label], "send": "hello"}, databases(c.labels...))
			if got := completed[talked](t, r); got.Text != label+" heard hello" {
				t.Errorf("%s answers %+v", label, got)
			}
			want := fmt.Sprintf(`msg="a connection of the algorithm has ended" run=%d task=%d target=%s sent=5 received=%d `, r.ID, r.TaskID, at[label], len(label)+12)
			eventually(t, func() error {
				if log := n.Log(1 << 20); !strings.Contains(log, want) {
					return fmt.Errorf("the node's log does not say %s", want)
				}
				return nil
			})
		}
	}
	neighbour.undisturbed(t)
}

// sparql asks an endpoint with a certificate of its own, as its URI says.
func sparql(t *testing.T, w *world) {
	name, address := machineName(t)
	ca, cert, key := certificate(t, name)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{
		Listener: tcp(t, net.JoinHostPort(address, "0")), TLS: &tls.Config{Certificates: []tls.Certificate{pair}},
		Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body) // a short one is shown by the answer
			fmt.Fprintf(w, "%s%s?%s: %s", r.Host, r.URL.Path, r.URL.RawQuery, body)
		})},
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	uri := fmt.Sprintf("https://%s:%d/ds/query", name, srv.Listener.Addr().(*net.TCPAddr).Port)
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": []map[string]any{{"label": "graph", "uri": uri, "type": "sparql"}}}})
	const question = "SELECT * WHERE { ?s ?p ?o }"
	ask := kwargs{"method": "POST", "url": uri + "?format=json", "body": question, "ca": string(ca)}
	want := strings.TrimPrefix(uri, "https://") + "?format=json: " + question
	if got := completed[fetched](t, n.call(t, "fetch", ask, databases("graph"))); got.Body != want {
		t.Errorf("the endpoint answers %+v, wanted %q", got, want)
	}
}

func deadDatabase(t *testing.T, w *world) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": []map[string]any{sqlDatabase("dead", "localhost", port)}}})
	r := n.call(t, "talk", kwargs{"address": "localhost:" + port, "send": "hello"}, databases("dead"))
	if got := completed[talked](t, r); got.Error == "" || got.Text != "" {
		t.Errorf("a dead database answers %+v", got)
	}
	want := fmt.Sprintf(`level=WARN msg="a connection of the algorithm could not be made and was closed" run=%d task=%d target=localhost:%s error=`, r.ID, r.TaskID, port)
	if log := n.Log(1 << 20); !strings.Contains(log, want) || strings.Contains(log, "user:password") {
		t.Errorf("the node's log does not say %s, or shows a password", want)
	}
}

func connectionsAfterKill(t *testing.T, w *world) {
	name, address := machineName(t)
	port := says(t, net.JoinHostPort(address, "0"), "database")
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": []map[string]any{sqlDatabase("db", name, port), sqlDatabase("far", "198.51.100.7", "5432")}}})
	held := n.hold(t, databases("db", "far"))
	n.Kill()
	n.restart(t)
	n.attended(t, held)
	var text []byte
	n.inside(t, held.run, func() error {
		c, err := net.Dial("tcp", "127.0.0.3:"+port)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, "again"); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		if text, err = io.ReadAll(c); err != nil {
			return err
		}
		far, err := net.Dial("tcp", "198.51.100.7:5432")
		if err != nil {
			return err
		}
		return far.Close()
	})
	if string(text) != "database heard again" {
		t.Errorf("after the restart the database answers %q", text)
	}
	held.undisturbed(t)
}

// fetched is what the test algorithm's fetch returns.
type fetched struct {
	Status int
	Body   string
	Error  string
}

// web is an HTTP server on this machine that answers with its name, and its port.
func web(t *testing.T, l net.Listener, name string) (port string) {
	t.Helper()
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s answers %s %s", name, r.Method, r.URL.Path)
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
	_, port, _ = net.SplitHostPort(l.Addr().String()) // a unix socket has none
	return port
}

func tcp(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// oneEach scans from a run with one database and one whitelist entry, and shows
// that it finds these and the proxies, and nothing else.
func oneEach(t *testing.T, w *world) {
	name, address := machineName(t)
	database := says(t, net.JoinHostPort(address, "0"), "database")
	listed, other := web(t, tcp(t, net.JoinHostPort(address, "0")), "listed"), web(t, tcp(t, net.JoinHostPort(address, "0")), "other")
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"databases": []map[string]any{sqlDatabase("db", name, database)},
		"whitelist": map[string]any{
			"domains": []string{name, "localhost"}, "ips": []string{address + "/32", "198.51.100.0/24"}, "ports": []string{listed},
			"pairs": []any{map[string]any{"to": net.JoinHostPort(name, other), "organization": "nobody at all"}},
		},
	}})
	var targets []string
	for host := 1; host < 255; host++ {
		for _, p := range []string{"3128", "8080", database, listed, other} {
			targets = append(targets, fmt.Sprintf("127.0.0.%d:%s", host, p))
		}
	}
	for _, a := range append(machineAddresses(t), "169.254.169.254", "198.51.100.1", "192.0.2.1", "8.8.8.8", "10.0.0.1") {
		for _, p := range []string{"53", "80", "3128", "8080", database, listed, other, fmt.Sprint(w.server.Port())} {
			targets = append(targets, net.JoinHostPort(a, p))
		}
	}
	slices.Sort(targets)
	targets = slices.Compact(targets)
	wanted := []string{"127.0.0.2:8080", "127.0.0.3:" + database, "127.0.0.4:3128"}
	slices.Sort(wanted)
	got := completed[sight](t, n.call(t, "probe", kwargs{"connect": targets}, databases("db")))
	var found []string
	for _, target := range targets {
		if why, tried := got.Connect[target]; !tried || why == "" {
			found = append(found, target)
		}
	}
	if !slices.Equal(found, wanted) {
		t.Errorf("the scan finds %q, wanted %q", found, wanted)
	}
	slices.Sort(got.Listeners)
	if want := listening(t, wanted...); !slices.Equal(got.Listeners, want) {
		t.Errorf("the sockets %q listen, wanted %q", got.Listeners, want)
	}

	ask := func(method, url string) (fetched, ended) {
		e := n.call(t, "fetch", kwargs{"method": method, "url": url}, databases("db"))
		return completed[fetched](t, e), e
	}
	at := net.JoinHostPort(name, listed)
	r, e := ask("POST", "http://"+at+"/secret")
	if r.Status != http.StatusOK || r.Body != "listed answers POST /secret" {
		t.Errorf("what is listed answers %+v", r)
	}
	line := regexp.MustCompile(fmt.Sprintf(`run=%d task=%d method=POST target=%s decision=allowed status=200 sent=[1-9][0-9]* received=27 `, e.ID, e.TaskID, regexp.QuoteMeta(at)))
	if log := n.Log(1 << 20); !line.MatchString(log) || strings.Contains(log, "/secret") {
		t.Errorf("the node's log does not say %s, or says the path", line)
	}
	for url, want := range map[string]int{
		"http://" + net.JoinHostPort(name, other) + "/":        http.StatusForbidden, // another port, and another organization's
		"http://unlisted.example.org:" + listed + "/":          http.StatusForbidden,
		"http://169.254.169.254:" + listed + "/":               http.StatusForbidden,
		"http://" + net.JoinHostPort(address, other) + "/":     http.StatusForbidden,
		"http://xn--nothing." + name + ":" + listed + "/":      http.StatusForbidden,
		"http://" + net.JoinHostPort("10.0.0.1", listed) + "/": http.StatusForbidden,
	} {
		if strings.Contains(url, "//127.") {
			continue // programs do not ask a proxy for it
		}
		if r, _ := ask("GET", url); r.Status != want {
			t.Errorf("%s: %+v", url, r)
		}
	}
	variables := completed[environment](t, n.call(t, "env", nil)).Decoded
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if v := variables[name]; v != "http://webproxy:3128" {
			t.Errorf("%s is %q", name, v)
		}
	}
	if v := variables["NO_PROXY"]; !strings.Contains(v, "proxyserver") || v != variables["no_proxy"] {
		t.Errorf("NO_PROXY is %q", v)
	}
}

// pairsForSome shows that a pair is for the runs of one organization.
func pairsForSome(t *testing.T, w *world) {
	name, address := machineName(t)
	port := web(t, tcp(t, net.JoinHostPort(address, "0")), "listed")
	other := w.push(t, "suite/listed")
	n := w.start(t, nodeOptions{Extra: map[string]any{"whitelist": map[string]any{"pairs": []any{map[string]any{
		"to": []string{net.JoinHostPort(name, port), net.JoinHostPort(address, port)}, "image": strings.TrimSuffix(other.Tag, ":latest"),
	}}}}})
	ask := kwargs{"url": "http://" + net.JoinHostPort(name, port) + "/"}
	if r := completed[fetched](t, n.call(t, "fetch", ask, image(other.Tag))); r.Body != "listed answers GET /" {
		t.Errorf("the image for which it is listed gets %+v", r)
	}
	if r := completed[sight](t, n.call(t, "probe", nil)); len(r.Listeners) != 1 {
		t.Errorf("a run for which nothing is listed has the sockets %q", r.Listeners)
	}
	if v := completed[environment](t, n.call(t, "env", nil)).Raw["HTTP_PROXY"]; v != "" {
		t.Errorf("a run for which nothing is listed has HTTP_PROXY=%s", v)
	}
}

func servicesFound(t *testing.T, w *world) {
	_, address := machineName(t)
	port := says(t, net.JoinHostPort(address, "0"), "pacs")
	socket := filepath.Join(w.dir, fmt.Sprintf("s%d", w.number()))
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	web(t, l, "orthanc")
	if err := os.Chmod(socket, 0o777); err != nil { // for a node without root
		t.Fatal(err)
	}
	behind := says(t, net.JoinHostPort(address, "0"), "database")
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"services":  map[string]any{"pacs:104": net.JoinHostPort(address, port), "orthanc:80": "unix://" + socket, "warehouse:5432": net.JoinHostPort(address, behind)},
		"databases": []map[string]any{sqlDatabase("db", "warehouse", "5432")},
	}})
	if got := completed[talked](t, n.call(t, "talk", kwargs{"address": "pacs:104", "send": "c-echo"})); got.Text != "pacs heard c-echo" {
		t.Errorf("the service answers %+v", got)
	}
	if got := completed[fetched](t, n.call(t, "fetch", kwargs{"url": "http://orthanc/studies"})); got.Body != "orthanc answers GET /studies" {
		t.Errorf("the socket answers %+v", got)
	}
	// A service that stands for a database is for the runs that ask for that.
	ask := kwargs{"address": "warehouse:5432", "send": "select"}
	if got := completed[talked](t, n.call(t, "talk", ask, databases("db"))); got.Text != "database heard select" {
		t.Errorf("the database answers %+v", got)
	}
	if got := completed[talked](t, n.call(t, "talk", ask)); got.Error == "" {
		t.Errorf("a run that does not ask for the database reaches it: %+v", got)
	}
}

// connectionsCounted has a run talk to a database, to a dead one, and through the whitelist, and compares
// what was carried with what inspect shows meanwhile and the audit log says in the end, also when the
// node was killed in between.
func connectionsCounted(t *testing.T, w *world) {
	name, address := machineName(t)
	port := says(t, net.JoinHostPort(address, "0"), "database")
	dead := freePort(t, "127.0.0.1")
	site := web(t, tcp(t, net.JoinHostPort(address, "0")), "listed")
	other := w.push(t, "suite/counted")
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"databases": []map[string]any{sqlDatabase("db", name, port), sqlDatabase("dead", "localhost", dead), sqlDatabase("other", "198.51.100.7", "5432")},
		"whitelist": map[string]any{"pairs": []any{map[string]any{
			"to":    []string{net.JoinHostPort(name, site), net.JoinHostPort(address, site), net.JoinHostPort(name, port), net.JoinHostPort(address, port)},
			"image": strings.TrimSuffix(other.Tag, ":latest"),
		}}},
	}})
	g := n.hold(t, databases("db", "dead"))
	run := strconv.FormatInt(g.run, 10)
	shown := func() map[string]admin.Connection {
		out := map[string]admin.Connection{}
		for _, c := range show[[]admin.Inspection](t, n, "inspect", run)[0].Connections {
			out[c.At] = c
		}
		return out
	}
	at := net.JoinHostPort(name, port)
	if got := shown(); len(got) != 3 || got[at].Target != at || got[at].Kind != "tcp" || got["proxyserver:8080"].Kind != "vantage6" {
		t.Errorf("inspect shows %+v", got)
	}
	say := func(text string) net.Conn {
		var c net.Conn
		n.inside(t, g.run, func() (err error) { c, err = net.Dial("tcp", "127.0.0.3:"+port); return err })
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	hear := func(c net.Conn) {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
	}
	living := say("1234567")
	eventually(t, func() error {
		if got := shown()[at]; got.Open != 1 || got.Connections != 1 || got.Sent != 7 || got.Received != 0 {
			return fmt.Errorf("while the connection lives inspect shows %+v", got)
		}
		return nil
	})
	hear(living) // "database heard 1234567"
	n.inside(t, g.run, func() error {
		if c, err := net.Dial("tcp", "127.0.0.1:"+dead); err == nil {
			defer c.Close()
			if _, err := io.ReadAll(c); err == nil {
				return errors.New("a dead database ends the connection well")
			}
		}
		return nil
	})
	eventually(t, func() error {
		got := shown()
		if c := got[at]; c.Open != 0 || c.Sent != 7 || c.Received != 22 || c.AtLeast || got[net.JoinHostPort("localhost", dead)].Failed != 1 {
			return fmt.Errorf("after the connection inspect shows %+v", got)
		}
		return nil
	})
	if out := n.command(t, "inspect", "-o", "table", run); !strings.Contains(out, at) || !strings.Contains(out, "1 made, 0 open, 0 failed, 7B sent, 22B received") {
		t.Errorf("inspect shows %s", out)
	}

	// A node that ends in order forgets nothing; one that is killed says that it may have.
	for _, killed := range []bool{false, true} {
		if killed {
			n.Kill()
		} else if err := n.Stop(within(t)); err != nil {
			t.Fatal(err)
		}
		n.restart(t)
		n.attended(t, g)
		if c := shown()[at]; c.AtLeast != killed || !killed && (c.Connections != 1 || c.Sent != 7 || c.Received != 22) {
			t.Errorf("after a restart (by a kill: %v) inspect shows %+v", killed, c)
		}
	}
	hear(say("again"))
	eventually(t, func() error {
		if c := shown()[at]; c.Open != 0 || c.Sent < 5 {
			return fmt.Errorf("inspect shows %+v", c)
		}
		return nil
	})
	before := shown()
	g.undisturbed(t)
	ended := n.entry(t, audit.Ended, g.run)
	delivered := n.entry(t, audit.Delivered, g.run)
	got := map[string]audit.Connection{}
	for _, c := range ended.Connections {
		got[c.At] = c
	}
	if c := got[at]; len(got) != 3 || c.Sent != before[at].Sent || c.Received != before[at].Received || c.Connections != before[at].Connections || !c.AtLeast || c.Target != at {
		t.Errorf("on record is %+v, wanted %+v", got, before)
	}
	if c := got["proxyserver:8080"]; c.Connections < 1 || c.Received == 0 {
		t.Errorf("of the vantage6 API there is on record %+v", c)
	}
	if ended.BytesOut == nil || delivered.BytesOut == nil || *ended.BytesOut == 0 || *ended.BytesOut != *delivered.BytesOut {
		t.Errorf("bytes out: %v, delivered %v", ended.BytesOut, delivered.BytesOut)
	}

	// Of a run that the node did not leave meanwhile every byte is on record.
	r := n.call(t, "talk", kwargs{"address": at, "send": "hello"}, databases("db"))
	entry := n.entry(t, audit.Ended, r.ID)
	for _, c := range entry.Connections {
		if c.At == at && (c.Connections != 1 || c.Sent != 5 || c.Received != 20 || c.AtLeast) {
			t.Errorf("on record is %+v", c)
		}
	}
	if entry.BytesOut == nil || *entry.BytesOut != int64(len(r.Data)) || len(entry.Connections) != 2 {
		t.Errorf("on record is %+v, and %d bytes came", entry, len(r.Data))
	}
	r = n.call(t, "fetch", kwargs{"method": "POST", "url": "http://" + net.JoinHostPort(name, site) + "/", "body": "question"}, image(other.Tag))
	web := webOf(n.entry(t, audit.Ended, r.ID).Connections)
	if c := web[net.JoinHostPort(name, site)]; len(web) != 2 || c.Connections != 1 || c.Sent <= 8 || c.Received != int64(len("listed answers POST /")) || web["others"].Connections+web["others"].Failed != 0 {
		t.Errorf("of the whitelist there is on record %+v", web)
	}
	webCounted(t, n, net.JoinHostPort(name, site), net.JoinHostPort(name, port), image(other.Tag))
}

// webCounted has a run ask the whitelist's proxy for a page, for a tunnel and for what is not listed, and compares what each
// has carried with what inspect shows meanwhile and the audit log says in the end.
func webCounted(t *testing.T, n *node, site, database string, orders ...order) {
	g := n.hold(t, orders...)
	run := strconv.FormatInt(g.run, 10)
	// ask sends a text to the proxy, and returns the connection and the status of the answer.
	ask := func(text string) (c net.Conn, r *bufio.Reader, resp *http.Response) {
		n.inside(t, g.run, func() (err error) { c, err = net.Dial("tcp", "127.0.0.3:3128"); return err })
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		r = bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, r, resp
	}
	get := func(at string) string {
		return "GET http://" + at + "/ HTTP/1.1\r\nHost: " + at + "\r\nConnection: close\r\n\r\n"
	}
	_, _, resp := ask(get(site))
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "listed answers GET /" {
		t.Fatalf("%s, %v", text, err)
	}
	for _, text := range []string{get("secrets.evil.example:80"), "CONNECT 10.9.8.7:443 HTTP/1.1\r\nHost: x\r\n\r\n"} {
		if _, _, resp := ask(text); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", text, resp.Status)
		}
	}
	c, r, resp := ask("CONNECT " + database + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if _, err := io.WriteString(c, "12345"); err != nil {
		t.Fatal(err)
	}
	want := map[string]admin.Connection{
		site:     {Connections: 1, Sent: int64(len(get(site))), Received: 20},
		database: {Connections: 1, Open: 1, Sent: 5},
		"others": {Failed: 2},
	}
	shown := func() error {
		got := webOf(show[[]admin.Inspection](t, n, "inspect", run)[0].Connections)
		for target, w := range want {
			if c := got[target]; len(got) != len(want) || c.At != "webproxy:3128" || c.Connections != w.Connections || c.Open != w.Open || c.Failed != w.Failed || c.Sent != w.Sent || c.Received != w.Received {
				return fmt.Errorf("inspect shows of %s %+v, wanted %+v", target, c, w)
			}
		}
		return nil
	}
	eventually(t, shown)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "database heard 12345" {
		t.Fatalf("%s, %v", text, err)
	}
	want[database] = admin.Connection{Connections: 1, Sent: 5, Received: 20}
	eventually(t, shown)
	out := n.command(t, "inspect", "-o", "table", run)
	for _, text := range []string{"to whitelist " + site + ": 1 made, 0 open, 0 failed, ", "to whitelist " + database + ": 1 made, 0 open, 0 failed, 5B sent, 20B received", "to whitelist others: 0 made, 0 open, 2 failed, "} {
		if !strings.Contains(out, text) {
			t.Errorf("inspect does not show %s: %s", text, out)
		}
	}
	g.release(t)
	got := webOf(n.entry(t, audit.Ended, g.run).Connections)
	for target, w := range want {
		if c := got[target]; len(got) != len(want) || c.At != "webproxy:3128" || c.Connections != w.Connections || c.Failed != w.Failed || c.Sent != w.Sent || c.Received != w.Received {
			t.Errorf("on record of %s is %+v, wanted %+v", target, c, w)
		}
	}
	for _, text := range []string{
		"method=GET target=" + site + " decision=allowed status=200", "method=CONNECT target=" + database + " decision=allowed status=200 sent=5 received=20",
		"method=GET target=secrets.evil.example:80 decision=refused status=403 sent=0 received=0", "method=CONNECT target=10.9.8.7:443 decision=refused status=403 sent=0 received=0",
	} {
		if log := n.Log(1 << 20); !strings.Contains(log, "run="+run+" task="+fmt.Sprint(g.task)+" "+text) {
			t.Errorf("the node's log does not say %s", text)
		}
	}
}

// webOf are what goes through the whitelist's proxy, by target.
func webOf[C admin.Connection | audit.Connection](list []C) map[string]C {
	out := map[string]C{}
	for _, c := range list {
		switch c := any(c).(type) {
		case admin.Connection:
			if c.Kind == "whitelist" {
				out[c.Target] = any(c).(C)
			}
		case audit.Connection:
			if c.Kind == "whitelist" {
				out[c.Target] = any(c).(C)
			}
		}
	}
	return out
}

// entry waits for one of the node's audit log about a run.
func (n *node) entry(t *testing.T, event audit.Event, run int64) *audit.Entry {
	t.Helper()
	var found *audit.Entry
	eventually(t, func() error {
		err := audit.Each(filepath.Join(n.StateDir, audit.DirName), func(l *audit.Line) error {
			e, err := l.Entry()
			if err == nil && e.Event == event && e.Run == run {
				found = e
			}
			return err
		})
		if err == nil && found == nil {
			err = fmt.Errorf("the audit log has no entry %q about run %d", event, run)
		}
		return err
	})
	return found
}
