package reach

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/v6node/v6node/internal/hostport"
)

// maxHosts bounds the hosts of one address: a cluster has a handful.
const maxHosts = 16

// ports are those that drivers take where an address has none.
var ports = map[string]int{
	"postgresql": 5432, "postgres": 5432, "pgsql": 5432, "redshift": 5439, "cockroachdb": 26257,
	"mysql": 3306, "mariadb": 3306, "mssql": 1433, "sqlserver": 1433, "oracle": 1521, "db2": 50000, "sap": 30015,
	"hive": 10000, "hive2": 10000, "impala": 21050, "trino": 8080, "presto": 8080, "clickhouse": 9000, "snowflake": 443,
	"mongodb": 27017, "redis": 6379, "rediss": 6379, "neo4j": 7687, "bolt": 7687, "ldap": 389, "ldaps": 636, "ftp": 21, "sftp": 22,
	"http": 80, "https": 443,
}

// Endpoints finds the hosts and ports to which the address of a database leads,
// as its driver will read it. These forms are understood:
//
//	scheme://[user[:password]@]host[:port][,host[:port]...][/...][?...][#...]
//	jdbc:subprotocol://host[:port][,...][/...][?...][;name=value...]
//	jdbc:oracle:thin:[user/password]@[//]host[:port][:SID|/service]
//	host=... port=... (libpq's keywords)
//	host:port[/...]
//
// An address that two drivers could read differently is an error, and so is one
// without a host or without a port that is known. Errors are a sentence for the
// administrator, and never show the address, which may hold a password.
func Endpoints(uri string) ([]hostport.Pair, error) {
	found, err := endpoints(uri)
	if err != nil {
		return nil, err
	}
	var out []hostport.Pair
	for _, p := range found {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if len(out) > maxHosts {
		return nil, fmt.Errorf("it has more than %d hosts", maxHosts)
	}
	return out, nil
}

var (
	errNoHost    = errors.New("no host can be found in it")
	errAmbiguous = errors.New("its host cannot be told from its password; write @, / and ? in a password as %40, %2F and %3F")
	scheme       = regexp.MustCompile(`\A[A-Za-z][A-Za-z0-9+.:_-]{0,63}\z`)
	keyword      = regexp.MustCompile(`(?i)\A\s*[a-z_]+\s*=`)
	plainAddress = regexp.MustCompile(`\A(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})(?:/[^@]*)?\z`)
)

func endpoints(uri string) ([]hostport.Pair, error) {
	if strings.ContainsFunc(uri, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, errors.New("it has control characters in it")
	}
	rest, jdbc := cutPrefixFold(uri, "jdbc:")
	if jdbc {
		if oracle, ok := cutPrefixFold(rest, "oracle:"); ok {
			return oracleEndpoints(oracle)
		}
	}
	name, body, ok := strings.Cut(rest, "://")
	switch {
	case ok && scheme.MatchString(name):
		return schemeEndpoints(strings.ToLower(name), body, jdbc)
	case jdbc:
		return nil, errNoHost
	case keyword.MatchString(uri):
		return keywordEndpoints(uri)
	}
	if m := plainAddress.FindStringSubmatch(uri); m != nil {
		return one(hosted(m[1] + ":" + m[2]))
	}
	return nil, errNoHost
}

// hosted is hostport.Parse without the text in the error, which may be secret.
func hosted(text string) (hostport.Pair, error) {
	p, err := hostport.Parse(text)
	if err != nil {
		return p, errors.New("what stands where a host and a port should be is none")
	}
	return p, nil
}

func one(p hostport.Pair, err error) ([]hostport.Pair, error) {
	if err != nil {
		return nil, err
	}
	return []hostport.Pair{p}, nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// schemeEndpoints reads what stands behind "://".
func schemeEndpoints(name, body string, jdbc bool) ([]hostport.Pair, error) {
	if strings.HasSuffix(name, "+srv") {
		return nil, errors.New("it names its servers by SRV records; list them with their ports instead")
	}
	base := name[:strings.IndexAny(name+"+", "+:")] // without a driver, or what JDBC adds
	ends := "/?#"
	if jdbc {
		ends = "/?#;"
	}
	end := strings.IndexAny(body, ends)
	if end < 0 {
		end = len(body)
	}
	authority, tail := body[:end], body[end:]
	switch n := strings.Count(authority, "@"); {
	case n > 1:
		return nil, errAmbiguous
	case n == 1:
		_, authority, _ = strings.Cut(authority, "@")
	case jdbc && strings.Contains(beforeOptions(tail), "@"), !jdbc && strings.Contains(tail, "@"):
		return nil, errAmbiguous
	}
	port := ports[base]
	if jdbc && base == "sqlserver" {
		return sqlServerEndpoints(authority, tail, port)
	}
	if !jdbc && strings.HasPrefix(base, "postgres") {
		if found, ok, err := libpqOptions(authority, tail, port); ok || err != nil {
			return found, err
		}
	}
	return hosts(authority, port)
}

func beforeOptions(tail string) string { return tail[:strings.IndexAny(tail+"?", "?;#")] }

// hosts reads host[:port] between commas.
func hosts(list string, port int) ([]hostport.Pair, error) {
	if list == "" {
		return nil, errNoHost
	}
	if strings.Contains(list, "%") {
		return nil, errors.New("its host is written with %, as paths of sockets are; offer the socket under services and name that")
	}
	var out []hostport.Pair
	for _, text := range strings.Split(list, ",") {
		bare := strings.LastIndexByte(text, ':') <= strings.LastIndexByte(text, ']')
		if bare {
			if port == 0 {
				return nil, errors.New("it names no port, and what is usual for its kind is not known; write the port")
			}
			text += ":" + strconv.Itoa(port)
		}
		p, err := hosted(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// libpqOptions reads the options by which libpq, and what is made with it, takes
// hosts and ports from the query. ok tells whether it had such.
func libpqOptions(authority, tail string, port int) (_ []hostport.Pair, ok bool, _ error) {
	_, query, has := strings.Cut(tail, "?")
	if !has {
		return nil, false, nil
	}
	query, _, _ = strings.Cut(query, "#")
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, false, errors.New("its query is not one of a URL")
	}
	if !q.Has("host") && !q.Has("hostaddr") && !q.Has("port") {
		return nil, false, nil
	}
	names := q["host"]
	if q.Has("hostaddr") {
		names = q["hostaddr"] // then host is but the name in the certificate
	}
	if len(names) == 0 {
		names = []string{authority}
	}
	found, err := libpqHosts(strings.Join(names, ","), strings.Join(q["port"], ","), port)
	return found, true, err
}

// libpqHosts puts a list of hosts and a list of ports together: as many of both,
// or one port for all.
func libpqHosts(hostList, portList string, port int) ([]hostport.Pair, error) {
	names := strings.Split(hostList, ",")
	var numbers []string
	if portList != "" {
		numbers = strings.Split(portList, ",")
	}
	if len(numbers) > 1 && len(numbers) != len(names) {
		return nil, errors.New("it has another number of ports than of hosts")
	}
	var out []hostport.Pair
	for i, name := range names {
		if name == "" || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "@") {
			return nil, errors.New("it means a socket in the file system; offer the socket under services and name that")
		}
		with := port
		if len(numbers) > 0 && numbers[min(i, len(numbers)-1)] != "" {
			n, err := hostport.Port(numbers[min(i, len(numbers)-1)])
			if err != nil {
				return nil, errors.New("its port is none")
			}
			with = n
		}
		if strings.Count(name, ":") > 1 && !strings.HasPrefix(name, "[") {
			name = "[" + name + "]" // libpq has no brackets here
		}
		found, err := hosts(name, with)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// sqlServerEndpoints reads host[\instance][:port][;name=value]..., of which the
// values count more.
func sqlServerEndpoints(authority, tail string, port int) ([]hostport.Pair, error) {
	number, given := strconv.Itoa(port), false
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		authority, number, given = authority[:i], authority[i+1:], true
	}
	host, instance, _ := strings.Cut(authority, `\`)
	for _, option := range strings.Split(tail, ";") {
		name, value, _ := strings.Cut(option, "=")
		switch value = strings.TrimSpace(value); strings.ToLower(strings.TrimSpace(name)) {
		case "servername", "server":
			host, instance, _ = strings.Cut(value, `\`)
		case "port", "portnumber":
			number, given = value, true
		case "instance", "instancename":
			instance = value
		}
	}
	if host == "" {
		return nil, errNoHost
	}
	if instance != "" && !given {
		return nil, errors.New("it names an instance of SQL Server, whose port would have to be asked for; write the port")
	}
	return one(hosted(host + ":" + number))
}

// oracleEndpoints reads what stands behind jdbc:oracle:.
func oracleEndpoints(rest string) ([]hostport.Pair, error) {
	_, rest, ok := strings.Cut(rest, ":") // thin or oci
	if !ok {
		return nil, errNoHost
	}
	before, body, ok := strings.Cut(rest, "@")
	if !ok || strings.Contains(body, "@") || strings.Contains(before, `"`) {
		return nil, errAmbiguous
	}
	for _, p := range []string{"tcp://", "tcps://", "//"} {
		if after, ok := cutPrefixFold(body, p); ok {
			body = after
			break
		}
	}
	end := strings.IndexAny(body, "/?#")
	if end < 0 {
		end = len(body)
	}
	address := body[:end]
	if strings.ContainsAny(address, "(=") {
		return nil, errors.New("it is a description of Oracle's; write it as jdbc:oracle:thin:@//host:port/service")
	}
	// host:port:SID
	tail := address[strings.LastIndexByte(address, ']')+1:]
	if parts := strings.Split(tail, ":"); len(parts) == 3 {
		address = strings.TrimSuffix(address, ":"+parts[2])
	}
	return hosts(address, ports["oracle"])
}

// keywordEndpoints reads libpq's name = value, with values in quotes or not.
func keywordEndpoints(text string) ([]hostport.Pair, error) {
	options, err := keywords(text)
	if err != nil {
		return nil, err
	}
	names := options["host"]
	if a := options["hostaddr"]; a != "" {
		names = a
	}
	if names == "" {
		return nil, errNoHost
	}
	return libpqHosts(names, options["port"], ports["postgresql"])
}

func keywords(text string) (map[string]string, error) {
	broken := errors.New("it is neither an address nor a list of name=value as PostgreSQL has them")
	options := map[string]string{}
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		name, rest, ok := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " '\\;") {
			return nil, broken
		}
		rest = strings.TrimLeft(rest, " ")
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		var value strings.Builder
		i := 0
		for ; i < len(rest); i++ {
			if c := rest[i]; c == '\\' && i+1 < len(rest) {
				i++
			} else if quoted && c == '\'' || !quoted && c == ' ' {
				break
			}
			value.WriteByte(rest[i])
		}
		if quoted && i == len(rest) {
			return nil, broken
		}
		if quoted {
			i++
		}
		text = rest[i:]
		options[strings.ToLower(name)] = value.String()
	}
	return options, nil
}
