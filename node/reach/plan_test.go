package reach

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/proxy/egress"
)

func database(t *testing.T, label, uri string) Database {
	t.Helper()
	e, err := Endpoints(uri)
	if err != nil {
		t.Fatal(err)
	}
	return Database{label, e}
}

func service(t *testing.T, at, kind, address string) Service {
	t.Helper()
	p, err := hostport.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return Service{p, Target{kind, address}}
}

// links writes a plan's links as texts: listener, and target.
func links(p *Plan) string {
	var out []string
	for _, l := range p.Links {
		out = append(out, fmt.Sprintf("%s>%s", l.Listen, l.Target))
	}
	return strings.Join(out, " ")
}

func TestARunGetsWhatItsTaskNamesAndNoMore(t *testing.T) {
	all := []Database{
		database(t, "omop", "jdbc:postgresql://db.example.org:5454/x"),
		database(t, "cdm", "postgresql://db.example.org/y"),
		database(t, "same", "postgresql://db.example.org/z"),
		database(t, "graph", "https://sparql.example.org/ds"),
		database(t, "here", "postgresql://localhost/x"),
		database(t, "address", "postgresql://10.1.2.3/x"),
		database(t, "loop", "postgresql://127.0.0.3:99/x"),
		database(t, "six", "postgresql://[2001:db8::5]/x"),
		database(t, "behind", "postgresql://far:5433/x"),
		{Label: "file"},
	}
	services := []Service{
		service(t, "pacs:104", TCP, "10.9.9.9:1104"), service(t, "pacs:8042", Unix, "/run/pacs"), service(t, "far:5433", Unix, "/run/far"),
	}
	const always = " 127.0.0.%d:104>10.9.9.9:1104 127.0.0.%[1]d:8042>unix:/run/pacs"
	for asked, want := range map[string]string{
		"":                   fmt.Sprintf(always, 3)[1:],
		"file":               fmt.Sprintf(always, 3)[1:],
		"omop":               "127.0.0.3:5454>db.example.org:5454" + fmt.Sprintf(always, 4),
		"omop cdm same":      "127.0.0.3:5454>db.example.org:5454 127.0.0.3:5432>db.example.org:5432" + fmt.Sprintf(always, 4),
		"graph omop":         "127.0.0.3:5454>db.example.org:5454 127.0.0.4:443>sparql.example.org:443" + fmt.Sprintf(always, 5),
		"here":               "127.0.0.1:5432>localhost:5432" + fmt.Sprintf(always, 3),
		"address six":        "10.1.2.3:5432>10.1.2.3:5432 [2001:db8::5]:5432>[2001:db8::5]:5432" + fmt.Sprintf(always, 3),
		"loop omop":          "127.0.0.4:5454>db.example.org:5454 127.0.0.3:99>127.0.0.3:99" + fmt.Sprintf(always, 5),
		"behind":             "127.0.0.3:5433>unix:/run/far" + fmt.Sprintf(always, 4),
		"no-such-db, really": fmt.Sprintf(always, 3)[1:],
	} {
		p, err := Make(all, strings.Fields(asked), services, egress.Rules{})
		if err != nil {
			t.Fatal(err)
		}
		if got := links(p); got != want {
			t.Errorf("%q\ngot  %s\nwant %s", asked, got, want)
		}
		b, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Decode(b); err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%s is read back as %+v (%v)", b, again, err)
		}
	}
	p, err := Make(all, []string{"omop", "cdm", "here", "address"}, services, egress.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.HostsFile(); got != "127.0.0.3\tdb.example.org\n127.0.0.4\tpacs\n" {
		t.Errorf("the hosts file gets %q", got)
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	for _, uri := range []string{"postgresql://127.0.0.2/x", "postgresql://224.0.0.1/x", "postgresql://0.0.0.0/x", "postgresql://192.0.2.2/x", "postgresql://169.254.169.254/x", "http://[fe80::1]/x"} {
		if p, err := Make([]Database{database(t, "a", uri)}, []string{"a"}, nil, egress.Rules{}); err == nil {
			t.Errorf("%s is planned: %s", uri, links(p))
		}
	}
	var many []Service
	for i := range 253 {
		many = append(many, service(t, fmt.Sprintf("h%d:1", i), TCP, "x:1"))
	}
	if p, err := Make(nil, nil, many[:252], egress.Rules{}); err != nil || p.Links[251].Listen.String() != "127.0.0.254:1" {
		t.Errorf("252 hosts: %v", err)
	}
	if _, err := Make(nil, nil, many, egress.Rules{}); err == nil || !strings.Contains(err.Error(), "more than 250") {
		t.Errorf("253 hosts: %v", err)
	}
	if _, err := Decode([]byte("{")); err == nil {
		t.Error("a damaged plan is read")
	}
	if p, err := Decode(nil); err != nil || len(p.Links) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestTheWhitelistsProxyIsForRunsThatHaveSomethingListed(t *testing.T) {
	all := []Database{database(t, "omop", "postgresql://db.example.org/x"), database(t, "ip", "http://10.1.2.3/x")}
	p, err := Make(all, []string{"omop", "ip"}, nil, egress.Rules{Ports: []int{443}})
	if err != nil || p.Web != nil || p.Variables() != nil {
		t.Errorf("%+v, %v", p, err)
	}
	rules := egress.Rules{Domains: []string{"example.org"}}
	if p, err = Make(all, []string{"omop", "ip"}, nil, rules); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s %+v", p.Web.Listen, p.Web.Rules); got != fmt.Sprintf("127.0.0.4:3128 %+v", rules) {
		t.Errorf("the proxy is %s", got)
	}
	if got := p.HostsFile(); got != "127.0.0.3\tdb.example.org\n127.0.0.4\twebproxy\n" {
		t.Errorf("the hosts file gets %q", got)
	}
	const direct = "localhost,127.0.0.1,::1,proxyserver,webproxy,db.example.org,10.1.2.3"
	want := map[string]string{
		"HTTP_PROXY": "http://webproxy:3128", "HTTPS_PROXY": "http://webproxy:3128", "NO_PROXY": direct,
		"http_proxy": "http://webproxy:3128", "https_proxy": "http://webproxy:3128", "no_proxy": direct,
	}
	if got := p.Variables(); !reflect.DeepEqual(got, want) {
		t.Errorf("the variables are %v", got)
	}
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Decode(b); err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("%s is read back as %+v (%v)", b, again, err)
	}
	p.Web.Rules = egress.Rules{Pairs: []string{"api.example.org:1"}}
	if got := p.Variables()["NO_PROXY"]; got != direct {
		t.Errorf("NO_PROXY is %s", got)
	}
	p.Web.Rules = egress.Rules{Pairs: []string{"db.example.org:1"}, IPs: []string{"10.0.0.0/8"}}
	if got := p.Variables()["NO_PROXY"]; got != "localhost,127.0.0.1,::1,proxyserver,webproxy,db.example.org:5432,10.1.2.3:80" {
		t.Errorf("NO_PROXY is %s", got)
	}
}
