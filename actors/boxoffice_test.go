package actors

import (
	"errors"
	"testing"
	"time"

	"github.com/evently/evently"
)

var opening = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func newEvent(capacity int) *evently.Event {
	return &evently.Event{
		ID: 77, Organizer: 1, Status: evently.EventPublished, Version: 1, CreatedAt: opening,
		EventDetails: evently.EventDetails{
			Name: "Concert", Timezone: "UTC", Currency: "EUR", StartsAt: opening.Add(48 * time.Hour), EndsAt: opening.Add(50 * time.Hour),
			HoldTTL: time.Minute, MaxPerBooking: 10, Tiers: []evently.Tier{{Name: "Stalls", Capacity: capacity, PriceMinor: 500}},
		},
	}
}

func newTenure(event *evently.Event) *evently.Tenure {
	return &evently.Tenure{Ledger: evently.NewLedger(event, 1, opening, 3), Epoch: 4, Owner: [16]byte{9}, Now: opening}
}

func book(n, quantity int) *evently.Request {
	return &evently.Request{Event: 77, Who: 7, ID: "r", Command: &evently.Book{
		User: 7, Key: evently.Key{Hi: uint64(n)}, Token: evently.Token(n), Items: evently.OneItem(evently.Item{Quantity: quantity}),
	}}
}

// again repeats book as a request of its own.
func again(n, quantity int) *evently.Request {
	request := book(n, quantity)
	request.Command.(*evently.Book).Token += 1 << 32
	return request
}

func TestBoxOffice_AnswersWaitForTheCommitInOrder(t *testing.T) {
	office := NewBoxOffice[int](newTenure(newEvent(3)))
	office.Step(1, book(1, 2), opening)
	first := office.Flush()
	if first == nil || len(first.Entries) != 1 || first.PrevSeq != 1 || first.Epoch != 4 || first.Owner != [16]byte{9} {
		t.Fatalf("first batch %+v", first)
	}
	// While it commits: a replay, a refusal that rests on the uncommitted hold, and a new hold.
	office.Step(2, again(1, 2), opening)
	office.Step(3, book(2, 2), opening)
	office.Step(4, book(3, 1), opening)
	if second := office.Flush(); second != nil {
		t.Fatalf("two batches under way: %+v", second)
	}
	answers, state := office.Committed(opening)
	if len(answers) != 1 || answers[0].Caller != 1 || answers[0].Err != nil {
		t.Errorf("first answers %+v", answers)
	}
	if got := state.Totals(); got.Held != 2 || state.Seq != 2 || !state.AsOf.Equal(opening) {
		t.Errorf("committed state %+v, want 2 held at seq 2", state)
	}
	second := office.Flush()
	if second == nil || len(second.Entries) != 1 || second.PrevSeq != 2 || second.Tiers[0].Held != 3 {
		t.Fatalf("second batch %+v", second)
	}
	answers, _ = office.Committed(opening)
	if len(answers) != 3 || answers[0].Caller != 2 || answers[1].Caller != 3 || answers[2].Caller != 4 {
		t.Fatalf("second answers %+v", answers)
	}
	if !answers[0].Reply.Replayed || answers[0].Reply.Reservation.ID.Token != 1 {
		t.Errorf("replay %+v", answers[0].Reply)
	}
	var soldOut *evently.Error
	if !errors.As(answers[1].Err, &soldOut) || soldOut.Code != evently.CodeSoldOut || soldOut.Available != 1 {
		t.Errorf("got %v, want sold out with 1 seat free", answers[1].Err)
	}
	if !office.Idle() || office.Waiting() != 0 {
		t.Errorf("idle=%v waiting=%d after all is answered", office.Idle(), office.Waiting())
	}
}

func TestBoxOffice_RefusalAloneIsAFenceRead(t *testing.T) {
	office := NewBoxOffice[int](newTenure(newEvent(1)))
	office.Step(1, book(1, 2), opening)
	batch := office.Flush()
	if batch == nil || len(batch.Entries) != 0 || batch.PrevSeq != 1 {
		t.Fatalf("got batch %+v, want one without entries", batch)
	}
	if answers, _ := office.Committed(opening); len(answers) != 1 || !errors.Is(answers[0].Err, evently.ErrSoldOut) {
		t.Errorf("answers %+v", answers)
	}
	if office.Flush() != nil {
		t.Error("a batch with nobody waiting and nothing to write")
	}
}

func TestBoxOffice_DueHoldsFreeTheirSeatsForTheNextRequest(t *testing.T) {
	office := NewBoxOffice[int](newTenure(newEvent(1)))
	office.Step(1, book(1, 1), opening)
	office.Flush()
	office.Committed(opening)
	if got, want := office.NextDue(), opening.Add(time.Minute); !got.Equal(want) {
		t.Fatalf("next due %v, want %v", got, want)
	}
	office.Step(2, book(2, 1), opening.Add(time.Minute-time.Millisecond))
	office.Step(3, book(3, 1), opening.Add(time.Minute))
	batch := office.Flush()
	if len(batch.Entries) != 2 || batch.Entries[0].Kind != evently.ExpiredEntry || batch.Entries[0].Who != 0 ||
		batch.Entries[1].Kind != evently.HeldEntry || batch.Entries[1].Who != 7 || batch.Entries[1].RequestID != "r" {
		t.Fatalf("entries %+v", batch.Entries)
	}
	answers, _ := office.Committed(opening)
	if !errors.Is(answers[0].Err, evently.ErrSoldOut) || answers[1].Err != nil {
		t.Errorf("answers %+v", answers)
	}
}

func TestBoxOffice_RetireNamesEveryWaitingCallerOnce(t *testing.T) {
	office := NewBoxOffice[int](newTenure(newEvent(9)))
	office.Step(1, book(1, 1), opening)
	office.Flush()
	office.Step(2, book(2, 1), opening)
	office.Step(3, book(2, 2), opening)
	got := office.Retire()
	if len(got) != 3 || got[0] != 1 || got[1] != 2 || got[2] != 3 {
		t.Errorf("got %v, want [1 2 3]", got)
	}
}

func TestBoxOffice_WaitingIsBounded(t *testing.T) {
	office := NewBoxOffice[int](newTenure(newEvent(1)))
	for n := range WaitingMax {
		if !office.Step(n, book(n+1, 2), opening) {
			t.Fatalf("refused caller %d of %d", n, WaitingMax)
		}
	}
	if office.Step(0, book(1, 2), opening) {
		t.Error("took more than WaitingMax callers")
	}
}

// A cancelled event with more reservations than one sweep ends is swept to the end by commits alone.
func TestBoxOffice_CancelledEventIsSweptToTheEnd(t *testing.T) {
	office := NewBoxOffice[int](newTenure(newEvent(3 * evently.SweepMax)))
	for n := range 2*evently.SweepMax + 10 {
		office.Step(n, book(n+1, 1), opening)
	}
	office.Flush()
	office.Committed(opening)
	office.Step(1, &evently.Request{Event: 77, Command: &evently.CancelEvent{}}, opening)
	batches := 0
	for batch := office.Flush(); batch != nil; batch = office.Flush() {
		batches++
		if len(batch.Entries) > evently.SweepMax+1 {
			t.Errorf("batch of %d entries", len(batch.Entries))
		}
		_, state := office.Committed(opening)
		office.Tick(opening)
		if batches == 3 && (state.Totals().Held != 0 || !office.NextDue().IsZero()) {
			t.Errorf("after %d batches: %+v", batches, state.Totals())
		}
	}
	if batches != 3 {
		t.Errorf("%d batches, want 3", batches)
	}
}

func BenchmarkBoxOffice_Book(b *testing.B) {
	event := newEvent(evently.CapacityMax)
	office := NewBoxOffice[int](newTenure(event))
	command := &evently.Book{User: 7, Items: evently.OneItem(evently.Item{Quantity: 1})}
	request := &evently.Request{Event: 77, Who: 7, ID: "r", Command: command}
	at, n := opening, uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		command.Key, command.Token = evently.Key{Hi: n * 0x9e3779b97f4a7c15, Lo: n}, evently.Token(n*0xd6e8feb86659fd93)
		office.Step(1, request, at)
		if n%128 == 0 {
			office.Flush()
			office.Committed(at)
			at = at.Add(50 * time.Millisecond)
		}
	}
}

// After a long absence more holds are due than one sweep ends; the seat that is asked for may be the last of them.
func TestBoxOffice_AllDueHoldsExpireBeforeADecision(t *testing.T) {
	const holds = evently.SweepMax + 200
	event := newEvent(holds)
	event.Tiers = append(event.Tiers, evently.Tier{Name: "Box", Capacity: 1, PriceMinor: 900})
	for box := 0; box < holds; box += 50 {
		office := NewBoxOffice[int](newTenure(event))
		for n := range holds {
			request := book(n+1, 1)
			if n == box {
				request.Command.(*evently.Book).Items = evently.OneItem(evently.Item{Tier: 1, Quantity: 1})
			}
			office.Step(n, request, opening)
		}
		office.Flush()
		office.Committed(opening)
		request := book(holds+1, 1)
		request.Command.(*evently.Book).Items = evently.OneItem(evently.Item{Tier: 1, Quantity: 1})
		office.Step(0, request, opening.Add(time.Hour))
		office.Flush()
		if answers, _ := office.Committed(opening); answers[0].Err != nil {
			t.Fatalf("hold %d of %d had the only seat: %v", box, holds, answers[0].Err)
		}
	}
}
