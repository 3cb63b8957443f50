package http

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/store/storetest"
)

// fakeAccounts is evently.Accounts in memory.
type fakeAccounts struct {
	mu       sync.Mutex
	fail     error // what every call returns, unless nil
	users    map[evently.UserID]*evently.User
	sessions map[evently.SessionID]*fakeSession
	codes    map[fakeCodeKey]*fakeCode
	failures map[string]*fakeFailures
	log      []*evently.SecurityEntry
	mails    []evently.CodeMail
	reads    int // of the revoked sessions
	lookups  int // of users by id
}

type fakeSession struct {
	evently.Session
	refresh, spent     [32]byte
	spentAt, revokedAt time.Time
}

func (s *fakeSession) live(now time.Time) bool {
	return s.revokedAt.IsZero() && now.Before(s.ExpiresAt)
}

type fakeCodeKey struct {
	user    evently.UserID
	purpose evently.CodePurpose
}

type fakeCode struct {
	mac       [32]byte
	expiresAt time.Time
	tries     int
	used      bool
	sentAt    []time.Time
}

type fakeFailures struct {
	count  int
	freeAt time.Time
}

var _ evently.Accounts = (*fakeAccounts)(nil)

func newFakeAccounts() *fakeAccounts {
	return &fakeAccounts{
		users: make(map[evently.UserID]*evently.User), sessions: make(map[evently.SessionID]*fakeSession),
		codes: make(map[fakeCodeKey]*fakeCode), failures: make(map[string]*fakeFailures),
	}
}

// The fake keeps the rules of the port.
func TestFakeAccounts_Conform(t *testing.T) {
	storetest.RunAccounts(t, func(*testing.T) (evently.Accounts, func() []evently.CodeMail) {
		fake := newFakeAccounts()
		return fake, fake.mailed
	})
}

func (f *fakeAccounts) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// mailed are the mails with codes, oldest first.
func (f *fakeAccounts) mailed() []evently.CodeMail {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mails)
}

func (f *fakeAccounts) note(user evently.UserID, kind evently.SecurityKind, origin *evently.Origin, detail map[string]string) {
	f.log = append(f.log, &evently.SecurityEntry{
		ID: int64(len(f.log) + 1), At: origin.At, User: user, Kind: kind, Actor: origin.Actor, Session: origin.Session, IP: origin.IP,
		UserAgent: strings.ToValidUTF8(origin.UserAgent, "?"), RequestID: origin.RequestID, Detail: detail,
	})
}

func (f *fakeAccounts) CreateUser(_ context.Context, user *evently.User, code *evently.OneTimeCode, origin *evently.Origin) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	for _, other := range f.users {
		if other.Email == user.Email {
			return evently.ErrEmailTaken
		}
	}
	f.users[user.ID] = user
	f.note(user.ID, evently.SecurityRegistered, origin, nil)
	if code != nil {
		f.issue(user.ID, code, origin)
	}
	return nil
}

func (f *fakeAccounts) User(_ context.Context, id evently.UserID) (*evently.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	if user, found := f.users[id]; found || f.fail != nil {
		return cloned(user), f.fail
	}
	return nil, evently.ErrNotFound
}

func cloned(user *evently.User) *evently.User {
	if user == nil {
		return nil
	}
	return new(*user)
}

func (f *fakeAccounts) UserByEmail(_ context.Context, email string) (*evently.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, user := range f.users {
		if user.Email == email && f.fail == nil {
			return cloned(user), nil
		}
	}
	if f.fail != nil {
		return nil, f.fail
	}
	return nil, evently.ErrNotFound
}

func (f *fakeAccounts) Users(_ context.Context, filter evently.UserFilter, page evently.Page) ([]*evently.User, *evently.Cursor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*evently.User
	text := strings.ToLower(filter.Text)
	for _, user := range f.users {
		if (strings.Contains(user.Email, text) || strings.Contains(strings.ToLower(user.Name), text)) &&
			(filter.Role == nil || user.Role == *filter.Role) {
			list = append(list, cloned(user))
		}
	}
	// As the rows stand: ids are signed there.
	slices.SortFunc(list, func(a, b *evently.User) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(int64(b.ID), int64(a.ID)))
	})
	if after := page.After; after != nil {
		list = slices.DeleteFunc(list, func(user *evently.User) bool {
			at := user.CreatedAt.UnixMilli()
			return at > after.Order || at == after.Order && int64(user.ID) >= int64(after.Token)
		})
	}
	if len(list) <= page.Limit {
		return list, nil, f.fail
	}
	last := list[page.Limit-1]
	return list[:page.Limit], &evently.Cursor{Order: last.CreatedAt.UnixMilli(), Token: evently.Token(last.ID)}, f.fail
}

func (f *fakeAccounts) ChangeRole(_ context.Context, id evently.UserID, role evently.Role, origin *evently.Origin) (
	*evently.User, []evently.SessionID, error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, nil, f.fail
	}
	user, found := f.users[id]
	if !found {
		return nil, nil, evently.ErrNotFound
	}
	admins := 0
	for _, other := range f.users {
		if other.Role == evently.RoleAdmin {
			admins++
		}
	}
	if user.Role == evently.RoleAdmin && role != evently.RoleAdmin && admins == 1 {
		return nil, nil, evently.ErrLastAdmin
	}
	if user.Role == role {
		return cloned(user), nil, nil
	}
	before := user.Role
	user.Role = role
	revoked := f.revokeAll(id, evently.SessionID{}, origin.At)
	f.note(id, evently.SecurityRoleChanged, origin,
		map[string]string{"from": before.String(), "to": role.String(), "sessions": strconv.Itoa(len(revoked))})
	return cloned(user), revoked, nil
}

func (f *fakeAccounts) issue(user evently.UserID, code *evently.OneTimeCode, origin *evently.Origin) bool {
	key := fakeCodeKey{user, code.Mail.Purpose}
	known := f.codes[key]
	if known == nil {
		known = new(fakeCode)
	}
	sent := slices.DeleteFunc(slices.Clone(known.sentAt), func(at time.Time) bool { return !at.After(origin.At.Add(-time.Hour)) })
	if n := len(sent); n >= evently.CodesHourlyMax || n > 0 && origin.At.Sub(sent[n-1]) < evently.CodePause {
		return false
	}
	f.codes[key] = &fakeCode{mac: code.MAC, expiresAt: code.Mail.ExpiresAt, sentAt: append(sent, origin.At)}
	f.mails = append(f.mails, code.Mail)
	f.note(user, evently.SecurityCodeSent, origin, map[string]string{"purpose": code.Mail.Purpose.String()})
	return true
}

func (f *fakeAccounts) IssueCode(_ context.Context, user evently.UserID, code *evently.OneTimeCode, origin *evently.Origin) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return false, f.fail
	}
	return f.issue(user, code, origin), nil
}

func (f *fakeAccounts) spend(user evently.UserID, purpose evently.CodePurpose, macs [][32]byte, at time.Time) error {
	code := f.codes[fakeCodeKey{user, purpose}]
	switch {
	case f.fail != nil:
		return f.fail
	case code == nil || code.used || code.tries >= evently.CodeTriesMax || !code.expiresAt.After(at):
		return evently.ErrInvalidCode
	}
	code.tries++
	if code.used = slices.Contains(macs, code.mac); !code.used {
		return evently.ErrInvalidCode
	}
	return nil
}

func (f *fakeAccounts) VerifyEmail(_ context.Context, id evently.UserID, macs [][32]byte, origin *evently.Origin) (*evently.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.spend(id, evently.VerifyEmailCode, macs, origin.At); err != nil {
		return nil, err
	}
	f.users[id].EmailVerified = true
	f.note(id, evently.SecurityEmailVerified, origin, nil)
	return cloned(f.users[id]), nil
}

func (f *fakeAccounts) ResetPassword(_ context.Context, id evently.UserID, macs [][32]byte, hash string, origin *evently.Origin) (
	[]evently.SessionID, error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.spend(id, evently.ResetPasswordCode, macs, origin.At); err != nil {
		return nil, err
	}
	user := f.users[id]
	user.PasswordHash, user.EmailVerified = hash, true
	delete(f.failures, user.Email)
	return f.afterPassword(id, evently.SecurityPasswordReset, evently.SessionID{}, origin), nil
}

func (f *fakeAccounts) afterPassword(
	id evently.UserID, kind evently.SecurityKind, but evently.SessionID, origin *evently.Origin,
) []evently.SessionID {
	if code := f.codes[fakeCodeKey{id, evently.ResetPasswordCode}]; code != nil {
		code.used = true
	}
	revoked := f.revokeAll(id, but, origin.At)
	f.note(id, kind, origin, map[string]string{"sessions": strconv.Itoa(len(revoked))})
	return revoked
}

func (f *fakeAccounts) ChangePassword(_ context.Context, id evently.UserID, old, hash string, origin *evently.Origin) (
	[]evently.SessionID, error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	user := f.users[id]
	switch {
	case f.fail != nil:
		return nil, f.fail
	case user == nil || user.PasswordHash != old:
		return nil, evently.ErrPasswordOutdated
	}
	user.PasswordHash = hash
	return f.afterPassword(id, evently.SecurityPasswordChanged, origin.Session, origin), nil
}

func (f *fakeAccounts) wait(email string, now time.Time) time.Duration {
	if failures := f.failures[email]; failures != nil {
		return max(failures.freeAt.Sub(now), 0)
	}
	return 0
}

func (f *fakeAccounts) SignInWait(_ context.Context, email string, now time.Time) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wait(email, now), f.fail
}

func (f *fakeAccounts) FailSignIn(_ context.Context, email string, user evently.UserID, origin *evently.Origin) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if wait := f.wait(email, origin.At); wait > 0 || f.fail != nil {
		return wait, f.fail
	}
	failures := f.failures[email]
	if failures == nil || !failures.freeAt.After(origin.At.Add(-evently.SignInMemory)) {
		failures = new(fakeFailures)
		f.failures[email] = failures
	}
	failures.count++
	failures.freeAt = origin.At
	f.note(user, evently.SecuritySignInFailed, origin, nil)
	if more := failures.count - evently.SignInFailuresMax; more >= 0 {
		delay := min(evently.SignInDelayMin<<min(more, 20), evently.SignInDelayMax)
		failures.freeAt = origin.At.Add(delay)
		f.note(user, evently.SecuritySignInThrottled, origin, map[string]string{"seconds": strconv.Itoa(int(delay.Seconds()))})
	}
	return 0, nil
}

func (f *fakeAccounts) CreateSession(
	_ context.Context, session *evently.Session, refresh [32]byte, hash string, origin *evently.Origin,
) (*evently.User, time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	user := f.users[session.User]
	switch {
	case f.fail != nil:
		return nil, 0, f.fail
	case user == nil || user.PasswordHash != hash:
		return nil, 0, evently.ErrPasswordOutdated
	case f.wait(user.Email, origin.At) > 0:
		return nil, f.wait(user.Email, origin.At), nil
	}
	delete(f.failures, user.Email)
	live := f.live(user.ID, session.CreatedAt)
	for _, oldest := range live[min(len(live), evently.SessionsMax-1):] {
		oldest.revokedAt = session.CreatedAt
	}
	f.sessions[session.ID] = &fakeSession{Session: *session, refresh: refresh}
	signedIn := *origin
	signedIn.Actor, signedIn.Session = user.ID, session.ID
	f.note(user.ID, evently.SecuritySignedIn, &signedIn, nil)
	return cloned(user), 0, nil
}

func (f *fakeAccounts) RotateSession(
	_ context.Context, id evently.SessionID, spent [32]byte, successors [][32]byte, origin *evently.Origin,
) (*evently.User, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	session, found := f.sessions[id]
	switch {
	case f.fail != nil:
		return nil, 0, f.fail
	case !found || !session.live(origin.At):
		return nil, 0, evently.ErrSessionEnded
	case session.refresh == spent:
		session.refresh, session.spent = successors[0], spent
		session.spentAt, session.LastUsedAt = origin.At, origin.At
		return cloned(f.users[session.User]), 0, nil
	}
	successor := slices.Index(successors, session.refresh)
	if session.spent != spent || !session.spentAt.After(origin.At.Add(-evently.RefreshGrace)) || successor < 0 {
		session.revokedAt = origin.At
		reused := *origin
		reused.Session = id
		f.note(session.User, evently.SecurityRefreshReused, &reused, nil)
		return nil, 0, evently.ErrSessionEnded
	}
	return cloned(f.users[session.User]), successor, nil
}

// live are the live sessions of a user, newest first.
func (f *fakeAccounts) live(user evently.UserID, now time.Time) []*fakeSession {
	var list []*fakeSession
	for _, session := range f.sessions {
		if session.User == user && session.live(now) {
			list = append(list, session)
		}
	}
	slices.SortFunc(list, func(a, b *fakeSession) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), slices.Compare(a.ID[:], b.ID[:]))
	})
	return list
}

func (f *fakeAccounts) Sessions(_ context.Context, user evently.UserID, now time.Time) ([]*evently.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*evently.Session
	for _, session := range f.live(user, now) {
		list = append(list, new(session.Session))
	}
	return list, f.fail
}

func (f *fakeAccounts) RevokeSession(_ context.Context, user evently.UserID, id evently.SessionID, origin *evently.Origin) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	session, found := f.sessions[id]
	if f.fail != nil {
		return f.fail
	}
	if !found || session.User != user || !session.live(origin.At) {
		return evently.ErrNotFound
	}
	session.revokedAt = origin.At
	if id == origin.Session {
		f.note(user, evently.SecuritySignedOut, origin, nil)
	} else {
		f.note(user, evently.SecuritySessionRevoked, origin, map[string]string{"target": strings.TrimPrefix(sessionText(id), sessionPrefix)})
	}
	return nil
}

func (f *fakeAccounts) revokeAll(user evently.UserID, but evently.SessionID, at time.Time) (revoked []evently.SessionID) {
	for _, session := range f.live(user, at) {
		if session.ID != but {
			session.revokedAt = at
			revoked = append(revoked, session.ID)
		}
	}
	return revoked
}

func (f *fakeAccounts) RevokeOtherSessions(_ context.Context, user evently.UserID, origin *evently.Origin) ([]evently.SessionID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	revoked := f.revokeAll(user, origin.Session, origin.At)
	if len(revoked) > 0 {
		f.note(user, evently.SecuritySignedOutOthers, origin, map[string]string{"sessions": strconv.Itoa(len(revoked))})
	}
	return revoked, nil
}

func (f *fakeAccounts) RevokedSessions(_ context.Context, since time.Time) ([]evently.SessionID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	var list []evently.SessionID
	for id, session := range f.sessions {
		if !session.revokedAt.IsZero() && !session.revokedAt.Before(since) {
			list = append(list, id)
		}
	}
	return list, f.fail
}

// revokedReads is how often the revoked sessions were read.
func (f *fakeAccounts) revokedReads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

func (f *fakeAccounts) SecurityLog(_ context.Context, user evently.UserID, page evently.Page) (
	[]*evently.SecurityEntry, *evently.Cursor, error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*evently.SecurityEntry
	for _, entry := range slices.Backward(f.log) {
		if entry.User == user && (page.After == nil || entry.ID < page.After.Order) {
			list = append(list, entry)
		}
	}
	if len(list) <= page.Limit {
		return list, nil, f.fail
	}
	return list[:page.Limit], &evently.Cursor{Order: list[page.Limit-1].ID}, f.fail
}
