package reach

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheEndpointsOfDatabases(t *testing.T) {
	for uri, want := range map[string]string{
		"postgresql://user:pw@db.example.org:5433/cdm?sslmode=verify-full":       "db.example.org:5433",
		"postgresql://DB.Example.ORG/cdm":                                        "db.example.org:5432",
		"postgresql+psycopg2://u:p%40ss@db/cdm":                                  "db:5432",
		"postgres://u@a:1,b:2,c/x":                                               "a:1 b:2 c:5432",
		"postgresql://a,a:5432/x":                                                "a:5432",
		"postgresql:///x?host=db&port=6":                                         "db:6",
		"postgresql://u:p@/x?host=a:1&host=b:2":                                  "a:1 b:2",
		"postgresql://name.in.certificate/x?hostaddr=10.0.0.5":                   "10.0.0.5:5432",
		"postgresql://db/x?port=7":                                               "db:7",
		"postgresql://u:p@db/x?user=a@b":                                         "db:5432",
		"postgresql://[2001:db8::5]/x":                                           "[2001:db8::5]:5432",
		"mysql+pymysql://u:p@db:3307/x":                                          "db:3307",
		"mysql://db":                                                             "db:3306",
		"mssql+pyodbc://u:p@db/x?driver=ODBC+Driver":                             "db:1433",
		"http://sparql.example.org/ds/query":                                     "sparql.example.org:80",
		"https://sparql.example.org/ds/query?x=a":                                "sparql.example.org:443",
		"https://10.1.2.3:8443/ds":                                               "10.1.2.3:8443",
		"http://localhost:9999/sparql":                                           "localhost:9999",
		"mongodb://u:p@a:1,b:2/x":                                                "a:1 b:2",
		"orthanc://pacs:8042":                                                    "pacs:8042",
		"jdbc:postgresql://db.example.org:5454/postgres?user=x@y&password=u":     "db.example.org:5454",
		"jdbc:postgresql://a:1,b:2/x":                                            "a:1 b:2",
		"JDBC:PostgreSQL://db/x":                                                 "db:5432",
		"jdbc:mysql:loadbalance://a,b:1/x":                                       "a:3306 b:1",
		"jdbc:redshift://db/x":                                                   "db:5439",
		"jdbc:hive2://db/x":                                                      "db:10000",
		"jdbc:sqlserver://db:1434;databaseName=x;password=a@b":                   "db:1434",
		"jdbc:sqlserver://db;databaseName=x":                                     "db:1433",
		`jdbc:sqlserver://db\SQL1:1500;databaseName=x`:                           "db:1500",
		"jdbc:sqlserver://;serverName=db;portNumber=5":                           "db:5",
		"jdbc:sqlserver://[2001:db8::5]:1433;x=y":                                "[2001:db8::5]:1433",
		"jdbc:oracle:thin:@db:1522:ORCL":                                         "db:1522",
		"jdbc:oracle:thin:u/p@//db/service":                                      "db:1521",
		"jdbc:oracle:thin:@tcps://db:2484/service?wallet=x":                      "db:2484",
		"jdbc:oracle:thin:@[2001:db8::5]:1521:ORCL":                              "[2001:db8::5]:1521",
		"host=db port=5 user=x":                                                  "db:5",
		"host=db":                                                                "db:5432",
		"user=x  password='a b\\'c host=evil' host = 'db.example.org' port=5433": "db.example.org:5433",
		"host=a,b port=1,2":                                                      "a:1 b:2",
		"host=cert.name hostaddr=2001:db8::5":                                    "[2001:db8::5]:5432",
		"db.example.org:8042":                                                    "db.example.org:8042",
		"db.example.org:8042/studies":                                            "db.example.org:8042",
		"[2001:db8::5]:80":                                                       "[2001:db8::5]:80",
	} {
		got, err := Endpoints(uri)
		if text := strings.Trim(fmt.Sprint(got), "[]"); err != nil || strings.ReplaceAll(text, "[", "") != strings.ReplaceAll(strings.Trim(want, "[]"), "[", "") {
			t.Errorf("%s leads to %s (%v), wanted %s", uri, got, err, want)
		}
	}
}

func TestAddressesWithoutAClearEndpoint(t *testing.T) {
	for uri, want := range map[string]string{
		"":                                       "no host",
		"hush":                                   "no host",
		"bigquery://project-hush":                "names no port",
		"sqlite:///x.db":                         "no host",
		"postgresql:///x":                        "no host",
		"postgresql://u:hu@sh@db:5432/x":         "cannot be told from its password",
		"postgresql://u:hu/sh@db:5432/x":         "cannot be told from its password",
		"postgresql://u:12/sh@db:5432/x":         "cannot be told from its password",
		"postgresql://u:hu?sh@db:5432/x":         "cannot be told from its password",
		"postgresql://u:hu#sh@db:5432/x":         "cannot be told from its password",
		"jdbc:mysql://u:1/hush@db/x":             "cannot be told from its password",
		"postgresql://u:p@%2Fvar%2Frun/x":        "under services",
		"postgresql:///x?host=/var/run/hush":     "under services",
		"host=/var/run user=hush":                "under services",
		"user=hush dbname=x":                     "no host",
		"host=a,b port=1,2,3":                    "number of ports",
		"host='db":                               "neither an address",
		"Server=db;Password=hush":                "no host",
		"mongodb+srv://u:hush@db/x":              "SRV",
		`jdbc:sqlserver://db\SQL1;password=hush`: "write the port",
		"jdbc:oracle:thin:@(DESCRIPTION=(ADDRESS=(HOST=db)(PORT=1)))": "write it as jdbc:oracle",
		"jdbc:oracle:thin:u/p@ss@db:1:X":                              "cannot be told",
		"jdbc:h2:mem:hush":                                            "no host",
		"postgresql://db:port/x":                                      "is none",
		"postgresql://db:0/x":                                         "is none",
		"postgresql://db:99999/x":                                     "is none",
		"postgresql://2130706433/x":                                   "is none",
		"postgresql://dé/x":                                           "is none",
		"postgresql://a b/x":                                          "is none",
		"postgresql://a\nb/x":                                         "control characters",
		"postgresql://" + strings.Repeat("a,", 3) + "a/x?port=x":      "is none",
		"postgresql://a1,a2,a3,a4,a5,a6,a7,a8,a9,a10,a11,a12,a13,a14,a15,a16,a17/x": "more than 16",
	} {
		got, err := Endpoints(uri)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, %v; wanted one that says %q", uri, got, err, want)
		}
	}
}

func FuzzEndpoints(f *testing.F) {
	for _, s := range []string{
		"postgresql://u:p@db:1,db2/x?host=a&port=1", "jdbc:sqlserver://a\\b:1;server=c", "jdbc:oracle:thin:u/p@//db:1/x", "host='a\\'' port=1", "[::1]:5", "a:1/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		got, err := Endpoints(uri)
		if (err == nil) != (len(got) > 0) || len(got) > maxHosts {
			t.Fatalf("%q: %v, %v", uri, got, err)
		}
		lower := strings.ToLower(uri)
		for _, p := range got {
			if p.Port < 1 || p.Port > 65535 || p.Host == "" {
				t.Fatalf("%q gives %+v", uri, p)
			}
			// A name is never made up: it stands in the address, or is written
			// there with a % or a backslash.
			if _, ip := p.Address(); !ip && !strings.Contains(lower, p.Host) && !strings.ContainsAny(uri, `%\+`) {
				t.Fatalf("%q gives the name %q", uri, p.Host)
			}
		}
	})
}
