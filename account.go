package evently

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Role is what a user is. What it allows is a table of the HTTP API; each role may do all that the one before may.
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
	User     UserID
	Role     Role
	Session  SessionID
	Verified bool // the user's address was verified when the access token was made
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

// UserFilter selects users. Zero fields select all.
type UserFilter struct {
	Text string // found in the address or the name, whatever the case
	Role *Role
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

// Origin is when, by whom and from where something is done to an account. It goes into the security log.
type Origin struct {
	At        time.Time // whole milliseconds
	Actor     UserID    // who is signed in; zero: nobody is
	Session   SessionID // by which the actor is signed in; zero: none
	IP        string
	UserAgent string // at most 200 bytes
	RequestID string
}

// OneTimeCode is a code on its way to a user.
type OneTimeCode struct {
	Mail CodeMail // tells the code itself, which is stored nowhere else
	MAC  [32]byte // what is stored to recognise the code by
}

// Bounds of one-time codes.
const (
	// CodeTTL is how long a code is good.
	CodeTTL = 10 * time.Minute
	// CodeTriesMax is how often a code may be tried, the right one included.
	CodeTriesMax = 5
	// CodePause lies between two codes to the same user for the same purpose, and CodesHourlyMax bounds them in any hour. So nobody
	// can try more than 25 of a million codes in an hour.
	CodePause      = time.Minute
	CodesHourlyMax = 5
)

// How failed sign-ins delay further ones with the same address, whether it belongs to a user or not.
const (
	// SignInFailuresMax is the failure that brings the first delay.
	SignInFailuresMax = 5
	// SignInDelayMin is that delay. Each further failure doubles it, up to SignInDelayMax.
	SignInDelayMin = 15 * time.Second
	SignInDelayMax = 15 * time.Minute
	// SignInMemory is when failures are forgotten: so long after the last one, or after the end of the delay that it brought.
	SignInMemory = 15 * time.Minute
)

// RefreshGrace is how long a spent refresh token still leads to the successor that it was given.
const RefreshGrace = 30 * time.Second

// SecurityKind says what an entry of the security log is about. It is stored as it stands.
type SecurityKind string

// The kinds of the security log, with their details.
const (
	SecurityRegistered      SecurityKind = "registered"
	SecurityCodeSent        SecurityKind = "code_sent" // purpose
	SecurityEmailVerified   SecurityKind = "email_verified"
	SecuritySignedIn        SecurityKind = "signed_in"
	SecuritySignInFailed    SecurityKind = "sign_in_failed"
	SecuritySignInThrottled SecurityKind = "sign_in_throttled" // seconds: a failure brought a delay
	SecuritySignedOut       SecurityKind = "signed_out"
	SecuritySessionRevoked  SecurityKind = "session_revoked"   // target: the session that its user ended from another one
	SecuritySignedOutOthers SecurityKind = "signed_out_others" // sessions: how many were ended
	SecurityRefreshReused   SecurityKind = "refresh_reused"    // a spent refresh token came again and ended the session
	SecurityPasswordReset   SecurityKind = "password_reset"    // sessions
	SecurityPasswordChanged SecurityKind = "password_changed"  // sessions
	SecurityRoleChanged     SecurityKind = "role_changed"      // from, to, sessions
)

// SecurityEntry is a line of the security log.
type SecurityEntry struct {
	ID        int64 // counts up, with gaps
	At        time.Time
	User      UserID // whose account it is; zero: an address without one
	Kind      SecurityKind
	Actor     UserID // who did it; zero: nobody was signed in
	Session   SessionID
	IP        string
	UserAgent string
	RequestID string
	Detail    map[string]string // see the kinds
}

// Errors of Accounts.
var (
	// ErrEmailTaken: another user has this address.
	ErrEmailTaken = errors.New("e-mail address is taken")
	// ErrSessionEnded: the session is revoked, expired, or was never there.
	ErrSessionEnded = errors.New("session has ended")
	// ErrPasswordOutdated: the password has changed since it was compared.
	ErrPasswordOutdated = errors.New("password has changed")
)

// SessionsMax bounds the live sessions of a user, so that they fit into one list.
const SessionsMax = 100

// Accounts stores users, sessions, one-time codes and the security log. What changes is logged in the transaction of the change.
type Accounts interface {
	// CreateUser stores a user and has the code mailed, unless it is nil. It returns ErrEmailTaken.
	CreateUser(ctx context.Context, user *User, code *OneTimeCode, origin *Origin) error
	// User and UserByEmail return ErrNotFound.
	User(ctx context.Context, id UserID) (*User, error)
	UserByEmail(ctx context.Context, email string) (*User, error)
	// Users lists newest first. next is nil at the end.
	Users(ctx context.Context, filter UserFilter, page Page) (users []*User, next *Cursor, err error)
	// ChangeRole gives a user another role and revokes the user's sessions, which it returns: what they were given says the old one.
	// With the role that the user has it does nothing. It returns ErrNotFound, or ErrLastAdmin when no administrator would be left.
	ChangeRole(ctx context.Context, id UserID, role Role, origin *Origin) (user *User, revoked []SessionID, err error)

	// IssueCode replaces the user's code for the purpose of code.Mail and has the new one mailed. It returns false and does nothing
	// when CodePause or CodesHourlyMax forbid it.
	IssueCode(ctx context.Context, user UserID, code *OneTimeCode, origin *Origin) (issued bool, err error)
	// VerifyEmail spends a VerifyEmailCode. macs are those that the code may have been stored with. Each call is one of
	// CodeTriesMax. It returns ErrInvalidCode unless the code is the newest, not expired, not used and has a try left.
	VerifyEmail(ctx context.Context, user UserID, macs [][32]byte, origin *Origin) (*User, error)
	// ResetPassword spends a ResetPasswordCode in the same way. It sets the password, verifies the address, forgets failed sign-ins
	// and revokes all sessions, which it returns.
	ResetPassword(ctx context.Context, user UserID, macs [][32]byte, hash string, origin *Origin) (revoked []SessionID, err error)
	// ChangePassword replaces one hash by another and revokes all sessions but origin.Session. It returns them, or
	// ErrPasswordOutdated when the user has another hash.
	ChangePassword(ctx context.Context, user UserID, old, hash string, origin *Origin) (revoked []SessionID, err error)

	// SignInWait is how long sign-ins with an address are refused, whoever tries and with whatever password; 0: they are not.
	SignInWait(ctx context.Context, email string, now time.Time) (time.Duration, error)
	// FailSignIn counts a wrong password for an address; user is zero when nobody has it. When sign-ins with the address are refused
	// it counts nothing and returns for how long.
	FailSignIn(ctx context.Context, email string, user UserID, origin *Origin) (wait time.Duration, err error)
	// CreateSession stores a session with the digest of its refresh token, and returns the user as of then. When there are SessionsMax
	// live sessions already, the oldest are revoked. hash is the one that the password was compared with: it returns
	// ErrPasswordOutdated when it is no longer the user's, and a positive wait when sign-ins are refused by now.
	CreateSession(ctx context.Context, session *Session, refresh [32]byte, hash string, origin *Origin) (user *User, wait time.Duration, err error)
	// RotateSession spends a refresh token, known by its digest, and returns the session's user and which of the successors is the
	// token from now on.
	//
	// The caller derives the successor from the spent token itself, once for each secret that it may have been derived with, the
	// current one first. So one rotation is stored, and everybody who brings the spent token within RefreshGrace of it, before the
	// successor was spent in its turn, is given the same successor: of any number of concurrent calls one rotates, and a client that
	// lost its answer repeats the request. A token that was spent before, or that never was one, revokes the session:
	// ErrSessionEnded, as for a session that has ended.
	RotateSession(ctx context.Context, id SessionID, spent [32]byte, successors [][32]byte, origin *Origin) (user *User, successor int, err error)
	// Sessions lists the live sessions of a user, newest first: SessionsMax at most.
	Sessions(ctx context.Context, user UserID, now time.Time) ([]*Session, error)
	// RevokeSession ends a session of a user. It returns ErrNotFound when the user has no such live session.
	RevokeSession(ctx context.Context, user UserID, id SessionID, origin *Origin) error
	// RevokeOtherSessions ends all sessions of a user but origin.Session, and returns them.
	RevokeOtherSessions(ctx context.Context, user UserID, origin *Origin) ([]SessionID, error)
	// RevokedSessions lists the sessions revoked since a moment, at most 100,000.
	RevokedSessions(ctx context.Context, since time.Time) ([]SessionID, error)

	// SecurityLog lists what happened to a user's account, newest first. next is nil at the end.
	SecurityLog(ctx context.Context, user UserID, page Page) (entries []*SecurityEntry, next *Cursor, err error)
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
