package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// jsonText returns a JSON text of about n bytes.
func jsonText(n int) []byte {
	return []byte(`{"column":"` + strings.Repeat("waarde é ", n/10) + `"}`)
}

func TestWhatIsEncryptedIsDecrypted(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	for _, plain := range [][]byte{nil, []byte("1"), []byte("no json at all"), []byte("abcd"), jsonText(100), jsonText(payloadPrefix - 20), jsonText(300_000)} {
		enc, err := k.Public().Encrypt(plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Decrypt(enc)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%.40q comes back as %.40q, %v", plain, got, err)
		}
	}
}

func TestStreamsWorkWhateverThePieces(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	plain := jsonText(100_000)
	var enc bytes.Buffer
	w, err := k.Public().NewEncrypter(&enc)
	if err != nil {
		t.Fatal(err)
	}
	for p := plain; len(p) > 0; p = p[min(777, len(p)):] {
		if _, err := w.Write(p[:min(777, len(p))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"at once":       bytes.NewReader(enc.Bytes()),
		"byte by byte":  iotest.OneByteReader(bytes.NewReader(enc.Bytes())),
		"end with data": iotest.DataErrReader(bytes.NewReader(enc.Bytes())),
	} {
		d, err := k.NewDecrypter(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := iotest.TestReader(d, plain); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A decryption with nothing but the standard library, as the protocol says it.
func TestEncryptedFormIsTheProtocols(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	plain := jsonText(50_000)
	check := func(name string, parts []string, data []byte) {
		t.Helper()
		block, iv := mustDecode(t, parts[0]), mustDecode(t, parts[1])
		//lint:ignore SA1019 the protocol's padding
		key, err := rsa.DecryptPKCS1v15(nil, k.rsa, block)
		if err != nil || len(key) != 32 || len(iv) != 16 {
			t.Fatalf("%s: key of %d bytes, iv of %d, %v", name, len(key), len(iv), err)
		}
		c, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		cipher.NewCTR(c, iv).XORKeyStream(data, data)
		if !bytes.Equal(data, plain) {
			t.Fatalf("%s: other content", name)
		}
	}
	enc, err := k.Public().Encrypt(plain)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(enc, "$")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	check("string", parts, mustDecode(t, parts[2]))

	r, err := k.Public().EncryptBlob(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	blob, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(plain) + k.Public().BlobOverhead(); len(blob) != want {
		t.Fatalf("blob of %d bytes, announced %d", len(blob), want)
	}
	parts = strings.SplitN(string(blob), "$", 3)
	check("blob", parts, []byte(parts[2]))

	other, err := k.Public().Encrypt(plain)
	if err != nil {
		t.Fatal(err)
	}
	if other[:100] == enc[:100] {
		t.Fatal("the session key is not random")
	}
}

func TestBlobsAreAnyBytes(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	plain := make([]byte, 100_001)
	rand.Read(plain)
	r, err := k.Public().EncryptBlob(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	d, err := k.DecryptBlob(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(d, plain); err != nil {
		t.Fatal(err)
	}
}

// seal makes a message by hand, with any content of the RSA block.
func seal(t testing.TB, p *PublicKey, block, aesKey, payload []byte) string {
	t.Helper()
	//lint:ignore SA1019 the protocol's padding
	wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, p.rsa, block)
	if err != nil {
		t.Fatal(err)
	}
	c, err := aes.NewCipher(aesKey)
	if err != nil {
		t.Fatal(err)
	}
	iv, data := make([]byte, 16), make([]byte, len(payload))
	rand.Read(iv)
	cipher.NewCTR(c, iv).XORKeyStream(data, payload)
	b := base64.StdEncoding.EncodeToString
	return b(wrapped) + "$" + b(iv) + "$" + b(data)
}

func TestPayloadIsDecodedOnceMoreOnlyWhenItIsBase64OfJSON(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	b := base64.StdEncoding.EncodeToString
	long := jsonText(3 * payloadPrefix)
	for name, c := range map[string]struct{ payload, want string }{
		"JSON":                             {`{"a":1}`, `{"a":1}`},
		"base64 of an object":              {b([]byte(`{"a":1}`)), `{"a":1}`},
		"base64 of a number":               {b([]byte(`17`)), `17`},
		"base64 of a long object":          {b(long), string(long)},
		"JSON that is base64":              {`true`, `true`},
		"JSON number that is base64":       {`1234`, `1234`},
		"JSON string of base64":            {`"e30="`, `"e30="`},
		"base64 of no JSON":                {b([]byte("hello")), b([]byte("hello"))},
		"base64 of base64 of JSON, once":   {b([]byte(b([]byte(`{}`)))), b([]byte(b([]byte(`{}`))))},
		"long base64 of no JSON":           {strings.Repeat("QUJD", 5000), strings.Repeat("QUJD", 5000)},
		"long base64 of JSON that is none": {b([]byte(`{"a" "b` + strings.Repeat("x", 9000))), b([]byte(`{"a" "b` + strings.Repeat("x", 9000)))},
	} {
		aesKey := make([]byte, 32)
		rand.Read(aesKey)
		for form, block := range map[string][]byte{"raw key": aesKey, "key as text": []byte(b(aesKey))} {
			got, err := k.Decrypt(seal(t, k.Public(), block, aesKey, []byte(c.payload)))
			if err != nil || string(got) != c.want {
				t.Errorf("%s, %s: got %.60q, %v", name, form, got, err)
			}
		}
	}
}

func TestEveryFaultOfAMessageIsTheSameError(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	other, err := GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	longer, err := GeneratePrivateKey(3072)
	if err != nil {
		t.Fatal(err)
	}
	plain := jsonText(200)
	enc := func(p *PublicKey) string {
		s, err := p.Encrypt(plain)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := enc(k.Public())
	parts := strings.Split(good, "$")
	flipped := mustDecode(t, parts[0])
	flipped[100] ^= 1
	aesKey := make([]byte, 32)
	rand.Read(aesKey)
	text := base64.StdEncoding.EncodeToString(aesKey)
	cases := map[string]string{
		"empty":                   "",
		"plain JSON":              string(plain),
		"plain base64":            base64.StdEncoding.EncodeToString(plain),
		"another key":             enc(other.Public()),
		"another, longer key":     enc(longer.Public()),
		"RSA block changed":       base64.StdEncoding.EncodeToString(flipped) + "$" + parts[1] + "$" + parts[2],
		"RSA block too large":     base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 256)) + "$" + parts[1] + "$" + parts[2],
		"RSA block cut":           parts[0][4:] + "$" + parts[1] + "$" + parts[2],
		"RSA block no base64":     "*" + good[1:],
		"iv cut":                  parts[0] + "$" + parts[1][4:] + "$" + parts[2],
		"iv no base64":            parts[0] + "$" + "*" + parts[1][1:] + "$" + parts[2],
		"iv missing":              parts[0] + "$" + parts[2],
		"ciphertext no base64":    parts[0] + "$" + parts[1] + "$" + parts[2][:40] + "*" + parts[2][41:],
		"ciphertext cut":          good[:len(good)-1],
		"ciphertext missing":      parts[0] + "$" + parts[1],
		"trailing line":           good + "\n",
		"fourth part":             good + "$AAAA",
		"session key of 16 bytes": seal(t, k.Public(), aesKey[:16], aesKey[:16], plain),
		"session key of 31 bytes": seal(t, k.Public(), aesKey[:31], aesKey, plain),
		"empty session key":       seal(t, k.Public(), nil, aesKey, plain),
		"key as text, no padding": seal(t, k.Public(), []byte(text[:43]+"A"), aesKey, plain),
		"key as text, stray bits": seal(t, k.Public(), []byte(text[:42]+"/="), aesKey, plain),
		"key as text, not base64": seal(t, k.Public(), []byte("*"+text[1:]), aesKey, plain),
	}
	for name, s := range cases {
		if _, err := k.Decrypt(s); err != ErrDecrypt { //nolint:errorlint // one and the same value is the point
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Bleichenbacher's attack needs to see whether a padding is valid, and an
// answer that changes from one try to the next would show it.
func TestInvalidPaddingDecryptsToTheSameNoiseEachTime(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	block := make([]byte, 256)
	rand.Read(block)
	block[0] = 0
	enc := []byte(base64.StdEncoding.EncodeToString(block) + "$" + base64.StdEncoding.EncodeToString(make([]byte, 16)) + "$" + strings.Repeat("\x00", 64))
	first, err := decryptBlob(k, enc)
	if err != nil {
		t.Fatalf("the padding shows: %v", err)
	}
	again, err := decryptBlob(testKey(t, "pkcs8.pem"), enc)
	if err != nil || !bytes.Equal(first, again) {
		t.Fatalf("the noise changes: %v", err)
	}
	block[200] ^= 1
	enc2 := append([]byte(base64.StdEncoding.EncodeToString(block)), enc[344:]...)
	other, err := decryptBlob(k, enc2)
	if err != nil || bytes.Equal(first, other) {
		t.Fatalf("the noise is the same for another block: %v", err)
	}
}

func TestErrorsOfTheSourceArePassedOn(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	enc, err := k.Public().Encrypt(jsonText(100_000))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("connection reset")
	for _, at := range []int{0, 100, 360, 1000, 90_000} {
		r, err := k.NewDecrypter(io.MultiReader(strings.NewReader(enc[:at]), iotest.ErrReader(broken)))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if !errors.Is(err, broken) {
			t.Errorf("broken after %d characters: got %v", at, err)
		}
	}
}

func TestStreamsUseConstantMemory(t *testing.T) {
	k := testKey(t, "pkcs1.pem")
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		w, err := k.Public().NewEncrypter(pw)
		if err == nil {
			_, err = io.Copy(w, io.LimitReader(spaces{}, size))
		}
		if err == nil {
			err = w.Close()
		}
		pw.CloseWithError(err)
		done <- err
	}()
	r, err := k.NewDecrypter(pr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
		t.Fatalf("allocated %d bytes for a message of %d", used, size)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func FuzzDecrypt(f *testing.F) {
	k := testKey(f, "pkcs1.pem")
	for _, plain := range []string{"", "{}", "e30=", `{"a":"b"}`} {
		enc, err := k.Public().Encrypt([]byte(plain))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(enc)
	}
	f.Add("a$b$c")
	f.Add("$$")
	f.Fuzz(func(t *testing.T, s string) {
		plain, err := k.Decrypt(s)
		if err != nil && err != ErrDecrypt { //nolint:errorlint // one and the same value is the point
			t.Fatalf("another error: %v", err)
		}
		r, err2 := k.NewDecrypter(iotest.OneByteReader(strings.NewReader(s)))
		var got []byte
		if err2 == nil {
			got, err2 = io.ReadAll(r)
		}
		if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(got, plain) {
			t.Fatalf("whole: %v, stream: %v", err, err2)
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"a":1}`))
	f.Add([]byte("e30="))
	f.Add([]byte(strings.Repeat("eyJh", 2000)))
	f.Add([]byte("\xff\xfe"))
	f.Add([]byte(strings.Repeat("é", 5000)))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := newPayload(bytes.NewReader(in))
		if err != nil {
			if err != ErrDecrypt { //nolint:errorlint // one and the same value is the point
				t.Fatalf("another error: %v", err)
			}
			return
		}
		got, err := io.ReadAll(r)
		if bytes.Equal(got, in) && err == nil {
			return
		}
		if err != nil && err != ErrDecrypt { //nolint:errorlint // one and the same value is the point
			t.Fatalf("another error: %v", err)
		}
		if err == nil && base64.StdEncoding.EncodeToString(got) != string(in) {
			t.Fatalf("%q became %q", in, got)
		}
		if len(in) <= payloadPrefix-1 && !json.Valid(got) {
			t.Fatalf("%q was decoded and is no JSON", in)
		}
	})
}
