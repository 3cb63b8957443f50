package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// busy is an event whose owner does all kinds of things to it, with the state after each entry.
type busy struct {
	*owner
	states map[uint64]*evently.State
	random *rand.Rand
	holds  []evently.Token
}

var seatsOf = cmp.AllowUnexported(evently.Availability{}, evently.Items{})

func (b *bench) busy(seed uint64, capacities ...int) *busy {
	b.Helper()
	o := b.acquire(b.event(capacities...))
	x := &busy{owner: o, states: make(map[uint64]*evently.State), random: rand.New(rand.NewPCG(seed, 1))}
	x.note()
	return x
}

// note keeps the state as it is now.
func (x *busy) note() {
	state := &evently.State{Event: x.Ledger.Event()}
	x.Ledger.Availability(&state.Availability)
	x.states[state.Seq] = state
}

// step decides one random command, if it is not refused, and notes the state when it made one entry alone.
func (x *busy) step(at time.Time) {
	user := evently.UserID(1 + x.random.IntN(20))
	tier := x.random.IntN(len(x.Ledger.Event().Tiers))
	item := evently.Item{Tier: tier, Quantity: 1 + x.random.IntN(4)}
	token := evently.Token(x.random.Uint64() | 1)
	key := evently.Key{Hi: uint64(token), Lo: 1}
	var one evently.Token
	if len(x.holds) > 0 {
		one = x.holds[x.random.IntN(len(x.holds))]
	}
	owned, _ := x.Ledger.Reservation(one)
	event := x.Ledger.Event()
	details := event.EventDetails
	var command evently.Command
	switch x.random.IntN(12) {
	case 0, 1, 2, 3:
		items := evently.OneItem(item)
		if len(event.Tiers) > 1 && x.random.IntN(3) == 0 {
			items = mustItems(x.TB, item, evently.Item{Tier: (tier + 1) % len(event.Tiers), Quantity: 1})
		}
		command = &evently.Book{User: user, Key: key, Items: items, Token: token}
	case 4, 5:
		command = &evently.Confirm{User: owned.User, Token: one}
	case 6:
		command = &evently.Release{User: owned.User, Token: one}
	case 7:
		command = &evently.Cancel{User: owned.User, Token: one}
	case 8:
		onRelease := evently.OnRelease(x.random.IntN(2))
		command = &evently.JoinWaitlist{User: user, Key: evently.Key{Hi: uint64(token), Lo: 2}, Items: evently.OneItem(item), OnRelease: onRelease, Token: token}
	case 9:
		command = &evently.LeaveWaitlist{User: user}
	case 10:
		details.Tiers = slices.Clone(details.Tiers)
		details.Tiers[tier].Capacity = max(details.Tiers[tier].Capacity+x.random.IntN(5)-2, 1)
		if len(details.Tiers) < 4 && x.random.IntN(4) == 0 {
			details.Tiers = append(details.Tiers, evently.Tier{Name: "further", Capacity: 5, BasePriceMinor: 700, PriceMinor: 700})
		}
		details.Name = fmt.Sprint("Concert ", x.random.IntN(9))
		command = &evently.Revise{Version: event.Version, Details: details}
	case 11:
		command = &evently.SetPricing{Version: event.Version, Rule: &evently.PricingRule{
			Curve: []evently.PricePoint{{At: 0, FactorBps: 8000}, {At: 10_000, FactorBps: 9000 + 100*x.random.IntN(50)}},
		}}
	}
	x.do(command, at)
}

// do decides a command and posts its entries one by one, with the state after each.
func (x *busy) do(command evently.Command, at time.Time) {
	x.Helper()
	var refusal *evently.Error
	err := x.Try(command, at, func(e *evently.Entry) {
		if e.Kind == evently.HeldEntry {
			x.holds = append(x.holds, e.Token)
		}
		x.note()
	})
	if err != nil && !errors.As(err, &refusal) {
		x.Fatal(err)
	}
}

// expire does what is due, all of it.
func (x *busy) expire(at time.Time) {
	x.Helper()
	for due := x.Ledger.NextDue(); !due.IsZero() && !due.After(at); due = x.Ledger.NextDue() {
		x.do(&evently.Expire{}, at)
	}
}

func mustItems(t testing.TB, items ...evently.Item) evently.Items {
	t.Helper()
	list, err := evently.NewItems(items...)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestStreams_RecentAreTheStatesThatWere(t *testing.T) {
	b := newBench(t, JournalConfig{})
	streams := NewStreams(b.pool)
	for seed := range uint64(4) {
		x := b.busy(seed, 6, 4)
		at := x.Now
		for range 150 {
			at = at.Add(time.Duration(x.random.IntN(4000)) * time.Millisecond)
			x.expire(at)
			x.step(at)
			x.expire(at)
		}
		x.MustFlush()
		id, last := x.Ledger.Event().ID, x.Ledger.Seq()
		for _, limit := range []int{1, 2, 7, 64, int(last), int(last) + 5} {
			states, err := streams.Recent(t.Context(), id, limit)
			if err != nil {
				t.Fatal(err)
			}
			if want := min(limit, int(last)); len(states) != want {
				t.Fatalf("seed %d: %d states, want %d", seed, len(states), want)
			}
			for i, got := range states {
				seq := last - uint64(len(states)-1-i)
				want := *x.states[seq]
				want.AsOf = got.AsOf
				if got.Seq != seq || got.AsOf.IsZero() || i > 0 && i < len(states)-1 && got.AsOf.Before(states[i-1].AsOf) {
					t.Errorf("seed %d: state %d of %d is of entry %d and of %s", seed, i, len(states), got.Seq, got.AsOf)
				}
				if diff := cmp.Diff(want.Availability, got.Availability, seatsOf); diff != "" || len(got.Event.Tiers) != len(want.Event.Tiers) {
					t.Fatalf("seed %d: after entry %d, with limit %d (-want +got):\n%s", seed, seq, limit, diff)
				}
			}
		}
	}
	if _, err := streams.Recent(t.Context(), 1, 10); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("an event that is not there: %v", err)
	}
}

func TestStreams_NewerReadsWhatHasChangedAlone(t *testing.T) {
	b := newBench(t, JournalConfig{})
	streams := NewStreams(b.pool)
	quiet, gone := b.event(10), evently.EventID(99)
	o := b.acquire(b.event(10))
	changed := o.Ledger.Event().ID
	marks := []evently.Mark{{Event: quiet, Seq: 1}, {Event: changed, Seq: 1}, {Event: gone, Seq: 1}}
	if states, err := streams.Newer(t.Context(), marks); err != nil || len(states) != 0 {
		t.Fatalf("nothing has changed, and %d states are newer (%v)", len(states), err)
	}
	o.book(evently.Item{Quantity: 3})
	o.MustFlush()
	states, err := streams.Newer(t.Context(), marks)
	if err != nil || len(states) != 1 || states[0].Event.ID != changed || states[0].Seq != 2 || states[0].Totals().Held != 3 {
		t.Fatalf("got %+v (%v), want the event with 3 seats held after entry 2", states, err)
	}
	if states, err := streams.Newer(t.Context(), nil); err != nil || len(states) != 0 {
		t.Fatalf("no events: %d states (%v)", len(states), err)
	}
}
