package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/evently/evently"
)

// failSignIn counts a failure, if it is not refused.
func failSignIn(t *testing.T, accounts evently.Accounts, email string, user evently.UserID, moment time.Time) (wait time.Duration) {
	t.Helper()
	wait, err := accounts.FailSignIn(t.Context(), email, user, at(moment))
	if err != nil {
		t.Fatal(err)
	}
	return wait
}

func signInWait(t *testing.T, accounts evently.Accounts, email string, moment time.Time) time.Duration {
	t.Helper()
	wait, err := accounts.SignInWait(t.Context(), email, moment)
	if err != nil {
		t.Fatal(err)
	}
	return wait
}

// An address is treated the same whether it has an account or not.
func failuresDelaySignIns(t *testing.T, accounts evently.Accounts) {
	user, _ := signIn(t, accounts)
	for email, id := range map[string]evently.UserID{user.Email: user.ID, "nobody@example.org": 0} {
		moment := now
		for range evently.SignInFailuresMax - 1 {
			if wait := failSignIn(t, accounts, email, id, moment); wait != 0 || signInWait(t, accounts, email, moment) != 0 {
				t.Fatalf("%s: refused for %s after too few failures", email, wait)
			}
		}
		delays := []time.Duration{15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute}
		for _, delay := range append(delays, evently.SignInDelayMax, evently.SignInDelayMax) {
			if wait := failSignIn(t, accounts, email, id, moment); wait != 0 {
				t.Fatalf("%s: refused for %s, and the delay is over", email, wait)
			}
			if wait := signInWait(t, accounts, email, moment); wait != delay {
				t.Fatalf("%s: delay is %s, want %s", email, wait, delay)
			}
			// Tries during the delay do not count.
			moment = moment.Add(delay - time.Second)
			for range 3 {
				if wait := failSignIn(t, accounts, email, id, moment); wait != time.Second {
					t.Fatalf("%s: refused for %s, want 1 s", email, wait)
				}
			}
			moment = moment.Add(time.Second)
		}
	}
	if wait := signInWait(t, accounts, "another@example.org", now); wait != 0 {
		t.Errorf("another address waits for %s", wait)
	}
	// The right password does not help during the delay.
	moment := now.Add(24 * time.Hour)
	for range evently.SignInFailuresMax {
		failSignIn(t, accounts, user.Email, user.ID, moment)
	}
	session := newSession(user.ID)
	got, wait, err := accounts.CreateSession(t.Context(), session, digest(1), passwordHash, at(moment))
	if err != nil || got != nil || wait != evently.SignInDelayMin {
		t.Errorf("%v %s %v", got, wait, err)
	}
	if _, err := rotate(t, accounts, session.ID, 1, 2, moment); !errors.Is(err, evently.ErrSessionEnded) {
		t.Errorf("the refused session: got %v, want %v", err, evently.ErrSessionEnded)
	}
	entries := logged(t, accounts, user.ID)
	if entries[0].Kind != evently.SecuritySignInThrottled || entries[0].Detail["seconds"] != "15" || entries[1].Kind != evently.SecuritySignInFailed {
		t.Errorf("logged: %+v %+v", entries[0], entries[1])
	}
	if n := len(entries); n != 2+12+8+5+1 {
		t.Errorf("%d entries: refusals are logged", n)
	}
}

func failuresAreForgotten(t *testing.T, accounts evently.Accounts) {
	user, _ := signIn(t, accounts)
	fail := func(moment time.Time, times int) {
		t.Helper()
		for range times {
			failSignIn(t, accounts, user.Email, user.ID, moment)
		}
	}
	waits := func(moment time.Time, want time.Duration) {
		t.Helper()
		if wait := signInWait(t, accounts, user.Email, moment); wait != want {
			t.Errorf("wait is %s, want %s", wait, want)
		}
	}
	// By time, each counted from the last.
	fail(now, evently.SignInFailuresMax-1)
	later := now.Add(evently.SignInMemory)
	fail(later, evently.SignInFailuresMax-1)
	waits(later, 0)
	fail(later.Add(evently.SignInMemory-time.Second), 1)
	waits(later.Add(evently.SignInMemory-time.Second), evently.SignInDelayMin)
	// By a sign-in.
	moment := now.Add(time.Hour)
	fail(moment, evently.SignInFailuresMax-1)
	session := newSession(user.ID)
	session.CreatedAt = moment
	createSession(t, accounts, session)
	fail(moment, evently.SignInFailuresMax-1)
	waits(moment, 0)
}

// However many guess at once, few are told that they are wrong before all have to wait.
func concurrentFailuresBringOneDelay(t *testing.T, accounts evently.Accounts) {
	user, _ := signIn(t, accounts)
	waited := make([]time.Duration, 100)
	results := concurrently(len(waited), func(i int) (err error) {
		waited[i], err = accounts.FailSignIn(t.Context(), user.Email, user.ID, at(now))
		return err
	})
	told := 0
	for _, wait := range waited {
		if wait == 0 {
			told++
		} else if wait != evently.SignInDelayMin {
			t.Errorf("waits for %s", wait)
		}
	}
	if count(results, nil) != len(results) || told != evently.SignInFailuresMax {
		t.Errorf("%d were told, want %d; %v", told, evently.SignInFailuresMax, results)
	}
}

func signInNeedsThePasswordThatWasCompared(t *testing.T, accounts evently.Accounts) {
	user, session := signIn(t, accounts)
	if _, err := accounts.ChangePassword(t.Context(), user.ID, passwordHash, "$argon2id$y", by(session)); err != nil {
		t.Fatal(err)
	}
	if err := tryCreateSession(t, accounts, newSession(user.ID)); !errors.Is(err, evently.ErrPasswordOutdated) {
		t.Errorf("got %v, want %v", err, evently.ErrPasswordOutdated)
	}
	if err := tryCreateSession(t, accounts, newSession(user.ID+1)); !errors.Is(err, evently.ErrPasswordOutdated) {
		t.Errorf("nobody: got %v, want %v", err, evently.ErrPasswordOutdated)
	}
	got, _, err := accounts.CreateSession(t.Context(), newSession(user.ID), digest(1), "$argon2id$y", at(now))
	if err != nil || got.ID != user.ID || got.PasswordHash != "$argon2id$y" {
		t.Errorf("%+v %v", got, err)
	}
}

func passwordChangeEndsTheOtherSessions(t *testing.T, accounts evently.Accounts) {
	user, own := signIn(t, accounts)
	other := newSession(user.ID)
	createSession(t, accounts, other)
	if _, err := accounts.ChangePassword(t.Context(), user.ID, "$argon2id$wrong", "$argon2id$y", by(own)); !errors.Is(err, evently.ErrPasswordOutdated) {
		t.Errorf("got %v, want %v", err, evently.ErrPasswordOutdated)
	}
	revoked, err := accounts.ChangePassword(t.Context(), user.ID, passwordHash, "$argon2id$y", by(own))
	if err != nil || len(revoked) != 1 || revoked[0] != other.ID {
		t.Errorf("revoked %v, %v", revoked, err)
	}
	if _, err := rotate(t, accounts, own.ID, 1, 2, now); err != nil {
		t.Errorf("own session: %v", err)
	}
	entry := lastLogged(t, accounts, user.ID)
	if entry.Kind != evently.SecurityPasswordChanged || entry.Actor != user.ID || entry.Session != own.ID || entry.Detail["sessions"] != "1" {
		t.Errorf("logged: %+v", entry)
	}
}

// No sign-in with the old password outlives the new one, whichever comes first.
func passwordResetRacesWithSignIns(t *testing.T, accounts evently.Accounts) {
	user, _ := signIn(t, accounts)
	code := newCode(user, evently.ResetPasswordCode, 1, now)
	if issued, err := accounts.IssueCode(t.Context(), user.ID, code, at(now)); err != nil || !issued {
		t.Fatal(issued, err)
	}
	results := concurrently(20, func(i int) error {
		if i == 10 {
			_, err := accounts.ResetPassword(t.Context(), user.ID, [][32]byte{digest(1)}, "$argon2id$y", at(now))
			return err
		}
		return tryCreateSession(t, accounts, newSession(user.ID))
	})
	for i, err := range results {
		if err != nil && (i == 10 || !errors.Is(err, evently.ErrPasswordOutdated)) {
			t.Fatal(fmt.Errorf("%d: %w", i, err))
		}
	}
	if list, err := accounts.Sessions(t.Context(), user.ID, now); err != nil || len(list) != 0 {
		t.Errorf("%d sessions are left, %v", len(list), err)
	}
}
