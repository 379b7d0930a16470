package setup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/node/config"
)

func TestDatabasesAreReadFromOneWord(t *testing.T) {
	dir := t.TempDir()
	for in, want := range map[string]Database{
		"default=/data/a.csv":            {"default", "/data/a.csv", "csv"},
		"default=/data/A.CSV":            {"default", "/data/A.CSV", "csv"},
		"a=/data/a.xlsx":                 {"a", "/data/a.xlsx", "excel"},
		"a=b=c.parquet":                  {"a", "b=c.parquet", "parquet"},
		"a=csv:/data/a.dat":              {"a", "/data/a.dat", "csv"},
		"cdm=omop:postgres://u:p@db/cdm": {"cdm", "postgres://u:p@db/cdm", "omop"},
		"scans=" + dir:                   {"scans", dir, "folder"},
		"x=other:anything=at:all":        {"x", "anything=at:all", "other"},
		"s=sql:jdbc:postgresql://db:1/x": {"s", "jdbc:postgresql://db:1/x", "sql"},
		"n=/data/a:b.csv":                {"n", "/data/a:b.csv", "csv"},
	} {
		if got, err := ParseDatabase(in); err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "a", "=/x.csv", "a=", "/data/a.csv", "a=/x.dat", "a=postgres://u:hush@db/x.csv"} {
		got, err := ParseDatabase(in)
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q is %+v, %v", in, got, err)
		}
		if typeless := strings.HasPrefix(in, "a=/") || strings.HasPrefix(in, "a=p"); typeless != errors.Is(err, ErrType) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestAnAddressWithAPasswordIsKnown(t *testing.T) {
	for uri, want := range map[string]bool{
		"/data/a@b.csv": false, "postgres://db:1/x": false, "postgres://u:p@db:1/x": true, "jdbc:sqlserver://db:1;Password=x": true, "host=db port=1 password=x": true,
		"jdbc:postgresql://db:1/x": false, "https://u@db/x": true,
	} {
		if got := (Database{URI: uri}).Secret(); got != want {
			t.Errorf("%s: %v", uri, got)
		}
	}
}

func TestTheWrittenConfigurationSaysWhatWasAnswered(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	odd := `odd " \ ' # {{x}}: é`
	a := Answers{
		ServerURL: "https://v6.example.org:8443", APIPath: "/v6", CAFile: odd, APIKey: config.NewSecret(`k"#\:{{.}}`), PrivateKey: "key.pem", PassphraseFile: "/run/pass",
		Databases:  []Database{{"default", odd + ".csv", "csv"}, {"scans", ".", "folder"}, {"cdm", "postgres://u:p@db:1/x?a=#", "omop"}},
		Algorithms: []string{`^registry\.example\.org/[a-z]+$`, "sha256:" + strings.Repeat("a", 64)}, Endpoint: "unix:///run/x y.sock",
	}
	c, warnings, err := a.Config("/etc/v6node/alpha.yaml")
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%q, %v", warnings, err)
	}
	if c.Name != "alpha" || c.Server.URL != "https://v6.example.org" || c.Server.Port != 8443 || c.Server.APIPath != "/v6" || c.Server.CAFile != filepath.Join(dir, odd) ||
		c.APIKey != a.APIKey || c.Encryption != (config.Encryption{Enabled: true, PrivateKey: filepath.Join(dir, "key.pem"), PassphraseFile: "/run/pass"}) ||
		len(c.Databases) != 3 || c.Databases[0].URI != filepath.Join(dir, odd+".csv") || c.Databases[1].URI != dir || c.Databases[2].URI != a.Databases[2].URI ||
		c.Policies.AllowedAlgorithms[0] != a.Algorithms[0] || c.Policies.AllowedAlgorithms[1] != a.Algorithms[1] || c.Runtime.Endpoint != a.Endpoint {
		t.Errorf("%+v", c)
	}
	least := Answers{ServerURL: "https://v6.example.org", APIPath: "", APIKeyFile: "k", APIKey: config.NewSecret("hush")}
	text, err := least.Text()
	if err != nil || strings.Contains(string(text), "hush") || strings.Contains(string(text), "{{") {
		t.Errorf("%v\n%s", err, text)
	}
	if c, warnings, err := least.Config("/etc/v6node/alpha.yaml"); err != nil || len(warnings) > 0 || c.APIKeyFile != filepath.Join(dir, "k") || c.Server.APIPath != "" {
		t.Errorf("%+v, %q, %v", c, warnings, err)
	}
	// What is written as a comment works without the sign.
	path := filepath.Join(dir, "all.yaml")
	all := strings.ReplaceAll(string(text), "\n#  ", "\n  ")
	all = strings.NewReplacer("databases: []", "databases:", "#runtime:", "runtime:", "#limits:", "limits:").Replace(all)
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err = config.Parse(path, []byte(all))
	if err != nil || c.Limits.Memory != 4<<30 || len(c.Databases) != 1 || len(c.Policies.AllowedAlgorithms) != 1 || c.Runtime.Endpoint == "" {
		t.Errorf("%+v, %v\n%s", c, err, all)
	}
}

func TestAnswersAreCheckedOneByOne(t *testing.T) {
	a := Answers{ServerURL: "v6.example.org", APIPath: "/api", Databases: []Database{{"a-b", "/x", "csv"}}}
	if err := a.Check("server_url"); err == nil || !strings.Contains(err.Error(), "server_url") {
		t.Errorf("%v", err)
	}
	if err := a.Check("databases"); err == nil || !strings.Contains(err.Error(), "not an identifier") {
		t.Errorf("%v", err)
	}
	if err := a.Check("api_path", "api_key", "encryption"); err != nil {
		t.Errorf("%v", err)
	}
}
