package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// golden compares JSON after it is laid out, so that a difference is found line by line.
func golden(t testing.TB, got []byte, want string) {
	t.Helper()
	var laidOut bytes.Buffer
	if err := json.Indent(&laidOut, got, "", "  "); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(want), "\n"), strings.Split(laidOut.String(), "\n")); diff != "" {
		t.Errorf("JSON is another (-want +got):\n%s", diff)
	}
}

// twoTiers is an event with two tiers on offer between which a third was retired, 5 seats held and 2 booked.
func twoTiers(t testing.TB, w *site, box *fakeBox) *evently.Event {
	t.Helper()
	gone := seats("Early bird", 0, 900)
	gone.Retired = true
	event := box.add(box.event(1, 9, seats("Floor", 100, 2500), gone, seats("Balcony", 50, 1500)), func(e *evently.Event) {
		e.SalesStartAt = e.CreatedAt.Add(-time.Hour)
		e.Tiers[2].PriceMinor = 1700
	})
	bearer, _ := w.token(t, evently.RoleUser)
	w.book(t, 1, bearer, "k1", `{"items":[{"tier_id":"t1","quantity":3},{"tier_id":"t3","quantity":2}]}`)
	_, r := w.book(t, 1, bearer, "k2", `{"items":[{"tier_id":"t1","quantity":2}]}`)
	if a := w.do(t, "POST", "/reservations/"+r.ID+"/confirm", "", "Authorization", bearer); a.status != 200 {
		t.Fatalf("confirm: %s", a.body)
	}
	return event
}

func TestEventJSON(t *testing.T) {
	w, box := newBoxSite(t)
	event := twoTiers(t, w, box)
	a := w.do(t, "GET", "/events/"+event.ID.String(), "")
	if a.status != 200 || a.header.Get("ETag") != `"1"` {
		t.Fatalf("status %d, ETag %s: %s", a.status, a.header.Get("ETag"), a.body)
	}
	golden(t, a.body, `
{
  "id": "evt_0000000000001",
  "name": "Night of the Proms",
  "description": "Strings \u0026 \u003cbrass\u003e",
  "category": "music",
  "venue": "Hall 1",
  "city": "Köln",
  "timezone": "Europe/Berlin",
  "starts_at": "2027-03-31T12:00:00Z",
  "ends_at": "2027-03-31T15:00:00Z",
  "sales_start_at": "2027-03-01T11:00:00Z",
  "sales_end_at": null,
  "status": "published",
  "capacity": 150,
  "available": 143,
  "tiers": [
    {
      "id": "t1",
      "name": "Floor",
      "capacity": 100,
      "available": 95,
      "base_price_minor": 2500,
      "price_minor": 2500
    },
    {
      "id": "t3",
      "name": "Balcony",
      "capacity": 50,
      "available": 48,
      "base_price_minor": 1500,
      "price_minor": 1700
    }
  ],
  "currency": "EUR",
  "hold_ttl_seconds": 600,
  "max_per_booking": 10,
  "max_per_user": null,
  "version": 1,
  "seq": 4
}`)
}

func TestAvailabilityJSON(t *testing.T) {
	w, box := newBoxSite(t)
	event := twoTiers(t, w, box)
	w.clock.add(1500*time.Microsecond + time.Minute)
	golden(t, w.do(t, "GET", "/events/"+event.ID.String()+"/availability", "").body, `
{
  "event_id": "evt_0000000000001",
  "seq": 4,
  "capacity": 150,
  "available": 143,
  "held": 5,
  "booked": 2,
  "waitlisted": 0,
  "tiers": [
    {
      "id": "t1",
      "capacity": 100,
      "available": 95,
      "held": 3,
      "booked": 2
    },
    {
      "id": "t3",
      "capacity": 50,
      "available": 48,
      "held": 2,
      "booked": 0
    }
  ],
  "as_of": "2027-03-01T12:01:00.001Z"
}`)
}

func TestEvent_DraftIsNotThereAndCancelledIs(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 5, 1)), func(e *evently.Event) { e.Status = evently.EventDraft })
	box.add(box.event(2, 9, seats("Floor", 5, 1)), func(e *evently.Event) { e.Status = evently.EventCancelled })
	for _, path := range []string{"/events/%s", "/events/%s/availability"} {
		for _, id := range []string{evently.EventID(1).String(), evently.EventID(3).String(), "evt_1", "EVT_0000000000002"} {
			w.do(t, "GET", fmt.Sprintf(path, id), "").problem(t, evently.CodeEventNotFound)
		}
		if a := w.do(t, "GET", fmt.Sprintf(path, evently.EventID(2).String()), ""); a.status != 200 {
			t.Errorf("cancelled event: status %d: %s", a.status, a.body)
		}
	}
	if a := w.do(t, "GET", "/events/"+evently.EventID(2).String(), ""); !bytes.Contains(a.body, []byte(`"status":"cancelled"`)) {
		t.Errorf("cancelled event: %s", a.body)
	}
}

func TestMatchTag(t *testing.T) {
	for _, test := range []struct {
		header                   []string
		strong, weak, wellFormed bool
	}{
		{nil, false, false, true},
		{[]string{`"3"`}, true, true, true},
		{[]string{`W/"3"`}, false, true, true},
		{[]string{`*`}, true, true, true},
		{[]string{` * `}, true, true, true},
		{[]string{`"2"`}, false, false, true},
		{[]string{`"2", "3"`}, true, true, true},
		{[]string{`"2" ,W/"3"`}, false, true, true},
		{[]string{`"2"`, `"3"`}, true, true, true},
		{[]string{`"2",, "3",`}, true, true, true},
		{[]string{`"a,b", "3"`}, true, true, true},
		{[]string{`, "3"`}, true, true, true},
		{[]string{` ,,"2",`, `"3"`}, true, true, true},
		{[]string{`""`}, false, false, true},
		{[]string{`3`}, false, false, false},
		{[]string{`"3`}, false, false, false},
		{[]string{`3"`}, false, false, false},
		{[]string{`"`}, false, false, false},
		{[]string{`W/`}, false, false, false},
		{[]string{`w/"3"`}, false, false, false},
		{[]string{`W/ "3"`}, false, false, false},
		{[]string{`"3" "3"`}, false, false, false},
		{[]string{`"3", x`}, false, false, false},
		{[]string{`"3", *`}, false, false, false},
		{[]string{`"3 "`}, false, false, false},
	} {
		strong, strongOK := matchTag(test.header, `"3"`, false)
		weak, weakOK := matchTag(test.header, `"3"`, true)
		if strong != test.strong || weak != test.weak || strongOK != test.wellFormed || weakOK != test.wellFormed {
			t.Errorf("%q: got strong %t, weak %t, well formed %t and %t; want %+v", test.header, strong, weak, strongOK, weakOK, test)
		}
	}
}

func TestEvent_NotModified(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 5, 1)), func(e *evently.Event) { e.Version = 3 })
	path := "/events/" + evently.EventID(1).String()
	for tag, want := range map[string]int{`"3"`: 304, `W/"3"`: 304, `*`: 304, `"2"`: 200, `3`: 200} {
		a := w.do(t, "GET", path, "", "If-None-Match", tag)
		if a.status != want || a.header.Get("ETag") != `"3"` || (len(a.body) == 0) != (want == 304) {
			t.Errorf("If-None-Match %s: status %d, ETag %s, body %s; want %d", tag, a.status, a.header.Get("ETag"), a.body, want)
		}
	}
	if a := w.do(t, "HEAD", path, ""); a.status != 200 || len(a.body) > 0 || a.header.Get("ETag") != `"3"` {
		t.Errorf("HEAD: status %d, header %v, body %s", a.status, a.header, a.body)
	}
}

func TestEvents_FiltersAreHandedOn(t *testing.T) {
	published := []evently.EventStatus{evently.EventPublished}
	now := newFakeClock().Now()
	for query, want := range map[string]evently.EventFilter{
		"":                                     {From: now, Statuses: published},
		"sort=starts_at":                       {From: now, Statuses: published},
		"sort=popularity":                      {From: now, Statuses: published, Sort: evently.ByPopularity},
		"q=+Proms%20Night+":                    {From: now, Statuses: published, Text: "proms night"},
		"category=Music&city=K%C3%96LN":        {From: now, Statuses: published, Category: "music", City: "köln"},
		"from=2027-05-01T02:00:00%2B02:00":     {From: time.Date(2027, 5, 1, 0, 0, 0, 0, time.UTC), Statuses: published},
		"to=2027-05-01T00:00:00Z&status=draft": {From: now, To: time.Date(2027, 5, 1, 0, 0, 0, 0, time.UTC), Statuses: published},
	} {
		w, box := newBoxSite(t)
		if a := w.do(t, "GET", "/events?"+query, ""); a.status != 200 || string(a.body) != `{"data":[],"next_cursor":null}` {
			t.Fatalf("%q: status %d: %s", query, a.status, a.body)
		}
		if diff := cmp.Diff([]evently.EventFilter{want}, box.filters); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
		if diff := cmp.Diff([]evently.Page{{Limit: pageLimitDefault}}, box.pages); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
}

func TestEvents_EveryBadParameterIsNamed(t *testing.T) {
	w, _ := newBoxSite(t)
	query := url.Values{
		"q": {strings.Repeat("x", queryRunesMax+1)}, "category": {"\xff"}, "city": {"a\x00b"}, "from": {"2027-05-01"}, "to": {"soon"},
		"sort": {"price"}, "limit": {"101"}, "cursor": {"?"},
	}
	p := w.do(t, "GET", "/events?"+query.Encode(), "").problem(t, evently.CodeInvalidRequest)
	named := make(map[string]bool)
	for _, field := range p.Errors {
		named[field.Field] = true
	}
	for name := range query {
		if !named[name] {
			t.Errorf("%s is not named: %+v", name, p.Errors)
		}
	}
}

type eventListBody struct {
	Data []struct {
		ID        string `json:"id"`
		Available int    `json:"available"`
	} `json:"data"`
	NextCursor *string `json:"next_cursor"`
}

func (b *eventListBody) ids() (ids []string) {
	for _, event := range b.Data {
		ids = append(ids, event.ID)
	}
	return ids
}

func TestEvents_PagesHoldEveryEventOnce(t *testing.T) {
	w, box := newBoxSite(t)
	var want []string
	for id := range evently.EventID(7) {
		box.add(box.event(id+1, 9, seats("Floor", 5, 1)), nil)
		want = append(want, (id + 1).String())
	}
	box.add(box.event(8, 9, seats("Floor", 5, 1)), func(e *evently.Event) { e.Status = evently.EventDraft })
	box.add(box.event(9, 9, seats("Floor", 5, 1)), func(e *evently.Event) { e.StartsAt = w.clock.Now().Add(-time.Hour) })
	var got []string
	for cursor := ""; ; {
		var page eventListBody
		w.do(t, "GET", "/events?limit=3"+cursor, "").decode(t, &page)
		got = append(got, page.ids()...)
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEvents_ShowTheNewestSeatsThisNodeKnows(t *testing.T) {
	w, box := newBoxSite(t)
	box.observer = w.server
	for id := evently.EventID(1); id <= 7; id++ {
		box.add(box.event(id, 9, seats("Floor", 100, 1)), nil)
	}
	bearer, _ := w.token(t, evently.RoleUser)
	buy := func(id evently.EventID, key string, quantity int) {
		_, r := w.book(t, id, bearer, key, fmt.Sprintf(`{"items":[{"tier_id":"t1","quantity":%d}]}`, quantity))
		if a := w.do(t, "POST", "/reservations/"+r.ID+"/confirm", "", "Authorization", bearer); a.status != 200 {
			t.Fatalf("confirm: %s", a.body)
		}
	}
	for id := evently.EventID(1); id <= 7; id++ {
		buy(id, "k1", int(id))
	}
	var popular, list eventListBody
	w.do(t, "GET", "/events/popular", "").decode(t, &popular)
	w.do(t, "GET", "/events", "").decode(t, &list)
	if want, got := []string{id(7), id(6), id(5), id(4), id(3)}, popular.ids(); !cmp.Equal(want, got) {
		t.Errorf("popular: got %v, want %v", got, want)
	}

	buy(3, "k2", 10)
	w.do(t, "GET", "/events/popular", "").decode(t, &popular)
	w.do(t, "GET", "/events", "").decode(t, &list)
	if want, got := []string{id(3), id(7), id(6), id(5), id(4)}, popular.ids(); !cmp.Equal(want, got) {
		t.Errorf("popular: got %v, want %v", got, want)
	}
	if got := list.Data[2].Available; got != 87 {
		t.Errorf("%s has %d seats available in the list, want 87", list.Data[2].ID, got)
	}
	if len(box.filters) != 2 || box.reads != 0 {
		t.Errorf("%d lists and %d states were read, want 2 and 0", len(box.filters), box.reads)
	}
	if got := box.filters[0]; got.Sort != evently.ByPopularity || box.pages[0].Limit != popularEvents {
		t.Errorf("popular asked for %+v of %+v", box.pages[0], got)
	}
}

func id(n uint64) string { return evently.EventID(n).String() }

func TestEvents_HitsCostNoQuery(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 1)), nil)
	read := func() {
		for _, path := range []string{
			"/events", "/events?limit=50&sort=starts_at&q=+", "/events/" + id(1), "/events/" + id(1) + "/availability", "/events/" + id(2),
		} {
			w.do(t, "GET", path, "")
		}
	}
	for range 5 {
		read()
	}
	// The list brought the state of event 1 along; event 2 is not there.
	if len(box.filters) != 1 || box.reads != 1 {
		t.Errorf("%d lists and %d states were read, want 1 and 1", len(box.filters), box.reads)
	}
	w.clock.add(cacheTTL)
	read()
	if len(box.filters) != 2 || box.reads != 2 {
		t.Errorf("a second later %d lists and %d states were read, want 2 and 2", len(box.filters), box.reads)
	}
}

func TestEvents_AreServedWhileTheDatabaseIsAway(t *testing.T) {
	w, box := newBoxSite(t)
	box.add(box.event(1, 9, seats("Floor", 100, 1)), nil)
	paths := []string{"/events", "/events/popular", "/events/" + id(1), "/events/" + id(1) + "/availability"}
	before := make(map[string][]byte)
	for _, path := range paths {
		before[path] = w.do(t, "GET", path, "").body
	}
	box.failWith(evently.ErrUnavailable)
	w.clock.add(time.Hour)
	for _, path := range paths {
		if a := w.do(t, "GET", path, ""); a.status != 200 || !bytes.Equal(a.body, before[path]) {
			t.Errorf("%s: status %d: %s, before %s", path, a.status, a.body, before[path])
		}
	}
	if !bytes.Contains(before[paths[3]], []byte(`"as_of":"2027-03-01T12:00:00Z"`)) {
		t.Errorf("availability does not tell its age: %s", before[paths[3]])
	}
	w.do(t, "GET", "/events/"+id(2), "").problem(t, evently.CodeUnavailable)
	w.do(t, "GET", "/events?city=Bonn", "").problem(t, evently.CodeUnavailable)
}

// BenchmarkEvents is the whole chain of public reads that the caches answer, without the network.
func BenchmarkEvents(b *testing.B) {
	w, box := newBoxSite(b)
	for n := range evently.EventID(50) {
		box.add(box.event(n+1, 9, seats("Floor", 100, 2500), seats("Balcony", 50, 1500)), nil)
	}
	for name, path := range map[string]string{
		"detail": "/events/" + id(1), "availability": "/events/" + id(1) + "/availability", "list of 50": "/events", "popular": "/events/popular",
	} {
		b.Run(name, func(b *testing.B) {
			request, err := http.NewRequestWithContext(b.Context(), "GET", path, nil)
			if err != nil {
				b.Fatal(err)
			}
			writer, handler := &nowhere{make(http.Header)}, w.server.Handler()
			b.ReportAllocs()
			for b.Loop() {
				clear(writer.header)
				handler.ServeHTTP(writer, request)
			}
		})
	}
}
