package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

func (s *Server) accountRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/register", handle: s.register, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/verify", handle: s.verifyEmail, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/verify/resend", handle: s.resendCode, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/login", handle: s.login, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/token/refresh", handle: s.refresh, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/password/forgot", handle: s.forgotPassword, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/password/reset", handle: s.resetPassword, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/logout", handle: s.logout, access: accountOwn, key: keyOptional, noBody: true, endsSession: true},
		{method: http.MethodGet, path: "/me", handle: s.me, access: accountOwn},
		{method: http.MethodPost, path: "/me/password", handle: s.changePassword, access: accountOwn, limit: limitAuth, key: keyOptional},
		{method: http.MethodGet, path: "/me/security", handle: s.securityLog, access: accountOwn, query: pageQuery},
		{method: http.MethodGet, path: "/sessions", handle: s.sessions, access: accountOwn},
		{method: http.MethodDelete, path: "/sessions", handle: s.revokeOtherSessions, access: accountOwn, noBody: true},
		{method: http.MethodDelete, path: "/sessions/:id", handle: s.revokeSession, access: accountOwn, noBody: true},
	}
}

// Bounds of what an account is made of.
const (
	emailBytesMax     = 254 // RFC 5321, section 4.5.3.1.3, less the brackets
	userNameRunesMax  = 200
	userAgentBytesMax = 200
)

// NormalizeEmail trims an e-mail address and makes it lower-case. It returns an *evently.Error when it is not one, of at
// most 254 bytes.
func NormalizeEmail(text string) (string, error) {
	email := strings.ToLower(strings.TrimSpace(text))
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Address != email || len(email) > emailBytesMax || strings.HasSuffix(email, "]") { // the address of a machine
		return "", invalid("email", "must be an e-mail address")
	}
	return email, nil
}

type userJSON struct {
	ID            string    `json:"id"`
	Email         string    `json:"email"`
	Name          string    `json:"name"`
	Role          string    `json:"role"`
	EmailVerified bool      `json:"email_verified"`
	CreatedAt     time.Time `json:"created_at"`
}

func newUserJSON(user *evently.User) userJSON {
	return userJSON{user.ID.String(), user.Email, user.Name, user.Role.String(), user.EmailVerified, user.CreatedAt.UTC()}
}

// origin says for the security log who makes a request, when and from where.
func (s *Server) origin(c *gin.Context) *evently.Origin {
	who := principal(c)
	return &evently.Origin{
		At: s.now(), Actor: who.User, Session: who.Session, IP: c.ClientIP(),
		UserAgent: truncated(c.Request.UserAgent(), userAgentBytesMax), RequestID: requestID(c),
	}
}

// now is the time as it is stored.
func (s *Server) now() time.Time { return s.config.Now().UTC().Truncate(time.Millisecond) }

// secretWorkMin is the least time for work whose length would tell whether an address has an account. It is longer than the
// transactions in question, as long as the database is well.
const secretWorkMin = 50 * time.Millisecond

// evenly does such work.
func evenly(c *gin.Context, work func(ctx context.Context) error) error {
	ctx := c.Request.Context()
	least := time.NewTimer(secretWorkMin)
	defer least.Stop()
	err := work(ctx)
	select {
	case <-least.C:
	case <-ctx.Done():
	}
	return err
}

// evenlyFor is evenly for work about the user with an address; see userOf.
func (s *Server) evenlyFor(c *gin.Context, email string, work func(ctx context.Context, user *evently.User) error) error {
	return evenly(c, func(ctx context.Context) error {
		user, err := s.userOf(ctx, email)
		if err != nil {
			return err
		}
		return work(ctx, user)
	})
}

// userOf returns the user with an address. It returns one without an id when there is none.
func (s *Server) userOf(ctx context.Context, email string) (*evently.User, error) {
	user, err := s.config.Accounts.UserByEmail(ctx, email)
	switch {
	case errors.Is(err, evently.ErrNotFound):
		return &evently.User{Email: email, PasswordHash: decoyHash}, nil
	case err != nil:
		return nil, fmt.Errorf("find user: %w", err)
	}
	return user, nil
}

// register answers the same whether the address was free or not, and does the same work for it.
func (s *Server) register(c *gin.Context) error {
	var asked struct {
		Email    string `json:"email"`
		Password string `json:"password"`
		Name     string `json:"name"`
	}
	if err := decode(c, &asked); err != nil {
		return err
	}
	user, err := s.newUser(asked.Email, asked.Name, asked.Password)
	if err != nil {
		return err
	}
	if user.PasswordHash, err = s.passwords.hash(c.Request.Context(), asked.Password); err != nil {
		return err
	}
	code, err := s.newCode(user, evently.VerifyEmailCode)
	if err != nil {
		return err
	}
	err = evenly(c, func(ctx context.Context) error { return s.config.Accounts.CreateUser(ctx, user, code, s.origin(c)) })
	if err != nil && !errors.Is(err, evently.ErrEmailTaken) {
		return fmt.Errorf("create user: %w", err)
	}
	writeJSON(c, http.StatusCreated, registeredJSON{newUserJSON(user)})
	return nil
}

type registeredJSON struct {
	User userJSON `json:"user"`
}

func (s *Server) newUser(email, name, password string) (*evently.User, error) {
	var fields evently.FieldErrors
	email, err := NormalizeEmail(email)
	if err != nil {
		fields.Add("email", "must be an e-mail address")
	}
	checkPassword(&fields, "password", password)
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); n < 1 || n > userNameRunesMax || strings.ContainsFunc(name, unicode.IsControl) {
		fields.Add("name", fmt.Sprintf("must have 1 to %d characters, and no control characters", userNameRunesMax))
	}
	if err := fields.Err(); err != nil {
		return nil, err
	}
	id, err := s.random64()
	if err != nil {
		return nil, err
	}
	return &evently.User{
		ID: evently.UserID(id), Email: email, Name: name, Role: evently.RoleUser, CreatedAt: s.now(),
	}, nil
}

// tokensJSON is what a client signs its requests with.
type tokensJSON struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token"`
}

func (s *Server) login(c *gin.Context) error {
	var asked struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	}
	if err := decode(c, &asked); err != nil {
		return err
	}
	if utf8.RuneCountInString(asked.Password) > PasswordRunesMax {
		return evently.ErrInvalidCredentials
	}
	ctx := c.Request.Context()
	email, err := NormalizeEmail(asked.Email)
	if err != nil { // nobody's address: there is nothing to guess
		if _, err := s.passwords.matches(ctx, asked.Password, decoyHash); err != nil {
			return err
		}
		return evently.ErrInvalidCredentials
	}
	user, match, err := s.checkPassword(c, email, asked.Password)
	if err != nil {
		return err
	}
	if !match {
		return evently.ErrInvalidCredentials
	}
	return s.signIn(c, user)
}

// checkPassword compares the password of an address, whose failures are counted, whether it has an account or not. It returns
// the refusal of allowSignIn while there were too many.
func (s *Server) checkPassword(c *gin.Context, email, password string) (user *evently.User, match bool, err error) {
	ctx, accounts := c.Request.Context(), s.config.Accounts
	wait, err := accounts.SignInWait(ctx, email, s.now())
	if err != nil {
		return nil, false, fmt.Errorf("read failed sign-ins: %w", err)
	}
	if err := s.allowSignIn(c, wait); err != nil {
		return nil, false, err
	}
	if user, err = s.userOf(ctx, email); err != nil {
		return nil, false, err
	}
	if match, err = s.passwords.matches(ctx, password, user.PasswordHash); err != nil || match && user.ID != 0 {
		return user, match, err
	}
	if wait, err = accounts.FailSignIn(ctx, email, user.ID, s.origin(c)); err != nil {
		return nil, false, fmt.Errorf("count a failed sign-in: %w", err)
	}
	return nil, false, s.allowSignIn(c, wait)
}

// signInPolicy is that of failed sign-ins with an address, from everywhere.
var signInPolicy = fmt.Sprintf(`"signin";q=%d;w=%d`, evently.SignInFailuresMax, ceilSeconds(evently.SignInMemory))

// allowSignIn refuses for as long as there is to wait.
func (s *Server) allowSignIn(c *gin.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	s.metrics.rateLimited.WithLabelValues("signin").Inc()
	header := c.Writer.Header()
	header["Ratelimit-Policy"] = append(header["Ratelimit-Policy"], signInPolicy)
	header["Ratelimit"] = append(header["Ratelimit"], fmt.Sprintf(`"signin";r=0;t=%d`, ceilSeconds(wait)))
	return &evently.Error{
		Code: evently.CodeRateLimited, RetryAfter: wait,
		Detail: "Too many failed sign-ins with this address; try again later, or reset the password.",
	}
}

// signIn begins a session.
func (s *Server) signIn(c *gin.Context, user *evently.User) error {
	origin := s.origin(c)
	session := &evently.Session{
		User: user.ID, CreatedAt: origin.At, LastUsedAt: origin.At, ExpiresAt: origin.At.Add(s.config.Tokens.RefreshTTL),
		UserAgent: origin.UserAgent, IP: origin.IP,
	}
	if _, err := io.ReadFull(s.config.Rand, session.ID[:]); err != nil {
		return fmt.Errorf("draw a session id: %w", err)
	}
	token, err := newRefreshToken(session.ID, s.config.Rand)
	if err != nil {
		return err
	}
	// The user as of now: a role or a password may have changed since it was read.
	user, wait, err := s.config.Accounts.CreateSession(c.Request.Context(), session, token.digest(), user.PasswordHash, origin)
	if errors.Is(err, evently.ErrPasswordOutdated) {
		return evently.ErrInvalidCredentials
	}
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	if err := s.allowSignIn(c, wait); err != nil {
		return err
	}
	return s.writeTokens(c, principalOf(user, session.ID), &token)
}

// principalOf is the user as tokens of a session say it.
func principalOf(user *evently.User, session evently.SessionID) evently.Principal {
	return evently.Principal{User: user.ID, Role: user.Role, Session: session, Verified: user.EmailVerified}
}

// truncated is the beginning of a text from outside, as far as it is UTF-8.
func truncated(text string, bytesMax int) string {
	return strings.ToValidUTF8(text[:min(len(text), bytesMax)], "")
}

func (s *Server) writeTokens(c *gin.Context, who evently.Principal, refresh *refreshToken) error {
	access, err := s.tokens.sign(who)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, tokensJSON{access, "Bearer", int64(s.config.Tokens.AccessTTL / time.Second), refresh.String()})
	return nil
}

// self is the user who asks.
func (s *Server) self(c *gin.Context) (*evently.User, error) {
	user, err := s.config.Accounts.User(c.Request.Context(), principal(c).User)
	if errors.Is(err, evently.ErrNotFound) {
		return nil, evently.ErrUnauthenticated
	}
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	return user, nil
}

func (s *Server) me(c *gin.Context) error {
	user, err := s.self(c)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, newUserJSON(user))
	return nil
}
