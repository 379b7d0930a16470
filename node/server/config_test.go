package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAddressesAreJoinedFromURLPortAndPath(t *testing.T) {
	tests := []struct {
		url     string
		port    int
		apiPath string
		api     string
		socket  string
	}{
		{"https://v6.example.org", 443, "/api", "https://v6.example.org/api", "https://v6.example.org/socket.io/"},
		{"https://v6.example.org", 0, "", "https://v6.example.org", "https://v6.example.org/socket.io/"},
		{"https://v6.example.org/", 0, "api/", "https://v6.example.org/api", "https://v6.example.org/socket.io/"},
		{"http://localhost", 5000, "/api", "http://localhost:5000/api", "http://localhost:5000/socket.io/"},
		{"http://localhost:5000", 5000, "/api", "http://localhost:5000/api", "http://localhost:5000/socket.io/"},
		{"http://localhost:5000", 0, "/", "http://localhost:5000", "http://localhost:5000/socket.io/"},
		{"https://h.example/v6", 0, "/api", "https://h.example/v6/api", "https://h.example/socket.io/"},
		{"https://h.example/v6/api/", 0, "/api", "https://h.example/v6/api", "https://h.example/socket.io/"},
		{"https://h.example:8443/api", 0, "api", "https://h.example:8443/api", "https://h.example:8443/socket.io/"},
		{"wss://h.example", 0, "/api", "https://h.example/api", "https://h.example/socket.io/"},
		{"ws://h.example", 80, "/api", "http://h.example/api", "http://h.example/socket.io/"},
		{"http://[::1]", 5000, "/api", "http://[::1]:5000/api", "http://[::1]:5000/socket.io/"},
		{"http://[::1]:5000", 5000, "/api", "http://[::1]:5000/api", "http://[::1]:5000/socket.io/"},
	}
	for _, tt := range tests {
		api, socket, err := addresses(Config{URL: tt.url, Port: tt.port, APIPath: tt.apiPath})
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if api.String() != tt.api || socket.String() != tt.socket {
			t.Errorf("%s %d %q: got %s and %s", tt.url, tt.port, tt.apiPath, api, socket)
		}
	}
}

func TestAnAddressThatCannotWorkIsRefusedWithAHint(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{}, "server_url is missing"},
		{Config{URL: "v6.example.org"}, "write it like https://"},
		{Config{URL: "ftp://v6.example.org"}, "use https:// or http://"},
		{Config{URL: "https://me:pw@v6.example.org"}, "scheme, host, port and path only"},
		{Config{URL: "https://v6.example.org?x=1"}, "scheme, host, port and path only"},
		{Config{URL: "https://v6.example.org:1", Port: 2}, "two different ports"},
		{Config{URL: "https://v6.example.org", Port: 70000}, "not a port number"},
		{Config{URL: "https://v6.example.org"}, "api_key is missing"},
		{Config{URL: "https://v6.example.org", APIKey: "k", CAFile: filepath.Join(t.TempDir(), "none")}, "ca_file cannot be read"},
	} {
		_, err := NewV4(tt.c)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.c, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "pw@") {
			t.Errorf("the password is in the message: %v", err)
		}
	}
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewV4(Config{URL: "https://h", APIKey: "k", CAFile: empty}); err == nil || !strings.Contains(err.Error(), "no certificate in PEM") {
		t.Errorf("got %v", err)
	}
}
