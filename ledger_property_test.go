package evently

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Whatever is asked of it, in whatever order and at whatever time, a ledger does what the model does. So do a ledger that
// is only told the entries, and a ledger that is restored from the reservations and the waiters and then goes on.
func TestLedger_DoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPlay(t, 0, 1, 5, 30, 2000)
		t.Repeat(p.actions())
	})
}

// The same for a few seats that everybody wants: most of what is freed is waited for.
func TestLedger_ServesTheWaitlistAsTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPlay(t, 1, 2, 3, 4, 5)
		p.do(t, &Publish{})
		for i := range p.model.event.Tiers {
			p.do(t, &Book{User: UserID(90 + i), Key: p.freshKey(), Items: OneItem(seats(i, p.model.event.Tiers[i].Capacity)), Token: p.freshToken(t)})
		}
		all := p.actions()
		actions := map[string]func(*rapid.T){}
		for _, name := range []string{
			"", "confirm", "release", "cancel", "expire", "change the event's status", "leave the waitlist", "prioritize", "revise",
			"change the pricing rule", "time goes on", "restart",
		} {
			actions[name] = all[name]
		}
		for _, name := range []string{"one", "another", "a third"} {
			actions[name+" joins"] = p.join
			actions[name+" cancels"] = all["cancel"]
		}
		t.Repeat(actions)
	})
}

// actions are the moves of a play.
func (p *play) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": p.audit,
		"book": func(t *rapid.T) {
			p.do(t, &Book{User: p.user(t), Key: p.freshKey(), Items: p.items(t), Token: p.freshToken(t)})
		},
		"book one seat": func(t *rapid.T) {
			p.do(t, &Book{User: p.user(t), Key: p.freshKey(), Items: OneItem(seats(0, 1)), Token: p.freshToken(t)})
		},
		"book with a known key": p.bookAgain,
		"confirm": func(t *rapid.T) {
			token, user := p.reservation(t)
			p.do(t, &Confirm{User: user, Token: token})
		},
		"release": func(t *rapid.T) {
			token, user := p.reservation(t)
			p.do(t, &Release{User: user, Token: token})
		},
		"cancel": func(t *rapid.T) {
			token, user := p.reservation(t)
			p.do(t, &Cancel{User: user, Token: token})
		},
		"expire": func(t *rapid.T) { p.do(t, &Expire{}) },
		"revise": p.revise,
		"change the event's status": func(t *rapid.T) {
			switch rapid.IntRange(0, 9).Draw(t, "change") {
			case 0:
				p.do(t, &CancelEvent{})
			case 1, 2:
				p.do(t, &Publish{})
			default:
				p.do(t, &Sweep{})
			}
		},
		"book in a burst":         p.burst,
		"sell out":                p.sellOut,
		"join the waitlist":       p.join,
		"join with a known key":   p.joinAgain,
		"join in a burst":         p.joinInABurst,
		"leave the waitlist":      func(t *rapid.T) { p.do(t, &LeaveWaitlist{User: p.waitingUser(t)}) },
		"prioritize":              p.prioritize,
		"change the pricing rule": p.setPricing,
		"reprice":                 func(t *rapid.T) { p.do(t, &Reprice{DryRun: rapid.Bool().Draw(t, "dry")}) },
		"time goes on":            p.timeGoesOn,
		"restart":                 p.restart,
	}
}

// play is a ledger and its doubles in one run of the property.
type play struct {
	model    model
	ledger   *Ledger
	follower *Ledger // is told the entries and asked the same
	clock    time.Time
	tokens   []Token // all that were ever booked or waited with, of remembered and of forgotten reservations
	keys     uint64
	draws    uint64
}

// newPlay makes a play whose tiers have some of the capacities.
func newPlay(t *rapid.T, capacities ...int) *play {
	event := newTestEvent(rapid.IntRange(1, 4).Draw(t, "tiers"), 0)
	for i := range event.Tiers {
		event.Tiers[i].Capacity = rapid.SampledFrom(capacities).Draw(t, "capacity")
	}
	event.StartsAt = epoch.AddDate(0, 0, 30)
	event.MaxPerBooking = 6
	event.MaxPerUser = rapid.SampledFrom([]int{0, 0, 0, 9}).Draw(t, "most seats of a user")
	event.Status = rapid.SampledFrom([]EventStatus{EventPublished, EventPublished, EventPublished, EventDraft}).Draw(t, "status")
	return &play{
		model:  model{event: event, seq: 1, at: epoch},
		ledger: newTestLedger(event), follower: NewLedger(event, 1, epoch, 77), clock: epoch,
	}
}

func (p *play) user(t *rapid.T) UserID { return UserID(rapid.IntRange(1, 3).Draw(t, "user")) }

func (p *play) freshKey() Key {
	p.keys++
	return Key{p.keys, p.keys % 2}
}

// freshToken is mostly random. The others begin with the same bits, or end with them, so that they collide in the index.
func (p *play) freshToken(t *rapid.T) Token {
	p.draws++
	switch rapid.IntRange(0, 3).Draw(t, "token") {
	case 0:
		return Token(p.draws << 32)
	case 1:
		return Token(p.draws)
	default:
		return Token(spread(p.draws))
	}
}

func (p *play) items(t *rapid.T) Items {
	if rapid.IntRange(0, 9).Draw(t, "named tiers") == 0 {
		return OneItem(seats(OnlyTier, rapid.IntRange(1, 3).Draw(t, "quantity")))
	}
	tiers := rapid.SliceOfNDistinct(rapid.IntRange(0, len(p.model.event.Tiers)), 1, 3, rapid.ID).Draw(t, "tiers")
	var items []Item
	for _, tier := range tiers {
		quantity := rapid.SampledFrom([]int{1, 1, 1, 2, 3, 7}).Draw(t, "quantity")
		items = append(items, Item{tier, quantity, rapid.Int64Range(0, 9).Draw(t, "a price that is ignored")})
	}
	return mustItems(items...)
}

// reservation draws a token, mostly of a reservation, and a user, mostly its owner.
func (p *play) reservation(t *rapid.T) (Token, UserID) {
	if len(p.tokens) == 0 || rapid.IntRange(0, 19).Draw(t, "known") == 0 {
		return 0xfeed, p.user(t)
	}
	token := rapid.SampledFrom(p.tokens).Draw(t, "token")
	if r := p.model.find(token); r != nil && rapid.IntRange(0, 9).Draw(t, "owner") > 0 {
		return token, r.User
	}
	return token, p.user(t)
}

func (p *play) bookAgain(t *rapid.T) {
	if len(p.model.list) == 0 {
		t.Skip("nothing is booked")
	}
	first := rapid.SampledFrom(p.model.list).Draw(t, "reservation")
	if first.key == (Key{}) {
		t.Skip("the key is cleared")
	}
	again := Book{User: first.User, Key: first.key, Items: first.Items, Token: p.freshToken(t)}
	switch rapid.IntRange(0, 3).Draw(t, "difference") {
	case 0:
		again.User = p.user(t)
	case 1:
		again.Items = p.items(t)
	}
	p.do(t, &again)
}

func (p *play) burst(t *rapid.T) {
	if count := p.model.count(0); count.Available() < 1000 || len(p.model.list) > 2*SweepMax {
		t.Skip("there is little room")
	}
	for range rapid.SampledFrom([]int{1, 3, 10, 20, 50, SweepMax, SweepMax + 1}).Draw(t, "bookings") {
		p.draws++
		p.decideAndPost(t, &Book{User: 1, Key: p.freshKey(), Items: OneItem(seats(0, 1)), Token: Token(spread(p.draws))}, p.clock)
	}
}

// timeGoesOn moves the clock to a moment that matters, or a bit before or after it, which may lie in the past.
func (p *play) timeGoesOn(t *rapid.T) {
	moments := []time.Time{p.clock, p.model.at, p.clock.Add(time.Minute), p.clock.Add(KeyRetention), p.clock.Add(-time.Hour)}
	if len(p.model.list) > 0 {
		r := rapid.SampledFrom(p.model.list).Draw(t, "reservation")
		moments = append(moments, r.CreatedAt, r.ExpiresAt, r.ExpiresAt.Add(KeyRetention))
		if !r.EndedAt.IsZero() {
			moments = append(moments, r.EndedAt.Add(KeyRetention), r.EndedAt.Add(KeyRetention))
		}
	}
	if rapid.IntRange(0, 49).Draw(t, "far") == 0 {
		moments = append(moments, p.model.event.SalesEnd(), p.model.event.SalesStartAt)
	}
	p.clock = rapid.SampledFrom(moments).Draw(t, "moment").Add(rapid.SampledFrom([]time.Duration{
		-time.Millisecond, -time.Nanosecond, 0, 0, time.Nanosecond, time.Millisecond, time.Second,
	}).Draw(t, "nearly"))
}

func (p *play) revise(t *rapid.T) {
	details := p.model.event.EventDetails
	details.Tiers = slices.Clone(details.Tiers)
	version := p.model.event.Version
	tier := &details.Tiers[rapid.IntRange(0, len(details.Tiers)-1).Draw(t, "tier")]
	switch rapid.IntRange(0, 9).Draw(t, "revision") {
	case 0:
		version += rapid.SampledFrom([]uint64{1, ^uint64(0)}).Draw(t, "versions off")
	case 1:
		details.Currency = "USD"
	case 2:
		details.HoldTTL = rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 10 * time.Minute, HoldTTLMax}).Draw(t, "ttl")
	case 3:
		details.MaxPerBooking = rapid.IntRange(1, 9).Draw(t, "most seats")
		details.MaxPerUser = rapid.SampledFrom([]int{0, 1, 5, 20}).Draw(t, "most seats of a user")
	case 4:
		details.SalesStartAt = rapid.SampledFrom([]time.Time{epoch, p.clock.Add(time.Minute)}).Draw(t, "on sale from")
		details.SalesEndAt = p.clock.Add(rapid.SampledFrom([]time.Duration{0, time.Minute, KeyRetention}).Draw(t, "on sale for"))
	case 5:
		if len(details.Tiers) < 6 {
			details.Tiers = append(details.Tiers, Tier{Name: "new", Capacity: 3, PriceMinor: 9})
		}
	case 6:
		tier.Retired, tier.Capacity = !tier.Retired, 0
	case 7:
		tier.PriceMinor = rapid.Int64Range(1, 5).Draw(t, "price")
		if rapid.Bool().Draw(t, "base price changes") {
			tier.BasePriceMinor++
		}
	default:
		tier.Capacity = max(0, tier.Capacity+rapid.SampledFrom([]int{-5, -1, 1, 2, 5, 600}).Draw(t, "seats more"))
		tier.Retired = false
	}
	details.Normalize()
	p.do(t, &Revise{Version: version, Details: details})
}

func (p *play) do(t *rapid.T, cmd Command) { p.decideAndPost(t, cmd, p.clock) }

// decideAndPost asks the model, the ledger (twice, because to decide changes nothing) and the follower.
func (p *play) decideAndPost(t *rapid.T, cmd Command, at time.Time) {
	want := p.model.decide(cmd, at)
	var d, followed Decision
	err := p.ledger.Decide(cmd, at, &d)
	p.compare(t, cmd, want, &d, err)
	p.compare(t, cmd, want, &followed, p.follower.Decide(cmd, at, &followed))
	first := slices.Clone(d.Entries)
	if again := p.ledger.Decide(cmd, at, &d); !reflect.DeepEqual(again, err) || !reflect.DeepEqual(d.Entries, first) && len(first) > 0 {
		t.Fatalf("%T: decides %v %v, then %v %v", cmd, err, first, again, d.Entries)
	}
	for i := range d.Entries {
		entry := &d.Entries[i]
		p.ledger.Post(entry)
		p.follower.Post(entry)
		p.model.post(entry)
		if err := p.ledger.Check(); err != nil {
			t.Fatal(err)
		}
		if entry.Kind == HeldEntry && !entry.Waiter || entry.Kind == WaitlistedEntry {
			p.tokens = append(p.tokens, entry.Token)
		}
	}
}

func (p *play) compare(t *rapid.T, cmd Command, want modelDecision, got *Decision, err error) {
	t.Helper()
	if want.err == nil && err != nil || want.err != nil && !errors.Is(err, want.err) {
		t.Fatalf("%T: got error %v, want %v", cmd, err, want.err)
	}
	if refusal := (*Error)(nil); errors.As(err, &refusal) && refusal.Available != want.err.Available {
		t.Fatalf("%T: says %d are available, want %d", cmd, refusal.Available, want.err.Available)
	}
	entries := got.Entries
	ends := min(len(want.ends), SweepMax)
	if len(entries) < len(want.entries)+ends {
		t.Fatalf("%T: got %d entries, want %d and %d ends", cmd, len(entries), len(want.entries), ends)
	}
	p.compareServed(t, cmd, want, entries[:len(want.entries)+ends], entries[len(want.entries)+ends:])
	entries = entries[:len(want.entries)+ends]
	left := map[Token]bool{}
	for _, token := range want.ends {
		left[token] = true
	}
	for i, entry := range entries[len(want.entries):] {
		if !left[entry.Token] {
			t.Fatalf("%T: ends reservation %d, which does not end now, or twice", cmd, entry.Token)
		}
		delete(left, entry.Token)
		seq := p.model.seq + uint64(len(want.entries)) + uint64(i) + 1
		if want := (Entry{Kind: want.endKind, Seq: seq, At: entry.At, Token: entry.Token}); !reflect.DeepEqual(entry, want) {
			t.Fatalf("%T: entry differs: %s", cmd, diff(want, entry))
		}
	}
	if len(want.entries) > 0 && !reflect.DeepEqual(entries[:len(want.entries)], want.entries) {
		t.Fatalf("%T: entries differ: %s", cmd, diff(want.entries, entries))
	}
	if !reflect.DeepEqual(got.Reservation, want.reservation) || got.Replayed != want.replayed {
		t.Fatalf("%T: got replayed %v, want %v; reservation differs: %s", cmd, got.Replayed, want.replayed,
			diff(want.reservation, got.Reservation))
	}
	if !reflect.DeepEqual(got.Event, want.event) {
		t.Fatalf("%T: event differs: %s", cmd, diff(want.event, got.Event))
	}
	if !reflect.DeepEqual(got.Waiter, want.waiter) {
		t.Fatalf("%T: waiter differs: %s", cmd, diff(want.waiter, got.Waiter))
	}
}

// compareServed compares what comes of the entries of a decision: who is served by it, or closed.
func (p *play) compareServed(t *rapid.T, cmd Command, want modelDecision, entries, served []Entry) {
	t.Helper()
	var wanted []Entry
	if want.then != nil && len(p.model.waiting()) > 0 {
		after := p.model.clone()
		for i := range entries {
			after.post(&entries[i])
		}
		wanted = want.then(after)
	}
	if len(served) != len(wanted) || len(wanted) > 0 && !reflect.DeepEqual(served, wanted) {
		t.Fatalf("%T: what comes of its entries differs: %s", cmd, diff(wanted, served))
	}
}

func diff(want, got any) string {
	return "(-want +got)\n" + cmp.Diff(want, got, cmp.AllowUnexported(Items{}))
}

func (p *play) audit(t *rapid.T) {
	for _, l := range []*Ledger{p.ledger, p.follower} {
		p.auditLedger(t, l)
	}
}

// auditLedger compares all that a ledger says of itself with the model, and its parts with each other.
func (p *play) auditLedger(t *rapid.T, l *Ledger) {
	if l.Seq() != p.model.seq || l.Live() != len(p.model.live()) || !reflect.DeepEqual(l.Event(), p.model.event) {
		t.Fatalf("got seq %d with %d live, want %d with %d; event differs: %s", l.Seq(), l.Live(), p.model.seq, len(p.model.live()),
			diff(p.model.event, l.Event()))
	}
	if got, want := l.NextDue(), p.model.nextDue(); got != want {
		t.Fatalf("next due: got %v, want %v", got, want)
	}
	want := Availability{Event: p.model.event.ID, Seq: p.model.seq, Waiting: len(p.model.waiting())}
	for i := range p.model.event.Tiers {
		want.Add(p.model.count(i))
	}
	var got Availability
	l.Availability(&got)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("availability: got %+v, want %+v", got, want)
	}
	remembered := make(map[Token]*modelReservation, len(p.model.list))
	for _, r := range p.model.list {
		remembered[r.ID.Token] = r
	}
	joined := make(map[Token]*modelWaiter, len(p.model.queue))
	for _, w := range p.model.queue {
		joined[w.ID.Token] = w
	}
	for _, token := range p.tokens {
		want := remembered[token]
		got, found := l.Reservation(token)
		if found != (want != nil) || found && !reflect.DeepEqual(got, want.Reservation) {
			t.Fatalf("reservation %d: found %v, want %+v, got %+v", token, found, want, got)
		}
		known := joined[token]
		if w, found := l.Waiter(token); found != (known != nil) || found && !reflect.DeepEqual(w, known.Waiter) {
			t.Fatalf("waiter %d: found %v, want %+v, got %+v", token, found, known, w)
		}
	}
	// Unless something is due, nobody waits for seats that are free.
	if next := p.model.nextServed(); next != nil && p.model.onSale(p.model.at) && l.NextDue().After(p.model.at) {
		t.Fatalf("waiter %d is not served", next.ID.Token)
	}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	if err := l.auditParts(); err != nil {
		t.Fatal(err)
	}
}

// restart replaces the ledger, or both, by one restored from the reservations and the waiters: ended ones in the order in which they
// ended, live ones in any order among them. Storage may have cleared old keys, and then gives no more waiters than it must.
func (p *play) restart(t *rapid.T) {
	if len(p.model.list)+len(p.model.queue) > SweepMax {
		t.Skip("takes long")
	}
	cleared := rapid.Bool().Draw(t, "storage has cleared old keys")
	rows := rapid.Permutation(p.model.list).Draw(t, "order of rows")
	var ended []*modelReservation
	for _, r := range rows {
		if cleared && r.CreatedAt.Add(KeyRetentionMin).Before(p.model.at) {
			r.key = Key{}
		}
		if !r.EndedAt.IsZero() {
			ended = append(ended, r)
		}
	}
	slices.SortFunc(ended, func(a, b *modelReservation) int { return int(a.Seq) - int(b.Seq) })
	restored := NewLedger(p.model.event, p.model.seq, p.model.at, p.draws)
	for _, r := range rows {
		if !r.EndedAt.IsZero() {
			r, ended = ended[0], ended[1:]
		}
		if err := restored.Restore(&r.Reservation, r.first.Seq, r.confirmedSeq, r.key); err != nil {
			t.Fatal(err)
		}
	}
	if cleared {
		p.clearWaiters()
	}
	p.restoreWaiters(t, restored)
	p.ledger = restored
	if cleared { // a ledger that knows more keys than storage does decides differently, and may
		p.follower = NewLedger(p.model.event, p.model.seq, p.model.at, 0)
		for _, r := range slices.SortedFunc(slices.Values(p.model.list), func(a, b *modelReservation) int { return int(a.Seq) - int(b.Seq) }) {
			if err := p.follower.Restore(&r.Reservation, r.first.Seq, r.confirmedSeq, r.key); err != nil {
				t.Fatal(err)
			}
		}
		p.restoreWaiters(t, p.follower)
	}
}

// clearWaiters clears the keys of those who ended long ago, and drops those of them who have no offer that is held.
func (p *play) clearWaiters() {
	p.model.queue = slices.DeleteFunc(p.model.queue, func(w *modelWaiter) bool {
		if w.EndedAt.IsZero() || w.EndedAt.Add(KeyRetentionMin).After(p.model.at) {
			return false
		}
		w.key = Key{}
		r := p.model.find(w.ID.Token)
		return r == nil || r.Status != Held
	})
}

func (p *play) restoreWaiters(t *rapid.T, l *Ledger) {
	rows := rapid.Permutation(p.model.queue).Draw(t, "order of waiters")
	var ended []*modelWaiter
	for _, w := range rows {
		if w.Status != Waiting {
			ended = append(ended, w)
		}
	}
	slices.SortFunc(ended, func(a, b *modelWaiter) int { return int(a.Seq) - int(b.Seq) })
	for _, w := range rows {
		if w.Status != Waiting {
			w, ended = ended[0], ended[1:]
		}
		if err := l.RestoreWaiter(&w.Waiter, w.key); err != nil {
			t.Fatal(err)
		}
	}
}
