package http

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

const (
	// verifiedUsersMax bounds the users that are remembered, some 60 bytes each.
	verifiedUsersMax = 100_000
	// unverifiedTTL is how long a user is taken for unverified after a look-up: so long at most may the code that was entered at
	// another node be unknown here.
	unverifiedTTL = time.Second
)

// verifiedUsers knows which users have verified their address since their access token was made. Tokens that say so themselves
// are not looked up, and nobody has to sign in again: an address stays verified.
type verifiedUsers struct {
	accounts evently.Accounts
	now      func() time.Time

	mu    sync.Mutex
	known *lru[evently.UserID, time.Time] // until when the user counts as unverified; zero: verified
}

func newVerifiedUsers(config *Config) *verifiedUsers {
	return &verifiedUsers{accounts: config.Accounts, now: config.Now, known: newLRU[evently.UserID, time.Time](verifiedUsersMax)}
}

// add remembers that a user's address is verified.
func (v *verifiedUsers) add(id evently.UserID) { v.put(id, time.Time{}) }

func (v *verifiedUsers) put(id evently.UserID, until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known.put(id, until)
}

// has reports whether the address of a user is verified.
func (v *verifiedUsers) has(ctx context.Context, id evently.UserID) (bool, error) {
	v.mu.Lock()
	until, known := time.Time{}, false
	if entry := v.known.get(id); entry != nil {
		until, known = *entry, true
	}
	v.mu.Unlock()
	if known && (until.IsZero() || v.now().Before(until)) {
		return until.IsZero(), nil
	}
	user, err := v.accounts.User(ctx, id)
	switch {
	case errors.Is(err, evently.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up whether an address is verified: %w", err)
	case user.EmailVerified:
		v.add(id)
	default:
		v.put(id, v.now().Add(unverifiedTTL))
	}
	return user.EmailVerified, nil
}

// verifiedOnly refuses users whose address is not verified, on the routes that need it, if Config.RequireVerifiedEmail says so.
func (s *Server) verifiedOnly(needed bool, next handler) handler {
	if !needed || !s.config.RequireVerifiedEmail {
		return next
	}
	return func(c *gin.Context) error {
		who := principal(c)
		if !who.Verified {
			switch verified, err := s.verified.has(c.Request.Context(), who.User); {
			case err != nil:
				return err
			case !verified:
				return evently.ErrEmailUnverified
			}
		}
		return next(c)
	}
}
