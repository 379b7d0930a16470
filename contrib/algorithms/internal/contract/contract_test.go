package contract

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
)

func TestTheEncodingIsTheOneOfTheReferenceNode(t *testing.T) {
	if got := Encode("8101"); got != "HAYTAMI!" {
		t.Errorf("8101 is %q", got)
	}
	if got, err := Decode("HAYTAMI!"); err != nil || got != "8101" {
		t.Errorf("HAYTAMI! is %q, %v", got, err)
	}
	if Encode("") != "" {
		t.Error("empty does not stay empty")
	}
}

func FuzzDecodeReversesEncode(f *testing.F) {
	for _, seed := range []string{"", "8101", "/mnt/data/task-000000005/input", "\x00\xff", "HAYTAMI!"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := Decode(Encode(text)); err != nil || got != text {
			t.Errorf("%q became %q, %v", text, got, err)
		}
		_, _ = Decode(text) // anything may come in, nothing may panic
	})
}

func FuzzATokenIsReadOrRefused(f *testing.F) {
	f.Add("h." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":{"task_id":3,"study_id":null,"databases":[{"label":"a","query":"q"}]}}`)) + ".s")
	f.Add("h." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":6}`)) + ".s")
	f.Add("a.b")
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := ReadIdentity(token); err == nil && id == nil {
			t.Error("neither an identity nor an error")
		}
	})
}

func TestATokenNamesTaskAndDatabases(t *testing.T) {
	id, err := ReadIdentity("h." + base64.RawURLEncoding.EncodeToString([]byte(
		`{"sub":{"client_type":"container","node_id":6,"organization_id":1,"collaboration_id":21,"study_id":null,"store_id":null,"task_id":3,"image":"i","databases":[{"label":"a"}]}}`)) + ".s")
	if err != nil {
		t.Fatal(err)
	}
	if id.TaskID != 3 || id.CollabID != 21 || id.StudyID != nil || len(id.Databases) != 1 || id.Databases[0].Label != "a" {
		t.Errorf("identity %+v", id)
	}
}

func TestArgumentsAreFoundByNameThenByPosition(t *testing.T) {
	file := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(file, []byte(`{"method":"m","args":["first",null],"kwargs":{"name":"named"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INPUT_FILE", Encode(file))
	in, err := ReadInput()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		position int
		name     string
		want     string
		given    bool
	}{{0, "name", "named", true}, {0, "other", "first", true}, {1, "other", "", false}, {7, "other", "", false}, {-1, "other", "", false}} {
		var got string
		given, err := in.Arg(c.position, c.name, &got)
		if err != nil || given != c.given || got != c.want {
			t.Errorf("%d, %s: %q %t %v", c.position, c.name, got, given, err)
		}
	}
	var number int
	if _, err := in.Arg(0, "name", &number); err == nil {
		t.Error("a text was read as a number")
	}
}

func TestAMissingVariableIsNamed(t *testing.T) {
	if _, err := Variable("SURELY_NOT_SET"); err == nil {
		t.Error("no error for a variable that is not set")
	}
	t.Setenv("PLAIN", "not base32 at all")
	if _, err := Variable("PLAIN"); err == nil {
		t.Error("no error for a plain variable")
	}
}
