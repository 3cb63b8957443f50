package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// newEventBody is a body that makes an event of one tier, with changes: fields to set, or to leave out when nil.
func newEventBody(t testing.TB, changes map[string]any) string {
	t.Helper()
	body := map[string]any{
		"name": " Night of the Proms ", "starts_at": "2027-05-01T20:00:00+02:00", "ends_at": "2027-05-01T23:00:00+02:00",
		"timezone": "Europe/Berlin", "currency": "EUR", "capacity": 100, "base_price_minor": 2500,
	}
	maps.Copy(body, changes)
	maps.DeleteFunc(body, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tiers changes a body to have tiers instead of a capacity.
func tiers(tiers ...map[string]any) map[string]any {
	return map[string]any{"capacity": nil, "tiers": append([]map[string]any{}, tiers...)}
}

// with returns an object with one more field.
func with(object map[string]any, name string, value any) map[string]any {
	object = maps.Clone(object)
	object[name] = value
	return object
}

func TestCreateEvent(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	a := w.do(t, "POST", "/admin/events", newEventBody(t, nil), "Authorization", bearer)
	var got eventJSON
	a.decode(t, &got)
	if a.status != 201 || a.header.Get("ETag") != `"1"` || a.header.Get("Location") != "/events/"+got.ID {
		t.Fatalf("status %d, header %v: %s", a.status, a.header, a.body)
	}
	start := time.Date(2027, time.May, 1, 18, 0, 0, 0, time.UTC)
	want := eventJSON{
		ID: got.ID, Name: "Night of the Proms", Timezone: "Europe/Berlin", StartsAt: start, EndsAt: start.Add(3 * time.Hour),
		Status: "published", Capacity: 100, Available: 100, Currency: "EUR", HoldTTL: 600, MaxPerBooking: 10, Version: 1, Seq: 1,
		Tiers: []tierJSON{{ID: "t1", Name: tierNameDefault, Capacity: 100, Available: 100, BasePriceMinor: 2500, PriceMinor: 2500}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	parsed, err := evently.ParseEventID(got.ID)
	if err != nil {
		t.Fatal(err)
	}
	if event := box.ledgers[parsed].Event(); event.Organizer != who.User || !event.CreatedAt.Equal(w.clock.Now()) {
		t.Errorf("stored %+v", event)
	}
	if public := w.do(t, "GET", a.header.Get("Location"), ""); !bytes.Equal(public.body, a.body) {
		t.Errorf("GET %s: %s", a.header.Get("Location"), public.body)
	}
}

func TestCreateEvent_EveryOptionIsKept(t *testing.T) {
	w, _ := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	a := w.do(t, "POST", "/admin/events", newEventBody(t, map[string]any{
		"description": "Strings", "category": "music", "venue": "Hall 1", "city": "Berlin", "status": "draft",
		"sales_start_at": "2027-04-01T00:00:00Z", "sales_end_at": "2027-05-01T00:00:00.1239Z", "hold_ttl_seconds": 90, "max_per_booking": 4,
		"capacity": nil, "base_price_minor": 700,
		"tiers": []any{
			map[string]any{"name": "Floor", "capacity": 10, "base_price_minor": 900}, map[string]any{"name": "Balcony", "capacity": 5},
		},
	}), "Authorization", bearer)
	var got eventJSON
	a.decode(t, &got)
	start, end := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 5, 1, 0, 0, 0, 123e6, time.UTC)
	want := eventJSON{
		ID: got.ID, Name: "Night of the Proms", Description: "Strings", Category: "music", Venue: "Hall 1", City: "Berlin",
		Timezone: "Europe/Berlin", StartsAt: end.Add(18*time.Hour - 123e6), EndsAt: end.Add(21*time.Hour - 123e6),
		SalesStartAt: &start, SalesEndAt: &end, Status: "draft", Capacity: 15, Available: 15, Currency: "EUR", HoldTTL: 90, MaxPerBooking: 4,
		Version: 1, Seq: 1, Tiers: []tierJSON{
			{ID: "t1", Name: "Floor", Capacity: 10, Available: 10, BasePriceMinor: 900, PriceMinor: 900},
			{ID: "t2", Name: "Balcony", Capacity: 5, Available: 5, BasePriceMinor: 700, PriceMinor: 700},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCreateEvent_LocationOfADraftIsWhereItCanBeRead(t *testing.T) {
	w, _ := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	a := w.do(t, "POST", "/admin/events", newEventBody(t, map[string]any{"status": "draft"}), "Authorization", bearer)
	if read := w.do(t, "GET", a.header.Get("Location"), "", "Authorization", bearer); read.status != 200 || !bytes.Equal(read.body, a.body) {
		t.Errorf("GET %s: %d %s", a.header.Get("Location"), read.status, read.body)
	}
}

// When the answer is no longer stored, the id is what tells the same request from another one with the same key.
func TestCreateEvent_KeyWhoseAnswerIsGone(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	create := func(name string) *answer {
		clear(w.answers.stored)
		return w.do(t, "POST", "/admin/events", newEventBody(t, map[string]any{"name": name}), "Authorization", bearer, "Idempotency-Key", "k")
	}
	first, again, other := create("One"), create("One"), create("Two")
	if first.status != 201 || !bytes.Equal(again.body, first.body) {
		t.Errorf("got %s after %s", again.body, first.body)
	}
	var got eventJSON
	if other.decode(t, &got); got.Name != "Two" || len(box.ledgers) != 2 {
		t.Errorf("another body made %s; there are %d events", other.body, len(box.ledgers))
	}
}

func TestCreateEvent_EveryWrongFieldIsNamed(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	tier := func(name string, capacity any) map[string]any {
		return map[string]any{"name": name, "capacity": capacity}
	}
	for name, test := range map[string]struct {
		changes map[string]any
		want    []string
	}{
		"nothing given": {map[string]any{
			"name": nil, "starts_at": nil, "ends_at": nil, "timezone": nil, "currency": nil, "capacity": nil, "base_price_minor": nil,
		}, []string{"name", "starts_at", "ends_at", "timezone", "currency", "capacity"}},
		"all wrong": {map[string]any{
			"name": strings.Repeat("x", 201), "description": strings.Repeat("x", 10_001), "category": strings.Repeat("x", 201), "venue": "a\x00",
			"city": strings.Repeat("x", 201), "timezone": "Mars/Olympus", "currency": "euro", "starts_at": "2027-05-01T20:00:00Z",
			"ends_at": "2027-05-01T19:00:00Z", "sales_start_at": "2027-04-02T00:00:00Z", "sales_end_at": "2027-04-01T00:00:00Z",
			"hold_ttl_seconds": 0, "max_per_booking": 0, "capacity": -1, "base_price_minor": -1, "status": "cancelled",
		}, []string{
			"name", "description", "category", "venue", "city", "timezone", "currency", "ends_at", "sales_end_at", "hold_ttl_seconds",
			"max_per_booking", "capacity", "base_price_minor", "status",
		}},
		"types": {
			map[string]any{"name": 1, "starts_at": "soon", "capacity": "many", "tiers": 1}, []string{"name", "starts_at", "capacity", "tiers"},
		},
		"over the bounds": {
			map[string]any{"hold_ttl_seconds": int64(1) << 62, "max_per_booking": 1001, "capacity": 10_000_001},
			[]string{"hold_ttl_seconds", "max_per_booking", "capacity"},
		},
		"past":               {map[string]any{"starts_at": "2027-03-01T12:00:00Z"}, []string{"starts_at"}},
		"no price":           {map[string]any{"base_price_minor": nil}, []string{"base_price_minor"}},
		"capacity and tiers": {map[string]any{"tiers": []any{tier("Floor", 5)}}, []string{"capacity"}},
		"no seats":           {map[string]any{"capacity": 0}, []string{"capacity"}},
		"no tiers":           {tiers(), []string{"tiers", "capacity"}},
		"tiers":              {tiers(tier("", 5), tier("Floor", -1)), []string{"tiers[0].name", "tiers[1].capacity"}},
		"tier without": {
			with(tiers(tier("Floor", nil)), "base_price_minor", nil), []string{"tiers[0].capacity", "tiers[0].base_price_minor"},
		},
		"tier with an id":     {tiers(with(tier("Floor", 5), "id", "t1")), []string{"tiers[0].id"}},
		"unknown fields":      {with(tiers(with(tier("Floor", 5), "x", 1)), "organizer", "me"), []string{"organizer", "tiers[0].x"}},
		"read-only tier data": {tiers(with(tier("Floor", 5), "price_minor", 1)), []string{"tiers[0].price_minor"}},
	} {
		a := w.do(t, "POST", "/admin/events", newEventBody(t, test.changes), "Authorization", bearer)
		p := a.problem(t, evently.CodeInvalidRequest)
		var got []string
		for _, field := range p.Errors {
			got = append(got, field.Field)
		}
		slices.Sort(got)
		slices.Sort(test.want)
		if diff := cmp.Diff(test.want, slices.Compact(got)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s\n%s", name, diff, a.body)
		}
	}
	if len(box.ledgers) != 0 {
		t.Errorf("refused requests left events: %v", box.ledgers)
	}
}

// A crash between the event and the answer that is stored for its key leaves the event, and no answer.
func TestCreateEvent_RepeatedAfterACrashHasOneEffect(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	create := func(key string) *answer {
		return w.do(t, "POST", "/admin/events", newEventBody(t, nil), "Authorization", bearer, "Idempotency-Key", key)
	}
	w.answers.failStore = errors.New("crash")
	create("k1").problem(t, evently.CodeInternal)
	w.answers.failStore = nil
	again := create("k1")
	if again.status != 201 || len(box.ledgers) != 1 {
		t.Fatalf("status %d, %d events: %s", again.status, len(box.ledgers), again.body)
	}
	third := create("k1")
	if !bytes.Equal(third.body, again.body) || third.header.Get("Idempotency-Replayed") != "true" ||
		third.header.Get("ETag") != `"1"` || third.header.Get("Location") != again.header.Get("Location") {
		t.Errorf("replay: %v %s, want %s", third.header, third.body, again.body)
	}
	if a := create("k2"); a.status != 201 || len(box.ledgers) != 2 {
		t.Errorf("another key: status %d, %d events", a.status, len(box.ledgers))
	}
}

// put revises event 1 against a version.
func (w *site) put(t testing.TB, bearer string, version int, body string) *answer {
	t.Helper()
	return w.do(t, "PUT", "/admin/events/"+id(1), body, "Authorization", bearer, "If-Match", fmt.Sprintf(`"%d"`, version))
}

func TestReviseEvent_TiersKeepTheirPlaces(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500), seats("Balcony", 50, 1500), seats("Box", 4, 9000)), func(e *evently.Event) {
		e.Tiers[0].PriceMinor, e.Tiers[2].PriceMinor = 2750, 9900 // prices have moved on from their base
	})
	a := w.put(t, bearer, 1, newEventBody(t, map[string]any{"name": "Other", "capacity": nil, "base_price_minor": nil, "tiers": []any{
		map[string]any{"id": "t3", "name": "Box seats", "capacity": 6, "base_price_minor": 8000},
		map[string]any{"name": "Standing", "capacity": 300, "base_price_minor": 500},
		map[string]any{"id": "t1", "name": "Floor", "capacity": 120, "base_price_minor": 2500},
	}}))
	var got eventJSON
	a.decode(t, &got)
	if a.status != 200 || a.header.Get("ETag") != `"2"` || got.Name != "Other" || got.Version != 2 {
		t.Fatalf("status %d, ETag %s: %s", a.status, a.header.Get("ETag"), a.body)
	}
	want := []evently.Tier{
		{Name: "Floor", Capacity: 120, BasePriceMinor: 2500, PriceMinor: 2750},
		{Name: "Balcony", BasePriceMinor: 1500, PriceMinor: 1500, Retired: true},
		{Name: "Box seats", Capacity: 6, BasePriceMinor: 8000, PriceMinor: 8000},
		{Name: "Standing", Capacity: 300, BasePriceMinor: 500, PriceMinor: 500},
	}
	if diff := cmp.Diff(want, box.ledgers[1].Event().Tiers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A tier that was retired may come back.
	a = w.put(t, bearer, 2, newEventBody(t, map[string]any{"capacity": nil, "base_price_minor": nil, "tiers": []any{
		map[string]any{"id": "t2", "name": "Balcony", "capacity": 10, "base_price_minor": 1500},
	}}))
	if a.status != 200 {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	for i, tier := range box.ledgers[1].Event().Tiers {
		if tier.Retired != (i != 1) {
			t.Errorf("tier %s: %+v", evently.TierID(i), tier)
		}
	}
	// With one tier left, capacity is its.
	if a = w.put(t, bearer, 3, newEventBody(t, map[string]any{"capacity": 12})); a.status != 200 {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	want = []evently.Tier{{Name: "Balcony", Capacity: 12, BasePriceMinor: 2500, PriceMinor: 2500}}
	if diff := cmp.Diff(want, box.ledgers[1].Event().Tiers[1:2]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReviseEvent_Refusals(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500), seats("Balcony", 50, 1500)), nil)
	buyer, _ := w.token(t, evently.RoleUser)
	w.book(t, 1, buyer, "k", `{"items":[{"tier_id":"t1","quantity":3},{"tier_id":"t2","quantity":2}]}`)
	floor := map[string]any{"id": "t1", "name": "Floor", "capacity": 100}
	balcony := map[string]any{"id": "t2", "name": "Balcony", "capacity": 50}
	small := map[string]any{"id": "t1", "name": "Floor", "capacity": 2}
	for name, test := range map[string]struct {
		changes map[string]any
		code    evently.Code
		field   string
	}{
		"below sold":                {tiers(balcony, small), evently.CodeCapacityBelowSold, "tiers[1].capacity"},
		"sold tier left out":        {tiers(floor), evently.CodeCapacityBelowSold, "tiers"},
		"capacity of several tiers": {nil, evently.CodeInvalidRequest, "tiers"},
		"tier twice":                {tiers(floor, floor, balcony), evently.CodeInvalidRequest, "tiers[1].id"},
		"no such tier":              {tiers(floor, balcony, with(floor, "id", "t3")), evently.CodeInvalidRequest, "tiers[2].id"},
		"no tier id at all":         {tiers(floor, balcony, with(floor, "id", "x")), evently.CodeInvalidRequest, "tiers[2].id"},
		"another currency":          {with(tiers(floor, balcony), "currency", "USD"), evently.CodeInvalidRequest, "currency"},
		"into the past":             {with(tiers(floor, balcony), "starts_at", "2027-02-01T00:00:00Z"), evently.CodeInvalidRequest, "starts_at"},
		"another status":            {with(tiers(floor, balcony), "status", "draft"), evently.CodeInvalidRequest, "status"},
		"wrong name of known tier":  {tiers(balcony, with(floor, "name", "")), evently.CodeInvalidRequest, "tiers[1].name"},
	} {
		a := w.put(t, bearer, 1, newEventBody(t, test.changes))
		if p := a.problem(t, test.code); len(p.Errors) != 1 || p.Errors[0].Field != test.field {
			t.Errorf("%s: want one error of field %s: %s", name, test.field, a.body)
		}
	}
	if a := w.put(t, bearer, 1, newEventBody(t, with(tiers(floor, balcony), "status", "published"))); a.status != 200 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

func TestReviseEvent_OfOneTierNamesCapacity(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500)), nil)
	buyer, _ := w.token(t, evently.RoleUser)
	w.book(t, 1, buyer, "k", `{"quantity":3}`)
	a := w.put(t, bearer, 1, newEventBody(t, map[string]any{"capacity": 2}))
	if p := a.problem(t, evently.CodeCapacityBelowSold); len(p.Errors) != 1 || p.Errors[0].Field != "capacity" {
		t.Errorf("got %s", a.body)
	}
}

// An event that has begun can still be described better.
func TestReviseEvent_AfterItsStart(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500)), func(e *evently.Event) {
		e.StartsAt = w.clock.Now().Add(-time.Hour)
	})
	a := w.put(t, bearer, 1, newEventBody(t, map[string]any{
		"starts_at": w.clock.Now().Add(-time.Hour).Format(time.RFC3339), "description": "Now in hall 2",
	}))
	if a.status != 200 || !bytes.Contains(a.body, []byte("hall 2")) {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

func TestReviseEvent_IfMatch(t *testing.T) {
	for _, test := range []struct {
		name   string
		header []string
		code   evently.Code // "": 200
	}{
		{"the version", []string{"If-Match", `"3"`}, ""},
		{"any", []string{"If-Match", `*`}, ""},
		{"one of several", []string{"If-Match", `"1"`, "If-Match", `"3"`}, ""},
		{"absent", nil, evently.CodeVersionRequired},
		{"stale", []string{"If-Match", `"2"`}, evently.CodeVersionStale},
		{"from the future", []string{"If-Match", `"4"`}, evently.CodeVersionStale},
		{"weak", []string{"If-Match", `W/"3"`}, evently.CodeVersionStale},
		{"another spelling", []string{"If-Match", `"03"`}, evently.CodeVersionStale},
		{"malformed", []string{"If-Match", `3`}, evently.CodeInvalidRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, box := newBoxSite(t)
			bearer, who := w.token(t, evently.RoleOrganizer)
			box.add(box.event(1, who.User, seats("Floor", 100, 2500)), func(e *evently.Event) { e.Version = 3 })
			a := w.do(t, "PUT", "/admin/events/"+id(1), newEventBody(t, nil), append(test.header, "Authorization", bearer)...)
			if test.code != "" {
				a.problem(t, test.code)
			} else if a.status != 200 || a.header.Get("ETag") != `"4"` {
				t.Errorf("status %d, ETag %s: %s", a.status, a.header.Get("ETag"), a.body)
			}
		})
	}
}

// The change that a client bases its own on may have been made through another node.
func TestReviseEvent_VersionFromAnotherNode(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500)), nil)
	w.do(t, "GET", "/events/"+id(1), "") // now version 1 is cached
	details := box.ledgers[1].Event().EventDetails
	if _, err := box.Do(t.Context(), &evently.Request{Event: 1, Command: &evently.Revise{Version: 1, Details: details}}); err != nil {
		t.Fatal(err)
	}
	if a := w.put(t, bearer, 2, newEventBody(t, nil)); a.status != 200 || a.header.Get("ETag") != `"3"` {
		t.Errorf("status %d, ETag %s: %s", a.status, a.header.Get("ETag"), a.body)
	}
	// And the other way round: what is cached matches, and the ledger knows better.
	w.do(t, "GET", "/events/"+id(1), "")
	if _, err := box.Do(t.Context(), &evently.Request{Event: 1, Command: &evently.Revise{Version: 3, Details: details}}); err != nil {
		t.Fatal(err)
	}
	w.put(t, bearer, 3, newEventBody(t, nil)).problem(t, evently.CodeVersionStale)
	if a := w.do(t, "GET", "/events/"+id(1), ""); a.header.Get("ETag") != `"4"` {
		t.Errorf("after the refusal ETag %s, want that of version 4", a.header.Get("ETag"))
	}
}

// The change is made, and what is known here is older: to show that as the answer would be wrong.
func TestReviseEvent_DatabaseGoesAwayAfterTheChange(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500)), nil)
	w.do(t, "GET", "/events/"+id(1), "") // now version 1 is known
	box.failNext = evently.ErrUnavailable
	w.put(t, bearer, 1, newEventBody(t, nil)).problem(t, evently.CodeUnavailable)
	box.failNext = nil
	box.failWith(nil)
	w.clock.add(cacheTTL)
	if a := w.do(t, "GET", "/events/"+id(1), ""); a.header.Get("ETag") != `"2"` {
		t.Errorf("after the database is back: ETag %s: %s", a.header.Get("ETag"), a.body)
	}
}

func TestEventLife(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	for id := range evently.EventID(2) {
		box.add(box.event(id+1, who.User, seats("Floor", 100, 2500)), func(e *evently.Event) { e.Status = evently.EventDraft })
	}
	ask := func(method, path string) *answer {
		return w.do(t, method, fmt.Sprintf(path, id(1)), "", "Authorization", bearer)
	}
	ask("GET", "/events/%s").problem(t, evently.CodeEventNotFound)
	if a := ask("GET", "/admin/events/%s"); a.status != 200 || a.header.Get("ETag") != `"1"` {
		t.Errorf("own draft: status %d: %s", a.status, a.body)
	}
	for range 2 {
		if a := ask("POST", "/admin/events/%s/publish"); a.status != 200 || a.header.Get("ETag") != `"2"` ||
			!bytes.Contains(a.body, []byte(`"status":"published"`)) {
			t.Errorf("publish: status %d: %s", a.status, a.body)
		}
	}
	if request := box.lastRequest(t); request.Who != who.User || request.ID == "" {
		t.Errorf("the engine was asked %+v", request)
	}
	if a := ask("GET", "/events/%s"); a.status != 200 {
		t.Errorf("published: status %d: %s", a.status, a.body)
	}
	ask("DELETE", "/admin/events/%s").problem(t, evently.CodeEventNotDraft)
	buyer, _ := w.token(t, evently.RoleUser)
	_, r := w.book(t, 1, buyer, "k", `{"quantity":3}`)
	for range 2 {
		if a := ask("POST", "/admin/events/%s/cancel"); a.status != 200 || a.header.Get("ETag") != `"3"` ||
			!bytes.Contains(a.body, []byte(`"status":"cancelled"`)) || !bytes.Contains(a.body, []byte(`"available":100`)) {
			t.Errorf("cancel: status %d: %s", a.status, a.body)
		}
	}
	if a := w.do(t, "GET", "/reservations/"+r.ID, "", "Authorization", buyer); !bytes.Contains(a.body, []byte(`"status":"cancelled"`)) {
		t.Errorf("reservation of a cancelled event: %s", a.body)
	}
	ask("POST", "/admin/events/%s/publish").problem(t, evently.CodeEventCancelled)

	if a := w.do(t, "DELETE", "/admin/events/"+id(2), "", "Authorization", bearer); a.status != 204 {
		t.Errorf("delete: status %d: %s", a.status, a.body)
	}
	w.do(t, "DELETE", "/admin/events/"+id(2), "", "Authorization", bearer).problem(t, evently.CodeEventNotFound)
}

func TestAdminEvents_OrganizersSeeTheirOwn(t *testing.T) {
	w, box := newBoxSite(t)
	own, who := w.token(t, evently.RoleOrganizer)
	other, _ := w.token(t, evently.RoleOrganizer)
	adminBearer, _ := w.token(t, evently.RoleAdmin)
	user, _ := w.token(t, evently.RoleUser)
	box.add(box.event(1, who.User, seats("Floor", 100, 2500)), func(e *evently.Event) { e.Status = evently.EventDraft })
	box.add(box.event(2, 9, seats("Floor", 100, 2500)), nil)

	routes := map[string]string{
		"GET /admin/events/%s": "", "PUT /admin/events/%s": newEventBody(t, nil), "GET /admin/events/%s/bookings": "",
		"POST /admin/events/%s/publish": "", "POST /admin/events/%s/cancel": "", "DELETE /admin/events/%s": "",
	}
	for request, body := range routes {
		method, path, _ := strings.Cut(fmt.Sprintf(request, id(1)), " ")
		w.do(t, method, path, body, "Authorization", other, "If-Match", `"1"`).problem(t, evently.CodeEventNotFound)
		w.do(t, method, path, body, "Authorization", user, "If-Match", `"1"`).problem(t, evently.CodeForbidden)
		w.do(t, method, path, body, "If-Match", `"1"`).problem(t, evently.CodeUnauthenticated)
		method, path, _ = strings.Cut(fmt.Sprintf(request, id(3)), " ")
		w.do(t, method, path, body, "Authorization", adminBearer, "If-Match", `"1"`).problem(t, evently.CodeEventNotFound)
	}
	for _, path := range []string{"/admin/events", "/admin/events/capacity_utilization"} {
		w.do(t, "GET", path, "", "Authorization", user).problem(t, evently.CodeForbidden)
	}
	for bearer, want := range map[string][]string{own: {id(1)}, other: nil, adminBearer: {id(1), id(2)}} {
		var list eventListBody
		w.do(t, "GET", "/admin/events", "", "Authorization", bearer).decode(t, &list)
		if got := list.ids(); !cmp.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	var list eventListBody
	w.do(t, "GET", "/admin/events?status=draft,cancelled", "", "Authorization", adminBearer).decode(t, &list)
	if got, want := list.ids(), []string{id(1)}; !cmp.Equal(got, want) {
		t.Errorf("by status: got %v, want %v", got, want)
	}
	w.do(t, "GET", "/admin/events?status=gone", "", "Authorization", own).field(t, "status")
	if a := w.do(t, "POST", "/admin/events/"+id(2)+"/cancel", "", "Authorization", adminBearer); a.status != 200 {
		t.Errorf("an admin cancels anybody's event: status %d: %s", a.status, a.body)
	}
}

func TestAdminEvents_BookingsAndUtilization(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 8, 2500)), nil)
	box.add(box.event(2, who.User, seats("Floor", 3, 2500)), nil)
	var ids []string
	for range 3 {
		w.clock.add(time.Second)
		buyer, _ := w.token(t, evently.RoleUser)
		_, r := w.book(t, 1, buyer, "k", `{"quantity":2}`)
		if len(ids) == 0 {
			if a := w.do(t, "POST", "/reservations/"+r.ID+"/confirm", "", "Authorization", buyer); a.status != 200 {
				t.Fatalf("confirm: %s", a.body)
			}
		}
		ids = append([]string{r.ID}, ids...)
	}
	for query, want := range map[string][]string{"": ids, "?status=held": ids[:2], "?limit=1": ids[:1]} {
		var page struct {
			Data []reservationBody `json:"data"`
		}
		w.do(t, "GET", "/admin/events/"+id(1)+"/bookings"+query, "", "Authorization", bearer).decode(t, &page)
		var got []string
		for _, r := range page.Data {
			got = append(got, r.ID)
		}
		if !cmp.Equal(got, want) {
			t.Errorf("bookings%s: got %v, want %v", query, got, want)
		}
	}
	golden(t, w.do(t, "GET", "/admin/events/capacity_utilization", "", "Authorization", bearer).body, `
{
  "data": [
    {
      "event_id": "evt_0000000000001",
      "name": "Night of the Proms",
      "capacity": 8,
      "booked": 2,
      "held": 4,
      "utilization": 0.25
    },
    {
      "event_id": "evt_0000000000002",
      "name": "Night of the Proms",
      "capacity": 3,
      "booked": 0,
      "held": 0,
      "utilization": 0
    }
  ],
  "next_cursor": null
}`)
}

// What an organizer changes is seen at once through the node that was asked, also in lists.
func TestAdminEvents_ChangesAreSeenAtOnce(t *testing.T) {
	w, _ := newBoxSite(t)
	bearer, _ := w.token(t, evently.RoleOrganizer)
	count := func() int {
		var list eventListBody
		w.do(t, "GET", "/events", "").decode(t, &list)
		return len(list.Data)
	}
	before := count()
	created := w.do(t, "POST", "/admin/events", newEventBody(t, map[string]any{"status": "draft"}), "Authorization", bearer)
	var event eventJSON
	created.decode(t, &event)
	drafted := count()
	w.do(t, "POST", "/admin/events/"+event.ID+"/publish", "", "Authorization", bearer)
	published := count()
	w.do(t, "POST", "/admin/events/"+event.ID+"/cancel", "", "Authorization", bearer)
	if got, want := [4]int{before, drafted, published, count()}, [4]int{0, 0, 1, 0}; got != want {
		t.Errorf("events listed: %v, want %v", got, want)
	}
}

func TestAdminEvents_ErrorsOfThePortsAreTold(t *testing.T) {
	w, box := newBoxSite(t)
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 8, 2500)), nil)
	w.do(t, "GET", "/events/"+id(1), "")
	box.failWith(evently.ErrUnavailable)
	for request, body := range map[string]string{
		"GET /admin/events": "", "GET /admin/events/capacity_utilization": "", "POST /admin/events": newEventBody(t, nil),
		"PUT /admin/events/" + id(1): newEventBody(t, nil), "DELETE /admin/events/" + id(1): "",
		"POST /admin/events/" + id(1) + "/publish": "", "GET /admin/events/" + id(1) + "/bookings": "",
	} {
		method, path, _ := strings.Cut(request, " ")
		w.do(t, method, path, body, "Authorization", bearer, "If-Match", `"1"`).problem(t, evently.CodeUnavailable)
	}
}
