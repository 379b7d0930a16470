package hosts

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// TLS is how connections to the host are secured; nil where nothing is said about it.
func (h *Host) TLS() (*tls.Config, error) {
	if len(h.CAs)+len(h.Client) == 0 && !h.SkipVerify {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.SkipVerify}
	if len(h.CAs) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
		}
		for _, file := range h.CAs {
			text, err := readAtMost(file, maxFile)
			if err != nil {
				return nil, fmt.Errorf("a certificate authority of a registry cannot be read: %w", err)
			}
			if !pool.AppendCertsFromPEM(text) {
				return nil, fmt.Errorf("%s has no certificate in PEM", file)
			}
		}
		c.RootCAs = pool
	}
	for _, p := range h.Client {
		key := p.Key
		if key == "" {
			key = p.Certificate
		}
		pair, err := tls.LoadX509KeyPair(p.Certificate, key)
		if err != nil {
			return nil, fmt.Errorf("the client certificate %s for a registry cannot be used: %w", p.Certificate, err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	return c, nil
}
