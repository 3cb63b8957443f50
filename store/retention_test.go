package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

const keysSQL = "select count(*) from reservations where key is not null"

func (b *bench) sweep(now time.Time, want Swept) {
	b.Helper()
	swept, err := NewRetention(b.pool, discard).Sweep(b.Context(), now)
	if diff := cmp.Diff(want, swept); err != nil || diff != "" {
		b.Errorf("sweep: %v (-want +got):\n%s", err, diff)
	}
}

// end books and releases n reservations in one batch.
func (o *owner) end(n int, at time.Time) {
	o.Helper()
	for range n {
		held := o.book(evently.Item{Quantity: 1})
		o.decide(&evently.Release{User: 7, Token: held.ID.Token}, at)
	}
	o.MustFlush()
}

func TestRetention_ClearsKeysOfWhatEndedLongAgo(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(1000))
	at := o.Now.Truncate(time.Millisecond)
	held := o.book(evently.Item{Quantity: 1})
	booked := o.book(evently.Item{Quantity: 1})
	o.decide(&evently.Confirm{User: 7, Token: booked.ID.Token}, at)
	o.end(3, at)
	o.end(2, at.Add(time.Hour)) // by which time held has expired, but no entry says so yet
	keys := func() int { return b.count(keysSQL) }

	b.sweep(at.Add(evently.KeyRetentionMin-time.Second), Swept{})
	if n := keys(); n != 7 {
		t.Fatalf("%d keys, want all 7: nothing is old", n)
	}
	b.sweep(at.Add(evently.KeyRetentionMin+time.Minute), Swept{Keys: 3})
	b.sweep(at.Add(evently.KeyRetentionMin+time.Minute), Swept{})
	b.sweep(at.Add(evently.KeyRetentionMin+2*time.Hour), Swept{Keys: 2})
	o.decide(&evently.Expire{}, at.Add(3*time.Hour))
	o.MustFlush()
	b.sweep(at.Add(100*24*time.Hour), Swept{Keys: 1})
	if n := keys(); n != 1 {
		t.Errorf("%d keys, want that of the booking alone", n)
	}

	// Once it is cleared a key is as good as new, for the owner that has forgotten it and for one that never saw it.
	again := b.acquire(o.Ledger.Event().ID)
	again.decide(&evently.Book{
		User: 7, Key: evently.Key{Hi: uint64(held.ID.Token), Lo: 1}, Items: evently.OneItem(evently.Item{Quantity: 1}), Token: 99,
	}, again.Now)
	again.MustFlush()
	b.verify()
}

// Keys of waiters are kept for as long as those of reservations, by the time at which the waiting ended, however it did.
func TestRetention_ClearsKeysOfWaiters(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(2))
	at := o.Now.Truncate(time.Millisecond)
	first, second := o.book(evently.Item{Quantity: 1}), o.book(evently.Item{Quantity: 1})
	join := func(user evently.UserID) evently.Waiter {
		return o.Join(user, at, evently.HoldOnRelease, evently.Item{Quantity: 1})
	}
	leaves, served, waits := join(1), join(2), join(3)
	o.decide(&evently.LeaveWaitlist{User: 1}, at)
	o.decide(&evently.Release{User: 7, Token: first.ID.Token}, at)
	o.MustFlush()
	tokens := func() int { return b.count("select count(*) from waitlist where key is not null") }

	b.sweep(at.Add(evently.KeyRetentionMin-time.Second), Swept{})
	if n := tokens(); n != 3 {
		t.Fatalf("%d keys, want all 3: nothing is old", n)
	}
	b.sweep(at.Add(evently.KeyRetentionMin+time.Second), Swept{Keys: 3}) // leaves, served and the reservation of first
	if n := tokens(); n != 1 {
		t.Errorf("%d keys, want that of the one who waits", n)
	}
	b.verify()

	// The offer is held: whoever owns the event next still knows for whom, and waits itself keeps its key.
	again := b.acquire(o.Ledger.Event().ID)
	for waiter, want := range map[*evently.Waiter]bool{&leaves: false, &served: true, &waits: true} {
		if _, found := again.Ledger.Waiter(waiter.ID.Token); found != want {
			t.Errorf("user %s: found %v, want %v", waiter.User, found, want)
		}
	}
	again.decide(&evently.LeaveWaitlist{User: 2}, at) // declines, which serves the other one
	again.decide(&evently.CancelEvent{}, at)
	again.MustFlush()
	if reservation, _ := again.Ledger.Reservation(second.ID.Token); reservation.Status != evently.Cancelled {
		t.Errorf("the event is cancelled, a reservation is %s", reservation.Status)
	}
	b.sweep(at.Add(evently.KeyRetentionMin+time.Second), Swept{Keys: 2}) // waits, and the reservation of second
	if n := tokens(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	b.verify()
}

func TestRetention_WorksInBatches(t *testing.T) {
	b := newBench(t, JournalConfig{})
	const events = sweptEventsMax + 3
	now := time.Now()
	for range events {
		b.acquire(b.event(10)).end(2, now)
	}
	big := b.acquire(b.event(5000))
	big.end(sweptEntriesMax, now) // two entries each
	big.end(sweptEntriesMax/3, now)
	b.sweep(now.Add(evently.KeyRetentionMin+time.Minute), Swept{Keys: 2*events + sweptEntriesMax + sweptEntriesMax/3})
	if n := b.count(keysSQL); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	b.sweep(now.Add(evently.KeyRetentionMin+time.Minute), Swept{})
	b.verify()
}

func TestRetention_NodesTakeTurns(t *testing.T) {
	b := newBench(t, JournalConfig{})
	now := time.Now()
	for range 40 {
		b.acquire(b.event(100)).end(20, now)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var total int64
	for range 4 {
		group.Go(func() {
			swept, err := NewRetention(b.pool, discard).Sweep(t.Context(), now.Add(25*time.Hour))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			total += swept.Keys
		})
	}
	group.Wait()
	b.sweep(now.Add(25*time.Hour), Swept{Keys: 800 - total}) // each may have left the rest to another
	if n := b.count(keysSQL); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

func TestRetention_DeletedDraftsDoNotStopIt(t *testing.T) {
	b := newBench(t, JournalConfig{})
	now := time.Now()
	o := b.acquire(b.event(10))
	o.end(1, now)
	draft := *o.Ledger.Event()
	draft.ID++
	draft.Status = evently.EventDraft
	if _, err := b.events.CreateEvent(t.Context(), &draft, 1, ""); err != nil {
		t.Fatal(err)
	}
	b.sweep(now.Add(25*time.Hour), Swept{Keys: 1})
	if err := b.events.DeleteDraft(t.Context(), draft.ID, 1, "delete"); err != nil {
		t.Fatal(err)
	}
	b.sweep(now.Add(25*time.Hour), Swept{})
	b.verify()
}

func TestRetention_DeletesOldAnswersAndSessions(t *testing.T) {
	b := newBench(t, JournalConfig{})
	now := time.Now().UTC().Truncate(time.Millisecond)
	answers, accounts := NewAnswers(b.pool), NewAccounts(b.pool, nil)
	if err := mustClaim(t, answers, evently.Key{Hi: 1}).Store(t.Context(), &evently.Answer{Status: 200}); err != nil {
		t.Fatal(err)
	}
	user := &evently.User{ID: 1, Email: "a@example.org", CreatedAt: now}
	if err := accounts.CreateUser(t.Context(), user, nil, &evently.Origin{At: now}); err != nil {
		t.Fatal(err)
	}
	session := &evently.Session{ID: evently.SessionID{1}, User: 1, CreatedAt: now, LastUsedAt: now, ExpiresAt: now.Add(time.Hour)}
	if _, _, err := accounts.CreateSession(t.Context(), session, [32]byte{}, "", &evently.Origin{At: now}); err != nil {
		t.Fatal(err)
	}
	b.sweep(now.Add(24*time.Hour-time.Minute), Swept{})
	b.sweep(now.Add(24*time.Hour+time.Minute), Swept{Answers: 1})
	b.sweep(now.Add(sessionRetention+2*time.Hour), Swept{Sessions: 1})
}

func TestRetention_RunSweepsUntilItsContextEnds(t *testing.T) {
	b := newBench(t, JournalConfig{})
	const oldSQL = `
		insert into answers select md5(i::text)::uuid, '', 200, '{}', '', now() - interval '25 hours' from generate_series(1, 12000) i`
	if _, err := b.pool.Exec(t.Context(), oldSQL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		NewRetention(b.pool, discard).Run(ctx)
	}()
	b.waitFor("swept answers", "select (count(*) = 0)::int from answers")
	cancel()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("Run goes on after its context has ended")
	}
}

func TestRetention_ErrorsAreReported(t *testing.T) {
	b := newBench(t, JournalConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewRetention(b.pool, discard).Sweep(ctx, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// Whatever cannot be swept, the rest is, and it itself as soon as it can be.
func TestRetention_WhatCannotBeSweptStopsNothingElse(t *testing.T) {
	t.Parallel()
	all := Swept{Keys: 3, Answers: 1, Mails: 1, Deliveries: 1}
	for _, c := range []struct {
		table  string
		locked bool                // else it is gone
		part   func(*Swept) *int64 // that cannot be swept; nil: none that is counted
	}{
		{table: "key_sweeps", part: func(s *Swept) *int64 { return &s.Keys }},
		{table: "answers", part: func(s *Swept) *int64 { return &s.Answers }},
		{table: "answers", locked: true, part: func(s *Swept) *int64 { return &s.Answers }},
		{table: "mailbox", part: func(s *Swept) *int64 { return &s.Mails }},
		{table: "webhook_deliveries", part: func(s *Swept) *int64 { return &s.Deliveries }},
		{table: "webhook_backlog"},
	} {
		t.Run(fmt.Sprintf("%s locked=%v", c.table, c.locked), func(t *testing.T) {
			b := newBench(t, JournalConfig{})
			later := time.Now().Add(48 * time.Hour)
			b.acquire(b.event(10)).end(int(all.Keys), time.Now())
			b.exec(`insert into answers select gen_random_uuid(), '', 200, '{}', '', now()`)
			b.exec(`insert into mailbox (message_id, kind, sender, recipient, subject, body, html, attachments, at)
				values ('m', 1, '', '', '', '', '', '[]', now() - interval '100 days')`)
			b.exec(`insert into webhook_deliveries (delivery_id, webhook_id, type, event_id, seq, payload, status, created_at, give_up_at, ended_at)
				values (gen_random_uuid(), 1, 1, 1, 1, '', 1, now(), now(), now())`)
			mend := func() { b.exec("alter table away rename to " + c.table) }
			if c.locked {
				tx := b.begin("lock table " + c.table)
				mend = func() {
					if err := tx.Rollback(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				b.exec("alter table " + c.table + " rename to away")
			}
			swept, err := NewRetention(b.pool, discard).Sweep(t.Context(), later)
			want, kept := all, Swept{}
			if c.part != nil {
				*c.part(&want), *c.part(&kept) = 0, *c.part(&all)
			}
			if swept != want || err == nil {
				t.Errorf("swept %+v (%v), want %+v and an error", swept, err, want)
			}
			mend()
			b.sweep(later, kept)
		})
	}
}
