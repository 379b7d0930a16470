package e2e

import (
	"bytes"
	"testing"
)

func TestTheLengthOfAMessageIsKnownBeforehand(t *testing.T) {
	k, err := GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 2, 3, 4, 1000, 1 << 16} {
		enc, err := k.Public().Encrypt(bytes.Repeat([]byte("x"), n))
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Public().EncryptedLen(int64(n)); got != int64(len(enc)) {
			t.Errorf("%d bytes: EncryptedLen says %d, the message has %d", n, got, len(enc))
		}
	}
}
