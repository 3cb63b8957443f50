package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/evently/evently"
)

// clerk answers like a node, from what the test tells.
type clerk struct {
	t    *testing.T
	book func(number int, key string, w http.ResponseWriter) // the first request for a key

	mu     sync.Mutex
	number int
	given  map[string]string // answers by key
	again  func(w http.ResponseWriter, first string)
	change func(w http.ResponseWriter, id, status string)
	event  string // what reads answer
	tokens map[string]int
}

func (c *clerk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[r.Header.Get("Authorization")]++
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Error(err)
	}
	part := strings.Split(strings.TrimPrefix(r.URL.Path, "/base"), "/")
	switch {
	case r.Method == "GET" && part[1] == "events" && len(part) == 3:
		fmt.Fprintf(w, `{"id":"%s"}`, c.event)
	case r.Method == "POST" && part[1] == "events" && part[3] == "book":
		key := r.Header.Get("Idempotency-Key")
		if string(body) != bookBody || len(key) != 32 || r.Header.Get("Content-Type") != "application/json" {
			c.t.Errorf("body %s, header %v", body, r.Header)
		}
		if first, known := c.given[key]; known {
			w.Header().Set("Idempotency-Replayed", "true")
			c.again(w, first)
			return
		}
		c.number++
		c.book(c.number, key, w)
	case r.Method == "POST" && part[1] == "reservations" && part[3] == "confirm":
		c.change(w, part[2], "confirmed")
	case r.Method == "POST" && part[1] == "bookings" && part[3] == "cancel":
		c.change(w, part[2], "cancelled")
	default:
		c.t.Errorf("%s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusNotFound)
	}
}

// give answers a booking with a reservation.
func (c *clerk) give(w http.ResponseWriter, key string, token int) {
	id := evently.ReservationID{Event: theEvent, Token: evently.Token(token)}.String()
	c.given[key] = id
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"id":"%s","status":"held"}`, id)
}

const theEvent = evently.EventID(0xE0E0E0)

// visitClerk has visits made by one connection.
func visitClerk(t *testing.T, mix Mix, visits float64, setUp func(c *clerk)) (Round, *Told, *clerk) {
	t.Helper()
	c := &clerk{t: t, given: make(map[string]string), tokens: make(map[string]int), event: theEvent.String()}
	c.book = func(number int, key string, w http.ResponseWriter) { c.give(w, key, number) }
	c.again = func(w http.ResponseWriter, first string) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id":"%s","status":"held"}`, first)
	}
	c.change = func(w http.ResponseWriter, id, status string) {
		fmt.Fprintf(w, `{"id":"%s","status":"%s"}`, id, status)
	}
	if setUp != nil {
		setUp(c)
	}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	e, err := ParseEndpoint(server.URL + "/base/")
	if err != nil {
		t.Fatal(err)
	}
	load := &Load{
		Endpoint: e, Workload: Workload{Mix: mix, Capacity: 1, Demand: visits, Counts: CountsAnswered}, Events: []evently.EventID{theEvent},
		Users: []User{{ID: 1, Token: "one"}, {ID: 2, Token: "two"}}, Connections: 1, Duration: requestTimeout, Seed: 9, Keys: 77,
	}
	round, told, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return round, told, c
}

func TestVisitor_MixesVisits(t *testing.T) {
	const visits = 2000
	mix := Mix{Reads: 0.3, Retries: 0.1, Confirms: 0.35, Cancels: 0.05}
	round, told, c := visitClerk(t, mix, visits, nil)
	near := func(what string, got int, share float64) {
		if want := share * visits; float64(got) < want*0.8 || float64(got) > want*1.2 {
			t.Errorf("%s: %d of %d visits, want about %.0f", what, got, visits, want)
		}
	}
	near("reads", round.Outcomes["read"], mix.Reads)
	near("bookings", round.Outcomes["booked"], 1-mix.Reads)
	near("retries", round.Outcomes["replayed"], mix.Retries)
	near("confirmations", round.Outcomes["confirmed"], mix.Confirms+mix.Cancels)
	near("cancellations", round.Outcomes["cancelled"], mix.Cancels)
	if n := round.Outcomes["failed"]; n > 0 || round.Failure != "" {
		t.Errorf("%d failed: %s", n, round.Failure)
	}
	for _, token := range []string{"Bearer one", "Bearer two"} {
		near(token, c.tokens[token], mix.requests()/2)
	}
	byStatus, byUser := make(map[evently.ReservationStatus]int), make(map[evently.UserID]int)
	for _, p := range told.Promises {
		byStatus[p.Status]++
		byUser[p.User]++
	}
	want := map[evently.ReservationStatus]int{
		evently.Cancelled: round.Outcomes["cancelled"],
		evently.Confirmed: round.Outcomes["confirmed"] - round.Outcomes["cancelled"],
		evently.Held:      round.Outcomes["booked"] - round.Outcomes["confirmed"],
	}
	if !reflect.DeepEqual(byStatus, want) || len(byUser) != 2 || len(told.Promises) != round.Outcomes["booked"] || len(told.Unknown)+len(told.Doubled) > 0 {
		t.Errorf("promised: %v by %v, %v unknown, %v doubled, want %v", byStatus, byUser, told.Unknown, told.Doubled, want)
	}
}

// Keys that are sent again are of the whole load, and of all loads on the same events.
func TestTold_SamplesAreOfAllBookings(t *testing.T) {
	const visits = 1000
	var told Told
	for range 2 {
		_, one, _ := visitClerk(t, Mix{}, visits, nil)
		late := 0
		for _, s := range one.samples {
			if s.id.Token > visits/2 {
				late++
			}
		}
		if len(one.samples) != keySamplesMax || late < keySamplesMax/4 || late > keySamplesMax*3/4 {
			t.Errorf("%d samples, %d of the second half", len(one.samples), late)
		}
		for i := range one.samples {
			one.samples[i].id.Event += evently.EventID(len(told.Promises)) // tells the loads apart
		}
		told.merge(one)
	}
	first := 0
	for _, s := range told.samples {
		if s.id.Event == theEvent {
			first++
		}
	}
	if len(told.samples) != keySamplesMax || first < keySamplesMax/4 || first > keySamplesMax*3/4 {
		t.Errorf("%d samples of two loads, %d of the first", len(told.samples), first)
	}
}

// What a target answers wrongly is a failure, and what that leaves open is known.
func TestVisitor_BelievesNothing(t *testing.T) {
	other := evently.ReservationID{Event: theEvent + 1, Token: 1}.String()
	booking := func(answer func(c *clerk, number int, key string, w http.ResponseWriter)) func(c *clerk) {
		return func(c *clerk) {
			c.book = func(number int, key string, w http.ResponseWriter) { answer(c, number, key, w) }
		}
	}
	for _, c := range []struct {
		name     string
		mix      Mix
		setUp    func(c *clerk)
		outcomes map[string]int
		unknown  int
		promises []Promise
		doubled  bool
		example  string
	}{
		{
			name: "sold out", outcomes: map[string]int{"refused": 2},
			setUp: booking(func(_ *clerk, _ int, _ string, w http.ResponseWriter) {
				w.WriteHeader(http.StatusConflict)
				fmt.Fprint(w, `{"code":"sold_out","available":0}`)
			}),
		},
		{
			name: "another refusal", outcomes: map[string]int{"failed": 2}, example: `book: 409 {"code":"event_not_on_sale"}`,
			setUp: booking(func(_ *clerk, _ int, _ string, w http.ResponseWriter) {
				w.WriteHeader(http.StatusConflict)
				fmt.Fprint(w, `{"code":"event_not_on_sale"}`)
			}),
		},
		{
			name: "unavailable", outcomes: map[string]int{"failed": 2}, unknown: 2, example: "book: 503",
			setUp: booking(func(_ *clerk, _ int, _ string, w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }),
		},
		{
			name: "another event", outcomes: map[string]int{"failed": 2}, unknown: 2, example: other,
			setUp: booking(func(_ *clerk, _ int, _ string, w http.ResponseWriter) {
				w.WriteHeader(http.StatusCreated)
				fmt.Fprintf(w, `{"id":"%s"}`, other)
			}),
		},
		{
			name: "no reservation", outcomes: map[string]int{"failed": 2}, unknown: 2, example: `book: 201 {"ok":true}`,
			setUp: booking(func(_ *clerk, _ int, _ string, w http.ResponseWriter) {
				w.WriteHeader(http.StatusCreated)
				fmt.Fprint(w, `{"ok":true}`)
			}),
		},
		{
			name: "connection cut", outcomes: map[string]int{"failed": 1, "booked": 1}, unknown: 1, promises: []Promise{{Status: evently.Held}},
			example: "no answer",
			setUp: booking(func(c *clerk, number int, key string, w http.ResponseWriter) {
				if number == 1 {
					panic(http.ErrAbortHandler)
				}
				c.give(w, key, number)
			}),
		},
		{
			name: "replayed at first", outcomes: map[string]int{"failed": 2}, promises: []Promise{{}, {}}, example: "book: 201",
			setUp: booking(func(c *clerk, number int, key string, w http.ResponseWriter) {
				w.Header().Set("Idempotency-Replayed", "true")
				c.give(w, key, number)
			}),
		},
		{
			name: "a key with two reservations", mix: Mix{Retries: 1}, outcomes: map[string]int{"booked": 2, "failed": 2}, doubled: true,
			promises: []Promise{{}, {}, {}, {}}, example: "book: 201",
			setUp: func(c *clerk) {
				c.again = func(w http.ResponseWriter, first string) {
					id, err := evently.ParseReservationID(first)
					if err != nil {
						c.t.Error(err)
					}
					id.Token += 100
					w.WriteHeader(http.StatusCreated)
					fmt.Fprintf(w, `{"id":"%s"}`, id)
				}
			},
		},
		{
			name: "a key that was forgotten", mix: Mix{Retries: 1}, outcomes: map[string]int{"booked": 2, "failed": 2}, promises: []Promise{{}, {}},
			example: "book: 404",
			setUp:   func(c *clerk) { c.again = func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusNotFound) } },
		},
		{
			name: "confirmation refused", mix: Mix{Confirms: 1}, outcomes: map[string]int{"booked": 2, "failed": 2}, promises: []Promise{{}, {}},
			example: "confirm: 410",
			setUp:   func(c *clerk) { c.change = func(w http.ResponseWriter, _, _ string) { w.WriteHeader(http.StatusGone) } },
		},
		{
			name: "confirmation unknown", mix: Mix{Cancels: 1}, outcomes: map[string]int{"booked": 2, "failed": 2},
			promises: []Promise{{Unsure: true}, {Unsure: true}}, example: "confirm: 500",
			setUp: func(c *clerk) {
				c.change = func(w http.ResponseWriter, _, _ string) { w.WriteHeader(http.StatusInternalServerError) }
			},
		},
		{
			name: "cancellation unknown", mix: Mix{Cancels: 1}, outcomes: map[string]int{"booked": 2, "confirmed": 2, "failed": 2},
			promises: []Promise{{Status: evently.Confirmed, Unsure: true}, {Status: evently.Confirmed, Unsure: true}}, example: "cancel: 200",
			setUp: func(c *clerk) {
				c.change = func(w http.ResponseWriter, id, _ string) { fmt.Fprint(w, `{"status":"confirmed"}`) }
			},
		},
		{
			name: "another event is read", mix: Mix{Reads: 1}, outcomes: map[string]int{"failed": 2}, example: "read: 200",
			setUp: func(c *clerk) { c.event = (theEvent + 1).String() },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			round, told, _ := visitClerk(t, c.mix, 2, c.setUp)
			if !reflect.DeepEqual(round.Outcomes, c.outcomes) {
				t.Errorf("outcomes %v, want %v", round.Outcomes, c.outcomes)
			}
			if told.Refused[theEvent] != c.outcomes["refused"] {
				t.Errorf("%v refused, want %d", told.Refused, c.outcomes["refused"])
			}
			if told.Unknown[theEvent] != c.unknown || len(told.Doubled) > 0 != c.doubled {
				t.Errorf("%v unknown, %v doubled, want %d and %v", told.Unknown, told.Doubled, c.unknown, c.doubled)
			}
			var promises []Promise
			for _, p := range told.Promises {
				promises = append(promises, Promise{Status: p.Status, Unsure: p.Unsure})
			}
			if !reflect.DeepEqual(promises, c.promises) {
				t.Errorf("promises %+v, want %+v", promises, c.promises)
			}
			if !strings.Contains(round.Failure, c.example) || c.example == "" && round.Failure != "" {
				t.Errorf("example %q, want %q", round.Failure, c.example)
			}
		})
	}
}

// A ceiling answers everything in the same way.
func TestVisitor_LeavesCeilingsUnchecked(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id":"%s"}`, evently.ReservationID{Event: 1, Token: 1})
	}))
	defer server.Close()
	e, err := ParseEndpoint(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	load := &Load{
		Endpoint: e, Unchecked: true, Events: []evently.EventID{theEvent}, Users: []User{{}}, Connections: 2, Duration: requestTimeout,
		Workload: Workload{Mix: Mix{Reads: 0.3, Retries: 0.1, Confirms: 0.3, Cancels: 0.1}, Capacity: 1, Demand: 200, Counts: CountsAnswered},
	}
	round, told, err := load.Run(t.Context())
	if err != nil || round.Outcomes["failed"] > 0 || len(round.Outcomes) != 5 || len(told.Promises) > 0 {
		t.Errorf("%v %s, %d promises (%v)", round.Outcomes, round.Failure, len(told.Promises), err)
	}
}

func TestLoad_UnreachableTarget(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	e, err := ParseEndpoint(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	load := &Load{Endpoint: e, Events: []evently.EventID{1}, Users: []User{{}}, Connections: 2, Duration: requestTimeout}
	if _, _, err := load.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}
