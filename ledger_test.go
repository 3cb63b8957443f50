package evently

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// after is a moment of sales.
func after(d time.Duration) time.Time { return epoch.Add(d) }

func book(token Token, user UserID, items ...Item) *Book {
	return &Book{User: user, Key: Key{uint64(token), 1}, Items: mustItems(items...), Token: token}
}

func wantCounts(t *testing.T, l *Ledger, tier, available, held, booked int) {
	t.Helper()
	var a Availability
	l.Availability(&a)
	if got := a.Tiers[tier]; got.Available() != available || got.Held != held || got.Booked != booked {
		t.Fatalf("tier %s: got %d available, %d held, %d booked; want %d, %d, %d", TierID(tier), got.Available(), got.Held, got.Booked,
			available, held, booked)
	}
}

// wantRefused checks the error of a command, and that nothing is to be posted with it.
func wantRefused(t *testing.T, l *Ledger, cmd Command, at time.Time, want error) {
	t.Helper()
	d, err := do(l, cmd, at)
	if !errors.Is(err, want) || len(d.Entries) > 0 {
		t.Fatalf("%T at %v: got %v with %d entries, want %v with none", cmd, at.Sub(epoch), err, len(d.Entries), want)
	}
}

func wantUnchanged(t *testing.T, l *Ledger, cmd Command, at time.Time) *Decision {
	t.Helper()
	d := mustDo(t, l, cmd, at)
	if len(d.Entries) > 0 {
		t.Fatalf("%T at %v: got %v, want no entry", cmd, at.Sub(epoch), d.Entries)
	}
	return d
}

func wantStatus(t *testing.T, l *Ledger, token Token, want ReservationStatus) {
	t.Helper()
	if r, found := l.Reservation(token); !found || r.Status != want {
		t.Fatalf("reservation %d: got %s, found %v, want %s", token, r.Status, found, want)
	}
}

func TestLedger_HoldTakesSeatsAndConfirmBooksThem(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	mustDo(t, l, book(1, 1, seats(0, 3)), epoch)
	wantCounts(t, l, 0, 7, 3, 0)
	r := mustDo(t, l, &Confirm{User: 1, Token: 1}, after(time.Minute)).Reservation
	wantCounts(t, l, 0, 7, 0, 3)
	if r.Status != Confirmed || r.ConfirmedAt != after(time.Minute) || r.Seq != 3 || r.Items.TotalMinor() != 3000 {
		t.Fatalf("got %+v", r)
	}
	if due := l.NextDue(); !due.IsZero() {
		t.Fatalf("a booking is due at %v", due)
	}
}

func TestLedger_HoldExpiryFreesSeats(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	mustDo(t, l, book(1, 1, seats(0, 3)), epoch)
	mustDo(t, l, book(2, 1, seats(0, 4)), after(ms))
	due := after(10 * time.Minute)
	if got := l.NextDue(); got != due {
		t.Fatalf("next due: got %v, want %v", got, due)
	}
	wantUnchanged(t, l, &Expire{}, due.Add(-1))
	mustDo(t, l, &Expire{}, due)
	wantCounts(t, l, 0, 6, 4, 0)
	wantStatus(t, l, 1, Expired)
	if got := l.NextDue(); got != due.Add(ms) {
		t.Fatalf("next due: got %v, want %v", got, due.Add(ms))
	}
	mustDo(t, l, &Expire{}, due.Add(ms))
	wantCounts(t, l, 0, 10, 0, 0)
	if r, _ := l.Reservation(2); r.EndedAt != due.Add(ms) || !r.CancelledAt().IsZero() {
		t.Fatalf("got ended at %v, cancelled at %v", r.EndedAt, r.CancelledAt())
	}
}

func TestLedger_ConfirmAfterExpiryIsRefused(t *testing.T) {
	event := newTestEvent(1, 10)
	for name, sweep := range map[string]bool{"before the hold is ended": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			l := newTestLedger(event)
			mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
			mustDo(t, l, book(2, 1, seats(0, 1)), epoch)
			mustDo(t, l, &Confirm{User: 1, Token: 1}, after(event.HoldTTL).Add(-ms))
			if sweep {
				mustDo(t, l, &Expire{}, after(event.HoldTTL))
			}
			wantRefused(t, l, &Confirm{User: 1, Token: 2}, after(event.HoldTTL), ErrReservationExpired)
			wantRefused(t, l, &Cancel{User: 1, Token: 2}, after(event.HoldTTL), ErrReservationExpired)
			wantUnchanged(t, l, &Confirm{User: 1, Token: 1}, after(event.HoldTTL))
		})
	}
}

// The clock of a moment is cut to whole milliseconds, in which the journal counts.
func TestLedger_HoldLivesUntilTheExactMillisecond(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	d := mustDo(t, l, book(1, 1, seats(0, 1)), epoch.Add(ms-1))
	if d.Entries[0].At != epoch || d.Entries[0].ExpiresAt != after(10*time.Minute) {
		t.Fatalf("got %v until %v", d.Entries[0].At, d.Entries[0].ExpiresAt)
	}
	mustDo(t, l, &Confirm{User: 1, Token: 1}, after(10*time.Minute).Add(-1))
}

func TestLedger_TimeNeverRunsBackwards(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	mustDo(t, l, book(1, 1, seats(0, 1)), after(time.Minute))
	d := mustDo(t, l, book(2, 1, seats(0, 1)), after(-time.Hour))
	if got := d.Entries[0].At; got != after(time.Minute) {
		t.Fatalf("got an entry of %v after one of %v", got, after(time.Minute))
	}
}

func TestLedger_ReplayGivesFirstAnswer(t *testing.T) {
	event := newTestEvent(2, 10)
	first := book(1, 1, seats(1, 2), seats(0, 1))
	revised := event.EventDetails
	revised.Tiers = append([]Tier(nil), revised.Tiers...)
	revised.HoldTTL = time.Second
	for i := range revised.Tiers {
		revised.Tiers[i].BasePriceMinor, revised.Tiers[i].PriceMinor = 1, 1
	}
	for name, commands := range map[string][]Command{
		"at once":            {},
		"after confirm":      {&Confirm{User: 1, Token: 1}},
		"after release":      {&Release{User: 1, Token: 1}},
		"after cancel":       {&Confirm{User: 1, Token: 1}, &Cancel{User: 1, Token: 1}},
		"after a price rise": {&Revise{Version: 1, Details: revised}},
		"after event cancel": {&CancelEvent{}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLedger(event)
			want := mustDo(t, l, first, epoch).Reservation
			for _, cmd := range commands {
				mustDo(t, l, cmd, after(time.Minute))
			}
			again := *first
			again.Token = 99
			d := wantUnchanged(t, l, &again, after(time.Hour))
			if !d.Replayed || !reflect.DeepEqual(d.Reservation, want) {
				t.Fatalf("replayed %v: %s", d.Replayed, diff(want, d.Reservation))
			}
			if want.ID.Token != 1 || want.Status != Held || want.Items.TotalMinor() != 5000 {
				t.Fatalf("the first answer was %+v", want)
			}
		})
	}
}

func TestLedger_KeyOfAnotherRequestIsRefused(t *testing.T) {
	l := newTestLedger(newTestEvent(2, 10))
	mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
	key := Key{1, 1}
	for name, cmd := range map[string]Book{
		"more seats":   {User: 1, Items: OneItem(seats(0, 2))},
		"another tier": {User: 1, Items: OneItem(seats(1, 1))},
		"more tiers":   {User: 1, Items: mustItems(seats(0, 1), seats(1, 1))},
		"another user": {User: 2, Items: OneItem(seats(0, 1))},
	} {
		t.Run(name, func(t *testing.T) {
			cmd.Key, cmd.Token = key, 2
			wantRefused(t, l, &cmd, epoch, ErrKeyReused)
		})
	}
}

func TestLedger_KeyOfARefusedBookMayBeTriedAgain(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 1))
	mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
	wantRefused(t, l, book(2, 2, seats(0, 1)), epoch, ErrSoldOut)
	mustDo(t, l, &Release{User: 1, Token: 1}, epoch)
	if d := mustDo(t, l, book(2, 2, seats(0, 1)), epoch); d.Replayed || len(d.Entries) != 1 {
		t.Fatalf("got %+v", d)
	}
}

func TestLedger_KeyForgottenAfterRetention(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
	mustDo(t, l, &Release{User: 1, Token: 1}, after(time.Minute))
	mustDo(t, l, book(2, 1, seats(0, 1)), after(time.Minute+ms))
	mustDo(t, l, &Confirm{User: 1, Token: 2}, after(time.Minute+ms))

	mustDo(t, l, book(3, 1, seats(0, 1)), after(time.Minute+KeyRetention-ms))
	again := book(1, 1, seats(0, 1))
	again.Token = 99
	if d := wantUnchanged(t, l, again, after(time.Minute+KeyRetention-ms)); !d.Replayed {
		t.Fatal("the key is forgotten too soon")
	}
	mustDo(t, l, book(4, 1, seats(0, 1)), after(time.Minute+KeyRetention))
	wantRefused(t, l, &Cancel{User: 1, Token: 1}, after(time.Minute+KeyRetention), ErrReservationNotFound)
	again = book(1, 1, seats(0, 1))
	again.Token = 5
	if d := mustDo(t, l, again, after(time.Minute+KeyRetention)); d.Replayed {
		t.Fatal("the key is still known")
	}
	// A booking that lives keeps its key.
	if d := wantUnchanged(t, l, book(2, 1, seats(0, 1)), after(10*KeyRetention)); d.Reservation.ID.Token != 2 {
		t.Fatal("the key of a live booking is forgotten")
	}
}

func TestLedger_CancelFreesSeatsOnce(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	mustDo(t, l, book(1, 1, seats(0, 2)), epoch)
	mustDo(t, l, book(2, 1, seats(0, 3)), epoch)
	mustDo(t, l, &Confirm{User: 1, Token: 1}, epoch)
	first := mustDo(t, l, &Cancel{User: 1, Token: 1}, after(time.Hour)).Reservation
	wantCounts(t, l, 0, 7, 3, 0)
	again := wantUnchanged(t, l, &Cancel{User: 1, Token: 1}, after(2*time.Hour)).Reservation
	if !reflect.DeepEqual(first, again) || first.CancelledAt() != after(time.Hour) || first.ConfirmedAt != epoch {
		t.Fatalf("got another answer the second time: %s", diff(first, again))
	}
	wantUnchanged(t, l, &Release{User: 1, Token: 1}, after(2*time.Hour))
	wantRefused(t, l, &Confirm{User: 1, Token: 1}, after(2*time.Hour), ErrReservationCancelled)
	wantCounts(t, l, 0, 7, 3, 0)
}

func TestLedger_ReleaseGivesAHoldBackButNotABooking(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	mustDo(t, l, book(1, 1, seats(0, 2)), epoch)
	mustDo(t, l, book(2, 1, seats(0, 2)), epoch)
	mustDo(t, l, book(3, 1, seats(0, 2)), epoch)
	mustDo(t, l, &Release{User: 1, Token: 1}, epoch)
	wantUnchanged(t, l, &Release{User: 1, Token: 1}, epoch)
	mustDo(t, l, &Confirm{User: 1, Token: 2}, epoch)
	wantRefused(t, l, &Release{User: 1, Token: 2}, epoch, ErrReservationConfirmed)
	mustDo(t, l, &Expire{}, after(time.Hour))
	if r := wantUnchanged(t, l, &Release{User: 1, Token: 3}, after(time.Hour)).Reservation; r.Status != Expired {
		t.Fatalf("got %s", r.Status)
	}
	wantCounts(t, l, 0, 8, 0, 2)
}

func TestLedger_ReservationOfAnotherUserIsNotFound(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
	for _, cmd := range []Command{
		&Confirm{User: 2, Token: 1}, &Release{User: 2, Token: 1}, &Cancel{User: 2, Token: 1},
		&Confirm{User: 1, Token: 2}, &Release{User: 1, Token: 2}, &Cancel{User: 1, Token: 2},
	} {
		wantRefused(t, l, cmd, epoch, ErrReservationNotFound)
	}
}

func TestLedger_AllItemsOrNone(t *testing.T) {
	l := newTestLedger(newTestEvent(3, 5))
	mustDo(t, l, book(1, 1, seats(0, 2), seats(2, 4)), epoch)
	wantCounts(t, l, 0, 3, 2, 0)
	wantCounts(t, l, 1, 5, 0, 0)
	wantCounts(t, l, 2, 1, 4, 0)

	_, err := do(l, book(2, 1, seats(0, 1), seats(2, 2)), epoch)
	refusal := (*Error)(nil)
	if !errors.As(err, &refusal) || refusal.Code != CodeSoldOut || refusal.Available != 1 {
		t.Fatalf("got %v, want sold out with 1 available", err)
	}
	wantCounts(t, l, 0, 3, 2, 0)
	mustDo(t, l, &Confirm{User: 1, Token: 1}, epoch)
	mustDo(t, l, &Cancel{User: 1, Token: 1}, epoch)
	for tier := range 3 {
		wantCounts(t, l, tier, 5, 0, 0)
	}
}

func TestLedger_LimitsOfABooking(t *testing.T) {
	event := newTestEvent(3, 5)
	event.MaxPerBooking = 6
	event.Tiers[2] = Tier{Name: "old", Retired: true}
	l := newTestLedger(event)
	mustDo(t, l, book(1, 1, seats(0, 3), seats(1, 3)), epoch)
	wantRefused(t, l, book(2, 1, seats(0, 3), seats(1, 4)), epoch, ErrQuantityExceedsLimit)
	wantRefused(t, l, book(2, 1, seats(0, 7)), epoch, ErrQuantityExceedsLimit)
	wantRefused(t, l, book(2, 1, seats(3, 1)), epoch, ErrUnknownTier)
	wantRefused(t, l, book(2, 1, seats(2, 1)), epoch, ErrUnknownTier)
	wantRefused(t, l, book(2, 1, seats(2, 9)), epoch, ErrUnknownTier)
	mustDo(t, l, book(2, 1, seats(0, 2), seats(1, 2)), epoch)
	wantRefused(t, l, book(3, 1, seats(0, 1)), epoch, ErrSoldOut)
}

func TestLedger_BooksOnlyWhileOnSale(t *testing.T) {
	event := newTestEvent(1, 10)
	event.SalesEndAt = after(time.Hour)
	l := NewLedger(event, 1, epoch.Add(-time.Hour), 1)
	wantRefused(t, l, book(1, 1, seats(0, 1)), epoch.Add(-1), ErrEventNotOnSale)
	mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
	mustDo(t, l, book(2, 1, seats(0, 1)), event.SalesEndAt.Add(-1))
	wantRefused(t, l, book(3, 1, seats(0, 1)), event.SalesEndAt, ErrEventNotOnSale)
	mustDo(t, l, &Confirm{User: 1, Token: 2}, event.SalesEndAt) // a hold made in time is good

	draft := newTestEvent(1, 10)
	draft.Status = EventDraft
	l = newTestLedger(draft)
	wantRefused(t, l, book(1, 1, seats(0, 1)), epoch, ErrEventNotFound)
	if d := mustDo(t, l, &Publish{}, epoch); d.Event.Version != 2 || d.Event.Status != EventPublished || draft.Status != EventDraft {
		t.Fatalf("got %+v", d.Event)
	}
	wantUnchanged(t, l, &Publish{}, epoch)
	mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
}

func TestLedger_ReviseKeepsWhatIsSold(t *testing.T) {
	event := newTestEvent(2, 5)
	l := newTestLedger(event)
	mustDo(t, l, book(1, 1, seats(0, 2), seats(1, 3)), epoch)
	mustDo(t, l, book(2, 1, seats(0, 1)), epoch)
	mustDo(t, l, &Confirm{User: 1, Token: 1}, epoch)
	revise := func(capacities ...int) *Revise {
		details := event.EventDetails
		details.Tiers = nil
		for _, capacity := range capacities {
			details.Tiers = append(details.Tiers, Tier{Name: "tier", Capacity: capacity, BasePriceMinor: 7, PriceMinor: 7, Retired: capacity == 0})
		}
		return &Revise{Version: l.Event().Version, Details: details}
	}
	_, err := do(l, revise(2, 2), epoch)
	refusal := (*Error)(nil)
	want := FieldErrors{
		{"tiers[0].capacity", "is below the 3 seats held or booked"}, {"tiers[1].capacity", "is below the 3 seats held or booked"},
	}
	if !errors.As(err, &refusal) || refusal.Code != CodeCapacityBelowSold || !reflect.DeepEqual(refusal.Fields, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	wantRefused(t, l, revise(3, 0), epoch, &Error{Code: CodeCapacityBelowSold})
	mustDo(t, l, revise(3, 3, 2), epoch)
	wantCounts(t, l, 0, 0, 1, 2)
	wantRefused(t, l, book(3, 1, seats(0, 1)), epoch, ErrSoldOut)
	if r := mustDo(t, l, book(3, 1, seats(2, 1)), epoch).Reservation; r.Items.At(0).UnitPriceMinor != 7 {
		t.Fatalf("got %+v", r.Items)
	}
	mustDo(t, l, revise(3, 9, 2), epoch)
	wantCounts(t, l, 1, 6, 0, 3)
	if r, _ := l.Reservation(1); r.Items.TotalMinor() != 2*1000+3*2000 {
		t.Fatalf("the price of a booking has changed: %+v", r.Items)
	}

	stale := revise(9, 9, 9)
	stale.Version--
	wantRefused(t, l, stale, epoch, ErrVersionStale)
	currency := revise(9, 9, 9)
	currency.Details.Currency = "USD"
	wantRefused(t, l, currency, epoch, &Error{Code: CodeInvalidRequest})
	cancelled := revise(9, 9, 9)
	mustDo(t, l, &CancelEvent{}, epoch)
	wantRefused(t, l, cancelled, epoch, ErrEventCancelled)
	wantRefused(t, l, &Publish{}, epoch, ErrEventCancelled)
}

func TestLedger_EventCancelSweepsAll(t *testing.T) {
	const booked = 2*SweepMax + 100
	l := newTestLedger(newTestEvent(1, booked))
	fill(l, booked)
	token := Token(spread(0))
	mustDo(t, l, &Confirm{User: UserID(token | 1), Token: token}, epoch)
	at := after(time.Minute)
	if d := mustDo(t, l, &CancelEvent{}, at); len(d.Entries) != 1+SweepMax || d.Entries[0].Kind != EventCancelledEntry ||
		d.Event.Status != EventCancelled {
		t.Fatalf("got %d entries, the first %v, event %v", len(d.Entries), d.Entries[0].Kind, d.Event)
	}
	wantUnchanged(t, l, &CancelEvent{}, at)
	wantRefused(t, l, book(1, 1, seats(0, 1)), at, ErrEventNotOnSale)
	last := Token(spread(booked - 1))
	wantStatus(t, l, last, Held)
	wantRefused(t, l, &Confirm{User: UserID(last | 1), Token: last}, at, ErrReservationCancelled)
	for _, want := range []int{SweepMax, 100} {
		if got := l.NextDue(); got != at {
			t.Fatalf("%d are live; next due: got %v, want %v", l.Live(), got, at)
		}
		if d := mustDo(t, l, &Sweep{}, at); len(d.Entries) != want {
			t.Fatalf("got %d entries, want %d", len(d.Entries), want)
		}
	}
	wantCounts(t, l, 0, booked, 0, 0)
	if !l.NextDue().IsZero() || l.Live() != 0 {
		t.Fatalf("%d are live, next due at %v", l.Live(), l.NextDue())
	}
	for i := range uint64(booked) {
		wantStatus(t, l, Token(spread(i)), Cancelled)
	}
	wantUnchanged(t, l, &Sweep{}, at)
}

// Were it otherwise, cancelling an event of a million bookings would read them all a thousand times.
func TestLedger_SweepGoesOnWhereTheLastOneEnded(t *testing.T) {
	const booked = 4 * SweepMax // which fill the last chunk of records to its end
	l := newTestLedger(newTestEvent(1, booked))
	fill(l, booked)
	for _, i := range []uint64{0, 1, SweepMax} {
		token := Token(spread(i))
		mustDo(t, l, &Release{User: UserID(token | 1), Token: token}, epoch)
	}
	for sweeps, cmd := range []Command{&CancelEvent{}, &Sweep{}, &Sweep{}, &Sweep{}} {
		mustDo(t, l, cmd, epoch)
		if want := uint32((sweeps + 1) * SweepMax); l.swept < want {
			t.Fatalf("after %d sweeps the next one begins at %d, want %d at least", sweeps+1, l.swept, want)
		}
	}
}

func TestLedger_ExpireEndsSweepMaxAtATime(t *testing.T) {
	l := newTestLedger(newTestEvent(1, CapacityMax))
	fill(l, 2*SweepMax+1)
	due := l.NextDue()
	for _, want := range []int{SweepMax, SweepMax, 1, 0} {
		if d := mustDo(t, l, &Expire{}, due.Add(time.Second)); len(d.Entries) != want {
			t.Fatalf("got %d entries, want %d", len(d.Entries), want)
		}
		if want > 1 && l.NextDue().After(due.Add(time.Second)) {
			t.Fatal("more are due, but not now")
		}
	}
}

func TestLedger_RestoreRefusesDamage(t *testing.T) {
	sound := Reservation{
		ID: ReservationID{0xe, 1}, User: 1, Status: Confirmed, Items: OneItem(Item{0, 2, 1000}), Currency: "EUR",
		CreatedAt: epoch, ExpiresAt: after(time.Minute), ConfirmedAt: after(time.Second), Seq: 3,
	}
	restore := func(change func(r *Reservation)) error {
		r := sound
		change(&r)
		l := NewLedger(newTestEvent(1, 3), 9, after(time.Hour), 1)
		first := Reservation{ID: ReservationID{0xe, 7}, Items: OneItem(Item{0, 1, 1000}), CreatedAt: epoch, ExpiresAt: after(ms)}
		if err := l.Restore(&first, 5, 0, Key{}); err != nil {
			t.Fatal(err)
		}
		confirmedSeq := uint64(0)
		if !r.ConfirmedAt.IsZero() {
			confirmedSeq = 3
		}
		return l.Restore(&r, 2, confirmedSeq, Key{1, 1})
	}
	if err := restore(func(*Reservation) {}); err != nil {
		t.Fatalf("a sound reservation: %v", err)
	}
	for name, change := range map[string]func(r *Reservation){
		"no token":                             func(r *Reservation) { r.ID.Token = 0 },
		"stands twice":                         func(r *Reservation) { r.ID.Token = 7 },
		"no such tier":                         func(r *Reservation) { r.Items = OneItem(seats(1, 1)) },
		"oversold":                             func(r *Reservation) { r.Items = OneItem(seats(0, 3)) },
		"confirmed, but at no time":            func(r *Reservation) { r.ConfirmedAt = time.Time{} },
		"held, but confirmed at a time":        func(r *Reservation) { r.Status = Held },
		"expired, but confirmed":               func(r *Reservation) { r.Status, r.EndedAt = Expired, after(time.Hour) },
		"live, but ended at a time":            func(r *Reservation) { r.EndedAt = after(time.Hour) },
		"cancelled, but at no time":            func(r *Reservation) { r.Status = Cancelled },
		"confirmed before it was made":         func(r *Reservation) { r.ConfirmedAt = epoch.Add(-ms) },
		"confirmed when it had expired":        func(r *Reservation) { r.ConfirmedAt = after(time.Minute) },
		"confirmed before made and after life": func(r *Reservation) { r.ExpiresAt, r.ConfirmedAt = epoch, epoch },
	} {
		if err := restore(change); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestLedger_CheckFindsEveryImbalance(t *testing.T) {
	for _, damage := range []tierCount{
		{capacity: 1}, {available: 1}, {held: 1}, {booked: 1}, {available: -1, held: 1}, {held: -1, booked: 1}, {booked: -1, available: 1},
	} {
		l := newTestLedger(newTestEvent(2, 10))
		if err := l.Check(); err != nil {
			t.Fatal(err)
		}
		tier := &l.tiers[1]
		*tier = tierCount{capacity: damage.capacity, available: damage.available, held: damage.held, booked: damage.booked}
		if err := l.Check(); err == nil {
			t.Errorf("%+v: got no error", damage)
		}
	}
	for name, damage := range map[string]func(l *Ledger){
		"more are waiting than seats are waited for": func(l *Ledger) { l.waiters.count = 2 },
		"nobody waits":                          func(l *Ledger) { l.waiters.count = 0 },
		"fewer than none wait":                  func(l *Ledger) { l.waiters.count = -1 },
		"fewer than no seat is waited for":      func(l *Ledger) { l.tiers[0].waiting, l.tiers[1].waiting = -1, 2 },
		"more are ahead than wait":              func(l *Ledger) { l.waiters.ahead = 2 },
		"more seats are waited for than may be": func(l *Ledger) { l.tiers[1].waiting = MaxPerBookingMax + 1 },
	} {
		l := newSoldOut(t, 2, 10)
		mustDo(t, l, join(2, 2, BookOnRelease, seats(0, 1)), epoch)
		damage(l)
		if err := l.Check(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestLedger_PostPanicsOnWhatDoesNotFollow(t *testing.T) {
	held := Entry{Kind: HeldEntry, Seq: 2, At: epoch, Token: 1, User: 1, Items: OneItem(seats(0, 1)), ExpiresAt: after(time.Minute)}
	waits := Entry{Kind: WaitlistedEntry, Seq: 2, At: epoch, Token: 1, User: 1, Items: OneItem(seats(0, 1)), Position: 1}
	served := held
	served.Seq, served.Waiter = 3, true
	then := func(seq uint64, kind EntryKind) Entry { return Entry{Kind: kind, Seq: seq, At: epoch, Token: 1} }
	for name, entries := range map[string][]Entry{
		"a gap":                   {then(3, EventRevisedEntry)},
		"a repetition":            {then(1, EventRevisedEntry)},
		"an unknown kind":         {then(2, 99)},
		"a deletion":              {then(2, EventDeletedEntry)},
		"no token":                {{Kind: HeldEntry, Seq: 2, At: epoch}},
		"a token twice":           {held, then(3, HeldEntry)},
		"an unknown token":        {then(2, ConfirmedEntry)},
		"confirmed twice":         {held, then(3, ConfirmedEntry), then(4, ConfirmedEntry)},
		"ended twice":             {held, then(3, CancelledEntry), then(4, ExpiredEntry)},
		"confirmed after its end": {held, then(3, ExpiredEntry), then(4, ConfirmedEntry)},
		"serves nobody":           {served},
		"serves twice":            {waits, served, then(4, CancelledEntry), {Kind: HeldEntry, Seq: 5, At: epoch, Token: 1, Waiter: true}},
		"serves with other seats": {waits, {Kind: HeldEntry, Seq: 3, At: epoch, Token: 1, User: 1, Items: OneItem(seats(0, 2)), Waiter: true}},
		"serves another user":     {waits, {Kind: HeldEntry, Seq: 3, At: epoch, Token: 1, User: 2, Items: waits.Items, Waiter: true}},
		"waits twice":             {waits, then(3, WaitlistedEntry)},
		"waits, and is held":      {held, then(3, WaitlistedEntry)},
		"waits without a token":   {{Kind: WaitlistedEntry, Seq: 2, At: epoch, User: 1, Items: waits.Items}},
		"a user waits twice":      {waits, {Kind: WaitlistedEntry, Seq: 3, At: epoch, Token: 2, User: 1, Items: waits.Items}},
		"leaves twice":            {waits, then(3, WaiterLeftEntry), then(4, WaiterLeftEntry)},
		"closed after it left":    {waits, then(3, WaiterLeftEntry), then(4, WaiterClosedEntry)},
		"prioritized, unknown":    {then(2, WaiterPrioritizedEntry)},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLedger(newTestEvent(1, 10))
			for i := range entries[:len(entries)-1] {
				l.Post(&entries[i])
			}
			defer func() {
				if recover() == nil {
					t.Error("got no panic")
				}
			}()
			l.Post(&entries[len(entries)-1])
		})
	}
}

func TestLedger_ReviseToFewerTiersPanics(t *testing.T) {
	l := newTestLedger(newTestEvent(2, 10))
	defer func() {
		if recover() == nil {
			t.Error("got no panic")
		}
	}()
	_, _ = do(l, &Revise{Version: 1, Details: newTestEvent(1, 10).EventDetails}, epoch)
}

func TestLedger_FarTimesAndGreatNumbers(t *testing.T) {
	event := newTestEvent(1, CapacityMax)
	event.HoldTTL, event.MaxPerBooking = HoldTTLMax, MaxPerBookingMax
	event.Tiers[0].PriceMinor = PriceMinorMax
	seq := uint64(1)<<47 - 4
	at := event.StartsAt.Add(-HoldTTLMax)
	l := NewLedger(event, seq, at, math.MaxUint64)
	mustDo(t, l, book(math.MaxUint64, math.MaxUint64, seats(0, MaxPerBookingMax)), at)
	want := mustDo(t, l, &Confirm{User: math.MaxUint64, Token: math.MaxUint64}, event.StartsAt.Add(-ms)).Reservation
	if want.Seq != seq+2 || want.ConfirmedAt != event.StartsAt.Add(-ms) || want.ExpiresAt != event.StartsAt ||
		want.Items.TotalMinor() != MaxPerBookingMax*PriceMinorMax {
		t.Fatalf("got %+v", want)
	}
	if got, _ := l.Reservation(math.MaxUint64); !reflect.DeepEqual(got, want) {
		t.Fatal(diff(want, got))
	}
}

// A price that was adjusted since the organizer read it is not set back by a revision that leaves the base price as it is.
func TestLedger_RevisionKeepsAdjustedPrices(t *testing.T) {
	event := newTestEvent(2, 10)
	event.Tiers[0].PriceMinor, event.Tiers[1].PriceMinor = 1100, 2200
	l := newTestLedger(event)
	details := event.EventDetails
	details.Tiers = slices.Clone(details.Tiers)
	details.Tiers[0].PriceMinor = 1000                                  // as it was read
	details.Tiers[1].BasePriceMinor, details.Tiers[1].PriceMinor = 3, 4 // as it shall be
	details.Tiers = append(details.Tiers, Tier{Name: "new", Capacity: 1, PriceMinor: 5})
	given := slices.Clone(details.Tiers)
	revised := mustDo(t, l, &Revise{Version: 1, Details: details}, epoch).Event
	for i, want := range []int64{1100, 4, 5} {
		if got := revised.Tiers[i].PriceMinor; got != want {
			t.Errorf("tier %s: got price %d, want %d", TierID(i), got, want)
		}
	}
	if !slices.Equal(details.Tiers, given) {
		t.Errorf("the caller's tiers have changed to %v", details.Tiers)
	}
}

// A bare quantity means the only tier on offer. Its key finds the first answer also when the event has more tiers by now.
func TestLedger_QuantityAloneMeansTheOnlyTier(t *testing.T) {
	l := newTestLedger(newTestEvent(1, 10))
	alone := func(n Token, quantity int) *Book {
		return &Book{User: 1, Key: Key{uint64(n), 1}, Items: OneItem(seats(OnlyTier, quantity)), Token: n}
	}
	first := mustDo(t, l, alone(1, 2), epoch).Reservation
	if first.Items.At(0) != (Item{0, 2, l.Event().Tiers[0].PriceMinor}) {
		t.Errorf("items %+v", first.Items)
	}
	details := l.Event().EventDetails
	details.Tiers = append(slices.Clone(details.Tiers), Tier{Name: "new", Capacity: 5, PriceMinor: 9})
	mustDo(t, l, &Revise{Version: l.Event().Version, Details: details}, epoch)
	again := alone(1, 2)
	again.Token = 99
	if d := mustDo(t, l, again, epoch); !d.Replayed {
		t.Errorf("repeated: %+v", d)
	}
	if d := mustDo(t, l, alone(1, 2), epoch); d.Replayed || d.Reservation.ID != first.ID {
		t.Errorf("the same request on its way once more: %+v", d)
	}
	var d Decision
	if err := l.Decide(alone(1, 3), epoch, &d); !errors.Is(err, ErrKeyReused) {
		t.Errorf("another quantity: got %v, want %v", err, ErrKeyReused)
	}
	if err := l.Decide(alone(2, 1), epoch, &d); !errors.Is(err, &Error{Code: CodeInvalidRequest}) {
		t.Errorf("two tiers on offer: got %v, want %s", err, CodeInvalidRequest)
	}
}
