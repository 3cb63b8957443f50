package http

import (
	"errors"
	"fmt"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

var errRefreshTokenSpent = &evently.Error{
	Code: evently.CodeUnauthenticated, Detail: "The refresh token is spent, revoked or expired; sign in again.",
}

// refresh continues a session: each refresh token is good for once. A client that lost the answer may repeat the request for a
// short time, and is given the same next token again. Other than that, a token that comes twice was stolen, before or after its
// owner used it, and ends the session for both.
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
	successors, digests := make([]refreshToken, len(s.keys)), make([][32]byte, len(s.keys))
	for i := range s.keys {
		successors[i] = spent.successor(s.keys[i].refresh)
		digests[i] = successors[i].digest()
	}
	user, successor, err := s.config.Accounts.RotateSession(c.Request.Context(), spent.session, spent.digest(), digests, s.origin(c))
	if errors.Is(err, evently.ErrSessionEnded) {
		return errRefreshTokenSpent
	}
	if err != nil {
		return fmt.Errorf("rotate session: %w", err)
	}
	return s.writeTokens(c, principalOf(user, spent.session), &successors[successor])
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
	if err := s.config.Accounts.RevokeSession(c.Request.Context(), principal(c).User, id, s.origin(c)); err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	s.revoked.add(id)
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
	writeList(c, list, func(session *evently.Session) sessionJSON {
		return sessionJSON{
			sessionText(session.ID), session.ID == who.Session, session.CreatedAt.UTC(), session.LastUsedAt.UTC(),
			session.ExpiresAt.UTC(), session.UserAgent, session.IP,
		}
	}, nil)
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

// revokeOtherSessions signs the user out everywhere else.
func (s *Server) revokeOtherSessions(c *gin.Context) error {
	revoked, err := s.config.Accounts.RevokeOtherSessions(c.Request.Context(), principal(c).User, s.origin(c))
	if err != nil {
		return fmt.Errorf("revoke the other sessions: %w", err)
	}
	s.revoked.add(revoked...)
	writeNothing(c)
	return nil
}
