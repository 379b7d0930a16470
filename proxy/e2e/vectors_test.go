package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func testKey(t testing.TB, name string) *PrivateKey {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func decryptBlob(k *PrivateKey, enc []byte) ([]byte, error) {
	r, err := k.DecryptBlob(bytes.NewReader(enc))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func checkSum(t *testing.T, plain []byte, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(plain); hex.EncodeToString(sum[:]) != want {
		t.Fatalf("decrypts to something else: %.60q", plain)
	}
}

func TestMessagesOfAnotherImplementationAreDecrypted(t *testing.T) {
	var file struct {
		PublicKey string `json:"public_key"`
		Vectors   []struct {
			Name, Form, SHA256, Encrypted string
			EncryptedBase64               []byte `json:"encrypted_base64"`
		}
	}
	readJSON(t, "testdata/vectors.json", &file)
	k := testKey(t, "pkcs1.pem")
	if got := k.Public().Base64(); got != file.PublicKey {
		t.Errorf("public key is written as %q, want %q", got, file.PublicKey)
	}
	if len(file.Vectors) < 15 {
		t.Fatalf("only %d vectors", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		t.Run(v.Name+"/"+v.Form, func(t *testing.T) {
			if v.Form == "blob" {
				plain, err := decryptBlob(k, v.EncryptedBase64)
				checkSum(t, plain, err, v.SHA256)
				return
			}
			plain, err := k.Decrypt(v.Encrypted)
			checkSum(t, plain, err, v.SHA256)
		})
	}
}

// The reference implementation's vectors lie beside the checkout, where they
// are at all.
func TestMessagesOfTheReferenceImplementationAreDecrypted(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "testdata", "crypto")
	text, err := os.ReadFile(filepath.Join(dir, "organization_private_key.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no reference vectors beside this checkout")
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		PublicKey string `json:"public_key"`
		Vectors   []struct {
			Name            string
			PlaintextBase64 *string `json:"plaintext_base64"`
			PlaintextSHA256 string  `json:"plaintext_sha256"`
			Encrypted       string
			StreamBase64    string `json:"stream_base64"`
		}
	}
	readJSON(t, filepath.Join(dir, "vectors.json"), &file)
	if got := k.Public().Base64(); got != file.PublicKey {
		t.Errorf("public key is written as %q, want %q", got, file.PublicKey)
	}
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			if v.StreamBase64 != "" {
				enc, err := base64.StdEncoding.DecodeString(v.StreamBase64)
				if err != nil {
					t.Fatal(err)
				}
				plain, err := decryptBlob(k, enc)
				checkSum(t, plain, err, v.PlaintextSHA256)
				return
			}
			plain, err := k.Decrypt(v.Encrypted)
			checkSum(t, plain, err, v.PlaintextSHA256)
		})
	}
}
