package http

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

// TokenConfig says how access tokens are signed and how long tokens live.
type TokenConfig struct {
	// Secrets are the keys of HMAC-SHA-256. The first signs; all verify, know the one-time codes and refresh tokens made with them, and
	// open stored answers. To rotate, put a new one in front on every node, and drop the old one when the answers it sealed are a day
	// old.
	Secrets []Secret
	// Issuer and Audience stand in every token and are demanded of it. Default of both: evently.
	Issuer, Audience string
	// AccessTTL is how long an access token is valid, also one that a node with a longer AccessTTL signed. Default: 15 min.
	AccessTTL time.Duration
	// RefreshTTL is how long a session lives after sign-in. Default: 30 days.
	RefreshTTL time.Duration
}

// Secret is a key and the name by which tokens refer to it.
type Secret struct {
	KID string // 1 to 64 characters
	Key []byte // at least SecretBytesMin of them
}

// SecretBytesMin is the shortest key that HMAC-SHA-256 may have by RFC 7518, section 3.2.
const SecretBytesMin = 32

const (
	issuerDefault     = "evently"
	accessTTLDefault  = 15 * time.Minute
	refreshTTLDefault = 30 * 24 * time.Hour
	kidLenMax         = 64

	tokenLenMax       = 4 << 10
	verifiedTokensMax = 100_000 // some 500 bytes each
	tokenShards       = 16      // of those verified, each with a lock of its own
)

func (t *TokenConfig) complete() error {
	setDefault(&t.Issuer, issuerDefault)
	setDefault(&t.Audience, issuerDefault)
	setDefault(&t.AccessTTL, accessTTLDefault)
	setDefault(&t.RefreshTTL, refreshTTLDefault)
	if t.AccessTTL < time.Second || t.RefreshTTL < t.AccessTTL {
		return fmt.Errorf("access tokens live for %s and sessions for %s", t.AccessTTL, t.RefreshTTL)
	}
	if len(t.Secrets) == 0 {
		return errors.New("token secret is missing")
	}
	kids := make(map[string]bool)
	for _, secret := range t.Secrets {
		switch {
		case secret.KID == "" || len(secret.KID) > kidLenMax:
			return fmt.Errorf("name of token secret %.70q has not 1 to %d characters", secret.KID, kidLenMax)
		case kids[secret.KID]:
			return fmt.Errorf("token secret %q stands twice", secret.KID)
		case len(secret.Key) < SecretBytesMin:
			return fmt.Errorf("token secret %q is shorter than %d bytes", secret.KID, SecretBytesMin)
		}
		kids[secret.KID] = true
	}
	return nil
}

// tokens signs and verifies access tokens.
type tokens struct {
	config TokenConfig
	now    func() time.Time
	keys   map[string][]byte // by kid
	parser *jwt.Parser

	hits, misses prometheus.Counter

	// verified remembers tokens, for verifying one costs more than all else that is done with it here. They are found by a hash with
	// a random key, and are the ones only if all of their text is the same. How long that comparison takes tells nothing: to have a
	// token compared with another one takes a collision of hashes that nobody can see.
	seed     maphash.Seed
	verified [tokenShards]struct {
		sync.Mutex
		*lru[uint64, knownToken]
	}
}

type verifiedToken struct {
	who       evently.Principal
	expiresAt time.Time
}

// knownToken is a token that was verified.
type knownToken struct {
	text string
	verifiedToken
}

// claims are the content of an access token.
type claims struct {
	jwt.RegisteredClaims
	Session  string `json:"sid"`
	Role     string `json:"role"`
	Verified bool   `json:"ev"` // whether the address is verified; tokens of older nodes do not say
}

func newTokens(config TokenConfig, now func() time.Time, metrics *metrics) *tokens {
	t := &tokens{
		config: config, now: now, keys: make(map[string][]byte),
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithIssuer(config.Issuer),
			jwt.WithAudience(config.Audience), jwt.WithExpirationRequired(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now)),
		hits: metrics.caches.WithLabelValues("tokens", "hit"), misses: metrics.caches.WithLabelValues("tokens", "miss"),
		seed: maphash.MakeSeed(),
	}
	for i := range t.verified {
		t.verified[i].lru = newLRU[uint64, knownToken](verifiedTokensMax / tokenShards)
	}
	for _, secret := range config.Secrets {
		t.keys[secret.KID] = secret.Key
	}
	return t
}

// sign makes the access token of a principal.
func (t *tokens) sign(who evently.Principal) (string, error) {
	now := t.now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: t.config.Issuer, Audience: jwt.ClaimStrings{t.config.Audience}, Subject: who.User.String(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(t.config.AccessTTL)),
		},
		Session: sessionText(who.Session), Role: who.Role.String(), Verified: who.Verified,
	})
	token.Header["kid"] = t.config.Secrets[0].KID
	text, err := token.SignedString(t.config.Secrets[0].Key)
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	return text, nil
}

// verify returns who an access token speaks for at a moment. Whether the session was revoked is for the caller to ask.
func (t *tokens) verify(text string, now time.Time) (evently.Principal, error) {
	if len(text) > tokenLenMax {
		return evently.Principal{}, fmt.Errorf("access token of %d bytes", len(text))
	}
	hash := maphash.String(t.seed, text)
	verified := &t.verified[hash%tokenShards]
	verified.Lock()
	if known := verified.get(hash); known != nil && known.text == text && now.Before(known.expiresAt) {
		who := known.who
		verified.Unlock()
		t.hits.Inc()
		return who, nil
	}
	verified.Unlock()
	t.misses.Inc()
	token, err := t.parse(text)
	if err != nil {
		return evently.Principal{}, fmt.Errorf("verify access token: %w", err)
	}
	verified.Lock()
	verified.put(hash, knownToken{text, token})
	verified.Unlock()
	return token.who, nil
}

func (t *tokens) parse(text string) (verifiedToken, error) {
	var content claims
	if _, err := t.parser.ParseWithClaims(text, &content, t.key); err != nil {
		return verifiedToken{}, err
	}
	if content.IssuedAt == nil {
		return verifiedToken{}, errors.New("no time of issue")
	}
	// Revocations are remembered for AccessTTL, so that no older token may pass, whatever AccessTTL was when it was signed.
	expiresAt := content.IssuedAt.Add(t.config.AccessTTL)
	if content.ExpiresAt.Before(expiresAt) {
		expiresAt = content.ExpiresAt.Time
	}
	if !t.now().Before(expiresAt) {
		return verifiedToken{}, jwt.ErrTokenExpired
	}
	user, userErr := evently.ParseUserID(content.Subject)
	role, roleErr := evently.ParseRole(content.Role)
	session, sessionErr := parseSession(content.Session)
	if err := errors.Join(userErr, roleErr, sessionErr); err != nil {
		return verifiedToken{}, err
	}
	return verifiedToken{evently.Principal{User: user, Role: role, Session: session, Verified: content.Verified}, expiresAt}, nil
}

func (t *tokens) key(token *jwt.Token) (any, error) {
	kid, _ := token.Header["kid"].(string)
	key, found := t.keys[kid]
	if !found {
		return nil, fmt.Errorf("unknown kid %.70q", kid)
	}
	return key, nil
}

const sessionPrefix = "ses_"

func sessionText(id evently.SessionID) string { return sessionPrefix + hex.EncodeToString(id[:]) }

// parseSession is the inverse of sessionText; any other text is an error.
func parseSession(text string) (id evently.SessionID, err error) {
	digits, found := strings.CutPrefix(text, sessionPrefix)
	if raw, err := hex.DecodeString(digits); found && err == nil && len(raw) == len(id) {
		id = evently.SessionID(raw)
	}
	if id == (evently.SessionID{}) || sessionText(id) != text {
		return evently.SessionID{}, fmt.Errorf("parse session id %.40q: not of the form %s and %d hex digits", text, sessionPrefix, 2*len(id))
	}
	return id, nil
}

// refreshToken is what a session is continued with: its id and a secret, of which only the digest is stored.
type refreshToken struct {
	session evently.SessionID
	secret  [32]byte
}

const refreshPrefix = "evr_"

// newRefreshToken makes the first refresh token of a session.
func newRefreshToken(session evently.SessionID, random io.Reader) (refreshToken, error) {
	token := refreshToken{session: session}
	if _, err := io.ReadFull(random, token.secret[:]); err != nil {
		return refreshToken{}, fmt.Errorf("draw a refresh token: %w", err)
	}
	return token, nil
}

// successor is the refresh token that this one is exchanged for. It follows from this one, so that everybody who brings it is given
// the same, and cannot be told from it without the key.
func (t *refreshToken) successor(key []byte) refreshToken {
	next := refreshToken{session: t.session}
	mac := hmac.New(sha256.New, key)
	mac.Write(t.session[:])
	mac.Write(t.secret[:])
	mac.Sum(next.secret[:0])
	return next
}

func (t *refreshToken) String() string {
	return refreshPrefix + base64.RawURLEncoding.EncodeToString(append(t.session[:], t.secret[:]...))
}

// digest is what is stored. Nobody can guess the secret, so that a fast digest gives nothing away.
func (t *refreshToken) digest() [32]byte { return sha256.Sum256(t.secret[:]) }

func parseRefreshToken(text string) (token refreshToken, ok bool) {
	digits, found := strings.CutPrefix(text, refreshPrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(digits)
	if !found || err != nil || len(raw) != len(token.session)+len(token.secret) {
		return refreshToken{}, false
	}
	n := copy(token.session[:], raw)
	copy(token.secret[:], raw[n:])
	return token, token.String() == text // base64 skips line breaks
}
