package lab

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Root may enter every directory, so the test is one of a normal user's.
func TestADirectoryThatItsOwnerMayNotEnterIsRemoved(t *testing.T) {
	const variable = "V6NODE_TEST_REMOVE"
	if dir := os.Getenv(variable); dir != "" {
		if err := os.RemoveAll(dir); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("it is removed without help: %v", err)
		}
		if err := RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return
	}
	top, err := os.MkdirTemp("", "v6node-remove-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	closed := filepath.Join(top, "d", "work", "work")
	if err := errors.Join(os.MkdirAll(closed, 0o700), os.WriteFile(filepath.Join(closed, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	if os.Geteuid() == 0 {
		const nobody = 65534
		// Where the test binary is, a normal user may not enter.
		program := filepath.Join(top, "test")
		b, err := os.ReadFile(os.Args[0])
		if err == nil {
			err = os.WriteFile(program, b, 0o755)
		}
		for _, p := range []string{top, filepath.Join(top, "d"), filepath.Dir(closed), closed, filepath.Join(closed, "file")} {
			err = errors.Join(err, os.Chown(p, nobody, nobody))
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Dir = program, top
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), variable+"="+filepath.Join(top, "d"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(top, "d")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
