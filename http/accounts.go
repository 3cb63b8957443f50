package http

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

func (s *Server) accountRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/register", handle: s.register, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/login", handle: s.login, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/token/refresh", handle: s.refresh, limit: limitAuth, key: keyOptional},
		{method: http.MethodPost, path: "/logout", handle: s.logout, access: signedIn, key: keyOptional, noBody: true, endsSession: true},
		{method: http.MethodGet, path: "/me", handle: s.me, access: signedIn},
		{method: http.MethodGet, path: "/sessions", handle: s.sessions, access: signedIn},
		{method: http.MethodDelete, path: "/sessions/:id", handle: s.revokeSession, access: signedIn, noBody: true},
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
	if err != nil || parsed.Address != email || len(email) > emailBytesMax {
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
	ctx := c.Request.Context()
	if user.PasswordHash, err = s.passwords.hash(ctx, asked.Password); err != nil {
		return err
	}
	if err := s.config.Accounts.CreateUser(ctx, user); err != nil && !errors.Is(err, evently.ErrEmailTaken) {
		return fmt.Errorf("create user: %w", err)
	}
	writeJSON(c, http.StatusCreated, struct {
		User userJSON `json:"user"`
	}{newUserJSON(user)})
	return nil
}

func (s *Server) newUser(email, name, password string) (*evently.User, error) {
	var fields evently.FieldErrors
	email, err := NormalizeEmail(email)
	if err != nil {
		fields.Add("email", "must be an e-mail address")
	}
	checkPassword(&fields, password)
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); n < 1 || n > userNameRunesMax || strings.ContainsRune(name, 0) {
		fields.Add("name", fmt.Sprintf("must have 1 to %d characters", userNameRunesMax))
	}
	if err := fields.Err(); err != nil {
		return nil, err
	}
	id, err := s.random64()
	if err != nil {
		return nil, err
	}
	return &evently.User{
		ID: evently.UserID(id), Email: email, Name: name, Role: evently.RoleUser, CreatedAt: s.config.Now().UTC().Truncate(time.Millisecond),
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
	user := &evently.User{PasswordHash: decoyHash}
	if email, err := NormalizeEmail(asked.Email); err == nil {
		switch found, err := s.config.Accounts.UserByEmail(ctx, email); {
		case err == nil:
			user = found
		case !errors.Is(err, evently.ErrNotFound):
			return fmt.Errorf("find user: %w", err)
		}
	}
	match, err := s.passwords.matches(ctx, asked.Password, user.PasswordHash)
	if err != nil {
		return err
	}
	if !match || user.ID == 0 {
		return evently.ErrInvalidCredentials
	}
	return s.signIn(c, user)
}

// signIn begins a session.
func (s *Server) signIn(c *gin.Context, user *evently.User) error {
	now := s.config.Now().UTC().Truncate(time.Millisecond)
	session := &evently.Session{
		User: user.ID, CreatedAt: now, LastUsedAt: now, ExpiresAt: now.Add(s.config.Tokens.RefreshTTL),
		UserAgent: truncated(c.Request.UserAgent(), userAgentBytesMax), IP: c.ClientIP(),
	}
	if _, err := io.ReadFull(s.config.Rand, session.ID[:]); err != nil {
		return fmt.Errorf("draw a session id: %w", err)
	}
	token, err := newRefreshToken(session.ID, s.config.Rand)
	if err != nil {
		return err
	}
	if err := s.config.Accounts.CreateSession(c.Request.Context(), session, token.digest()); err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	return s.writeTokens(c, evently.Principal{User: user.ID, Role: user.Role, Session: session.ID}, &token)
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

var errRefreshTokenSpent = &evently.Error{
	Code: evently.CodeUnauthenticated, Detail: "The refresh token is spent, revoked or expired; sign in again.",
}

// refresh continues a session: each refresh token is good for once. One that comes again was stolen, before or after its owner
// used it, and ends the session for both.
func (s *Server) refresh(c *gin.Context) error {
	var asked struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := decode(c, &asked); err != nil {
		return err
	}
	spent, ok := parseRefreshToken(asked.RefreshToken)
	if !ok {
		return errRefreshTokenSpent
	}
	fresh, err := newRefreshToken(spent.session, s.config.Rand)
	if err != nil {
		return err
	}
	user, err := s.config.Accounts.RotateSession(c.Request.Context(), spent.session, spent.digest(), fresh.digest(), s.config.Now())
	if errors.Is(err, evently.ErrSessionEnded) {
		return errRefreshTokenSpent
	}
	if err != nil {
		return fmt.Errorf("rotate session: %w", err)
	}
	return s.writeTokens(c, evently.Principal{User: user.ID, Role: user.Role, Session: spent.session}, &fresh)
}

func (s *Server) logout(c *gin.Context) error {
	who := principal(c)
	if err := s.revoke(c, who.Session); err != nil && !errors.Is(err, evently.ErrNotFound) {
		return err
	}
	writeNothing(c)
	return nil
}

// revoke ends a session of the user. On this node it ends at once.
func (s *Server) revoke(c *gin.Context, id evently.SessionID) error {
	if err := s.config.Accounts.RevokeSession(c.Request.Context(), principal(c).User, id, s.config.Now()); err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	s.revoked.add(id)
	return nil
}

func (s *Server) me(c *gin.Context) error {
	user, err := s.config.Accounts.User(c.Request.Context(), principal(c).User)
	if errors.Is(err, evently.ErrNotFound) {
		return evently.ErrUnauthenticated
	}
	if err != nil {
		return fmt.Errorf("read user: %w", err)
	}
	writeJSON(c, http.StatusOK, newUserJSON(user))
	return nil
}

type sessionJSON struct {
	ID         string    `json:"id"`
	Current    bool      `json:"current"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	UserAgent  string    `json:"user_agent"`
	IP         string    `json:"ip"`
}

func (s *Server) sessions(c *gin.Context) error {
	who := principal(c)
	list, err := s.config.Accounts.Sessions(c.Request.Context(), who.User, s.config.Now())
	if err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	data := make([]sessionJSON, len(list))
	for i, session := range list {
		data[i] = sessionJSON{
			sessionText(session.ID), session.ID == who.Session, session.CreatedAt.UTC(), session.LastUsedAt.UTC(),
			session.ExpiresAt.UTC(), session.UserAgent, session.IP,
		}
	}
	writeJSON(c, http.StatusOK, struct {
		Data       []sessionJSON `json:"data"`
		NextCursor *string       `json:"next_cursor"`
	}{data, nil})
	return nil
}

func (s *Server) revokeSession(c *gin.Context) error {
	id, err := parseSession(c.Param("id"))
	if err != nil {
		return evently.ErrNotFound
	}
	if err := s.revoke(c, id); err != nil {
		return err
	}
	writeNothing(c)
	return nil
}
