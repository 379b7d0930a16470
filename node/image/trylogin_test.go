package image

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/v6node/v6node/internal/imagekit"
)

func TestALoginIsTriedAtItsRegistry(t *testing.T) {
	const password = "correct horse"
	guarded, err := imagekit.Serve(t.Context(), imagekit.RegistryOptions{Username: "alice", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	defer guarded.Close()
	open, err := imagekit.Serve(t.Context(), imagekit.RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := gone.Addr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	r := New(Options{})
	defer r.Close()
	for _, c := range []struct {
		name  string
		login Login
		asked bool
		want  error
	}{
		{"right", login(guarded.Host(), "alice", password), true, nil},
		{"right, for a path", login(guarded.Host()+"/team", "alice", password), true, nil},
		{"wrong password", login(guarded.Host(), "alice", "battery staple"), true, ErrDenied},
		{"open to all", login(open.Host(), "alice", password), false, nil},
		{"nobody there", login(nobody, "alice", password), false, ErrUnreachable},
		{"plain HTTP elsewhere", login("registry.invalid:1", "alice", password), false, ErrUnreachable},
	} {
		asked, err := r.TryLogin(t.Context(), c.login)
		if asked != c.asked || !errors.Is(err, c.want) {
			t.Errorf("%s: asked %t, %v", c.name, asked, err)
		}
		if err != nil && (strings.Contains(err.Error(), c.login.Password) || !strings.Contains(err.Error(), c.login.Registry)) {
			t.Errorf("%s: the sentence is %q", c.name, err)
		}
	}
}
