package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// newCode is a code whose MAC is a digest.
func newCode(user *evently.User, purpose evently.CodePurpose, mac byte, moment time.Time) *evently.OneTimeCode {
	return &evently.OneTimeCode{MAC: digest(mac), Mail: evently.CodeMail{
		To: user.Email, Name: user.Name, Purpose: purpose, Code: "000042", ExpiresAt: moment.Add(evently.CodeTTL),
	}}
}

// register stores a user whose code has the MAC digest(1).
func register(t *testing.T, accounts evently.Accounts) *evently.User {
	t.Helper()
	user := newUser("zoe@example.org")
	user.EmailVerified = false
	if err := accounts.CreateUser(t.Context(), user, newCode(user, evently.VerifyEmailCode, 1, now), at(now)); err != nil {
		t.Fatal(err)
	}
	return user
}

func issue(t *testing.T, accounts evently.Accounts, user *evently.User, purpose evently.CodePurpose, mac byte, moment time.Time) bool {
	t.Helper()
	issued, err := accounts.IssueCode(t.Context(), user.ID, newCode(user, purpose, mac, moment), at(moment))
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func verify(t *testing.T, accounts evently.Accounts, user evently.UserID, mac byte, moment time.Time) error {
	_, err := accounts.VerifyEmail(t.Context(), user, [][32]byte{digest(mac)}, at(moment))
	return err
}

func codeVerifiesTheAddressOnce(t *testing.T, accounts evently.Accounts, mailed func() []evently.CodeMail) {
	user := register(t, accounts)
	if diff := cmp.Diff([]evently.CodeMail{newCode(user, evently.VerifyEmailCode, 1, now).Mail}, mailed()); diff != "" {
		t.Errorf("mails (-want +got):\n%s", diff)
	}
	// A user who is not made gets no code.
	again := newUser(user.Email)
	if err := accounts.CreateUser(t.Context(), again, newCode(again, evently.VerifyEmailCode, 9, now), at(now)); !errors.Is(err, evently.ErrEmailTaken) {
		t.Fatal(err)
	}
	if n := len(mailed()); n != 1 {
		t.Errorf("%d mails", n)
	}
	// Of those that a code may be stored as, one is.
	got, err := accounts.VerifyEmail(t.Context(), user.ID, [][32]byte{digest(7), digest(1)}, at(now))
	if err != nil || got.ID != user.ID || !got.EmailVerified {
		t.Fatalf("%+v %v", got, err)
	}
	if read, err := accounts.User(t.Context(), user.ID); err != nil || !read.EmailVerified {
		t.Errorf("%+v %v", read, err)
	}
	if err := verify(t, accounts, user.ID, 1, now); !errors.Is(err, evently.ErrInvalidCode) {
		t.Errorf("again: got %v, want %v", err, evently.ErrInvalidCode)
	}
	wantLog(t, accounts, user.ID, evently.SecurityEmailVerified, evently.SecurityCodeSent, evently.SecurityRegistered)
	if sent := logged(t, accounts, user.ID)[1]; sent.Detail["purpose"] != "verify_email" {
		t.Errorf("%+v", sent)
	}
}

func codesArePaced(t *testing.T, accounts evently.Accounts, mailed func() []evently.CodeMail) {
	user := register(t, accounts)
	const purpose = evently.VerifyEmailCode
	if issue(t, accounts, user, purpose, 2, now.Add(evently.CodePause-time.Millisecond)) {
		t.Error("a code too soon")
	}
	if err := verify(t, accounts, user.ID, 1, now); err != nil {
		t.Errorf("the code that stands: %v", err)
	}
	moment := now
	for range evently.CodesHourlyMax - 1 {
		moment = moment.Add(evently.CodePause)
		if !issue(t, accounts, user, purpose, 2, moment) {
			t.Fatalf("no code %s after the first", moment.Sub(now))
		}
	}
	if issue(t, accounts, user, purpose, 3, moment.Add(evently.CodePause)) || issue(t, accounts, user, purpose, 3, now.Add(time.Hour-time.Millisecond)) {
		t.Error("too many codes in an hour")
	}
	// The first is an hour ago; the second is so only a pause later.
	hour := now.Add(time.Hour)
	if !issue(t, accounts, user, purpose, 3, hour) || issue(t, accounts, user, purpose, 4, hour.Add(evently.CodePause-time.Millisecond)) ||
		!issue(t, accounts, user, purpose, 4, hour.Add(evently.CodePause)) {
		t.Error("the hour does not move on")
	}
	if n := len(mailed()); n != evently.CodesHourlyMax+2 {
		t.Errorf("%d mails", n)
	}
	// Each purpose has its own pace, and so has each user.
	if !issue(t, accounts, user, evently.ResetPasswordCode, 5, now) {
		t.Error("no code for another purpose")
	}
	other := newUser("other@example.org")
	if err := accounts.CreateUser(t.Context(), other, nil, at(now)); err != nil {
		t.Fatal(err)
	}
	results := concurrently(50, func(i int) error {
		issued, err := accounts.IssueCode(t.Context(), other.ID, newCode(other, purpose, byte(i), now), at(now))
		if err == nil && issued {
			return errIssued
		}
		return err
	})
	if issued := count(results, errIssued); issued != 1 || count(results, nil) != len(results)-1 {
		t.Errorf("%d of %d codes at once were issued: %v", issued, len(results), results)
	}
}

var errIssued = errors.New("issued")

func codeExpires(t *testing.T, accounts evently.Accounts, _ func() []evently.CodeMail) {
	user := register(t, accounts)
	if err := verify(t, accounts, user.ID, 1, now.Add(evently.CodeTTL)); !errors.Is(err, evently.ErrInvalidCode) {
		t.Errorf("got %v, want %v", err, evently.ErrInvalidCode)
	}
	if err := verify(t, accounts, user.ID, 1, now.Add(evently.CodeTTL-time.Millisecond)); err != nil {
		t.Error(err)
	}
}

// However many try at once, a code is compared five times.
func codeHasFiveTries(t *testing.T, accounts evently.Accounts, _ func() []evently.CodeMail) {
	user := register(t, accounts)
	for range evently.CodeTriesMax - 1 {
		if err := verify(t, accounts, user.ID, 9, now); !errors.Is(err, evently.ErrInvalidCode) {
			t.Fatal(err)
		}
	}
	if err := verify(t, accounts, user.ID, 1, now); err != nil {
		t.Errorf("the last try: %v", err)
	}
	moment := now.Add(evently.CodePause)
	if !issue(t, accounts, user, evently.VerifyEmailCode, 2, moment) {
		t.Fatal("no code")
	}
	for range evently.CodeTriesMax {
		if err := verify(t, accounts, user.ID, 9, moment); !errors.Is(err, evently.ErrInvalidCode) {
			t.Fatal(err)
		}
	}
	if err := verify(t, accounts, user.ID, 2, moment); !errors.Is(err, evently.ErrInvalidCode) {
		t.Errorf("one try more: got %v, want %v", err, evently.ErrInvalidCode)
	}
	// 100 guesses at once, all different: whichever five come first, no other is compared.
	won := 0
	for round := range 3 {
		moment = moment.Add(evently.CodePause)
		if !issue(t, accounts, user, evently.VerifyEmailCode, 50, moment) {
			t.Fatal("no code")
		}
		results := concurrently(100, func(i int) error { return verify(t, accounts, user.ID, byte(i), moment) })
		right := count(results, nil)
		if right > 1 || count(results, evently.ErrInvalidCode) != len(results)-right {
			t.Fatalf("round %d: %d succeeded: %v", round, right, results)
		}
		if won += right; right == 0 {
			if err := verify(t, accounts, user.ID, 50, moment); !errors.Is(err, evently.ErrInvalidCode) {
				t.Errorf("round %d: a sixth try: got %v, want %v", round, err, evently.ErrInvalidCode)
			}
		}
	}
	if won == 3 {
		t.Error("100 guesses always hit: more than five are compared")
	}
}

func newCodeReplacesTheOld(t *testing.T, accounts evently.Accounts, _ func() []evently.CodeMail) {
	user := register(t, accounts)
	moment := now.Add(evently.CodePause)
	if !issue(t, accounts, user, evently.VerifyEmailCode, 2, moment) {
		t.Fatal("no code")
	}
	if err := verify(t, accounts, user.ID, 1, moment); !errors.Is(err, evently.ErrInvalidCode) {
		t.Errorf("the old one: got %v, want %v", err, evently.ErrInvalidCode)
	}
	if err := verify(t, accounts, user.ID, 2, moment); err != nil {
		t.Errorf("the new one: %v", err)
	}
}

func codeOfAnotherPurposeOrUserIsNone(t *testing.T, accounts evently.Accounts, _ func() []evently.CodeMail) {
	user := register(t, accounts)
	if _, err := accounts.ResetPassword(t.Context(), user.ID, [][32]byte{digest(1)}, "$argon2id$y", at(now)); !errors.Is(err, evently.ErrInvalidCode) {
		t.Errorf("another purpose: got %v, want %v", err, evently.ErrInvalidCode)
	}
	for _, id := range []evently.UserID{user.ID + 1, 0} {
		if err := verify(t, accounts, id, 1, now); !errors.Is(err, evently.ErrInvalidCode) {
			t.Errorf("user %d: got %v, want %v", id, err, evently.ErrInvalidCode)
		}
	}
	if err := verify(t, accounts, user.ID, 1, now); err != nil {
		t.Errorf("its own: %v", err)
	}
}

func resetEndsAllSessions(t *testing.T, accounts evently.Accounts, mailed func() []evently.CodeMail) {
	user := register(t, accounts)
	for range 3 {
		createSession(t, accounts, newSession(user.ID))
	}
	for range evently.SignInFailuresMax {
		failSignIn(t, accounts, user.Email, user.ID, now)
	}
	if !issue(t, accounts, user, evently.ResetPasswordCode, 2, now) || mailed()[1].Purpose != evently.ResetPasswordCode {
		t.Fatalf("mails: %+v", mailed())
	}
	revoked, err := accounts.ResetPassword(t.Context(), user.ID, [][32]byte{digest(2)}, "$argon2id$y", at(now))
	if err != nil || len(revoked) != 3 {
		t.Fatalf("revoked %v, %v", revoked, err)
	}
	if ended, err := accounts.RevokedSessions(t.Context(), now); err != nil || len(ended) != 3 {
		t.Errorf("revoked %v, %v", ended, err)
	}
	read, err := accounts.User(t.Context(), user.ID)
	if err != nil || read.PasswordHash != "$argon2id$y" || !read.EmailVerified {
		t.Errorf("%+v %v", read, err)
	}
	if wait := signInWait(t, accounts, user.Email, now); wait != 0 {
		t.Errorf("the owner waits for %s after the reset", wait)
	}
	if entry := lastLogged(t, accounts, user.ID); entry.Kind != evently.SecurityPasswordReset || entry.Detail["sessions"] != "3" {
		t.Errorf("logged: %+v", entry)
	}
	// A code that is still out is of no use after a change of the password.
	if !issue(t, accounts, user, evently.ResetPasswordCode, 3, now.Add(evently.CodePause)) {
		t.Fatal("no code")
	}
	if _, err := accounts.ChangePassword(t.Context(), user.ID, "$argon2id$y", "$argon2id$z", at(now.Add(evently.CodePause))); err != nil {
		t.Fatal(err)
	}
	_, err = accounts.ResetPassword(t.Context(), user.ID, [][32]byte{digest(3)}, "$argon2id$w", at(now.Add(evently.CodePause)))
	if !errors.Is(err, evently.ErrInvalidCode) {
		t.Errorf("got %v, want %v", err, evently.ErrInvalidCode)
	}
}
