package http

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

const (
	idempotencyKeyLenMax = 255
	// answerStoreTimeout bounds the storing of an answer, which goes on when the client has gone: its effect is there.
	answerStoreTimeout = 5 * time.Second
	// keyedWorkMax is the most that a route with keyOptional may have as workMax: a claim occupies a connection, and what holds one idle
	// for a minute loses it, and with it the answer.
	keyedWorkMax = 50 * time.Second
)

// storedHeaders are those that belong to an answer rather than to one transmission of it.
var storedHeaders = []string{"Content-Type", "Etag", "Location"}

// idempotencyKey is the request's Idempotency-Key. It returns an *evently.Error with CodeIdempotencyKeyRequired when there is
// none, and with CodeInvalidRequest when it is not 1 to 255 visible ASCII characters.
func idempotencyKey(c *gin.Context) (string, error) {
	values := c.Request.Header["Idempotency-Key"]
	if len(values) == 0 {
		return "", errKeyRequired
	}
	key := values[0]
	valid := len(values) == 1 && 1 <= len(key) && len(key) <= idempotencyKeyLenMax
	for i := range len(key) {
		valid = valid && '!' <= key[i] && key[i] <= '~'
	}
	if !valid {
		return "", invalid("Idempotency-Key", fmt.Sprintf("must be 1 to %d visible ASCII characters", idempotencyKeyLenMax))
	}
	return key, nil
}

// keyed gives the first answer again to requests with the Idempotency-Key of an earlier one, on routes with keyOptional.
func (s *Server) keyed(rule keyRule, workMax time.Duration, next handler) handler {
	if rule != keyOptional {
		return next
	}
	return func(c *gin.Context) error {
		key, err := idempotencyKey(c)
		if errors.Is(err, errKeyRequired) {
			return next(c)
		}
		if err != nil {
			return err
		}
		return s.answerOnce(c, key, bodyOf(c), workMax, next)
	}
}

func (s *Server) answerOnce(c *gin.Context, key string, body []byte, workMax time.Duration, next handler) error {
	x := exchangeOf(c)
	x.scope = scopeOf(x.who.User, c.Request.Method, c.Request.URL.Path, key)
	stored, claim, err := s.claim(c.Request.Context(), x.scope, body)
	if err != nil {
		return err
	}
	if stored != nil {
		return s.replay(c, key, stored)
	}
	defer claim.Release()

	if err := s.carriedOut(c, workMax, next); err != nil {
		return err
	}
	if status := x.Status(); 200 <= status && status <= 299 {
		// The answer is stored before it is sent: once a client has it, every repetition gets it too.
		if err := s.store(c, claim, key); err != nil {
			return err
		}
	}
	x.conn.move(sending)
	if len(x.record) > 0 {
		_, _ = x.Write(x.record) // as in writeBody
		return nil
	}
	x.WriteHeaderNow()
	return nil
}

// carriedOut has a handler answer and holds its answer back. The work goes on when the client has gone: what it comes back for is
// the answer to an effect that may be there already.
func (s *Server) carriedOut(c *gin.Context, workMax time.Duration, next handler) error {
	x, request := exchangeOf(c), c.Request
	ctx := evently.Within(context.WithoutCancel(request.Context()), time.Now().Add(workMax))
	c.Request, x.recording = request.WithContext(ctx), true
	defer func() { // also when it panics
		ctx.End()
		c.Request, x.recording = request, false
	}()
	return next(c)
}

// claim asks for the right to answer, or the answer there is. The fingerprint depends on the secret, so that an answer from
// before the last rotation is found with an older one.
func (s *Server) claim(ctx context.Context, scope evently.Key, body []byte) (stored *evently.Answer, claim evently.Claim, err error) {
	for i := range s.seals {
		stored, claim, err = s.config.Answers.Claim(ctx, scope, s.seals[i].fingerprint(body))
		if !errors.Is(err, evently.ErrKeyReused) {
			break
		}
	}
	return stored, claim, err
}

func (s *Server) replay(c *gin.Context, key string, stored *evently.Answer) error {
	body, err := s.openAnswer(exchangeOf(c).scope, key, stored)
	if err != nil {
		return err
	}
	s.metrics.replays.Inc()
	header := c.Writer.Header()
	for name, value := range stored.Header {
		header.Set(name, value)
	}
	header["Idempotency-Replayed"] = replayedTrue
	if len(body) == 0 {
		c.Writer.WriteHeader(stored.Status)
		c.Writer.WriteHeaderNow()
		return nil
	}
	writeBody(c, stored.Status, body)
	return nil
}

var replayedTrue = []string{"true"}

func (s *Server) store(c *gin.Context, claim evently.Claim, key string) error {
	x := exchangeOf(c)
	answer := &evently.Answer{Status: x.Status(), Header: make(map[string]string)}
	for _, name := range storedHeaders {
		if value := x.Header().Get(name); value != "" {
			answer.Header[name] = value
		}
	}
	sealed, err := s.seals[0].seal(x.scope, key, x.record, s.config.Rand)
	if err != nil {
		return err
	}
	answer.Body = sealed
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request.Context()), answerStoreTimeout)
	defer cancel()
	if err := claim.Store(ctx, answer); err != nil {
		return fmt.Errorf("store answer: %w", err)
	}
	return nil
}

// scopeOf digests an Idempotency-Key with what it counts for.
func scopeOf(user evently.UserID, method, path, key string) evently.Key {
	// Neither a method, a path nor a key contains a line break.
	text := make([]byte, 0, 256)
	if user == 0 {
		text = append(text, "anonymous"...)
	} else {
		text = user.AppendText(text)
	}
	for _, part := range []string{method, path, key} {
		text = append(append(text, '\n'), part...)
	}
	sum := sha256.Sum256(text)
	return evently.Key{Hi: binary.BigEndian.Uint64(sum[:8]), Lo: binary.BigEndian.Uint64(sum[8:16])}
}

// seal protects stored answers, which may hold tokens: only a request that brings the Idempotency-Key again, to a node that
// knows the secret, opens one.
type seal struct {
	secret         []byte
	name           []byte // the length of the kid and the kid; begins all that is sealed
	fingerprintKey []byte
}

func newSeals(secrets []Secret) ([]seal, error) {
	seals := make([]seal, len(secrets))
	for i, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret.Key, nil, "evently request fingerprint", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("derive from token secret %q: %w", secret.KID, err)
		}
		seals[i] = seal{secret.Key, append([]byte{byte(len(secret.KID))}, secret.KID...), key}
	}
	return seals, nil
}

// fingerprint tells one body from another. It is keyed because a body may hold a password, which a plain digest would lay open to
// guessing by whoever reads the stored answers.
func (l *seal) fingerprint(body []byte) (sum [32]byte) {
	mac := hmac.New(sha256.New, l.fingerprintKey)
	mac.Write(body)
	mac.Sum(sum[:0])
	return sum
}

// seal returns a sealed body: the name of the secret, a random nonce, and the AES-256-GCM text.
func (l *seal) seal(scope evently.Key, key string, body []byte, random io.Reader) ([]byte, error) {
	aead, err := l.aead(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("seal answer: draw a nonce: %w", err)
	}
	return aead.Seal(slices.Concat(l.name, nonce), nonce, body, scopeBytes(scope)), nil
}

// open is the inverse of seal.
func (l *seal) open(scope evently.Key, key string, sealed []byte) ([]byte, error) {
	aead, err := l.aead(key)
	if err != nil {
		return nil, err
	}
	rest := sealed[len(l.name):]
	if len(rest) < aead.NonceSize() {
		return nil, errors.New("open stored answer: it is cut off")
	}
	body, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], scopeBytes(scope))
	if err != nil {
		return nil, fmt.Errorf("open stored answer: %w", err)
	}
	return body, nil
}

func (s *Server) openAnswer(scope evently.Key, key string, stored *evently.Answer) ([]byte, error) {
	for i := range s.seals {
		if bytes.HasPrefix(stored.Body, s.seals[i].name) {
			return s.seals[i].open(scope, key, stored.Body)
		}
	}
	return nil, errors.New("open stored answer: its secret is not one of the token secrets")
}

// aead is keyed for one Idempotency-Key.
func (l *seal) aead(key string) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, l.secret, []byte(key), "evently stored answer", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a stored answer: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("key of a stored answer: %w", err)
	}
	return cipher.NewGCM(block)
}

func scopeBytes(scope evently.Key) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, scope.Hi), scope.Lo)
}
