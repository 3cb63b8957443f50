package actors

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"github.com/evently/evently"
)

func seats(quantity int) evently.Items { return evently.OneItem(evently.Item{Quantity: quantity}) }

// by is a request of a user.
func by(user evently.UserID, command evently.Command) *evently.Request {
	return &evently.Request{Event: 77, Who: user, ID: "r", Command: command}
}

func join(n, quantity int, onRelease evently.OnRelease) *evently.Request {
	return by(evently.UserID(n), &evently.JoinWaitlist{
		User: evently.UserID(n), Key: evently.Key{Hi: uint64(n), Lo: 1}, Token: evently.Token(n), Items: seats(quantity), OnRelease: onRelease,
	})
}

// The batch that frees seats gives them to those who wait, on behalf of nobody but the system.
func TestBoxOffice_ServesWaitersInTheBatchThatFreesSeats(t *testing.T) {
	office := NewBoxOffice[int](newTenure(newEvent(2)))
	office.Step(1, book(1, 2), opening)
	office.Step(2, join(11, 1, evently.BookOnRelease), opening)
	office.Step(3, join(12, 1, evently.HoldOnRelease), opening)
	office.Step(4, join(13, 1, evently.HoldOnRelease), opening)
	if batch := office.Flush(); batch.Waiting != 3 {
		t.Errorf("%d wait in the batch, want 3", batch.Waiting)
	}
	answers, state := office.Committed(opening)
	if state.Waiting != 3 {
		t.Errorf("%d wait, want 3", state.Waiting)
	}
	for i, answer := range answers[1:] {
		if answer.Err != nil || answer.Reply.Waiter == nil || answer.Reply.Waiter.Position != i+1 {
			t.Errorf("answer %d: %+v %v", i, answer.Reply.Waiter, answer.Err)
		}
	}
	office.Step(5, by(7, &evently.Release{User: 7, Token: 1}), opening)
	office.Step(6, book(2, 1), opening)
	batch := office.Flush()
	want := []struct {
		kind  evently.EntryKind
		token evently.Token
		who   evently.UserID
	}{{evently.CancelledEntry, 1, 7}, {evently.HeldEntry, 11, 0}, {evently.ConfirmedEntry, 11, 0}, {evently.HeldEntry, 12, 0}}
	if len(batch.Entries) != len(want) || batch.Waiting != 1 {
		t.Fatalf("%d wait after entries %+v", batch.Waiting, batch.Entries)
	}
	for i, want := range want {
		if e := batch.Entries[i]; e.Kind != want.kind || e.Token != want.token || e.Who != want.who || e.RequestID != "r" {
			t.Errorf("entry %d: got %+v, want %+v", i, e, want)
		}
	}
	if answers, _ := office.Committed(opening); answers[0].Err != nil || !errors.Is(answers[1].Err, evently.ErrSoldOut) {
		t.Errorf("answers %+v", answers)
	}
}

// A capacity that is raised by more than one decision serves: whoever books in the same moment comes after all who wait.
func TestBoxOffice_NobodyOvertakesThoseWhoWait(t *testing.T) {
	const waiting = 2*evently.SweepMax + 100
	event := newEvent(1)
	office := NewBoxOffice[int](newTenure(event))
	office.Step(0, book(1, 1), opening)
	for n := range waiting {
		office.Step(n, join(1000+n, 1, evently.BookOnRelease), opening)
	}
	details := event.EventDetails
	details.Tiers = []evently.Tier{{Name: "Stalls", Capacity: waiting, PriceMinor: 500}} // one seat too few
	office.Step(1, by(1, &evently.Revise{Version: 1, Details: details}), opening)
	if due := office.NextDue(); !due.Equal(opening) {
		t.Fatalf("next due %v, want %v", due, opening)
	}
	office.Step(2, book(2, 1), opening)
	batch := office.Flush()
	if batch.Waiting != 1 || batch.Tiers[0].Booked != waiting-1 || batch.Tiers[0].Held != 1 {
		t.Errorf("%d wait, seats %+v", batch.Waiting, batch.Tiers)
	}
	answers, _ := office.Committed(opening)
	if last := answers[len(answers)-1]; !errors.Is(last.Err, evently.ErrSoldOut) {
		t.Errorf("a Book was answered %+v %v", last.Reply.Reservation, last.Err)
	}
}

// Ticks alone close a waitlist when sales end, and end a cancelled event's.
func TestBoxOffice_TicksCloseTheWaitlist(t *testing.T) {
	for name, test := range map[string]struct {
		command evently.Command
		at      time.Time
		ticks   int
	}{
		"sales end": {&evently.Publish{}, opening.Add(48 * time.Hour), 0}, // what is due is done before the request
		"cancelled": {&evently.CancelEvent{}, opening, 2},
	} {
		t.Run(name, func(t *testing.T) {
			office := NewBoxOffice[int](newTenure(newEvent(1)))
			office.Step(0, book(1, 1), opening)
			office.Step(0, by(7, &evently.Confirm{User: 7, Token: 1}), opening)
			for n := range 2*evently.SweepMax + 10 {
				office.Step(n, join(1000+n, 1, evently.HoldOnRelease), opening)
			}
			if due := office.NextDue(); !due.Equal(opening.Add(48 * time.Hour)) {
				t.Fatalf("next due %v, want the end of sales", due)
			}
			office.Step(0, by(1, test.command), test.at)
			ticks := 0
			for office.Tick(test.at) {
				ticks++
			}
			if batch := office.Flush(); ticks != test.ticks || batch.Waiting != 0 || !batch.NextDue.IsZero() {
				t.Errorf("after %d ticks, want %d, %d wait, due %v", ticks, test.ticks, batch.Waiting, batch.NextDue)
			}
		})
	}
}

// Whatever is asked, the box office leaves nobody waiting for seats that are free, and a ledger that is told its entries has its state.
func TestBoxOffice_LeavesNoFreeSeatThatSomebodyWaitsFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		event := newEvent(rapid.IntRange(1, 6).Draw(t, "capacity"))
		office := NewBoxOffice[int](newTenure(event))
		follower := newTenure(event).Ledger
		wanted := map[evently.Token]int{} // seats that somebody waits for
		at, n := opening, 0
		t.Repeat(map[string]func(*rapid.T){
			"ask": func(t *rapid.T) {
				n++
				user := evently.UserID(rapid.IntRange(1, 9).Draw(t, "user"))
				token := evently.Token(rapid.IntRange(1, n).Draw(t, "token"))
				key, items := evently.Key{Hi: uint64(n)}, seats(rapid.IntRange(1, 3).Draw(t, "seats"))
				commands := []evently.Command{
					&evently.Book{User: user, Key: key, Token: evently.Token(n), Items: items},
					&evently.JoinWaitlist{User: user, Key: key, Token: evently.Token(n), Items: items, OnRelease: evently.OnRelease(n % 2)},
					&evently.LeaveWaitlist{User: user}, &evently.Confirm{User: user, Token: token},
					&evently.Cancel{User: user, Token: token}, &evently.Release{User: user, Token: token},
					&evently.Prioritize{Token: token, Priority: n % 3}, &evently.Expire{},
				}
				office.Step(n, by(user, rapid.SampledFrom(commands).Draw(t, "command")), at)
			},
			"wait": func(t *rapid.T) {
				at = at.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "for"))
				office.Tick(at)
			},
			"": func(t *rapid.T) {
				batch := office.Flush()
				if batch == nil {
					return
				}
				for i := range batch.Entries {
					e := &batch.Entries[i]
					follower.Post(e)
					switch {
					case e.Kind == evently.WaitlistedEntry:
						wanted[e.Token] = e.Items.Quantity()
					case e.Waiter, e.Kind == evently.WaiterLeftEntry, e.Kind == evently.WaiterClosedEntry:
						if wanted[e.Token] == 0 {
							t.Fatalf("entry %+v of one who does not wait", e)
						}
						delete(wanted, e.Token)
					}
				}
				_, state := office.Committed(at)
				free := state.Totals().Available()
				for token, quantity := range wanted {
					if quantity <= free && event.OnSale(at) {
						t.Fatalf("waiter %d waits for %d seats of %d that are free", token, quantity, free)
					}
				}
				var told evently.Availability
				follower.Availability(&told)
				if got, want := told.Totals(), state.Totals(); got != want || told.Waiting != len(wanted) || state.Waiting != len(wanted) {
					t.Fatalf("%d and %d wait, want %d; seats %+v, the follower has %+v", state.Waiting, told.Waiting, len(wanted), want, got)
				}
			},
		})
	})
}

// Who waits is served by the next owner when the event moves, and once.
func TestEventActor_WaitlistSurvivesTheOwner(t *testing.T) {
	for _, failure := range []error{errCommitted, evently.ErrOutcomeUnknown, evently.ErrNotWritten} {
		t.Run(failure.Error(), func(t *testing.T) {
			h := newHall(t, 1)
			for _, request := range []*evently.Request{
				book(1, 1), by(7, &evently.Confirm{User: 7, Token: 1}), join(11, 1, evently.BookOnRelease), join(12, 1, evently.HoldOnRelease),
			} {
				if _, err := h.do(request); err != nil {
					t.Fatalf("%T: %v", request.Command, err)
				}
			}
			h.journal.mu.Lock()
			h.journal.fail = []error{failure}
			h.journal.mu.Unlock()
			if reply, err := h.do(by(7, &evently.Cancel{User: 7, Token: 1})); err != nil || reply.Reservation.Status != evently.Cancelled {
				t.Fatalf("got %+v %v", reply, err)
			}
			reply, err := h.do(by(11, &evently.LeaveWaitlist{User: 11}))
			if err != nil || reply.Waiter.Status != evently.Served || reply.Reservation.Status != evently.Confirmed {
				t.Fatalf("got %+v %v", reply, err)
			}
			served := 0
			for _, e := range h.journal.entries {
				if e.Waiter {
					served++
				}
			}
			if served != 1 || h.journal.epoch != 2 {
				t.Errorf("served %d in epoch %d, want 1 in epoch 2", served, h.journal.epoch)
			}
		})
	}
}

// An offer that nobody takes passes on by itself.
func TestEventActor_TimerPassesOffersOn(t *testing.T) {
	began := time.Now()
	h := newHall(t, 1, func(c *Config) {
		c.Now = func() time.Time { return opening.Add(time.Since(began)) }
	})
	h.journal.event.HoldTTL = 30 * time.Millisecond
	h.journal.event.Tiers[0].Capacity = 2
	for _, request := range []*evently.Request{
		book(1, 2), by(7, &evently.Confirm{User: 7, Token: 1}), join(11, 2, evently.HoldOnRelease), join(12, 2, evently.BookOnRelease),
		by(7, &evently.Cancel{User: 7, Token: 1}),
	} {
		if _, err := h.do(request); err != nil {
			t.Fatalf("%T: %v", request.Command, err)
		}
	}
	for state := range h.states {
		if state.Seq == 10 { // created, held, confirmed, twice waitlisted, cancelled, held, expired, held, confirmed
			break
		}
	}
	h.journal.mu.Lock()
	defer h.journal.mu.Unlock()
	var offered []evently.Token
	for _, e := range h.journal.entries {
		if e.Waiter {
			offered = append(offered, e.Token)
		}
	}
	if fmt.Sprint(offered) != "[11 12]" {
		t.Errorf("offered to %v, want 11 and 12", offered)
	}
}

// An event on whose waitlist somebody waits for months is not kept in memory for that.
func TestEventActor_PassivatesWhenWhatIsDueIsFarOff(t *testing.T) {
	h := newHall(t, 1, func(c *Config) { c.IdleAfter = 5 * time.Millisecond })
	h.journal.event.StartsAt = opening.Add(farOff + time.Second)
	h.journal.event.EndsAt = h.journal.event.StartsAt.Add(time.Hour)
	for _, request := range []*evently.Request{book(1, 1), by(7, &evently.Confirm{User: 7, Token: 1}), join(11, 1, evently.BookOnRelease)} {
		if _, err := h.do(request); err != nil {
			t.Fatal(err)
		}
	}
	h.await("passivation", func() bool { return testutil.ToFloat64(h.metrics.retirements.WithLabelValues("idle")) > 0 })
	if reply, err := h.do(by(11, &evently.LeaveWaitlist{User: 11})); err != nil || reply.Waiter.Status != evently.Left {
		t.Errorf("after passivation: got %+v %v", reply.Waiter, err)
	}
}

// A pricing rule names a version, as a revision does. To look what it would change can be repeated.
func TestEngine_PricingWithUnknownOutcomeIsNotRepeated(t *testing.T) {
	rule := &evently.PricingRule{FloorBps: 20_000}
	for _, dry := range []bool{false, true} {
		h := newHall(t, 5)
		h.journal.fail = []error{errCommitted}
		h.journal.event.Tiers[0].BasePriceMinor = 500
		reply, err := h.do(by(1, &evently.SetPricing{Version: 1, Rule: rule, DryRun: dry}))
		switch {
		case !dry && !errors.Is(err, evently.ErrUnavailable):
			t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
		case dry && (err != nil || reply.Event.Tiers[0].PriceMinor != 1000 || reply.Event.Version != 1):
			t.Errorf("dry run: got %+v %v", reply.Event, err)
		}
	}
}
