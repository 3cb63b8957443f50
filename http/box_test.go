package http

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently"
)

// fakeBox is the engine, the catalogue and the history in memory. Ledgers decide, so that answers are real ones.
type fakeBox struct {
	clock *fakeClock

	mu       sync.Mutex
	fail     error            // what every call returns, unless nil
	failNext error            // becomes fail at the next decision
	observer evently.Observer // told every commit, unless nil
	ledgers  map[evently.EventID]*evently.Ledger
	rows     map[evently.ReservationID]evently.Reservation
	waiters  map[evently.WaiterID]evently.Waiter
	requests []evently.Request
	filters  []evently.EventFilter
	pages    []evently.Page
	reads    int // of single states
	runs     []evently.PriceRun

	figures figures // what analytics answer

	people     map[evently.UserID]evently.User                    // whose reservations are exported
	exportPage int                                                // rows
	exporting  func(ctx context.Context, page evently.Page) error // called before each page of an export, unless nil
}

var (
	_ evently.Engine    = (*fakeBox)(nil)
	_ evently.Catalogue = (*fakeBox)(nil)
	_ evently.History   = (*fakeBox)(nil)
)

// newBoxSite starts a site with a box behind it.
func newBoxSite(t testing.TB) (*site, *fakeBox) {
	t.Helper()
	box := &fakeBox{
		ledgers: make(map[evently.EventID]*evently.Ledger), rows: make(map[evently.ReservationID]evently.Reservation),
		waiters: make(map[evently.WaiterID]evently.Waiter), people: make(map[evently.UserID]evently.User), exportPage: evently.ExportPageMax,
	}
	w := newSite(t, box.behind)
	box.clock = w.clock
	return w, box
}

// behind puts the box behind a site.
func (f *fakeBox) behind(config *Config) {
	config.Engine, config.Catalogue, config.History, config.Waitlists, config.Exports, config.Pricer = f, f, f, f, f, f
	config.Analytics = f
	config.Streams, config.Audit = f, &fakeAudit{box: f}
}

// event is a published event that starts in 30 days.
func (f *fakeBox) event(id evently.EventID, organizer evently.UserID, tiers ...evently.Tier) *evently.Event {
	start := f.clock.Now().Add(30 * 24 * time.Hour)
	return &evently.Event{
		ID: id, Organizer: organizer, Status: evently.EventPublished, Version: firstVersion, CreatedAt: f.clock.Now(),
		EventDetails: evently.EventDetails{
			Name: "Night of the Proms", Description: "Strings & <brass>", Category: "music", Venue: "Hall 1", City: "Köln",
			Timezone: "Europe/Berlin", Currency: "EUR", StartsAt: start, EndsAt: start.Add(3 * time.Hour),
			HoldTTL: 10 * time.Minute, MaxPerBooking: 10, Tiers: tiers,
		},
	}
}

func seats(name string, capacity int, price int64) evently.Tier {
	return evently.Tier{Name: name, Capacity: capacity, BasePriceMinor: price, PriceMinor: price}
}

// add stores an event. change may replace anything of it.
func (f *fakeBox) add(event *evently.Event, change func(*evently.Event)) *evently.Event {
	if change != nil {
		change(event)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ledgers[event.ID] = evently.NewLedger(event, 1, event.CreatedAt, 7)
	return event
}

func (f *fakeBox) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fakeBox) Do(_ context.Context, request *evently.Request) (evently.Reply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, *request)
	if f.fail != nil {
		return evently.Reply{}, f.fail
	}
	ledger := f.ledgers[request.Event]
	if ledger == nil {
		return evently.Reply{}, evently.ErrEventNotFound
	}
	f.fail = f.failNext
	var d evently.Decision
	if err := ledger.Decide(request.Command, f.clock.Now(), &d); err != nil {
		if errors.Is(err, evently.ErrReservationNotFound) {
			return f.forgotten(request)
		}
		return evently.Reply{}, err
	}
	for i := range d.Entries {
		ledger.Post(&d.Entries[i])
		if r, found := ledger.Reservation(d.Entries[i].Token); found {
			f.rows[r.ID] = r
		}
		if w, found := ledger.Waiter(d.Entries[i].Token); found {
			f.waiters[w.ID] = w
		}
	}
	if f.observer != nil && len(d.Entries) > 0 {
		f.observer.Committed(f.state(ledger))
	}
	return evently.Reply{Reservation: d.Reservation, Event: d.Event, Waiter: d.Waiter, Replayed: d.Replayed}, nil
}

// forgotten answers from the row for a reservation that ended so long ago that its ledger has forgotten it.
func (f *fakeBox) forgotten(request *evently.Request) (evently.Reply, error) {
	var id evently.ReservationID
	var confirms, releases bool
	switch command := request.Command.(type) {
	case *evently.Confirm:
		id.Token, confirms = command.Token, true
	case *evently.Release:
		id.Token, releases = command.Token, true
	case *evently.Cancel:
		id.Token = command.Token
	}
	id.Event = request.Event
	r, found := f.rows[id]
	switch {
	case !found || r.User != request.Who:
		return evently.Reply{}, evently.ErrReservationNotFound
	case r.Status == evently.Expired && !releases:
		return evently.Reply{}, evently.ErrReservationExpired
	case confirms:
		return evently.Reply{}, evently.ErrReservationCancelled
	}
	return evently.Reply{Reservation: r}, nil
}

func (f *fakeBox) state(ledger *evently.Ledger) *evently.State {
	state := &evently.State{Event: ledger.Event()}
	ledger.Availability(&state.Availability)
	state.AsOf = f.clock.Now()
	return state
}

func (f *fakeBox) CreateEvent(_ context.Context, event *evently.Event, _ evently.UserID, _ string) (*evently.Event, error) {
	f.mu.Lock()
	known := f.ledgers[event.ID]
	f.mu.Unlock()
	switch {
	case f.fail != nil:
		return nil, f.fail
	case known != nil:
		return known.Event(), nil
	}
	return f.add(event, nil), nil
}

func (f *fakeBox) DeleteDraft(_ context.Context, id evently.EventID, _ evently.UserID, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch ledger := f.ledgers[id]; {
	case f.fail != nil:
		return f.fail
	case ledger == nil:
		return evently.ErrEventNotFound
	case ledger.Event().Status != evently.EventDraft:
		return evently.ErrEventNotDraft
	}
	delete(f.ledgers, id)
	return nil
}

func (f *fakeBox) PricedEvents(_ context.Context, after evently.EventID, limit int) (list []evently.EventID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, ledger := range f.ledgers {
		event := ledger.Event()
		if id > after && event.Pricing != nil && event.Status == evently.EventPublished && f.clock.Now().Before(event.StartsAt) {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list[:min(limit, len(list))], f.fail
}

func (f *fakeBox) State(_ context.Context, id evently.EventID) (*evently.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	switch ledger := f.ledgers[id]; {
	case f.fail != nil:
		return nil, f.fail
	case ledger == nil:
		return nil, evently.ErrEventNotFound
	default:
		return f.state(ledger), nil
	}
}

func (f *fakeBox) States(_ context.Context, filter evently.EventFilter, page evently.Page) ([]*evently.State, *evently.Cursor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.filters, f.pages = append(f.filters, filter), append(f.pages, page)
	if f.fail != nil {
		return nil, nil, f.fail
	}
	var list []*evently.State
	for _, ledger := range f.ledgers {
		state := f.state(ledger)
		if (len(filter.Statuses) == 0 || slices.Contains(filter.Statuses, state.Event.Status)) &&
			(filter.Organizer == 0 || filter.Organizer == state.Event.Organizer) && !state.Event.StartsAt.Before(filter.From) {
			list = append(list, state)
		}
	}
	slices.SortFunc(list, func(a, b *evently.State) int {
		if more := b.Totals().Booked - a.Totals().Booked; more != 0 && filter.Sort == evently.ByPopularity {
			return more
		}
		return int(a.Event.ID) - int(b.Event.ID)
	})
	list, next := cut(list, page)
	return list, next, nil
}

// cut returns the part of a list that is on a page.
func cut[T any](list []T, page evently.Page) ([]T, *evently.Cursor) {
	begin := 0
	if page.After != nil {
		begin = int(page.After.Event)
	}
	end := min(begin+page.Limit, len(list))
	if end == len(list) {
		return list[begin:end], nil
	}
	return list[begin:end], &evently.Cursor{Event: evently.EventID(end)}
}

func (f *fakeBox) Reservation(_ context.Context, id evently.ReservationID) (*evently.Reservation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, found := f.rows[id]
	switch {
	case f.fail != nil:
		return nil, f.fail
	case !found:
		return nil, evently.ErrReservationNotFound
	}
	return &r, nil
}

func (f *fakeBox) Reservations(_ context.Context, filter evently.ReservationFilter, page evently.Page) (
	[]*evently.Reservation, *evently.Cursor, error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, nil, f.fail
	}
	var list []*evently.Reservation
	for _, r := range f.rows {
		if (filter.User == 0 || filter.User == r.User) && (filter.Event == 0 || filter.Event == r.ID.Event) &&
			(len(filter.Statuses) == 0 || slices.Contains(filter.Statuses, r.Status)) {
			list = append(list, &r)
		}
	}
	slices.SortFunc(list, func(a, b *evently.Reservation) int { return b.CreatedAt.Compare(a.CreatedAt) })
	list, next := cut(list, page)
	return list, next, nil
}

// sweep ends the holds that are due.
func (f *fakeBox) sweep(t testing.TB, event evently.EventID) {
	t.Helper()
	if _, err := f.Do(t.Context(), &evently.Request{Event: event, Command: &evently.Expire{}}); err != nil {
		t.Fatal(err)
	}
}

// lastRequest is the one that the engine was asked last.
func (f *fakeBox) lastRequest(t testing.TB) evently.Request {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.requests) == 0 {
		t.Fatal("the engine was not asked")
	}
	return f.requests[len(f.requests)-1]
}

// reservationBody is the part of a Reservation that tests look at.
type reservationBody struct {
	ID          string     `json:"id"`
	Status      string     `json:"status"`
	Quantity    int        `json:"quantity"`
	TotalMinor  int64      `json:"total_minor"`
	ConfirmedAt *time.Time `json:"confirmed_at"`
}

// book holds seats of the event and returns the answer with the reservation in it.
func (w *site) book(t testing.TB, event evently.EventID, bearer, key, body string) (*answer, reservationBody) {
	t.Helper()
	a := w.do(t, "POST", "/events/"+event.String()+"/book", body, "Authorization", bearer, "Idempotency-Key", key)
	if a.status != 201 {
		t.Fatalf("book: status %d: %s", a.status, a.body)
	}
	var r reservationBody
	a.decode(t, &r)
	return a, r
}
