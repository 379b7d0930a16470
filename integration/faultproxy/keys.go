package faultproxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Certificate is what a client is shown.
type Certificate int

// The certificates.
const (
	// Valid is for 127.0.0.1, of the authority that clients are told to trust.
	Valid Certificate = iota
	// Foreign is of an authority that nobody knows.
	Foreign
	// Expired was valid until yesterday.
	Expired
	// OtherName is for another host.
	OtherName
)

// Keys are a set of certificates and the authority that clients are to trust.
type Keys struct {
	// Authority is its certificate, in PEM.
	Authority []byte
	shown     map[Certificate]*tls.Certificate
}

// NewKeys makes an authority and its certificates.
func NewKeys() (*Keys, error) {
	ours, err := newAuthority()
	if err != nil {
		return nil, err
	}
	foreign, err := newAuthority()
	if err != nil {
		return nil, err
	}
	k := &Keys{Authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw}), shown: make(map[Certificate]*tls.Certificate)}
	now := time.Now()
	for c, make := range map[Certificate]func() (*tls.Certificate, error){
		Valid:     func() (*tls.Certificate, error) { return ours.issue("127.0.0.1", now.Add(24*time.Hour)) },
		Foreign:   func() (*tls.Certificate, error) { return foreign.issue("127.0.0.1", now.Add(24*time.Hour)) },
		Expired:   func() (*tls.Certificate, error) { return ours.issue("127.0.0.1", now.Add(-24*time.Hour)) },
		OtherName: func() (*tls.Certificate, error) { return ours.issue("192.0.2.1", now.Add(24*time.Hour)) },
	} {
		if k.shown[c], err = make(); err != nil {
			return nil, fmt.Errorf("make a certificate: %w", err)
		}
	}
	return k, nil
}

func (k *Keys) certificate(c Certificate) *tls.Certificate { return k.shown[c] }

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"},
		NotBefore: time.Now().Add(-365 * 24 * time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// issue makes a server's certificate that ends at the given time.
func (a *authority) issue(address string, until time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(address)
	if ip == nil {
		return nil, errors.New("not an address: " + address)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: address}, IPAddresses: []net.IP{ip},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
