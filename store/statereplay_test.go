package store

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

func TestReplayEvent_GivesTheStatesThatWere(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	for seed := range uint64(3) {
		x := b.busy(10+seed, 6, 4)
		live := map[uint64]int{1: x.Ledger.Live()}
		since, until := map[uint64]time.Time{}, map[uint64]time.Time{} // when a state was first there, and when last
		at := x.Now
		for range 200 {
			at = at.Add(time.Duration(1+x.random.IntN(4000)) * time.Millisecond)
			x.expire(at)
			x.step(at)
			x.expire(at)
			seq := x.Ledger.Seq()
			if _, known := since[seq]; !known {
				since[seq] = at
			}
			live[seq], until[seq] = x.Ledger.Live(), at
			if x.random.IntN(10) == 0 {
				x.MustFlush()
			}
		}
		x.MustFlush()
		id := x.Ledger.Event().ID
		check := func(moment Moment, seq uint64) {
			t.Helper()
			var entries []uint64
			past, err := ReplayEvent(t.Context(), b.pool, id, moment, func(e *evently.Entry, epoch uint64, _ *evently.Ledger) {
				if entries = append(entries, e.Seq); epoch != x.Epoch && e.Seq > 1 {
					t.Errorf("entry %d has epoch %d, want %d", e.Seq, epoch, x.Epoch)
				}
			})
			if err != nil {
				t.Fatalf("%+v: %v", moment, err)
			}
			want := x.states[seq]
			var got evently.Availability
			past.Ledger.Availability(&got)
			if past.Entry.Seq != seq || len(entries) != int(seq) || entries[seq-1] != seq {
				t.Fatalf("%+v: replayed up to %d, with %d entries told, want %d", moment, past.Entry.Seq, len(entries), seq)
			}
			if diff := cmp.Diff(want.Availability, got, seatsOf); diff != "" {
				t.Fatalf("%+v (-want +got):\n%s", moment, diff)
			}
			if diff := cmp.Diff(want.Event, past.Ledger.Event()); diff != "" {
				t.Fatalf("%+v (-want +got):\n%s", moment, diff)
			}
			if n, known := live[seq]; known && past.Ledger.Live() != n || len(past.Live) != past.Ledger.Live() {
				t.Errorf("%+v: %d live reservations, %d of them listed, want %d", moment, past.Ledger.Live(), len(past.Live), n)
			}
			held := 0
			for _, token := range past.Live {
				r, found := past.Ledger.Reservation(token)
				if !found || !r.Status.Live() {
					t.Fatalf("%+v: reservation %s is %s (found: %v)", moment, r.ID, r.Status, found)
				}
				held += r.Items.Quantity()
			}
			if totals := want.Totals(); held != totals.Held+totals.Booked {
				t.Errorf("%+v: the live reservations have %d seats, want %+v", moment, held, totals)
			}
		}
		last := x.Ledger.Seq()
		for seq := uint64(1); seq <= last; seq += 7 {
			check(Moment{Seq: seq}, seq)
		}
		check(Moment{}, last)
		for seq, at := range until {
			check(Moment{At: at}, seq)
			if next, one := since[seq+1]; one {
				check(Moment{At: next.Truncate(time.Millisecond).Add(-time.Microsecond)}, seq)
			}
		}
		if _, err := ReplayEvent(t.Context(), b.pool, id, Moment{Seq: last + 1}, nil); !errors.Is(err, ErrNoEntry) {
			t.Errorf("an entry to come: %v", err)
		}
		if _, err := ReplayEvent(t.Context(), b.pool, id, Moment{At: x.Now.Add(-time.Hour)}, nil); !errors.Is(err, ErrNotYet) {
			t.Errorf("before the event was made: %v", err)
		}
	}
	b.verify()
	if _, err := ReplayEvent(t.Context(), b.pool, 1, Moment{}, nil); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("an event that is not there: %v", err)
	}
}

func TestReplayEvent_ReadsManyPages(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(100_000))
	for range replayPage {
		o.book(evently.Item{Quantity: 2})
	}
	o.MustFlush()
	for _, seq := range []uint64{replayPage - 1, replayPage, replayPage + 1} {
		past, err := ReplayEvent(t.Context(), b.pool, o.Ledger.Event().ID, Moment{Seq: seq}, nil)
		if err != nil || past.Entry.Seq != seq || past.Ledger.Live() != int(seq)-1 {
			t.Errorf("up to %d: %+v (%v)", seq, past, err)
		}
	}
}

func TestReplayEvent_DeletedDraft(t *testing.T) {
	b := newBench(t, JournalConfig{})
	draft := newEvent(5)
	draft.Status = evently.EventDraft
	if _, err := b.events.CreateEvent(t.Context(), draft, 1, "create"); err != nil {
		t.Fatal(err)
	}
	if err := b.events.DeleteDraft(t.Context(), draft.ID, 9, "delete"); err != nil {
		t.Fatal(err)
	}
	past, err := ReplayEvent(t.Context(), b.pool, draft.ID, Moment{}, nil)
	if err != nil || !past.Deleted || past.Entry.Who != 9 || past.Ledger.Event().Name != draft.Name {
		t.Errorf("got %+v (%v), want the draft, deleted", past, err)
	}
	if past, err := ReplayEvent(t.Context(), b.pool, draft.ID, Moment{Seq: 1}, nil); err != nil || past.Deleted {
		t.Errorf("before its end: %+v (%v)", past, err)
	}
}

// Entries that cannot be end the replay with their number, whatever they are.
func TestReplayEvent_NamesTheEntryThatCannotFollow(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(10))
	held := o.book(evently.Item{Quantity: 2})
	o.MustFlush()
	id := int64(o.Ledger.Event().ID)
	const copySQL = `
		insert into journal (event_id, seq, epoch, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at)
		select event_id, seq + $2, epoch, $3, at, who, request_id, token + $4, user_id, tier, $5, unit_price, expires_at
		from journal where event_id = $1 and seq = 2`
	for name, c := range map[string]struct {
		gap      int
		kind     evently.EntryKind
		token    int
		quantity int
	}{
		"gap":                  {2, evently.HeldEntry, 2, 1},
		"hold twice":           {1, evently.HeldEntry, 0, 1},
		"oversold":             {1, evently.HeldEntry, 2, 9},
		"unknown reservation":  {1, evently.ConfirmedEntry, 4, 1},
		"unknown waiter":       {1, evently.WaiterLeftEntry, 4, 1},
		"kind of a later time": {1, 99, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tx, err := b.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), copySQL, id, c.gap, c.kind, c.token, c.quantity); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			past, err := ReplayEvent(t.Context(), b.pool, o.Ledger.Event().ID, Moment{}, nil)
			if err == nil || past != nil {
				t.Errorf("got %+v, want an error", past)
			}
			if past, err := ReplayEvent(t.Context(), b.pool, o.Ledger.Event().ID, Moment{Seq: 2}, nil); err != nil ||
				!slices.Contains(past.Live, held.ID.Token) {
				t.Errorf("before it: %+v (%v)", past, err)
			}
			b.exec(`alter table journal disable trigger append_only; delete from journal where seq > 2; alter table journal enable trigger append_only`)
		})
	}
}
