package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// RunHistory checks an evently.History of what a catalogue and a journal on the same storage write.
func RunHistory(t *testing.T, open func(t *testing.T) (evently.Catalogue, evently.Journal, evently.History)) {
	for name, test := range map[string]func(*testing.T, *recorded){
		"ReservationsAreReadBack":        reservationsAreReadBack,
		"PagesHaveEachReservationOnce":   pagesHaveEachReservationOnce,
		"FilterWithoutSubjectIsAnError":  filterWithoutSubjectIsAnError,
		"UnknownReservationsAreNotFound": unknownReservationsAreNotFound,
	} {
		t.Run(name, func(t *testing.T) {
			catalogue, journal, history := open(t)
			test(t, record(t, catalogue, journal, history))
		})
	}
}

// recorded is what stands in the journal.
type recorded struct {
	history evently.History
	events  []evently.EventID
	all     []evently.Reservation // oldest first; those of one moment in the order of their ids as int64
}

const alice, bob = evently.UserID(7), evently.UserID(1<<63 + 9)

// record makes reservations of two users in two events in every status, several at one moment.
func record(t *testing.T, catalogue evently.Catalogue, journal evently.Journal, history evently.History) *recorded {
	t.Helper()
	r := &recorded{history: history}
	for range 2 {
		event := create(t, catalogue, newEvent(200, 200))
		r.events = append(r.events, event.ID)
	}
	for n, id := range r.events {
		office := OpenOffice(t, journal, id)
		from := office.Now.Truncate(time.Millisecond).Add(time.Second)
		for i := range 30 {
			at := from.Add(time.Duration(i/4) * time.Minute)
			user := []evently.UserID{alice, bob}[(i+n)%2]
			held := office.book(user, at, evently.Item{Quantity: 1 + i%3}, evently.Item{Tier: 1, Quantity: 1})
			switch i % 5 {
			case 1:
				office.do(at.Add(time.Second), &evently.Confirm{User: user, Token: held.ID.Token})
			case 2:
				office.do(at, &evently.Release{User: user, Token: held.ID.Token})
			case 3:
				office.do(at, &evently.Confirm{User: user, Token: held.ID.Token})
				office.do(at, &evently.Cancel{User: user, Token: held.ID.Token})
			}
			r.all = append(r.all, held)
		}
		office.do(from.Add(12*time.Minute), &evently.Expire{})
		for i := range r.all {
			if now, found := office.Ledger.Reservation(r.all[i].ID.Token); found {
				r.all[i] = now
			}
		}
	}
	statuses := make(map[evently.ReservationStatus]bool)
	for i := range r.all {
		statuses[r.all[i].Status] = true
	}
	if len(statuses) != 4 {
		t.Fatalf("recorded the statuses %v only", statuses)
	}
	return r
}

func reservationsAreReadBack(t *testing.T, r *recorded) {
	for i := range r.all {
		got, err := r.history.Reservation(t.Context(), r.all[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&r.all[i], got, compared); diff != "" {
			t.Errorf("(-wrote +read):\n%s", diff)
		}
	}
}

func unknownReservationsAreNotFound(t *testing.T, r *recorded) {
	id := r.all[0].ID
	for _, unknown := range []evently.ReservationID{{Event: id.Event, Token: id.Token + 1}, {Event: id.Event + 1, Token: id.Token}} {
		if _, err := r.history.Reservation(t.Context(), unknown); !errors.Is(err, evently.ErrReservationNotFound) {
			t.Errorf("got %v, want %v", err, evently.ErrReservationNotFound)
		}
	}
	list, next, err := r.history.Reservations(t.Context(), evently.ReservationFilter{User: 1234}, evently.Page{Limit: 10})
	if err != nil || len(list) != 0 || next != nil {
		t.Errorf("of a user without any: %v %v %v", list, next, err)
	}
}

func filterWithoutSubjectIsAnError(t *testing.T, r *recorded) {
	if list, _, err := r.history.Reservations(t.Context(), evently.ReservationFilter{}, evently.Page{Limit: 10}); err == nil {
		t.Errorf("got %d reservations, want an error", len(list))
	}
}

func pagesHaveEachReservationOnce(t *testing.T, r *recorded) {
	live := []evently.ReservationStatus{evently.Held, evently.Confirmed}
	for name, filter := range map[string]evently.ReservationFilter{
		"user":                {User: alice},
		"user with high bit":  {User: bob},
		"event":               {Event: r.events[0]},
		"user and event":      {User: alice, Event: r.events[1]},
		"live of user":        {User: bob, Statuses: live},
		"live of event":       {Event: r.events[1], Statuses: live},
		"cancelled, of event": {Event: r.events[1], Statuses: []evently.ReservationStatus{evently.Cancelled}},
		"expired, of both":    {User: alice, Event: r.events[0], Statuses: []evently.ReservationStatus{evently.Expired}},
	} {
		want := make(map[evently.ReservationID]bool)
		for i := range r.all {
			one := &r.all[i]
			if (filter.User == 0 || one.User == filter.User) && (filter.Event == 0 || one.ID.Event == filter.Event) &&
				(len(filter.Statuses) == 0 || slices.Contains(filter.Statuses, one.Status)) {
				want[one.ID] = true
			}
		}
		if len(want) == 0 {
			t.Fatalf("%s: nothing recorded", name)
		}
		for _, limit := range []int{1, 3, len(want), evently.PageLimitMax} {
			got := make(map[evently.ReservationID]bool)
			before := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
			for page := (evently.Page{Limit: limit}); ; {
				list, next, err := r.history.Reservations(t.Context(), filter, page)
				if err != nil {
					t.Fatal(err)
				}
				for _, one := range list {
					if got[one.ID] {
						t.Errorf("%s in pages of %d: %s stands twice", name, limit, one.ID)
					}
					if one.CreatedAt.After(before) {
						t.Errorf("%s in pages of %d: %v after %v", name, limit, one.CreatedAt, before)
					}
					got[one.ID], before = true, one.CreatedAt
				}
				if len(list) > limit || next != nil && len(list) != limit {
					t.Fatalf("%s: a page of %d has %d reservations, next %v", name, limit, len(list), next)
				}
				if next == nil {
					break
				}
				page.After = next
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s in pages of %d (-want +got):\n%s", name, limit, diff)
			}
		}
	}
}
