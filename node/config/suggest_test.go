package config

import "testing"

func TestTheNearestWordIsFound(t *testing.T) {
	words := []string{"policies", "port", "api_key", "task_dir", "ssh-tunnels"}
	for in, want := range map[string]string{"polices": "policies", "prot": "port", "API_KEY": "api_key", "apikey": "api_key", "ssh_tunnels": "ssh-tunnels", "zebra": "", "": "", "x": ""} {
		if got := nearest(in, words); got != want {
			t.Errorf("%q is taken for %q, want %q", in, got, want)
		}
	}
}
