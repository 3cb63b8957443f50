package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// summary is what a ledger says of itself.
type summary struct {
	Event        *evently.Event
	Seq          uint64
	Availability evently.Availability
	NextDue      time.Time
	Live         int
}

func summarize(l *evently.Ledger) (s summary) {
	s = summary{Event: l.Event(), Seq: l.Seq(), NextDue: l.NextDue(), Live: l.Live()}
	l.Availability(&s.Availability)
	return s
}

// reopen loads an event again and compares what is loaded with what was written: the ledgers, what became of the reservations and
// waiters with these tokens, and what each of the ledgers decides about these users next.
func (j *journalTest) reopen(o *Office, tokens []evently.Token, users ...evently.UserID) *Office {
	j.Helper()
	loaded := OpenOffice(j.T, j.other, o.Ledger.Event().ID)
	if diff := cmp.Diff(summarize(o.Ledger), summarize(loaded.Ledger), compared); diff != "" {
		j.Fatalf("ledger (-wrote +loaded):\n%s", diff)
	}
	if err := loaded.Ledger.Check(); err != nil {
		j.Fatal(err)
	}
	for _, token := range tokens {
		wrote, was := o.Ledger.Reservation(token)
		read, is := loaded.Ledger.Reservation(token)
		if diff := cmp.Diff(wrote, read, compared); was != is || diff != "" {
			j.Fatalf("reservation %d: found %v, wrote %v (-wrote +loaded):\n%s", token, is, was, diff)
		}
		waited, was := o.Ledger.Waiter(token)
		waits, is := loaded.Ledger.Waiter(token)
		if diff := cmp.Diff(waited, waits, compared); was != is || diff != "" {
			j.Fatalf("waiter %d: found %v, wrote %v (-wrote +loaded):\n%s", token, is, was, diff)
		}
	}
	commands := []evently.Command{&evently.Expire{}, &evently.CancelEvent{}, &evently.Reprice{}}
	for _, user := range users {
		commands = append(commands, &evently.LeaveWaitlist{User: user}, &evently.Book{
			User: user, Key: evently.Key{Lo: 3}, Items: evently.OneItem(oneSeat), Token: 3,
		})
	}
	for _, command := range commands {
		for _, later := range []time.Duration{0, time.Hour} {
			var wrote, read evently.Decision
			wroteErr, readErr := o.Ledger.Decide(command, o.Now.Add(later), &wrote), loaded.Ledger.Decide(command, o.Now.Add(later), &read)
			// Of many that end at one moment any may come first.
			if !errors.Is(wroteErr, readErr) || len(wrote.Entries) != len(read.Entries) {
				j.Fatalf("%T %+v: decides %v %v, and loaded %v %v", command, command, wrote.Entries, wroteErr, read.Entries, readErr)
			}
		}
	}
	return loaded
}

// soldOut opens an office for an event with one tier whose seats are bookings of bob, one for each.
func (j *journalTest) soldOut(capacity int) (o *Office, sold []evently.Token) {
	j.Helper()
	o = j.office(capacity)
	for range capacity {
		booked := o.Book(bob, o.Now, oneSeat)
		o.Decide(&evently.Confirm{User: bob, Token: booked.ID.Token}, o.Now)
		sold = append(sold, booked.ID.Token)
	}
	o.MustFlush()
	return o, sold
}

// A waitlist outlives its owners: each finds those who wait in their order, and those who were served with their seats.
func waitersAreServedAcrossOwners(t *journalTest) {
	o, sold := t.soldOut(4)
	at := o.Now.Truncate(time.Millisecond)
	party := o.Join(1, at, evently.BookOnRelease, evently.Item{Quantity: 3})
	books := o.Join(2, at, evently.BookOnRelease, oneSeat)
	holds := o.Join(3, at, evently.HoldOnRelease, oneSeat)
	leaves := o.Join(4, at, evently.HoldOnRelease, oneSeat)
	preferred := o.Join(5, at, evently.HoldOnRelease, oneSeat)
	o.MustFlush()
	tokens := append(sold, party.ID.Token, books.ID.Token, holds.ID.Token, leaves.ID.Token, preferred.ID.Token)
	users := []evently.UserID{1, 2, 3, 4, 5}
	o = t.reopen(o, tokens, users...)
	o.do(at, &evently.Prioritize{Token: preferred.ID.Token, Priority: 5}, &evently.LeaveWaitlist{User: 4})
	o = t.reopen(o, tokens, users...)
	status := func(waiter evently.Waiter, want evently.WaiterStatus, offer evently.ReservationStatus) {
		t.Helper()
		got, found := o.Ledger.Waiter(waiter.ID.Token)
		reservation, served := o.Ledger.Reservation(waiter.ID.Token)
		if !found || got.Status != want || served != (want == evently.Served) || reservation.Status != offer {
			t.Errorf("user %d: %v with offer %v, want %v with %v", waiter.User, got.Status, reservation.Status, want, offer)
		}
	}
	for i, c := range []struct {
		waiter evently.Waiter
		offer  evently.ReservationStatus
	}{{preferred, evently.Held}, {books, evently.Confirmed}, {holds, evently.Held}} {
		o.do(at, &evently.Cancel{User: bob, Token: sold[i]})
		o = t.reopen(o, tokens, users...)
		status(c.waiter, evently.Served, c.offer)
	}
	status(party, evently.Waiting, evently.Held)
	status(leaves, evently.Left, evently.Held)
	// Two offers lapse and a third seat is free by then: enough for the party that was passed over.
	o.do(at, &evently.Cancel{User: 2, Token: books.ID.Token})
	o.do(at.Add(time.Hour), &evently.Expire{})
	o = t.reopen(o, tokens, users...)
	status(party, evently.Served, evently.Confirmed)
	status(preferred, evently.Served, evently.Expired)
	status(books, evently.Served, evently.Cancelled)
	if n := o.Ledger.Waiting(); n != 0 {
		t.Errorf("%d wait, want nobody", n)
	}
}

// All that happens to a waiter in one batch, and a user who waits again in the batch in which the first waiting ends.
func waiterChangesSeveralTimesInABatch(t *journalTest) {
	o, sold := t.soldOut(3)
	at, later := o.Now.Truncate(time.Millisecond), o.Now.Add(time.Second)
	waits := o.Join(1, at, evently.HoldOnRelease, oneSeat)
	leaves := o.Join(2, at, evently.HoldOnRelease, oneSeat)
	o.MustFlush()
	o.Decide(&evently.Prioritize{Token: waits.ID.Token, Priority: 3}, later)
	o.Decide(&evently.Prioritize{Token: waits.ID.Token, Priority: -evently.PriorityMax}, later)
	o.Decide(&evently.LeaveWaitlist{User: 2}, later)
	again := o.Join(2, later, evently.BookOnRelease, evently.Item{Quantity: 2})
	o.Decide(&evently.LeaveWaitlist{User: 2}, later)
	once := o.Join(2, later, evently.BookOnRelease, oneSeat)
	o.Decide(&evently.Prioritize{Token: once.ID.Token, Priority: 9}, later)
	brief := o.Join(3, later, evently.HoldOnRelease, oneSeat)
	o.Decide(&evently.Prioritize{Token: brief.ID.Token, Priority: evently.PriorityMax}, later)
	o.Decide(&evently.Cancel{User: bob, Token: sold[0]}, later) // for brief
	o.Decide(&evently.Release{User: 3, Token: brief.ID.Token}, later)
	more := o.Join(3, later, evently.HoldOnRelease, oneSeat)
	o.MustFlush()
	tokens := append(sold, waits.ID.Token, leaves.ID.Token, again.ID.Token, once.ID.Token, brief.ID.Token, more.ID.Token)
	o = t.reopen(o, tokens, 1, 2, 3)
	for token, want := range map[evently.Token]evently.WaiterStatus{
		waits.ID.Token: evently.Waiting, leaves.ID.Token: evently.Left, again.ID.Token: evently.Left, once.ID.Token: evently.Served,
		brief.ID.Token: evently.Served, more.ID.Token: evently.Waiting,
	} {
		if got, found := o.Ledger.Waiter(token); !found || got.Status != want {
			t.Errorf("waiter %d: found %v %v, want %v", token, found, got.Status, want)
		}
	}
	o.do(later, &evently.CancelEvent{})
	t.reopen(o, tokens, 1, 2, 3)
}

// What an owner that was superseded decided about waiters is not written, in part or whole.
func supersededOwnerChangesNoWaiter(t *journalTest) {
	o, sold := t.soldOut(2)
	waits := o.Join(1, o.Now, evently.BookOnRelease, oneSeat)
	o.MustFlush()
	tokens := append(sold, waits.ID.Token)
	fresh := t.reopen(o, tokens, 1)
	joins := o.Join(2, o.Now, evently.HoldOnRelease, oneSeat)
	o.Decide(&evently.Cancel{User: bob, Token: sold[0]}, o.Now)
	o.Decide(&evently.Prioritize{Token: joins.ID.Token, Priority: 4}, o.Now)
	if err := o.Flush(); !errors.Is(err, evently.ErrFenced) {
		t.Errorf("got %v, want %v", err, evently.ErrFenced)
	}
	t.reopen(fresh, append(tokens, joins.ID.Token), 1, 2)
}

// Entries that no ledger decides: of the batch nothing is written.
func storageRefusesWrongWaiters(t *journalTest) {
	add := func(o *Office, b *evently.Batch, entry evently.Entry) {
		entry.Seq, entry.At = b.LastSeq()+1, o.Now
		b.Entries = append(b.Entries, entry)
	}
	const unknown, left, waiting = evently.Token(99), evently.Token(5), evently.Token(6)
	seat := evently.OneItem(oneSeat)
	for name, damage := range map[string]func(o *Office, b *evently.Batch){
		"unknown waiter served": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.HeldEntry, Token: unknown, User: 3, Items: seat, ExpiresAt: o.Now.Add(time.Minute), Waiter: true})
		},
		"waiter served who left": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.HeldEntry, Token: left, User: 3, Items: seat, ExpiresAt: o.Now.Add(time.Minute), Waiter: true})
		},
		"unknown waiter leaves": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.WaiterLeftEntry, Token: unknown})
		},
		"waiter leaves twice": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.WaiterLeftEntry, Token: left})
		},
		"waiter closed who left": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.WaiterClosedEntry, Token: left})
		},
		"waiter prioritized who left": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.WaiterPrioritizedEntry, Token: left, Priority: 3})
		},
		"one token twice": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.WaitlistedEntry, Token: waiting, User: 8, Key: evently.Key{Hi: 8}, Items: seat, Position: 1})
		},
		"one token twice in the batch": func(o *Office, b *evently.Batch) {
			again := b.Entries[0]
			again.User, again.Key.Lo = 8, 9
			add(o, b, again)
		},
		"one key twice": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.WaitlistedEntry, Token: unknown, User: 8, Key: evently.Key{Hi: 6}, Items: seat, Position: 1})
		},
		"one user twice": func(o *Office, b *evently.Batch) {
			add(o, b, evently.Entry{Kind: evently.WaitlistedEntry, Token: unknown, User: 6, Key: evently.Key{Hi: 8}, Items: seat, Position: 1})
		},
	} {
		o, _ := t.soldOut(1)
		for token, user := range map[evently.Token]evently.UserID{left: 5, waiting: 6} {
			o.Decide(&evently.JoinWaitlist{User: user, Key: evently.Key{Hi: uint64(token)}, Items: seat, Token: token}, o.Now)
		}
		o.do(o.Now, &evently.LeaveWaitlist{User: 5})
		written := summarize(o.Ledger)
		joins := o.Join(7, o.Now, evently.HoldOnRelease, oneSeat)
		batch, outcome := o.Take()
		damage(o, batch)
		if err := o.Append(batch, outcome); !errors.Is(err, evently.ErrNotWritten) {
			t.Errorf("%s: got %v, want %v", name, err, evently.ErrNotWritten)
		}
		loaded := OpenOffice(t.T, t.journal, o.Ledger.Event().ID).Ledger
		if diff := cmp.Diff(written, summarize(loaded), compared); diff != "" {
			t.Errorf("%s (-before +loaded):\n%s", name, diff)
		}
		if _, found := loaded.Waiter(joins.ID.Token); found {
			t.Errorf("%s: a waiter of the refused batch is there", name)
		}
	}
}

// The prices, the rule and the limits of an event, each changed by an entry of its own.
func pricesAndLimitsAreLoaded(t *journalTest) {
	o := t.office(10, 20)
	rule := &evently.PricingRule{
		Curve:    []evently.PricePoint{{At: 0, FactorBps: 8000}, {At: 5000, FactorBps: 20_000}},
		Time:     []evently.PricePoint{{At: 24, FactorBps: 11_000}, {At: 48, FactorBps: 10_000}},
		Step:     evently.PriceStep{EverySeats: 2, AddMinor: 50},
		FloorBps: 5000, CeilingBps: 30_000, RoundMinor: 10, Rounding: evently.RoundUp,
	}
	o.do(o.Now, &evently.SetPricing{Version: o.Ledger.Event().Version, Rule: rule})
	o = t.reopen(o, nil)
	if diff := cmp.Diff(rule, o.Ledger.Event().Pricing); diff != "" {
		t.Errorf("rule (-set +loaded):\n%s", diff)
	}
	before := o.Ledger.Event()
	o.book(1, o.Now, evently.Item{Quantity: 5})
	o.do(o.Now, &evently.Reprice{})
	o = t.reopen(o, nil)
	if after := o.Ledger.Event(); after.Version != before.Version+1 || after.Tiers[0].PriceMinor == before.Tiers[0].PriceMinor {
		t.Errorf("repriced: version %d after %d, prices %+v after %+v", after.Version, before.Version, after.Tiers, before.Tiers)
	}
	details := o.Ledger.Event().EventDetails
	details.MaxPerUser = 6
	o.do(o.Now, &evently.Revise{Version: o.Ledger.Event().Version, Details: details})
	o = t.reopen(o, nil)
	seats, err := evently.NewItems(evently.Item{Quantity: 2})
	if err != nil {
		t.Fatal(err)
	}
	var decision evently.Decision
	book := &evently.Book{User: 1, Key: evently.Key{Hi: 1}, Items: seats, Token: 1}
	if err := o.Ledger.Decide(book, o.Now, &decision); !errors.Is(err, evently.ErrUserLimitExceeded) {
		t.Errorf("a booking beyond the limit of the user: got %v, want %v", err, evently.ErrUserLimitExceeded)
	}
	o.do(o.Now, &evently.SetPricing{Version: o.Ledger.Event().Version})
	if o = t.reopen(o, nil); o.Ledger.Event().Pricing != nil {
		t.Errorf("removed the rule, and loaded %+v", o.Ledger.Event().Pricing)
	}
}

// Whatever is decided, in batches of any size and by owners that follow each other at any time: what is loaded is what was
// written.
func loadedLedgerEqualsRandomPlay(t *journalTest) {
	const plays, steps = 4, 150
	for range plays {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(sub *testing.T) {
			j := *t
			j.T = sub
			p := &randomPlay{journalTest: &j, random: rand.New(rand.NewPCG(seed, 0)), users: 8}
			p.office = j.office(6, 3)
			p.at = p.office.Now.Truncate(time.Millisecond)
			for range steps {
				p.step()
			}
			p.office.MustFlush()
			p.reopen()
		})
	}
}

type randomPlay struct {
	*journalTest
	random *rand.Rand
	office *Office
	at     time.Time
	users  int
	tokens []evently.Token
}

func (p *randomPlay) user() evently.UserID { return evently.UserID(1 + p.random.IntN(p.users)) }

func (p *randomPlay) token() evently.Token {
	if len(p.tokens) == 0 {
		return 1
	}
	return p.tokens[p.random.IntN(len(p.tokens))]
}

func (p *randomPlay) items() evently.Items {
	items := []evently.Item{{Tier: p.random.IntN(2), Quantity: 1 + p.random.IntN(3)}}
	if p.random.IntN(4) == 0 {
		items = append(items, evently.Item{Tier: 1 - items[0].Tier, Quantity: 1})
	}
	made, err := evently.NewItems(items...)
	if err != nil {
		p.Fatal(err)
	}
	return made
}

// step decides a command, which may be refused, or writes what is decided, or has another owner load it.
func (p *randomPlay) step() {
	p.Helper()
	fresh := evently.Token(p.random.Uint64() | 1)
	key := evently.Key{Hi: uint64(fresh), Lo: 1}
	event := p.office.Ledger.Event()
	var command evently.Command
	switch n := p.random.IntN(100); {
	case n < 20:
		command = &evently.Book{User: p.user(), Key: key, Items: p.items(), Token: fresh}
	case n < 45:
		command = &evently.JoinWaitlist{
			User: p.user(), Key: key, Items: p.items(), OnRelease: evently.OnRelease(p.random.IntN(2)), Token: fresh,
		}
	case n < 50:
		command = &evently.Prioritize{Token: p.token(), Priority: p.random.IntN(7) - 3}
	case n < 55:
		command = &evently.LeaveWaitlist{User: p.user()}
	case n < 75:
		token := p.token()
		user := p.user()
		if reservation, found := p.office.Ledger.Reservation(token); found {
			user = reservation.User
		}
		command = []evently.Command{
			&evently.Confirm{User: user, Token: token}, &evently.Cancel{User: user, Token: token}, &evently.Release{User: user, Token: token},
		}[p.random.IntN(3)]
	case n < 80:
		p.at = p.at.Add(time.Duration(p.random.IntN(300)) * time.Second)
		command = &evently.Expire{}
	case n < 84:
		details := event.EventDetails
		details.Tiers = append([]evently.Tier{}, details.Tiers...)
		details.Tiers[p.random.IntN(2)].Capacity += p.random.IntN(4) - 1
		details.MaxPerUser = []int{0, 0, 9}[p.random.IntN(3)]
		command = &evently.Revise{Version: event.Version, Details: details}
	case n < 86:
		command = &evently.SetPricing{Version: event.Version, Rule: &evently.PricingRule{
			Curve: []evently.PricePoint{{At: 10_000, FactorBps: 10_000}, {At: 20_000, FactorBps: 10_000 + p.random.IntN(10_000)}},
		}}
	case n < 88:
		command = &evently.Reprice{}
	case n < 96:
		p.office.MustFlush()
		return
	default:
		p.office.MustFlush()
		p.reopen()
		return
	}
	var decision evently.Decision
	if p.office.Ledger.Decide(command, p.at, &decision) == nil {
		p.office.Decide(command, p.at)
		p.tokens = append(p.tokens, fresh)
	}
}

// reopen has another owner go on.
func (p *randomPlay) reopen() {
	p.Helper()
	users := make([]evently.UserID, p.users)
	for i := range users {
		users[i] = evently.UserID(1 + i)
	}
	p.office = p.journalTest.reopen(p.office, p.tokens, users...)
	p.journal, p.other = p.other, p.journal
}
