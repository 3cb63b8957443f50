package store

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// codeMails is a MailQueue that keeps what it is given.
type codeMails struct {
	mu    sync.Mutex
	mails []evently.CodeMail
}

func (m *codeMails) EnqueueCode(_ context.Context, _ pgx.Tx, mail *evently.CodeMail) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, *mail)
	return nil
}

func (m *codeMails) all() []evently.CodeMail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

// Codes stay as long as their times count, and failures as long as they are remembered.
func TestRetention_RemovesOldCodesAndFailures(t *testing.T) {
	b := newBench(t, JournalConfig{})
	now := milliseconds(time.Now())
	accounts, origin := NewAccounts(b.pool, nil), &evently.Origin{At: now}
	user := &evently.User{ID: 1, Email: "a@example.org", CreatedAt: now}
	code := &evently.OneTimeCode{Mail: evently.CodeMail{Purpose: evently.VerifyEmailCode, ExpiresAt: now.Add(evently.CodeTTL)}}
	if err := accounts.CreateUser(t.Context(), user, code, origin); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{user.Email, "nobody@example.org"} {
		if _, err := accounts.FailSignIn(t.Context(), email, 0, origin); err != nil {
			t.Fatal(err)
		}
	}
	b.sweep(now.Add(evently.SignInMemory-time.Second), Swept{})
	b.sweep(now.Add(evently.SignInMemory+time.Second), Swept{Throttles: 2})
	b.sweep(now.Add(evently.CodeTTL+codeRetention-time.Second), Swept{})
	b.sweep(now.Add(evently.CodeTTL+codeRetention+time.Second), Swept{Codes: 1})
}
