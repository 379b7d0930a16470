package hostport

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPairs(t *testing.T) {
	for text, want := range map[string]Pair{
		"db.example.org:5432":  {"db.example.org", 5432},
		"DB.Example.ORG:1":     {"db.example.org", 1},
		"my_db-1:65535":        {"my_db-1", 65535},
		"10.1.2.3:80":          {"10.1.2.3", 80},
		"[2001:DB8::0:1]:443":  {"2001:db8::1", 443},
		"xn--bcher-kva.ch:443": {"xn--bcher-kva.ch", 443},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", ":", "db", "db:", ":5432", "db:0", "db:65536", "db:-1", "db:+1", "db:080", "db:http", "db:5432 ", " db:5432", "d b:1",
		"2001:db8::1:443", "[db]:1", "[10.1.2.3]:1", "[::1%lo]:1", "[::ffff:10.1.2.3]:1", "bücher.ch:443", "db.:1", ".db:1", "a..b:1", "-a:1", "a-.b:1",
		"2130706433:80", "127.1:80", "0x7f000001:80", "10.0.0.0x1:1", "1.2.3.4.5:1", "db/x:1", "u@db:1", strings.Repeat("a", 64) + ":1", strings.Repeat("a.", 127) + "a:1",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"db:1", "[::1]:2", "10.0.0.1:3", "[::ffff:1.2.3.4]:5", "0x1:1", "a.b-c_d:65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("%q: more than one line: %v", text, err)
			}
			return
		}
		if again, err := Parse(p.String()); err != nil || again != p {
			t.Fatalf("%q is %+v, which is read back as %+v (%v)", text, p, again, err)
		}
		if _, isAddress := p.Address(); !isAddress {
			if _, err := netip.ParseAddr(p.Host); err == nil || strings.ContainsAny(p.Host, " \t\n/@[]:%\\") {
				t.Fatalf("%q gives the name %q", text, p.Host)
			}
		}
	})
}
