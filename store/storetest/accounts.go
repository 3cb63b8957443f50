package storetest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// RunAccounts checks an evently.Accounts.
func RunAccounts(t *testing.T, open func(t *testing.T) evently.Accounts) {
	for name, test := range map[string]func(*testing.T, evently.Accounts){
		"UserIsReadBack":                       userIsReadBack,
		"AddressBelongsToOneUser":              addressBelongsToOneUser,
		"SessionIsReadBack":                    sessionIsReadBack,
		"NewSessionEndsTheOldestOfTooMany":     newSessionEndsTheOldest,
		"RotationSpendsTheToken":               rotationSpendsTheToken,
		"RotationOfAnEndedSessionIsRefused":    rotationOfAnEndedSessionIsRefused,
		"ConcurrentRotationsHaveOneWinner":     concurrentRotationsHaveOneWinner,
		"RevocationIsByItsOwnerAndOnce":        revocationIsByItsOwnerAndOnce,
		"RevokedSessionsAreListedFromAMoment":  revokedSessionsAreListedFromAMoment,
		"ConcurrentSignUpsOfOneAddressHaveOne": concurrentSignUpsHaveOneWinner,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// now is the clock of these tests: whole milliseconds.
var now = time.Date(2030, 3, 1, 8, 0, 0, 7e6, time.UTC)

func newUser(email string) *evently.User {
	return &evently.User{
		ID: evently.UserID(rand.Uint64() | 1<<63), Email: email, Name: "Zoë 𝄞", Role: evently.RoleOrganizer, PasswordHash: "$argon2id$x",
		EmailVerified: true, CreatedAt: now,
	}
}

func newSession(user evently.UserID) *evently.Session {
	return &evently.Session{
		ID: randomSessionID(), User: user, CreatedAt: now, LastUsedAt: now, ExpiresAt: now.Add(time.Hour),
		UserAgent: "Browser/1.0", IP: "2001:db8::1",
	}
}

func randomSessionID() (id evently.SessionID) {
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return id
}

func digest(n byte) (d [32]byte) {
	d[0], d[31] = n, ^n
	return d
}

// signIn stores a user with a session whose refresh digest is digest(1).
func signIn(t *testing.T, accounts evently.Accounts) (*evently.User, *evently.Session) {
	t.Helper()
	user := newUser("zoe@example.org")
	if err := accounts.CreateUser(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	session := newSession(user.ID)
	if err := accounts.CreateSession(t.Context(), session, digest(1)); err != nil {
		t.Fatal(err)
	}
	return user, session
}

func userIsReadBack(t *testing.T, accounts evently.Accounts) {
	want := newUser("zoe@example.org")
	if err := accounts.CreateUser(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	byID, err := accounts.User(t.Context(), want.ID)
	if diff := cmp.Diff(want, byID); err != nil || diff != "" {
		t.Errorf("by id: %v (-want +got):\n%s", err, diff)
	}
	byEmail, err := accounts.UserByEmail(t.Context(), want.Email)
	if diff := cmp.Diff(want, byEmail); err != nil || diff != "" {
		t.Errorf("by address: %v (-want +got):\n%s", err, diff)
	}
	if _, err := accounts.User(t.Context(), want.ID+1); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("another id: got %v, want %v", err, evently.ErrNotFound)
	}
	if _, err := accounts.UserByEmail(t.Context(), "z"+want.Email); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("another address: got %v, want %v", err, evently.ErrNotFound)
	}
}

func addressBelongsToOneUser(t *testing.T, accounts evently.Accounts) {
	first, second := newUser("zoe@example.org"), newUser("zoe@example.org")
	if err := accounts.CreateUser(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := accounts.CreateUser(t.Context(), second); !errors.Is(err, evently.ErrEmailTaken) {
		t.Errorf("got %v, want %v", err, evently.ErrEmailTaken)
	}
	if _, err := accounts.User(t.Context(), second.ID); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("the second user: got %v, want %v", err, evently.ErrNotFound)
	}
}

func concurrentSignUpsHaveOneWinner(t *testing.T, accounts evently.Accounts) {
	results := concurrently(20, func(int) error { return accounts.CreateUser(t.Context(), newUser("zoe@example.org")) })
	if won := count(results, nil); won != 1 || count(results, evently.ErrEmailTaken) != len(results)-1 {
		t.Errorf("%d of %d succeeded: %v", won, len(results), results)
	}
}

// concurrently calls f n times at once.
func concurrently(n int, f func(i int) error) []error {
	results := make([]error, n)
	var group sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-begin
			results[i] = f(i)
		})
	}
	close(begin)
	group.Wait()
	return results
}

func count(results []error, target error) (n int) {
	for _, err := range results {
		if errors.Is(err, target) {
			n++
		}
	}
	return n
}

func sessionIsReadBack(t *testing.T, accounts evently.Accounts) {
	user, first := signIn(t, accounts)
	later := newSession(user.ID)
	later.CreatedAt = now.Add(time.Minute)
	expired := newSession(user.ID)
	expired.ExpiresAt = now.Add(time.Second)
	for _, session := range []*evently.Session{later, expired} {
		if err := accounts.CreateSession(t.Context(), session, digest(1)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := accounts.Sessions(t.Context(), user.ID, expired.ExpiresAt)
	if diff := cmp.Diff([]*evently.Session{later, first}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := accounts.Sessions(t.Context(), user.ID+1, now); err != nil || len(got) != 0 {
		t.Errorf("of another user: got %v %v, want none", got, err)
	}
	// What a client sends need not be text.
	odd := newSession(user.ID)
	odd.UserAgent = "cut in the middle of \xc3"
	if err := accounts.CreateSession(t.Context(), odd, digest(1)); err != nil {
		t.Errorf("a user agent that is not UTF-8: %v", err)
	}
}

func newSessionEndsTheOldest(t *testing.T, accounts evently.Accounts) {
	user, oldest := signIn(t, accounts)
	create := func(age int) error {
		session := newSession(user.ID)
		session.CreatedAt = now.Add(time.Duration(age) * time.Second)
		return accounts.CreateSession(t.Context(), session, digest(1))
	}
	for i := range evently.SessionsMax - 1 {
		if err := create(i + 1); err != nil {
			t.Fatal(err)
		}
	}
	list, err := accounts.Sessions(t.Context(), user.ID, now)
	if err != nil || len(list) != evently.SessionsMax || list[len(list)-1].ID != oldest.ID {
		t.Fatalf("%d sessions, %v; want %d, the first one last", len(list), err, evently.SessionsMax)
	}
	const more = 10
	if results := concurrently(more, func(int) error { return create(evently.SessionsMax) }); count(results, nil) != more {
		t.Fatal(results)
	}
	revoked, err := accounts.RevokedSessions(t.Context(), now)
	if err != nil || len(revoked) != more || !slices.Contains(revoked, oldest.ID) {
		t.Errorf("%d sessions are revoked, %v; want %d, the oldest", len(revoked), err, more)
	}
	got, err := accounts.Sessions(t.Context(), user.ID, now)
	if err != nil || len(got) != evently.SessionsMax || got[len(got)-1].ID != list[len(list)-1-more].ID {
		t.Errorf("%d sessions are left, %v; want the newest %d", len(got), err, evently.SessionsMax)
	}
}

func rotationSpendsTheToken(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	used := now.Add(time.Minute)
	got, err := accounts.RotateSession(t.Context(), session.ID, digest(1), digest(2), used)
	if diff := cmp.Diff(user, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := accounts.RotateSession(t.Context(), session.ID, digest(2), digest(3), used); err != nil || got.ID != user.ID {
		t.Fatalf("second rotation: %v", err)
	}
	list, err := accounts.Sessions(t.Context(), user.ID, used)
	if err != nil || len(list) != 1 || !list[0].LastUsedAt.Equal(used) || !list[0].ExpiresAt.Equal(session.ExpiresAt) {
		t.Errorf("sessions: %+v %v, want the one, used at %v", list, err, used)
	}
	if _, err := accounts.RotateSession(t.Context(), session.ID, digest(1), digest(4), used); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("a spent token: got %v, want %v", err, evently.ErrSessionEnded)
	}
	if _, err := accounts.RotateSession(t.Context(), session.ID, digest(3), digest(5), used); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("the current token after a spent one was used: got %v, want %v", err, evently.ErrSessionEnded)
	}
	revoked, err := accounts.RevokedSessions(t.Context(), used)
	if err != nil || !slices.Equal(revoked, []evently.SessionID{session.ID}) {
		t.Errorf("revoked: %v %v, want the session", revoked, err)
	}
}

func rotationOfAnEndedSessionIsRefused(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	for name, c := range map[string]struct {
		id evently.SessionID
		at time.Time
	}{
		"expired": {session.ID, session.ExpiresAt},
		"unknown": {randomSessionID(), now},
	} {
		if _, err := accounts.RotateSession(t.Context(), c.id, digest(1), digest(2), c.at); !errors.Is(err, evently.ErrSessionEnded) {
			t.Errorf("%s: got %v, want %v", name, err, evently.ErrSessionEnded)
		}
	}
	if err := accounts.RevokeSession(t.Context(), user.ID, session.ID, now); err != nil {
		t.Fatal(err)
	}
	if _, err := accounts.RotateSession(t.Context(), session.ID, digest(1), digest(2), now); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("revoked: got %v, want %v", err, evently.ErrSessionEnded)
	}
}

func concurrentRotationsHaveOneWinner(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	results := concurrently(100, func(i int) error {
		_, err := accounts.RotateSession(t.Context(), session.ID, digest(1), digest(byte(2+i)), now)
		return err
	})
	if won := count(results, nil); won != 1 || count(results, evently.ErrSessionEnded) != len(results)-1 {
		t.Errorf("%d of %d rotations succeeded: %v", won, len(results), results)
	}
	if list, err := accounts.Sessions(t.Context(), user.ID, now); err != nil || len(list) != 0 {
		t.Errorf("sessions: %v %v, want none: a token was used twice", list, err)
	}
}

func revocationIsByItsOwnerAndOnce(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	if err := accounts.RevokeSession(t.Context(), user.ID+1, session.ID, now); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("another user's: got %v, want %v", err, evently.ErrNotFound)
	}
	if err := accounts.RevokeSession(t.Context(), user.ID, session.ID, session.ExpiresAt); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("expired: got %v, want %v", err, evently.ErrNotFound)
	}
	results := concurrently(10, func(int) error { return accounts.RevokeSession(t.Context(), user.ID, session.ID, now) })
	if won := count(results, nil); won != 1 || count(results, evently.ErrNotFound) != len(results)-1 {
		t.Errorf("%d of %d revocations succeeded: %v", won, len(results), results)
	}
	if list, err := accounts.Sessions(t.Context(), user.ID, now); err != nil || len(list) != 0 {
		t.Errorf("sessions: %v %v, want none", list, err)
	}
}

func revokedSessionsAreListedFromAMoment(t *testing.T, accounts evently.Accounts) {
	user, first := signIn(t, accounts)
	second, live := newSession(user.ID), newSession(user.ID)
	for _, session := range []*evently.Session{second, live} {
		if err := accounts.CreateSession(t.Context(), session, digest(1)); err != nil {
			t.Fatal(err)
		}
	}
	later := now.Add(time.Minute)
	if err := accounts.RevokeSession(t.Context(), user.ID, first.ID, now); err != nil {
		t.Fatal(err)
	}
	if err := accounts.RevokeSession(t.Context(), user.ID, second.ID, later); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		since time.Time
		want  []evently.SessionID
	}{
		{now, []evently.SessionID{first.ID, second.ID}},
		{later, []evently.SessionID{second.ID}},
		{later.Add(time.Millisecond), nil},
	} {
		got, err := accounts.RevokedSessions(t.Context(), c.since)
		slices.SortFunc(got, func(a, b evently.SessionID) int { return slices.Compare(a[:], b[:]) })
		slices.SortFunc(c.want, func(a, b evently.SessionID) int { return slices.Compare(a[:], b[:]) })
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("since %v: got %v %v, want %v", c.since, got, err, c.want)
		}
	}
}
