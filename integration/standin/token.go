package standin

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// Kinds of holders of a token, the claim client_type.
const (
	kindUser      = "user"
	kindNode      = "node"
	kindContainer = "container"
)

// tokenError is why a token is not accepted, in the server's own words.
type tokenError string

func (e tokenError) Error() string { return string(e) }

const (
	errTokenMissing   tokenError = "Missing Authorization Header"
	errTokenMalformed tokenError = "Not enough segments"
	errTokenSignature tokenError = "Signature verification failed"
	errTokenExpired   tokenError = "Token has expired"
	errTokenWrongType tokenError = "Only non-refresh tokens are allowed"
)

// identity is who a valid token speaks for.
type identity struct {
	kind      string
	id        int64 // of the user or node; of the node for a container
	container *containerSubject
}

// containerSubject is the claim sub of a container token: an object where JWT
// wants a string. The order of the fields is the server's.
type containerSubject struct {
	ClientType     string           `json:"client_type"`
	NodeID         int64            `json:"node_id"`
	OrganizationID int64            `json:"organization_id"`
	CollabID       int64            `json:"collaboration_id"`
	StudyID        *int64           `json:"study_id"`
	StoreID        *int64           `json:"store_id"`
	TaskID         int64            `json:"task_id"`
	Image          string           `json:"image"`
	Databases      []map[string]any `json:"databases"`
}

type claims struct {
	Fresh      bool            `json:"fresh"`
	IssuedAt   int64           `json:"iat"`
	ID         string          `json:"jti"`
	Type       string          `json:"type"`
	Subject    json.RawMessage `json:"sub"` // an integer, or an object for containers
	NotBefore  int64           `json:"nbf"`
	Expires    *int64          `json:"exp,omitempty"` // container tokens have none
	ClientType string          `json:"client_type"`
	Roles      []string        `json:"roles"`
	// Serial orders the tokens of this server, for ExpireTokens: iat has a
	// resolution of a second only.
	Serial int64 `json:"serial"`
}

var jwtHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))

// sign makes a token. Callers hold the lock.
func (s *Server) sign(kind, typ string, subject any, life time.Duration) string {
	sub, err := json.Marshal(subject)
	if err != nil {
		panic("standin: subject of a token: " + err.Error()) // integers and our own struct only
	}
	now := s.now()
	c := claims{
		IssuedAt: now.Unix(), ID: newUUID(), Type: typ, Subject: sub, NotBefore: now.Unix(),
		ClientType: kind, Roles: []string{}, Serial: take(&s.serial),
	}
	if life > 0 {
		exp := now.Add(life).Unix()
		c.Expires = &exp
	}
	body, err := json.Marshal(c)
	if err != nil {
		panic("standin: claims of a token: " + err.Error())
	}
	signed := jwtHeader + "." + base64.RawURLEncoding.EncodeToString(body)
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac(s.secret, signed))
}

func mac(secret []byte, text string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// verify checks an Authorization header for a token of the given type ("access"
// or "refresh"). Callers hold the lock.
func (s *Server) verify(header, typ string) (identity, error) {
	if header == "" {
		return identity{}, errTokenMissing
	}
	token, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return identity{}, errTokenMissing
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return identity{}, errTokenMalformed
	}
	body, err1 := base64.RawURLEncoding.DecodeString(parts[1])
	sig, err2 := base64.RawURLEncoding.DecodeString(parts[2])
	if parts[0] != jwtHeader || err1 != nil || err2 != nil {
		return identity{}, errTokenMalformed
	}
	if !hmac.Equal(sig, mac(s.secret, parts[0]+"."+parts[1])) {
		return identity{}, errTokenSignature
	}
	var c claims
	if err := json.Unmarshal(body, &c); err != nil {
		return identity{}, errTokenMalformed
	}
	who := identity{kind: c.ClientType}
	if bytes.HasPrefix(c.Subject, []byte("{")) {
		who.container = &containerSubject{}
		if err := json.Unmarshal(c.Subject, who.container); err != nil {
			return identity{}, errTokenMalformed
		}
		who.id = who.container.NodeID
	} else if err := json.Unmarshal(c.Subject, &who.id); err != nil {
		return identity{}, errTokenMalformed
	}
	if c.Expires != nil && s.now().Unix() >= *c.Expires {
		return identity{}, errTokenExpired
	}
	if who.kind != kindContainer && c.Serial <= s.expired[expiryKey{who.id, c.Type}] {
		return identity{}, errTokenExpired
	}
	if c.Type != typ {
		return identity{}, errTokenWrongType
	}
	return who, nil
}

// expiryKey names the tokens of one holder and type ("access", "refresh").
type expiryKey struct {
	id  int64
	typ string
}

// ExpireTokens makes every access token that this node or user holds now count as
// expired; with refresh also the refresh tokens. New logins work.
func (s *Server) ExpireTokens(id int64, refresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired[expiryKey{id, "access"}] = s.serial - 1
	if refresh {
		s.expired[expiryKey{id, "refresh"}] = s.serial - 1
	}
}

// RotateSecret replaces the signing secret, as a server does that is restarted
// without a configured one: every token's signature is wrong from now on,
// including container tokens.
func (s *Server) RotateSecret() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = []byte(newUUID())
}

// RevokeKey makes a node's API key unknown. Tokens that were issued before live on
// until they expire; combine with ExpireTokens to lock a node out at once.
func (s *Server) RevokeKey(nodeID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[nodeID].revoked = true
}

// NodeToken makes an access token of a node, for what is done past it in its name.
func (s *Server) NodeToken(nodeID int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sign(kindNode, "access", nodeID, s.opt.AccessLife)
}

// RestoreKey makes a revoked API key known again.
func (s *Server) RestoreKey(nodeID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[nodeID].revoked = false
}

// SkewClock sets the server's clock for tokens so far ahead of this machine's, or
// behind it. Tokens that were issued before keep their dates.
func (s *Server) SkewClock(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew = ahead
}

// now is the server's time for tokens. Callers hold the lock.
func (s *Server) now() time.Time { return time.Now().Add(s.skew) }
