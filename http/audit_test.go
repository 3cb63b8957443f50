package http

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

func (f *fakeBox) Newer(context.Context, []evently.Mark) ([]*evently.State, error) { return nil, nil }

// Recent knows no more than the present state.
func (f *fakeBox) Recent(ctx context.Context, id evently.EventID, _ int) ([]*evently.State, error) {
	state, err := f.State(ctx, id)
	if err != nil {
		return nil, err
	}
	return []*evently.State{state}, nil
}

// fakeAudit gives one record of each form, whatever is asked for, unless it is given others.
type fakeAudit struct {
	box     *fakeBox
	records []*evently.AuditRecord
	next    *evently.Cursor
	filters []evently.AuditFilter
	pages   []evently.Page
}

func (f *fakeAudit) Records(_ context.Context, filter evently.AuditFilter, page evently.Page) (
	[]*evently.AuditRecord, *evently.Cursor, error,
) {
	if f.box != nil && f.box.fail != nil {
		return nil, nil, f.box.fail
	}
	f.filters, f.pages = append(f.filters, filter), append(f.pages, page)
	if f.records == nil {
		f.records = someRecords()
	}
	return f.records, f.next, nil
}

// someRecords is one record of each kind.
func someRecords() (records []*evently.AuditRecord) {
	at := time.Date(2027, 3, 1, 12, 0, 0, 250e6, time.UTC)
	before := &evently.Event{
		ID: 7, Organizer: 2, Status: evently.EventPublished, Version: 2, Pricing: &evently.PricingRule{FloorBps: 9000},
		EventDetails: evently.EventDetails{
			Name: "Jazz", Timezone: "Europe/Berlin", Currency: "EUR", StartsAt: at, EndsAt: at.Add(time.Hour), HoldTTL: time.Minute, MaxPerBooking: 4,
			Tiers: []evently.Tier{{Name: "Floor", Capacity: 5, BasePriceMinor: 100, PriceMinor: 110}},
		},
	}
	after := *before
	after.Version, after.MaxPerUser, after.Name, after.Pricing = 3, 6, "Jazz & more", nil
	after.Tiers = []evently.Tier{{Name: "Floor", Capacity: 8, BasePriceMinor: 100, PriceMinor: 100}, {Name: "Balcony", Capacity: 2}}
	items, err := evently.NewItems(evently.Item{Tier: 0, Quantity: 2, UnitPriceMinor: 110}, evently.Item{Tier: 1, Quantity: 1})
	if err != nil {
		panic(err)
	}
	for kind := evently.EventCreatedEntry; kind <= evently.EventRepricedEntry; kind++ {
		e := &evently.AuditEntry{Entry: evently.Entry{Kind: kind, Seq: uint64(kind), At: at, Who: 3, RequestID: "r"}, EventID: 7, Epoch: 2}
		switch kind {
		case evently.EventCreatedEntry:
			e.Event = before
		case evently.EventDeletedEntry:
			e.Before = before
		case evently.EventRevisedEntry, evently.EventPublishedEntry, evently.EventCancelledEntry, evently.EventPricingSetEntry,
			evently.EventRepricedEntry:
			e.Before, e.Event = before, &after
		default:
			e.Token, e.User, e.Items = 9, 4, items
			e.Waiter, e.WasConfirmed = kind == evently.HeldEntry, kind == evently.CancelledEntry
		}
		switch kind { //nolint:exhaustive // the kinds that there is more to say of
		case evently.HeldEntry:
			e.ExpiresAt = at.Add(time.Minute)
		case evently.WaitlistedEntry:
			e.Position = 3
		case evently.WaiterPrioritizedEntry:
			e.PriorityWas, e.Priority = 1, -5
		}
		records = append(records, &evently.AuditRecord{At: at, Kind: kind.String(), Actor: e.Who, User: e.User, RequestID: "r", Entry: e})
	}
	for i, kind := range []evently.SecurityKind{evently.SecurityRoleChanged, evently.SecuritySignInFailed, evently.SecuritySignedIn} {
		e := &evently.SecurityEntry{ID: int64(i) + 1, At: at, Kind: kind, IP: "192.0.2.1", UserAgent: "curl", RequestID: "s"}
		if kind != evently.SecuritySignInFailed {
			e.User, e.Actor, e.Session = 4, 3, evently.SessionID{1}
		}
		if kind == evently.SecurityRoleChanged {
			e.Detail = map[string]string{"from": "user", "to": "admin"}
		}
		records = append(records, &evently.AuditRecord{At: at, Kind: string(kind), Actor: e.Actor, User: e.User, RequestID: "s", Security: e})
	}
	return records
}

type auditAnswer struct {
	Data       []auditJSON
	NextCursor *string `json:"next_cursor"`
}

func TestAudit_SaysWhatWasChanged(t *testing.T) {
	w, _ := newBoxSite(t)
	admin, _ := w.token(t, evently.RoleAdmin)
	var got auditAnswer
	w.do(t, "GET", "/admin/audit", "", "Authorization", admin).decode(t, &got)
	byKind := make(map[string]auditJSON)
	for _, record := range got.Data {
		byKind[record.Kind] = record
	}
	if len(byKind) != len(someRecords()) {
		t.Fatalf("%d kinds, want %d", len(byKind), len(someRecords()))
	}
	user, actor, event := evently.UserID(4).String(), evently.UserID(3).String(), evently.EventID(7).String()
	for kind, record := range byKind {
		security := record.EventID == nil
		if record.At.IsZero() || record.ID == "" || (record.Epoch == nil) != security || (record.Seq == nil) != security || record.RequestID == "" ||
			!security && *record.EventID != event || kind != "sign_in_failed" && (record.ActorID == nil || *record.ActorID != actor) {
			t.Errorf("%s is %+v", kind, record)
		}
	}
	change := func(kind, field string) (values [2]any) {
		t.Helper()
		record := byKind[kind]
		at := slices.IndexFunc(record.Detail.Changes, func(c auditChangeJSON) bool { return c.Field == field })
		if at < 0 {
			t.Fatalf("%s says nothing of %s: %+v", kind, field, record.Detail.Changes)
		}
		return [2]any{record.Detail.Changes[at].Old, record.Detail.Changes[at].New}
	}
	for _, c := range []struct {
		kind, field string
		old, new    any
	}{
		{"event_revised", "name", "Jazz", "Jazz & more"},
		{"event_revised", "version", 2.0, 3.0},
		{"event_revised", "max_per_user", nil, 6.0},
		{"event_revised", "tiers.t1.capacity", 5.0, 8.0},
		{"event_revised", "tiers.t1.price_minor", 110.0, 100.0},
		{"event_revised", "tiers.t2.name", nil, "Balcony"},
		{"event_created", "name", nil, "Jazz"},
		{"event_created", "hold_ttl_seconds", nil, 60.0},
		{"event_created", "tiers.t1.base_price_minor", nil, 100.0},
		{"event_deleted", "name", "Jazz", nil},
		{"waiter_prioritized", "priority", 1.0, -5.0},
		{"role_changed", "role", "user", "admin"},
	} {
		if got := change(c.kind, c.field); !reflect.DeepEqual(got, [2]any{c.old, c.new}) {
			t.Errorf("%s: %s was changed from %v to %v, want from %v to %v", c.kind, c.field, got[0], got[1], c.old, c.new)
		}
	}
	if rule := change("event_pricing_set", "pricing"); rule[1] != nil || rule[0].(map[string]any)["floor_bps"] != 9000.0 {
		t.Errorf("the rule was changed from %v to %v", rule[0], rule[1])
	}
	if fields := len(byKind["event_revised"].Detail.Changes); fields != 4+2+5 { // and the details, a tier and the other tier
		t.Errorf("event_revised tells of %d fields: %+v", fields, byKind["event_revised"].Detail.Changes)
	}
	held, waits := byKind["held"], byKind["waitlisted"]
	if *held.ReservationID != (evently.ReservationID{Event: 7, Token: 9}).String() || *held.WaiterID != (evently.WaiterID{Event: 7, Token: 9}).String() ||
		*held.UserID != user || *held.Detail.TotalMinor != 220 || held.Detail.ExpiresAt == nil || len(held.Detail.Items) != 2 ||
		*held.Detail.Items[0].UnitPriceMinor != 110 {
		t.Errorf("held is %+v", held)
	}
	if waits.ReservationID != nil || waits.WaiterID == nil || waits.Detail.Position != 3 || waits.Detail.OnRelease != "book" ||
		waits.Detail.Items[0].UnitPriceMinor != nil || waits.Detail.TotalMinor != nil {
		t.Errorf("waitlisted is %+v", waits)
	}
	if was := byKind["cancelled"].Detail.Was; was != "confirmed" {
		t.Errorf("cancelled was %s", was)
	}
	want := auditDetailJSON{SessionID: sessionText(evently.SessionID{1}), IP: "192.0.2.1", UserAgent: "curl"}
	if diff := cmp.Diff(want, byKind["signed_in"].Detail); diff != "" {
		t.Errorf("signed_in (-want +got):\n%s", diff)
	}
	if failed := byKind["sign_in_failed"]; failed.ActorID != nil || failed.UserID != nil {
		t.Errorf("sign_in_failed is %+v", failed)
	}
}

func TestAudit_ReadsTheFilter(t *testing.T) {
	w, box := newBoxSite(t)
	audit := &fakeAudit{box: box, records: []*evently.AuditRecord{}}
	w.server.config.Audit = audit
	admin, _ := w.token(t, evently.RoleAdmin)
	now := w.clock.Now()
	id := evently.ReservationID{Event: 7, Token: 9}
	for query, want := range map[string]evently.AuditFilter{
		"": {From: now.Add(auditAhead - evently.AuditRangeMax), To: now.Add(auditAhead)},
		"event_id=" + evently.EventID(7).String():                                            {Event: 7},
		"reservation_id=" + id.String():                                                      {Event: 7, Token: 9},
		"reservation_id=" + evently.WaiterID(id).String() + "&event_id=" + id.Event.String(): {Event: 7, Token: 9},
		"user_id=" + evently.UserID(4).String() + "&kind=held":                               {User: 4, Kind: "held"},
		"from=2027-02-01T00:00:00Z": {
			From: time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2027, 3, 4, 0, 0, 0, 0, time.UTC),
		},
		"to=2027-03-04T01:00:00%2B01:00&kind=role_changed": {
			From: time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2027, 3, 4, 0, 0, 0, 0, time.UTC), Kind: "role_changed",
		},
		"user_id=" + evently.UserID(4).String() + "&from=2020-01-01T00:00:00Z&to=2027-01-01T00:00:00Z": {
			User: 4, From: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		},
	} {
		audit.filters = nil
		if a := w.do(t, "GET", "/admin/audit?"+query, "", "Authorization", admin); a.status != http.StatusOK || string(a.body) != `{"data":[],"next_cursor":null}` {
			t.Errorf("%s: %d %s", query, a.status, a.body)
			continue
		}
		if diff := cmp.Diff([]evently.AuditFilter{want}, audit.filters); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	for query, field := range map[string]string{
		"event_id=7": "event_id", "user_id=evt_0000000000007": "user_id", "reservation_id=" + id.Event.String(): "reservation_id",
		"reservation_id=" + id.String() + "&event_id=" + evently.EventID(8).String(): "reservation_id",
		"kind=Held": "kind", "kind=a%00b": "kind", "from=yesterday": "from", "to=1": "to",
		"limit=0": "limit", "limit=101": "limit", "cursor=x": "cursor", "from=2020-01-01T00:00:00Z&to=2027-01-01T00:00:00Z": "from",
	} {
		w.do(t, "GET", "/admin/audit?"+query, "", "Authorization", admin).field(t, field)
	}
}

func TestAudit_PagesByItsCursor(t *testing.T) {
	w, box := newBoxSite(t)
	next := &evently.Cursor{Order: w.clock.Now().UnixMilli(), Event: 1<<63 + 7, Token: 12}
	audit := &fakeAudit{box: box, records: []*evently.AuditRecord{}, next: next}
	w.server.config.Audit = audit
	admin, _ := w.token(t, evently.RoleAdmin)
	var got auditAnswer
	w.do(t, "GET", "/admin/audit?limit=7", "", "Authorization", admin).decode(t, &got)
	if got.NextCursor == nil || len(got.Data) != 0 {
		t.Fatalf("got %+v, want an empty page and a cursor", got)
	}
	w.do(t, "GET", "/admin/audit?limit=7&cursor="+*got.NextCursor, "", "Authorization", admin)
	if diff := cmp.Diff([]evently.Page{{Limit: 7}, {Limit: 7, After: next}}, audit.pages); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestAudit_OrganizersReadThatOfAnOwnEvent(t *testing.T) {
	w, box := newBoxSite(t)
	organizer, who := w.token(t, evently.RoleOrganizer)
	user, _ := w.token(t, evently.RoleUser)
	own := box.add(box.event(7, who.User, seats("All", 3, 100)), nil)
	foreign := box.add(box.event(8, who.User+1, seats("All", 3, 100)), nil)
	if a := w.do(t, "GET", "/admin/audit?event_id="+own.ID.String(), "", "Authorization", organizer); a.status != http.StatusOK {
		t.Errorf("own event: %d %s", a.status, a.body)
	}
	of := evently.ReservationID{Event: foreign.ID, Token: 1}
	w.do(t, "GET", "/admin/audit?event_id="+foreign.ID.String(), "", "Authorization", organizer).problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", "/admin/audit?reservation_id="+of.String(), "", "Authorization", organizer).problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", "/admin/audit", "", "Authorization", organizer).problem(t, evently.CodeForbidden)
	w.do(t, "GET", "/admin/audit?user_id="+who.User.String(), "", "Authorization", organizer).problem(t, evently.CodeForbidden)
	w.do(t, "GET", "/admin/audit?event_id="+own.ID.String(), "", "Authorization", user).problem(t, evently.CodeForbidden)
	w.do(t, "GET", "/admin/audit", "").problem(t, evently.CodeUnauthenticated)
}

// A field of an event that is added one day has to be added here too.
func TestAudit_KnowsEveryFieldOfAnEvent(t *testing.T) {
	event := &evently.Event{}
	body, err := json.Marshal(newAuditEventJSON(event))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	const unseen = 4 // ID, CreatedAt and EventDetails itself; Tiers
	if want := reflect.TypeFor[evently.Event]().NumField() + reflect.TypeFor[evently.EventDetails]().NumField() - unseen; len(fields) != want {
		t.Errorf("%d fields, want %d: %s", len(fields), want, body)
	}
}
