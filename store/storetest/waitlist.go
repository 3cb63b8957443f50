package storetest

import (
	"cmp"
	"errors"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// RunWaitlists checks an evently.Waitlists of what a catalogue and a journal on the same storage write.
func RunWaitlists(t *testing.T, open func(t *testing.T) (evently.Catalogue, evently.Journal, evently.Waitlists)) {
	for name, test := range map[string]func(*testing.T, *waitlistRecord){
		"WaitersAreReadBack":             waitersAreReadBack,
		"TheLatestWaitingOfAUserIsFound": theLatestWaitingOfAUserIsFound,
		"PagesHaveEachWaiterOnce":        pagesHaveEachWaiterOnce,
		"PositionsGoOnOverPages":         positionsGoOnOverPages,
		"WaitersWithoutSubjectAreError":  waitersWithoutSubjectAreError,
		"UnknownWaitersAreNotFound":      unknownWaitersAreNotFound,
	} {
		t.Run(name, func(t *testing.T) {
			catalogue, journal, waitlists := open(t)
			test(t, recordWaitlists(t, catalogue, journal, waitlists))
		})
	}
}

// waitlistRecord is the waiters that stand in the journal.
type waitlistRecord struct {
	waitlists evently.Waitlists
	offices   []*Office
	all       []*evently.WaiterState // as they are in the end
}

// recordWaitlists makes waiters of some users in two events, in every status and with offers in every status.
func recordWaitlists(t *testing.T, catalogue evently.Catalogue, journal evently.Journal, waitlists evently.Waitlists) *waitlistRecord {
	t.Helper()
	r := &waitlistRecord{waitlists: waitlists}
	for range 2 {
		o := OpenOffice(t, journal, create(t, catalogue, newEvent(8, 8)).ID)
		r.offices = append(r.offices, o)
		at := o.Now.Truncate(time.Millisecond)
		var tokens []evently.Token
		sell := func(items ...evently.Item) evently.Token {
			t.Helper()
			held := o.book(bob, at, items...)
			o.do(at, &evently.Confirm{User: bob, Token: held.ID.Token})
			return held.ID.Token
		}
		join := func(user evently.UserID, priority int, onRelease evently.OnRelease, items ...evently.Item) evently.Waiter {
			t.Helper()
			waiter := o.Join(user, at, onRelease, items...)
			o.do(at, &evently.Prioritize{Token: waiter.ID.Token, Priority: priority})
			tokens = append(tokens, waiter.ID.Token)
			return waiter
		}
		one, both := evently.Item{Quantity: 1}, []evently.Item{{Quantity: 1}, {Tier: 1, Quantity: 2}}
		var sold []evently.Token
		for range 8 {
			sold = append(sold, sell(one, evently.Item{Tier: 1, Quantity: 1}))
		}
		// A user who left, was served, declined and waits once more.
		join(alice, 0, evently.BookOnRelease, one)
		o.do(at, &evently.LeaveWaitlist{User: alice})
		join(alice, 7, evently.HoldOnRelease, one)
		o.do(at, &evently.Cancel{User: bob, Token: sold[0]}, &evently.LeaveWaitlist{User: alice})
		sell(one) // what is free again by now
		offers := []evently.Waiter{join(20, 5, evently.HoldOnRelease, one), join(21, 5, evently.HoldOnRelease, one)}
		join(22, 5, evently.BookOnRelease, both...)
		for _, token := range sold[1:4] {
			o.do(at, &evently.Cancel{User: bob, Token: token})
		}
		sell(evently.Item{Tier: 1, Quantity: 2})
		o.do(at, &evently.Confirm{User: 20, Token: offers[0].ID.Token})
		at = at.Add(time.Second)
		for i := range 25 {
			join(evently.UserID(100+i), []int{0, -3, 9, 0, evently.PriorityMax, -evently.PriorityMax}[i%6], evently.OnRelease(i%2),
				evently.Item{Tier: i % 2, Quantity: 5})
			at = at.Add(time.Duration(i%3) * time.Second)
		}
		join(alice, 1, evently.BookOnRelease, both...)
		for _, user := range []evently.UserID{103, 110} {
			o.do(at, &evently.LeaveWaitlist{User: user})
		}
		at = at.Add(20 * time.Minute)
		o.do(at, &evently.Expire{})
		sell(one)
		join(23, 6, evently.HoldOnRelease, one)
		o.do(at, &evently.Cancel{User: bob, Token: sold[4]})
		for _, token := range tokens {
			r.all = append(r.all, o.waiterState(token))
		}
	}
	// The second event is cancelled, which closes its waitlist.
	o := r.offices[1]
	o.do(o.Now.Add(time.Hour), &evently.CancelEvent{})
	seen := make(map[evently.WaiterStatus]bool)
	offers := make(map[evently.ReservationStatus]bool)
	for i, one := range r.all {
		if one.ID.Event == o.Ledger.Event().ID {
			r.all[i] = o.waiterState(one.ID.Token)
		}
		seen[r.all[i].Status] = true
		if r.all[i].Status == evently.Served {
			offers[r.all[i].Reservation] = true
		}
	}
	if len(seen) != 4 || len(offers) != 4 {
		t.Fatalf("recorded the statuses %v and the offers %v", seen, offers)
	}
	for _, one := range r.all {
		if one.Status != evently.Waiting {
			continue
		}
		one.Position = 1
		for _, other := range r.all {
			if other.ID.Event == one.ID.Event && other.Status == evently.Waiting && precedes(other, one) {
				one.Position++
			}
		}
	}
	return r
}

// waiterState is a waiter as the ledger knows it, but its place.
func (o *Office) waiterState(token evently.Token) *evently.WaiterState {
	o.t.Helper()
	waiter, found := o.Ledger.Waiter(token)
	if !found {
		o.t.Fatalf("no waiter %d", token)
	}
	state := &evently.WaiterState{Waiter: waiter}
	if waiter.Status == evently.Served {
		reservation, found := o.Ledger.Reservation(token)
		if !found {
			o.t.Fatalf("no reservation of waiter %s", waiter.ID)
		}
		state.Reservation, state.ExpiresAt = reservation.Status, reservation.ExpiresAt
	}
	return state
}

// precedes is the order of service.
func precedes(a, b *evently.WaiterState) bool {
	return a.Priority > b.Priority || a.Priority == b.Priority && a.JoinedSeq < b.JoinedSeq
}

func waitersAreReadBack(t *testing.T, r *waitlistRecord) {
	for _, want := range r.all {
		got, err := r.waitlists.Waiter(t.Context(), want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, got, compared); diff != "" {
			t.Errorf("(-wrote +read):\n%s", diff)
		}
	}
}

func theLatestWaitingOfAUserIsFound(t *testing.T, r *waitlistRecord) {
	for _, o := range r.offices {
		event := o.Ledger.Event().ID
		latest := make(map[evently.UserID]*evently.WaiterState)
		for _, one := range r.all {
			if one.ID.Event == event && (latest[one.User] == nil || latest[one.User].JoinedSeq < one.JoinedSeq) {
				latest[one.User] = one
			}
		}
		for user, want := range latest {
			got, err := r.waitlists.WaiterOf(t.Context(), event, user)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(want, got, compared); diff != "" {
				t.Errorf("user %s (-want +got):\n%s", user, diff)
			}
		}
	}
}

func unknownWaitersAreNotFound(t *testing.T, r *waitlistRecord) {
	id := r.all[0].ID
	for _, unknown := range []evently.WaiterID{{Event: id.Event, Token: id.Token + 1}, {Event: id.Event + 1, Token: id.Token}} {
		if _, err := r.waitlists.Waiter(t.Context(), unknown); !errors.Is(err, evently.ErrWaiterNotFound) {
			t.Errorf("got %v, want %v", err, evently.ErrWaiterNotFound)
		}
	}
	if _, err := r.waitlists.WaiterOf(t.Context(), id.Event, bob); !errors.Is(err, evently.ErrWaiterNotFound) {
		t.Errorf("a user who never waited: got %v, want %v", err, evently.ErrWaiterNotFound)
	}
	list, next, err := r.waitlists.Waiters(t.Context(), evently.WaiterFilter{User: bob}, evently.Page{Limit: 10})
	if err != nil || len(list) != 0 || next != nil {
		t.Errorf("of a user who never waited: %v %v %v", list, next, err)
	}
}

func waitersWithoutSubjectAreError(t *testing.T, r *waitlistRecord) {
	if list, _, err := r.waitlists.Waiters(t.Context(), evently.WaiterFilter{OnlyWaiting: true}, evently.Page{Limit: 10}); err == nil {
		t.Errorf("got %d waiters, want an error", len(list))
	}
}

func pagesHaveEachWaiterOnce(t *testing.T, r *waitlistRecord) {
	open, cancelled := r.offices[0].Ledger.Event().ID, r.offices[1].Ledger.Event().ID
	inOrder := func(a, b *evently.WaiterState) int {
		if c := cmp.Compare(a.Status, b.Status); c != 0 {
			return c
		}
		if precedes(a, b) {
			return -1
		}
		return 1
	}
	newestFirst := func(a, b *evently.WaiterState) int {
		return cmp.Or(b.JoinedAt.Compare(a.JoinedAt), cmp.Compare(int64(b.ID.Event), int64(a.ID.Event)),
			cmp.Compare(int64(b.ID.Token), int64(a.ID.Token)))
	}
	for name, c := range map[string]struct {
		filter evently.WaiterFilter
		order  func(a, b *evently.WaiterState) int
	}{
		"event":                        {evently.WaiterFilter{Event: open}, inOrder},
		"who wait for event":           {evently.WaiterFilter{Event: open, OnlyWaiting: true}, inOrder},
		"cancelled event":              {evently.WaiterFilter{Event: cancelled}, inOrder},
		"user":                         {evently.WaiterFilter{User: alice}, newestFirst},
		"user, who waits":              {evently.WaiterFilter{User: alice, OnlyWaiting: true}, newestFirst},
		"user and event":               {evently.WaiterFilter{User: alice, Event: open}, newestFirst},
		"user and event, waiting":      {evently.WaiterFilter{User: 105, Event: open, OnlyWaiting: true}, newestFirst},
		"who wait for cancelled event": {evently.WaiterFilter{Event: cancelled, OnlyWaiting: true}, inOrder},
	} {
		var want []*evently.WaiterState
		for _, one := range r.all {
			if (c.filter.User == 0 || one.User == c.filter.User) && (c.filter.Event == 0 || one.ID.Event == c.filter.Event) &&
				(!c.filter.OnlyWaiting || one.Status == evently.Waiting) {
				want = append(want, one)
			}
		}
		slices.SortFunc(want, c.order)
		if closed := c.filter.OnlyWaiting && c.filter.Event == cancelled; closed != (len(want) == 0) {
			t.Fatalf("%s: recorded %d", name, len(want))
		}
		for _, limit := range []int{1, 3, max(1, len(want)), evently.PageLimitMax} {
			got := r.list(t, c.filter, limit)
			if diff := gocmp.Diff(want, got, compared); diff != "" {
				t.Errorf("%s in pages of %d (-want +got):\n%s", name, limit, diff)
			}
		}
	}
}

// list reads all pages.
func (r *waitlistRecord) list(t *testing.T, filter evently.WaiterFilter, limit int) (all []*evently.WaiterState) {
	t.Helper()
	for page := (evently.Page{Limit: limit}); ; {
		list, next, err := r.waitlists.Waiters(t.Context(), filter, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > limit || next != nil && len(list) != limit {
			t.Fatalf("a page of %d has %d waiters, next %v", limit, len(list), next)
		}
		all = append(all, list...)
		if next == nil {
			return all
		}
		page.After = next
	}
}

// A page is right about the places also when those on the page before have left since.
func positionsGoOnOverPages(t *testing.T, r *waitlistRecord) {
	o := r.offices[0]
	filter := evently.WaiterFilter{Event: o.Ledger.Event().ID, OnlyWaiting: true}
	first, next, err := r.waitlists.Waiters(t.Context(), filter, evently.Page{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []*evently.WaiterState{first[1], first[4]} { // the cursor is that of the last one
		o.do(o.Now.Add(time.Hour), &evently.LeaveWaitlist{User: one.User})
	}
	second, _, err := r.waitlists.Waiters(t.Context(), filter, evently.Page{Limit: 5, After: next})
	if err != nil {
		t.Fatal(err)
	}
	for i, one := range second {
		if want := 4 + i; one.Position != want {
			t.Errorf("%s: got position %d, want %d", one.ID, one.Position, want)
		}
	}
}
