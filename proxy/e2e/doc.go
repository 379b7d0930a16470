// Package e2e is vantage6's end-to-end encryption, version 4.
//
// A message is encrypted for one organization. The string form, used inside
// JSON, is
//
//	base64(RSA_PKCS1v15(key)) "$" base64(iv) "$" base64(AES-256-CTR(key, iv, plain))
//
// and the blob form, used for files of the server's blob store, has the same
// first two parts with the raw ciphertext after the second "$". Key (32 bytes)
// and iv (16 bytes) are random in each message. The web UI writes the AES key
// as base64 text inside the RSA block, and the payload as base64 text inside
// the ciphertext; both are understood. Where the collaboration is not encrypted, a
// blob is base64 of its content.
//
// The format has no authentication code and its RSA padding is the one that
// Bleichenbacher's attack reads through an oracle. Therefore a padding that is
// not valid is not reported: decryption goes on with a key derived from the
// private key and the message, and ends in noise. That the noise is no payload
// (a payload is text) is found without regard to the reason, and every failure
// is the one error ErrDecrypt.
//
// Only this format may enter the package: no HTTP, no vantage6 API, no files.
package e2e
