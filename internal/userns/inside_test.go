package userns

import "testing"

func TestUserNamespaceIsRecognised(t *testing.T) {
	for content, want := range map[string]bool{
		"         0          0 4294967295\n":                                   true,
		"         0       1000          1\n":                                   false,
		"         0       1000          1\n         1     100000      65536\n": false,
	} {
		if got := identity(content); got != want {
			t.Errorf("%q: %v", content, got)
		}
	}
}

func TestIDsAreFoundOutsideTheNamespace(t *testing.T) {
	const idMap = "         0       1001          1\n         1     100000      65536\n"
	for id, want := range map[int64]int64{0: 1001, 1: 100000, 1000: 100999, 65536: 165535} {
		if got, ok := lookUp(idMap, id); !ok || got != want {
			t.Errorf("%d is %d, %t", id, got, ok)
		}
	}
	for _, none := range []int64{65537, -1} {
		if got, ok := lookUp(idMap, none); ok {
			t.Errorf("%d is %d", none, got)
		}
	}
}

func TestASingleIDIsRecognised(t *testing.T) {
	for text, want := range map[string]bool{
		"         0       1000          1\n":                                   true,
		"         0          0 4294967295\n":                                   false,
		"         0       1000          1\n         1     100000      65536\n": false,
		"": false,
	} {
		if got := oneID(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
