package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// RunAccounts checks an evently.Accounts. mailed returns the mails with codes that were asked for by now.
func RunAccounts(t *testing.T, open func(t *testing.T) (accounts evently.Accounts, mailed func() []evently.CodeMail)) {
	for name, test := range map[string]func(*testing.T, evently.Accounts){
		"UserIsReadBack":                          userIsReadBack,
		"AddressBelongsToOneUser":                 addressBelongsToOneUser,
		"ConcurrentSignUpsOfOneAddressHaveOne":    concurrentSignUpsHaveOneWinner,
		"UsersAreListedNewestFirst":               usersAreListedNewestFirst,
		"RoleChangeEndsTheSessions":               roleChangeEndsTheSessions,
		"ThereAlwaysIsAnAdministrator":            thereAlwaysIsAnAdministrator,
		"SessionIsReadBack":                       sessionIsReadBack,
		"NewSessionEndsTheOldestOfTooMany":        newSessionEndsTheOldest,
		"RotationSpendsTheToken":                  rotationSpendsTheToken,
		"LostRotationIsForgivenForAWhile":         lostRotationIsForgiven,
		"RotationOfAnEndedSessionIsRefused":       rotationOfAnEndedSessionIsRefused,
		"ConcurrentRotationsHaveOneSuccessor":     concurrentRotationsHaveOneSuccessor,
		"ConcurrentReuseEndsTheSessionOnce":       concurrentReuseEndsTheSessionOnce,
		"RevocationIsByItsOwnerAndOnce":           revocationIsByItsOwnerAndOnce,
		"OtherSessionsAreRevoked":                 otherSessionsAreRevoked,
		"RevokedSessionsAreListedFromAMoment":     revokedSessionsAreListedFromAMoment,
		"FailuresDelaySignIns":                    failuresDelaySignIns,
		"FailuresAreForgotten":                    failuresAreForgotten,
		"ConcurrentFailuresBringOneDelay":         concurrentFailuresBringOneDelay,
		"SignInNeedsThePasswordThatWasCompared":   signInNeedsThePasswordThatWasCompared,
		"PasswordChangeEndsTheOtherSessions":      passwordChangeEndsTheOtherSessions,
		"SecurityLogIsOfOneUserAndInPages":        securityLogIsOfOneUserAndInPages,
		"PasswordResetRacesWithSignInsAndEndsAll": passwordResetRacesWithSignIns,
	} {
		t.Run(name, func(t *testing.T) {
			accounts, _ := open(t)
			test(t, accounts)
		})
	}
	for name, test := range map[string]func(*testing.T, evently.Accounts, func() []evently.CodeMail){
		"CodeVerifiesTheAddressOnce":       codeVerifiesTheAddressOnce,
		"CodesArePaced":                    codesArePaced,
		"CodeExpires":                      codeExpires,
		"CodeHasFiveTries":                 codeHasFiveTries,
		"NewCodeReplacesTheOld":            newCodeReplacesTheOld,
		"CodeOfAnotherPurposeOrUserIsNone": codeOfAnotherPurposeOrUserIsNone,
		"ResetEndsAllSessions":             resetEndsAllSessions,
	} {
		t.Run(name, func(t *testing.T) {
			accounts, mailed := open(t)
			test(t, accounts, mailed)
		})
	}
}

// now is the clock of these tests: whole milliseconds.
var now = time.Date(2030, 3, 1, 8, 0, 0, 7e6, time.UTC)

func newUser(email string) *evently.User {
	return &evently.User{
		ID: evently.UserID(rand.Uint64() | 1<<63), Email: email, Name: "Zoë 𝄞", Role: evently.RoleOrganizer, PasswordHash: passwordHash,
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

// at is the origin of something done at a moment.
func at(moment time.Time) *evently.Origin {
	return &evently.Origin{At: moment, IP: "2001:db8::1", UserAgent: "Browser/1.0", RequestID: "req-1"}
}

// by is the origin of something done now in a session.
func by(session *evently.Session) *evently.Origin {
	origin := at(now)
	origin.Actor, origin.Session = session.User, session.ID
	return origin
}

// createSession stores a session whose refresh digest is digest(1).
func createSession(t *testing.T, accounts evently.Accounts, session *evently.Session) {
	t.Helper()
	if err := tryCreateSession(t, accounts, session); err != nil {
		t.Fatal(err)
	}
}

func tryCreateSession(t *testing.T, accounts evently.Accounts, session *evently.Session) error {
	_, wait, err := accounts.CreateSession(t.Context(), session, digest(1), passwordHash, at(session.CreatedAt))
	if err == nil && wait > 0 {
		err = fmt.Errorf("refused for %s", wait)
	}
	return err
}

const passwordHash = "$argon2id$x"

// signIn stores a user with a session whose refresh digest is digest(1).
func signIn(t *testing.T, accounts evently.Accounts) (*evently.User, *evently.Session) {
	t.Helper()
	user := newUser("zoe@example.org")
	if err := accounts.CreateUser(t.Context(), user, nil, at(now)); err != nil {
		t.Fatal(err)
	}
	session := newSession(user.ID)
	createSession(t, accounts, session)
	return user, session
}

func userIsReadBack(t *testing.T, accounts evently.Accounts) {
	want := newUser("zoe@example.org")
	if err := accounts.CreateUser(t.Context(), want, nil, at(now)); err != nil {
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
	if err := accounts.CreateUser(t.Context(), first, nil, at(now)); err != nil {
		t.Fatal(err)
	}
	if err := accounts.CreateUser(t.Context(), second, nil, at(now)); !errors.Is(err, evently.ErrEmailTaken) {
		t.Errorf("got %v, want %v", err, evently.ErrEmailTaken)
	}
	if _, err := accounts.User(t.Context(), second.ID); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("the second user: got %v, want %v", err, evently.ErrNotFound)
	}
}

func concurrentSignUpsHaveOneWinner(t *testing.T, accounts evently.Accounts) {
	results := concurrently(20, func(int) error { return accounts.CreateUser(t.Context(), newUser("zoe@example.org"), nil, at(now)) })
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
		createSession(t, accounts, session)
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
	if err := tryCreateSession(t, accounts, odd); err != nil {
		t.Errorf("a user agent that is not UTF-8: %v", err)
	}
}

func newSessionEndsTheOldest(t *testing.T, accounts evently.Accounts) {
	user, oldest := signIn(t, accounts)
	create := func(age int) error {
		session := newSession(user.ID)
		session.CreatedAt = now.Add(time.Duration(age) * time.Second)
		return tryCreateSession(t, accounts, session)
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

// rotate is RotateSession with one successor.
func rotate(t *testing.T, accounts evently.Accounts, id evently.SessionID, spent, successor byte, moment time.Time) (*evently.User, error) {
	user, _, err := accounts.RotateSession(t.Context(), id, digest(spent), [][32]byte{digest(successor)}, at(moment))
	return user, err
}

func rotationSpendsTheToken(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	used := now.Add(time.Minute)
	got, err := rotate(t, accounts, session.ID, 1, 2, used)
	if diff := cmp.Diff(user, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := rotate(t, accounts, session.ID, 2, 3, used); err != nil || got.ID != user.ID {
		t.Fatalf("second rotation: %v", err)
	}
	list, err := accounts.Sessions(t.Context(), user.ID, used)
	if err != nil || len(list) != 1 || !list[0].LastUsedAt.Equal(used) || !list[0].ExpiresAt.Equal(session.ExpiresAt) {
		t.Errorf("sessions: %+v %v, want the one, used at %v", list, err, used)
	}
	// The successor of the first was used already, so that its owner had the answer.
	if _, err := rotate(t, accounts, session.ID, 1, 2, used); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("a token spent before the last: got %v, want %v", err, evently.ErrSessionEnded)
	}
	if _, err := rotate(t, accounts, session.ID, 3, 5, used); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("the current token after a spent one was used: got %v, want %v", err, evently.ErrSessionEnded)
	}
	revoked, err := accounts.RevokedSessions(t.Context(), used)
	if err != nil || !slices.Equal(revoked, []evently.SessionID{session.ID}) {
		t.Errorf("revoked: %v %v, want the session", revoked, err)
	}
	wantLog(t, accounts, user.ID, evently.SecurityRefreshReused, evently.SecuritySignedIn, evently.SecurityRegistered)
}

// Who lost the answer asks again and gets the same successor, by whichever secret it was derived.
func lostRotationIsForgiven(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	if _, err := rotate(t, accounts, session.ID, 1, 2, now); err != nil {
		t.Fatal(err)
	}
	late := now.Add(evently.RefreshGrace - time.Millisecond)
	for i, successors := range [][][32]byte{{digest(2)}, {digest(9), digest(2)}, {digest(2), digest(9)}} {
		got, successor, err := accounts.RotateSession(t.Context(), session.ID, digest(1), successors, at(late))
		if err != nil || got.ID != user.ID || successors[successor] != digest(2) {
			t.Errorf("%d: got successor %d, %v", i, successor, err)
		}
	}
	list, err := accounts.Sessions(t.Context(), user.ID, late)
	if err != nil || len(list) != 1 || !list[0].LastUsedAt.Equal(now) {
		t.Errorf("sessions: %+v %v, want the one, used at %v", list, err, now)
	}
	if _, err := rotate(t, accounts, session.ID, 1, 2, now.Add(evently.RefreshGrace)); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("after the grace: got %v, want %v", err, evently.ErrSessionEnded)
	}

	// A token that never was one, and one whose successor is another, are not forgiven.
	for name, c := range map[string]struct{ spent, successor byte }{"never issued": {7, 2}, "another successor": {1, 8}} {
		session := newSession(user.ID)
		createSession(t, accounts, session)
		if _, err := rotate(t, accounts, session.ID, 1, 2, now); err != nil {
			t.Fatal(err)
		}
		if _, err := rotate(t, accounts, session.ID, c.spent, c.successor, now); !errors.Is(err, evently.ErrSessionEnded) {
			t.Errorf("%s: got %v, want %v", name, err, evently.ErrSessionEnded)
		}
	}
}

func rotationOfAnEndedSessionIsRefused(t *testing.T, accounts evently.Accounts) {
	_, session := signIn(t, accounts)
	for name, c := range map[string]struct {
		id evently.SessionID
		at time.Time
	}{
		"expired": {session.ID, session.ExpiresAt},
		"unknown": {randomSessionID(), now},
	} {
		if _, err := rotate(t, accounts, c.id, 1, 2, c.at); !errors.Is(err, evently.ErrSessionEnded) {
			t.Errorf("%s: got %v, want %v", name, err, evently.ErrSessionEnded)
		}
	}
	if err := accounts.RevokeSession(t.Context(), session.User, session.ID, by(session)); err != nil {
		t.Fatal(err)
	}
	if _, err := rotate(t, accounts, session.ID, 1, 2, now); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("revoked: got %v, want %v", err, evently.ErrSessionEnded)
	}
}

// Of 100 at once one rotates, and all are given the token that it rotated to.
func concurrentRotationsHaveOneSuccessor(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	// Half of the nodes have another secret in front.
	candidates := [][][32]byte{{digest(2), digest(3)}, {digest(3), digest(2)}}
	given := make([][32]byte, 100)
	results := concurrently(len(given), func(i int) error {
		successors := candidates[i%2]
		_, successor, err := accounts.RotateSession(t.Context(), session.ID, digest(1), successors, at(now))
		if err == nil {
			given[i] = successors[successor]
		}
		return err
	})
	for i := range given {
		if results[i] != nil || given[i] != given[0] {
			t.Fatalf("rotation %d: %x, %v; the first was given %x", i, given[i][:1], results[i], given[0][:1])
		}
	}
	if list, err := accounts.Sessions(t.Context(), user.ID, now); err != nil || len(list) != 1 {
		t.Errorf("sessions: %v %v, want the one", list, err)
	}
	if _, err := rotate(t, accounts, session.ID, given[0][0], 4, now); err != nil {
		t.Errorf("the successor: %v", err)
	}
}

// Of 100 different tokens for one successor at most one line goes on.
func concurrentReuseEndsTheSessionOnce(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	results := concurrently(100, func(i int) error {
		_, err := rotate(t, accounts, session.ID, 1, byte(2+i), now)
		return err
	})
	if won := count(results, nil); won != 1 || count(results, evently.ErrSessionEnded) != len(results)-1 {
		t.Errorf("%d of %d rotations succeeded: %v", won, len(results), results)
	}
	if list, err := accounts.Sessions(t.Context(), user.ID, now); err != nil || len(list) != 0 {
		t.Errorf("sessions: %v %v, want none", list, err)
	}
	wantLog(t, accounts, user.ID, evently.SecurityRefreshReused, evently.SecuritySignedIn, evently.SecurityRegistered)
}

func revocationIsByItsOwnerAndOnce(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	if err := accounts.RevokeSession(t.Context(), user.ID+1, session.ID, at(now)); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("another user's: got %v, want %v", err, evently.ErrNotFound)
	}
	if err := accounts.RevokeSession(t.Context(), user.ID, session.ID, at(session.ExpiresAt)); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("expired: got %v, want %v", err, evently.ErrNotFound)
	}
	results := concurrently(10, func(int) error { return accounts.RevokeSession(t.Context(), user.ID, session.ID, by(session)) })
	if won := count(results, nil); won != 1 || count(results, evently.ErrNotFound) != len(results)-1 {
		t.Errorf("%d of %d revocations succeeded: %v", won, len(results), results)
	}
	if list, err := accounts.Sessions(t.Context(), user.ID, now); err != nil || len(list) != 0 {
		t.Errorf("sessions: %v %v, want none", list, err)
	}
	wantLog(t, accounts, user.ID, evently.SecuritySignedOut, evently.SecuritySignedIn, evently.SecurityRegistered)
	first, second := newSession(user.ID), newSession(user.ID)
	createSession(t, accounts, first)
	createSession(t, accounts, second)
	if err := accounts.RevokeSession(t.Context(), user.ID, second.ID, by(first)); err != nil {
		t.Fatal(err)
	}
	entry := lastLogged(t, accounts, user.ID)
	if entry.Kind != evently.SecuritySessionRevoked || entry.Session != first.ID || entry.Detail["target"] != fmt.Sprintf("%x", second.ID) {
		t.Errorf("logged: %+v", entry)
	}
}

func otherSessionsAreRevoked(t *testing.T, accounts evently.Accounts) {
	user, first := signIn(t, accounts)
	second, third := newSession(user.ID), newSession(user.ID)
	createSession(t, accounts, second)
	createSession(t, accounts, third)
	for _, want := range []int{2, 0} {
		revoked, err := accounts.RevokeOtherSessions(t.Context(), user.ID, by(second))
		if err != nil || len(revoked) != want || slices.Contains(revoked, second.ID) {
			t.Errorf("revoked: %v %v, want %d others than %v", revoked, err, want, second.ID)
		}
	}
	list, err := accounts.Sessions(t.Context(), user.ID, now)
	if err != nil || len(list) != 1 || list[0].ID != second.ID {
		t.Errorf("sessions: %+v %v, want one", list, err)
	}
	for _, ended := range []*evently.Session{first, third} {
		if _, err := rotate(t, accounts, ended.ID, 1, 2, now); !errors.Is(err, evently.ErrSessionEnded) {
			t.Errorf("got %v, want %v", err, evently.ErrSessionEnded)
		}
	}
	if entry := lastLogged(t, accounts, user.ID); entry.Kind != evently.SecuritySignedOutOthers || entry.Detail["sessions"] != "2" {
		t.Errorf("logged: %+v", entry)
	}
}

func revokedSessionsAreListedFromAMoment(t *testing.T, accounts evently.Accounts) {
	user, first := signIn(t, accounts)
	second, live := newSession(user.ID), newSession(user.ID)
	for _, session := range []*evently.Session{second, live} {
		createSession(t, accounts, session)
	}
	later := now.Add(time.Minute)
	if err := accounts.RevokeSession(t.Context(), user.ID, first.ID, at(now)); err != nil {
		t.Fatal(err)
	}
	if err := accounts.RevokeSession(t.Context(), user.ID, second.ID, at(later)); err != nil {
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
