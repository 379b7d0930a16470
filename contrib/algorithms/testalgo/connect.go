package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// connectTimeout bounds what a method waits for somebody outside.
const connectTimeout = 30 * time.Second

// talk sends a text to an address, ends its side, and returns all that comes back.
func talk(in *contract.Input) (any, error) {
	var address, send string
	for name, v := range map[string]any{"address": &address, "send": &send} {
		if _, err := in.Arg(-1, name, v); err != nil {
			return nil, err
		}
	}
	text, err := exchange(address, send)
	return map[string]string{"text": text, "error": why(err)}, nil
}

func exchange(address, send string) (string, error) {
	c, err := net.DialTimeout("tcp", address, connectTimeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, send); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// variable decodes a variable that may be absent.
func variable(name string) string {
	v, err := contract.Variable(name)
	if err != nil {
		return ""
	}
	return v
}

// fetch makes an HTTP request as programs do: through the proxy that the
// variables name, or directly.
func fetch(in *contract.Input) (any, error) {
	verb, address, body, ca := "GET", "", "", ""
	for name, v := range map[string]any{"method": &verb, "url": &address, "body": &body, "ca": &ca} {
		if _, err := in.Arg(-1, name, v); err != nil {
			return nil, err
		}
	}
	config := &httpproxy.Config{HTTPProxy: variable("HTTP_PROXY"), HTTPSProxy: variable("HTTPS_PROXY"), NoProxy: variable("NO_PROXY")}
	client := &http.Client{Timeout: connectTimeout, Transport: &http.Transport{
		Proxy:           func(r *http.Request) (*url.URL, error) { return config.ProxyFunc()(r.URL) },
		TLSClientConfig: trust(ca, ""),
	}}
	req, err := http.NewRequest(verb, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return map[string]any{"error": err.Error()}, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return map[string]any{"status": resp.StatusCode, "header": resp.Header, "body": string(text), "error": why(err)}, nil
}

// trust is a TLS configuration that verifies against these authorities only.
func trust(ca, serverName string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ca))
	return &tls.Config{RootCAs: pool, ServerName: serverName}
}

// postgres asks the database of a label one question, over TLS and with the
// server's certificate verified by the name in the address, and returns the first
// field of the first row.
func postgres(in *contract.Input) (any, error) {
	var label, ca, query string
	for name, v := range map[string]any{"label": &label, "ca": &ca, "query": &query} {
		if _, err := in.Arg(-1, name, v); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(variable(strings.ToUpper(label) + "_DATABASE_URI"))
	if err != nil {
		return nil, err
	}
	value, err := askPostgres(u, ca, query)
	return map[string]string{"value": value, "error": why(err)}, nil
}

func askPostgres(u *url.URL, ca, query string) (string, error) {
	raw, err := net.DialTimeout("tcp", u.Host, connectTimeout)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return "", err
	}
	// SSLRequest, to which the server says S.
	if _, err := raw.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return "", err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(raw, answer); err != nil || answer[0] != 'S' {
		return "", fmt.Errorf("the server answers %q to the request for TLS: %w", answer, errors.Join(err, errors.New("no TLS")))
	}
	c := tls.Client(raw, trust(ca, u.Hostname()))
	if err := c.Handshake(); err != nil {
		return "", err
	}
	password, _ := u.User.Password()
	startup := binary.BigEndian.AppendUint32(nil, 3<<16)
	startup = append(startup, "user\x00"+u.User.Username()+"\x00database\x00"+strings.TrimPrefix(u.Path, "/")+"\x00\x00"...)
	if err := message(c, 0, startup); err != nil {
		return "", err
	}
	value := ""
	for asked := false; ; {
		kind, body, err := readMessage(c)
		if err != nil {
			return "", err
		}
		switch kind {
		case 'R':
			if len(body) >= 4 && binary.BigEndian.Uint32(body) == 3 {
				err = message(c, 'p', []byte(password+"\x00"))
			}
		case 'E':
			return "", fmt.Errorf("the server says %q", body)
		case 'D':
			if n := binary.BigEndian.Uint32(body[2:6]); int(n) <= len(body)-6 {
				value = string(body[6 : 6+n])
			}
		case 'Z':
			if asked {
				return value, nil
			}
			asked = true
			err = message(c, 'Q', []byte(query+"\x00"))
		}
		if err != nil {
			return "", err
		}
	}
}

func message(c net.Conn, kind byte, body []byte) error {
	var b []byte
	if kind != 0 {
		b = append(b, kind)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)+4))
	_, err := c.Write(append(b, body...))
	return err
}

func readMessage(c net.Conn) (byte, []byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > 1<<20 {
		return 0, nil, fmt.Errorf("a message of %d bytes", n)
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(c, body)
	return head[0], body, err
}
