package evently

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

func join(token Token, user UserID, onRelease OnRelease, items ...Item) *JoinWaitlist {
	return &JoinWaitlist{User: user, Key: Key{uint64(token), 2}, Items: mustItems(items...), OnRelease: onRelease, Token: token}
}

// newSoldOut returns the ledger of an event whose tiers are sold out: reservation 1 of user 1 has all seats, booked.
func newSoldOut(t testing.TB, tiers, capacity int) *Ledger {
	event := newTestEvent(tiers, capacity)
	event.MaxPerBooking = max(event.MaxPerBooking, tiers*capacity)
	l := newTestLedger(event)
	var all []Item
	for i := range tiers {
		all = append(all, seats(i, capacity))
	}
	mustDo(t, l, book(1, 1, all...), epoch)
	mustDo(t, l, &Confirm{User: 1, Token: 1}, epoch)
	return l
}

// wantServed checks who is served by a decision, in that order.
func wantServed(t *testing.T, d *Decision, want ...Token) {
	t.Helper()
	var got []Token
	for i := range d.Entries {
		if d.Entries[i].Waiter {
			got = append(got, d.Entries[i].Token)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("served %v, want %v", got, want)
	}
}

func TestWaitlist_RefusalsOfJoining(t *testing.T) {
	event := newTestEvent(2, 10)
	event.Tiers[1].Capacity, event.MaxPerUser = 3, 12
	l := newTestLedger(event)
	mustDo(t, l, book(1, 1, seats(0, 10)), epoch)
	mustDo(t, l, join(2, 2, BookOnRelease, seats(0, 1)), epoch)
	draft := newTestEvent(1, 10)
	draft.Status = EventDraft
	later := newTestEvent(1, 10)
	later.SalesStartAt = after(ms)
	alone := join(9, 9, BookOnRelease, seats(0, 1))
	alone.Items = OneItem(seats(OnlyTier, 1))
	reused := join(2, 2, HoldOnRelease, seats(0, 1))
	for name, test := range map[string]struct {
		l    *Ledger
		cmd  *JoinWaitlist
		at   time.Time
		want error
	}{
		"a reused key":           {l, reused, epoch, ErrKeyReused},
		"a draft":                {newTestLedger(draft), join(9, 9, BookOnRelease, seats(0, 1)), epoch, ErrEventNotFound},
		"before sales":           {newTestLedger(later), join(9, 9, BookOnRelease, seats(0, 1)), epoch, ErrEventNotOnSale},
		"after sales":            {l, join(9, 9, BookOnRelease, seats(0, 1)), start, ErrEventNotOnSale},
		"no tier of two":         {l, alone, epoch, &Error{Code: CodeInvalidRequest}},
		"no such tier":           {l, join(9, 9, BookOnRelease, seats(2, 1)), epoch, ErrUnknownTier},
		"more than one may have": {l, join(9, 9, BookOnRelease, seats(0, 21)), epoch, ErrQuantityExceedsLimit},
		"more than a tier has":   {l, join(9, 9, BookOnRelease, seats(0, 1), seats(1, 4)), epoch, ErrQuantityExceedsLimit},
		"more than a user may":   {l, join(9, 1, BookOnRelease, seats(0, 3)), epoch, ErrUserLimitExceeded},
		"free seats":             {l, join(9, 2, BookOnRelease, seats(1, 3)), epoch, ErrSeatsAvailable},
		"waits already":          {l, join(9, 2, BookOnRelease, seats(0, 1), seats(1, 3)), epoch, ErrAlreadyWaiting},
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, test.l, test.cmd, test.at, test.want) })
	}
}

func TestWaitlist_IsBounded(t *testing.T) {
	l := newSoldOut(t, 1, 20)
	for i := range WaitersMax {
		l.Post(&Entry{
			Kind: WaitlistedEntry, Seq: l.seq + 1, At: epoch, Token: Token(10 + i), User: UserID(10 + i), Key: Key{uint64(i), 3},
			Items: OneItem(seats(0, 1+i%20)), Position: i + 1,
		})
	}
	wantRefused(t, l, join(5, 5, BookOnRelease, seats(0, 1)), epoch, ErrWaitlistFull)
	mustDo(t, l, &LeaveWaitlist{User: 10}, epoch)
	if w := mustDo(t, l, join(5, 5, BookOnRelease, seats(0, 1)), epoch).Waiter; w.Position != WaitersMax {
		t.Errorf("position %d, want %d", w.Position, WaitersMax)
	}
	if err := l.auditParts(); err != nil {
		t.Fatal(err)
	}
}

// A waiter that is served, or leaves, is remembered with its key as long as a reservation is, and a held offer as long as it is held.
func TestWaitlist_RemembersForTheRetention(t *testing.T) {
	event := newTestEvent(1, 2)
	event.HoldTTL = HoldTTLMax
	l := newTestLedger(event)
	mustDo(t, l, book(1, 1, seats(0, 2)), epoch)
	mustDo(t, l, join(11, 11, BookOnRelease, seats(0, 1)), epoch)
	mustDo(t, l, join(12, 12, HoldOnRelease, seats(0, 1)), epoch)
	mustDo(t, l, join(13, 13, HoldOnRelease, seats(0, 1)), epoch)
	mustDo(t, l, &LeaveWaitlist{User: 13}, epoch)
	wantServed(t, mustDo(t, l, &Release{User: 1, Token: 1}, epoch), 11, 12)
	touch := func(at time.Time) { // any entry lets the ledger forget
		mustDo(t, l, &Revise{Version: l.Event().Version, Details: l.Event().EventDetails}, at)
	}
	known := func(want ...Token) {
		t.Helper()
		var got []Token
		for token := range Token(20) {
			if _, found := l.Waiter(token); found {
				got = append(got, token)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("knows %v, want %v", got, want)
		}
		if err := l.auditParts(); err != nil {
			t.Fatal(err)
		}
	}
	touch(after(KeyRetention - ms))
	known(11, 12, 13)
	again := join(11, 11, BookOnRelease, seats(0, 1))
	again.Token = 99
	if d := wantUnchanged(t, l, again, after(KeyRetention-ms)); !d.Replayed || d.Waiter.Status != Waiting || d.Waiter.ID.Token != 11 ||
		d.Waiter.Seq != d.Waiter.JoinedSeq {
		t.Fatalf("got %+v", d.Waiter)
	}
	touch(after(KeyRetention))
	known(12)
	wantRefused(t, l, &LeaveWaitlist{User: 11}, after(KeyRetention), ErrWaiterNotFound)
	declined := mustDo(t, l, &LeaveWaitlist{User: 12}, after(3*24*time.Hour))
	if declined.Reservation.Status != Cancelled || declined.Waiter.Status != Served {
		t.Fatalf("got %+v, %+v", declined.Reservation, declined.Waiter)
	}
	known()
}

// What a user waits with again does not hide behind what the user waited with before.
func TestWaitlist_LeaveIsOfTheLastJoining(t *testing.T) {
	l := newSoldOut(t, 1, 2)
	mustDo(t, l, join(11, 11, HoldOnRelease, seats(0, 2)), epoch)
	wantServed(t, mustDo(t, l, &Cancel{User: 1, Token: 1}, epoch), 11)
	mustDo(t, l, join(12, 11, HoldOnRelease, seats(0, 1)), epoch)
	if d := mustDo(t, l, &LeaveWaitlist{User: 11}, epoch); d.Waiter.ID.Token != 12 || d.Waiter.Status != Left || d.Reservation.ID.Token != 0 {
		t.Fatalf("got %+v", d)
	}
	wantStatus(t, l, 11, Held)
	wantUnchanged(t, l, &LeaveWaitlist{User: 11}, epoch)
}

// The first answer is the one that was given when joining, whatever has become of the waiter; and a waiter that is forgotten does not
// take one along that the same user joined with later.
func TestWaitlist_FirstAnswersAndLaterJoinings(t *testing.T) {
	l := newSoldOut(t, 1, 2)
	first := *mustDo(t, l, join(11, 11, HoldOnRelease, seats(0, 2)), epoch).Waiter
	mustDo(t, l, &Prioritize{Token: 11, Priority: 7}, epoch)
	again := join(11, 11, HoldOnRelease, seats(0, 2))
	again.Token = 99
	if got := wantUnchanged(t, l, again, epoch).Waiter; !reflect.DeepEqual(*got, first) {
		t.Fatal(diff(first, *got))
	}
	mustDo(t, l, &LeaveWaitlist{User: 11}, epoch)
	if got := wantUnchanged(t, l, again, epoch).Waiter; !reflect.DeepEqual(*got, first) {
		t.Fatal(diff(first, *got))
	}
	mustDo(t, l, join(12, 11, HoldOnRelease, seats(0, 1)), epoch)
	mustDo(t, l, join(13, 13, HoldOnRelease, seats(0, 1)), after(KeyRetention)) // the ledger forgets 11
	if _, found := l.Waiter(11); found {
		t.Fatal("11 is remembered")
	}
	wantRefused(t, l, join(14, 11, HoldOnRelease, seats(0, 1)), after(KeyRetention), ErrAlreadyWaiting)
	if w := mustDo(t, l, &LeaveWaitlist{User: 11}, after(KeyRetention)).Waiter; w.ID.Token != 12 || w.Status != Left {
		t.Fatalf("got %+v", w)
	}
	// A key that was forgotten is a new one.
	if d := mustDo(t, l, again, after(KeyRetention)); d.Replayed || d.Waiter.Position != 2 {
		t.Fatalf("got %+v", d.Waiter)
	}
}

// A capacity that is raised serves at once, at the prices of the revision, and so do sales that are opened again.
func TestWaitlist_RevisionsServe(t *testing.T) {
	l := newSoldOut(t, 1, 2)
	revise := func(change func(d *EventDetails)) *Decision {
		details := l.Event().EventDetails
		details.Tiers = slices.Clone(details.Tiers)
		change(&details)
		return mustDo(t, l, &Revise{Version: l.Event().Version, Details: details}, epoch)
	}
	mustDo(t, l, join(11, 11, BookOnRelease, seats(0, 2)), epoch)
	mustDo(t, l, join(12, 12, HoldOnRelease, seats(0, 1)), epoch)
	wantServed(t, revise(func(d *EventDetails) {
		d.Tiers[0].Capacity, d.Tiers[0].BasePriceMinor, d.Tiers[0].PriceMinor = 3, 50, 70
		d.HoldTTL = time.Hour
	}), 12)
	if r, _ := l.Reservation(12); r.Items.TotalMinor() != 70 || r.ExpiresAt != after(time.Hour) || r.Status != Held {
		t.Errorf("got %+v", r)
	}
	wantServed(t, revise(func(d *EventDetails) { d.SalesStartAt = after(time.Hour) }))
	wantServed(t, mustDo(t, l, &Cancel{User: 1, Token: 1}, epoch))
	wantRefused(t, l, join(13, 13, BookOnRelease, seats(0, 1)), epoch, ErrEventNotOnSale)
	if due := l.NextDue(); due != after(time.Hour) {
		t.Errorf("next due: got %v, want %v", due, after(time.Hour))
	}
	wantServed(t, revise(func(d *EventDetails) { d.SalesStartAt = time.Time{} }), 11)
	wantStatus(t, l, 11, Confirmed)
}

// Of more combinations of seats than can be served each is looked at, in the order of joining.
func TestWaitlist_FarMoreDemandsThanSeats(t *testing.T) {
	const tiers = 8
	l := newSoldOut(t, tiers, 2)
	n := Token(100)
	for a := range tiers {
		for b := range a {
			mustDo(t, l, join(n, UserID(n), BookOnRelease, seats(a, 1), seats(b, 2)), epoch)
			n++
		}
	}
	d := mustDo(t, l, &Cancel{User: 1, Token: 1}, epoch)
	free := freeSeats{2, 2, 2, 2, 2, 2, 2, 2}
	var want []Token
	n = 100
	for a := range tiers {
		for b := range a {
			if items := mustItems(seats(a, 1), seats(b, 2)); free.suffice(&items) {
				free.add(&items, -1)
				want = append(want, n)
			}
			n++
		}
	}
	wantServed(t, d, want...)
	if due := l.NextDue(); due != start {
		t.Errorf("next due: got %v, want %v", due, start)
	}
}

func TestLedger_RestoreWaiterRefusesDamage(t *testing.T) {
	waiting := Waiter{
		ID: WaiterID{0xe, 21}, User: 21, Items: OneItem(seats(0, 2)), Position: 1, JoinedAt: epoch, JoinedSeq: 5, Seq: 7,
	}
	ended := waiting
	ended.Status, ended.EndedAt = Closed, after(time.Hour)
	restore := func(w Waiter, change func(w *Waiter)) error {
		change(&w)
		l := newSoldOut(t, 1, 3)
		first := Waiter{
			ID: WaiterID{0xe, 22}, User: 22, Items: OneItem(seats(0, 1)), Position: 1, JoinedAt: epoch, JoinedSeq: 4, Seq: 4,
		}
		if err := l.RestoreWaiter(&first, Key{1, 1}); err != nil {
			t.Fatal(err)
		}
		return l.RestoreWaiter(&w, Key{1, 2})
	}
	for _, sound := range []Waiter{waiting, ended} {
		if err := restore(sound, func(*Waiter) {}); err != nil {
			t.Fatalf("a sound waiter: %v", err)
		}
	}
	for name, test := range map[string]struct {
		w      Waiter
		change func(w *Waiter)
	}{
		"no token":                   {waiting, func(w *Waiter) { w.ID.Token = 0 }},
		"stands twice":               {waiting, func(w *Waiter) { w.ID.Token = 22 }},
		"no such tier":               {waiting, func(w *Waiter) { w.Items = OneItem(seats(1, 1)) }},
		"no such status":             {ended, func(w *Waiter) { w.Status = Closed + 1 }},
		"waits, but ended at a time": {waiting, func(w *Waiter) { w.EndedAt = after(ms) }},
		"ended, but at no time":      {ended, func(w *Waiter) { w.EndedAt = time.Time{} }},
		"ended before it joined":     {ended, func(w *Waiter) { w.EndedAt = epoch.Add(-ms) }},
		"joined by no entry":         {waiting, func(w *Waiter) { w.JoinedSeq = 0 }},
		"changed before it joined":   {waiting, func(w *Waiter) { w.Seq = 4 }},
		"no position":                {waiting, func(w *Waiter) { w.Position = 0 }},
		"a great priority":           {waiting, func(w *Waiter) { w.Priority = PriorityMax + 1 }},
		"a small priority":           {waiting, func(w *Waiter) { w.Priority = -PriorityMax - 1 }},
		"the user waits twice":       {waiting, func(w *Waiter) { w.User = 22 }},
		"waits, and was served":      {waiting, func(w *Waiter) { w.ID.Token = 1 }},
	} {
		if err := restore(test.w, test.change); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// newCrowd returns a ledger at which as many wait as may, each for one of some demands.
func newCrowd(b *testing.B, demands int) *Ledger {
	l := newSoldOut(b, 20, 20)
	for i := range WaitersMax {
		first, second := i%demands%20, i%demands/20%19
		if second >= first {
			second++
		}
		l.Post(&Entry{
			Kind: WaitlistedEntry, Seq: l.seq + 1, At: epoch, Token: Token(spread(uint64(i))), User: UserID(10 + i), Key: Key{uint64(i), 3},
			Items: mustItems(seats(first, 1), seats(second, 1+i%demands/380)), Position: i + 1,
		})
	}
	return l
}

// One operation joins and leaves a waitlist on which 100,000 wait.
func BenchmarkWaitlist_JoinAndLeave(b *testing.B) {
	l := newCrowd(b, 10)
	mustDo(b, l, &LeaveWaitlist{User: 10}, epoch)
	at := epoch
	for i := 0; b.Loop(); i++ {
		at = at.Add(time.Second)
		token := spread(uint64(WaitersMax + i))
		mustDo(b, l, join(Token(token), UserID(token), HoldOnRelease, seats(0, 1)), at)
		mustDo(b, l, &LeaveWaitlist{User: UserID(token)}, at)
	}
}

// One operation is a Cancel, decided and posted, that serves one of 100,000 waiters, whose seats come in so many combinations.
func BenchmarkWaitlist_CancelServesOne(b *testing.B) {
	for _, demands := range []int{1, 100, 7600} {
		b.Run(fmt.Sprintf("demands=%d", demands), func(b *testing.B) {
			l := newCrowd(b, demands)
			served, joined := Token(1), uint64(WaitersMax)
			at := epoch
			for b.Loop() {
				at = at.Add(time.Second)
				r, _ := l.Reservation(served)
				d := mustDo(b, l, &Cancel{User: r.User, Token: served}, at)
				for i := range d.Entries {
					if !d.Entries[i].Waiter {
						continue
					}
					served = d.Entries[i].Token
					w, _ := l.Waiter(served)
					token := spread(joined)
					joined++
					mustDo(b, l, &JoinWaitlist{User: UserID(token), Key: Key{token, 3}, Items: w.Items, Token: Token(token)}, at)
				}
				l.NextDue()
			}
		})
	}
}

// One operation closes 100,000 waiters, SweepMax at a time.
func BenchmarkWaitlist_Close100k(b *testing.B) {
	var d Decision
	for range b.N {
		b.StopTimer()
		l := newCrowd(b, 7600)
		b.StartTimer()
		for l.Waiting() > 0 {
			if err := l.Decide(&Expire{}, start, &d); err != nil {
				b.Fatal(err)
			}
			for i := range d.Entries {
				l.Post(&d.Entries[i])
			}
		}
	}
}
