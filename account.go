package evently

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Role is what a user may do. Each role may do all that the one before may.
type Role uint8

// The values are stored; never renumber them.
const (
	RoleUser      Role = iota
	RoleOrganizer      // sees and manages own events
	RoleAdmin          // sees and manages everything
)

func (r Role) String() string {
	switch r {
	case RoleUser:
		return "user"
	case RoleOrganizer:
		return "organizer"
	case RoleAdmin:
		return "admin"
	}
	return "Role(" + strconv.Itoa(int(r)) + ")"
}

// ParseRole is the inverse of Role.String.
func ParseRole(s string) (Role, error) {
	for role := RoleUser; role <= RoleAdmin; role++ {
		if role.String() == s {
			return role, nil
		}
	}
	return 0, fmt.Errorf("parse role %.40q: not user, organizer or admin", s)
}

// SessionID identifies a session: 128 random bits. Zero is no session.
type SessionID [16]byte

// Principal is who makes a request.
type Principal struct {
	User    UserID
	Role    Role
	Session SessionID
}

// User is a registered person.
type User struct {
	ID            UserID
	Email         string // trimmed and lower-case; unique
	Name          string
	Role          Role
	PasswordHash  string // argon2id, PHC string format
	EmailVerified bool
	CreatedAt     time.Time
}

// Session is one sign-in of a user on one device.
type Session struct {
	ID         SessionID
	User       UserID
	CreatedAt  time.Time
	LastUsedAt time.Time // sign-in or last refresh
	ExpiresAt  time.Time
	UserAgent  string // at sign-in, at most 200 bytes
	IP         string // at sign-in
}

// Errors of Accounts.
var (
	// ErrEmailTaken: another user has this address.
	ErrEmailTaken = errors.New("e-mail address is taken")
	// ErrSessionEnded: the session is revoked, expired, or was never there.
	ErrSessionEnded = errors.New("session has ended")
)

// SessionsMax bounds the live sessions of a user, so that they fit into one list.
const SessionsMax = 100

// Accounts stores users and sessions.
type Accounts interface {
	// CreateUser returns ErrEmailTaken.
	CreateUser(ctx context.Context, user *User) error
	// User and UserByEmail return ErrNotFound.
	User(ctx context.Context, id UserID) (*User, error)
	UserByEmail(ctx context.Context, email string) (*User, error)

	// CreateSession stores a session with the digest of its refresh token. When its user has SessionsMax live ones already, the
	// oldest are revoked.
	CreateSession(ctx context.Context, session *Session, refresh [32]byte) error
	// RotateSession replaces the digest of the refresh token and returns the session's user. A digest that is not the current
	// one revokes the session. It returns ErrSessionEnded in that case too.
	RotateSession(ctx context.Context, id SessionID, spent, fresh [32]byte, now time.Time) (*User, error)
	// Sessions lists the live sessions of a user, newest first: SessionsMax at most.
	Sessions(ctx context.Context, user UserID, now time.Time) ([]*Session, error)
	// RevokeSession ends a session of a user. It returns ErrNotFound when the user has no such live session.
	RevokeSession(ctx context.Context, user UserID, id SessionID, now time.Time) error
	// RevokedSessions lists the sessions revoked since a moment, at most 100,000.
	RevokedSessions(ctx context.Context, since time.Time) ([]SessionID, error)
}

// Answer is a stored response to a request with an Idempotency-Key.
type Answer struct {
	Status int
	Header map[string]string // those that belong to the answer, such as Location and ETag
	Body   []byte
}

// Answers remembers the responses to requests with an Idempotency-Key, other than bookings, which the ledger remembers.
type Answers interface {
	// Claim waits until no other request holds the key, on any node, and returns the stored answer, or nil and a Claim that holds
	// the key. It returns ErrKeyReused when the stored answer belongs to another fingerprint.
	Claim(ctx context.Context, key Key, fingerprint [32]byte) (*Answer, Claim, error)
}

// Claim is the sole right to answer a request with an Idempotency-Key.
type Claim interface {
	// Store remembers the answer for at least KeyRetentionMin and releases the key.
	Store(ctx context.Context, answer *Answer) error
	// Release gives the key back without an answer. After Store it does nothing.
	Release()
}
