package http

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/evently/evently"
)

var (
	_ evently.Waitlists = (*fakeBox)(nil)
	_ evently.Exports   = (*fakeBox)(nil)
	_ evently.Pricer    = (*fakeBox)(nil)
)

// waiterState is a waiter as it stands now.
func (f *fakeBox) waiterState(w evently.Waiter) *evently.WaiterState {
	state := &evently.WaiterState{Waiter: w}
	if r, found := f.rows[evently.ReservationID(w.ID)]; found && w.Status == evently.Served {
		state.Reservation, state.ExpiresAt = r.Status, r.ExpiresAt
	}
	if w.Status == evently.Waiting {
		for _, other := range f.waiters {
			if other.ID.Event == w.ID.Event && other.Status == evently.Waiting && inOrderOfService(other, w) <= 0 {
				state.Position++
			}
		}
	}
	return state
}

func inOrderOfService(a, b evently.Waiter) int {
	return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.JoinedSeq, b.JoinedSeq))
}

func (f *fakeBox) Waiter(_ context.Context, id evently.WaiterID) (*evently.WaiterState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, found := f.waiters[id]
	switch {
	case f.fail != nil:
		return nil, f.fail
	case !found:
		return nil, evently.ErrWaiterNotFound
	}
	return f.waiterState(w), nil
}

func (f *fakeBox) WaiterOf(ctx context.Context, event evently.EventID, user evently.UserID) (*evently.WaiterState, error) {
	list, _, err := f.Waiters(ctx, evently.WaiterFilter{Event: event, User: user}, evently.Page{Limit: 1})
	if err == nil && len(list) == 0 {
		err = evently.ErrWaiterNotFound
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

func (f *fakeBox) Waiters(_ context.Context, filter evently.WaiterFilter, page evently.Page) (
	[]*evently.WaiterState, *evently.Cursor, error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, nil, f.fail
	}
	var list []*evently.WaiterState
	for _, w := range f.waiters {
		if (filter.User == 0 || filter.User == w.User) && (filter.Event == 0 || filter.Event == w.ID.Event) &&
			(!filter.OnlyWaiting || w.Status == evently.Waiting) {
			list = append(list, f.waiterState(w))
		}
	}
	slices.SortFunc(list, func(a, b *evently.WaiterState) int {
		if filter.User != 0 {
			return cmp.Or(b.JoinedAt.Compare(a.JoinedAt), cmp.Compare(b.JoinedSeq, a.JoinedSeq))
		}
		return inOrderOfService(a.Waiter, b.Waiter)
	})
	list, next := cut(list, page)
	return list, next, nil
}

// Export cuts pages of at most exportPage rows. The email and name of a user are the box's.
func (f *fakeBox) Export(ctx context.Context, event evently.EventID, statuses []evently.ReservationStatus, page evently.Page) (
	rows []evently.ExportRow, next *evently.Cursor, err error,
) {
	if f.exporting != nil {
		if err := f.exporting(ctx, page); err != nil {
			return nil, nil, err
		}
	}
	page.Limit = min(page.Limit, f.exportPage)
	list, next, err := f.Reservations(ctx, evently.ReservationFilter{Event: event, Statuses: statuses}, page)
	for _, r := range list {
		user := f.people[r.User]
		rows = append(rows, evently.ExportRow{Reservation: *r, Email: user.Email, Name: user.Name})
	}
	return rows, next, err
}

// Run reprices one event after another, like the Pricer of package actors.
func (f *fakeBox) Run(ctx context.Context, run *evently.PriceRun) (*evently.PriceReport, error) {
	f.mu.Lock()
	f.runs = append(f.runs, *run)
	f.mu.Unlock()
	events := []evently.EventID{run.Event}
	if run.Event == 0 {
		var err error
		if events, err = f.PricedEvents(ctx, 0, 1000); err != nil {
			return nil, err
		}
	}
	report := new(evently.PriceReport)
	for _, id := range events {
		before, err := f.State(ctx, id)
		if err != nil {
			return nil, err
		}
		if run.Organizer != 0 && before.Event.Organizer != run.Organizer {
			continue
		}
		report.Examined++
		reply, err := f.Do(ctx, &evently.Request{Event: id, Command: &evently.Reprice{DryRun: run.DryRun}, Who: run.Who, ID: run.RequestID})
		if errors.Is(err, evently.ErrEventCancelled) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i, tier := range before.Event.Tiers {
			if to := reply.Event.Tiers[i].PriceMinor; to != tier.PriceMinor {
				report.Changes = append(report.Changes, evently.PriceChange{Event: id, Tier: i, FromMinor: tier.PriceMinor, ToMinor: to})
				report.Changed++
			}
		}
	}
	return report, nil
}

// waiterBody is the part of an entry of a waitlist that tests look at.
type waiterBody struct {
	ID            string  `json:"id"`
	UserID        string  `json:"user_id"`
	Position      *int    `json:"position"`
	Status        string  `json:"status"`
	Quantity      int     `json:"quantity"`
	OnRelease     string  `json:"on_release"`
	Priority      int     `json:"priority"`
	ExpiresAt     *string `json:"expires_at"`
	ReservationID *string `json:"reservation_id"`
}

// join puts a user on the waitlist and returns the answer with the entry in it.
func (w *site) join(t testing.TB, event evently.EventID, bearer, key, body string) (*answer, waiterBody) {
	t.Helper()
	a := w.do(t, "POST", "/events/"+event.String()+"/waitlist", body, "Authorization", bearer, "Idempotency-Key", key)
	if a.status != 201 {
		t.Fatalf("join: status %d: %s", a.status, a.body)
	}
	var entry waiterBody
	a.decode(t, &entry)
	return a, entry
}

// served is the reservation that serves a user at an event.
func (w *site) served(t testing.TB, event, bearer string) string {
	t.Helper()
	var entry waiterBody
	w.do(t, "GET", "/events/"+event+"/waitlist/me", "", "Authorization", bearer).decode(t, &entry)
	if entry.ReservationID == nil {
		t.Fatalf("nothing serves %+v", entry)
	}
	return *entry.ReservationID
}
