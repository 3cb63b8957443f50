package http

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

const pricingOf1 = "/admin/events/evt_0000000000001/pricing"

// pricedBox has event 1 of an organizer, with two tiers of 10 seats.
func pricedBox(t testing.TB) (w *site, box *fakeBox, organizer string, who evently.Principal) {
	t.Helper()
	w, box = newBoxSite(t)
	organizer, who = w.token(t, evently.RoleOrganizer)
	box.add(box.event(1, who.User, seats("Floor", 10, 1000), seats("Balcony", 10, 500)), nil)
	return w, box, organizer, who
}

// pricing reads an answer about the pricing of event 1, which has an ETag.
func (a *answer) pricing(t testing.TB, version int) (body pricingJSON) {
	t.Helper()
	if a.status != 200 || a.header.Get("ETag") != fmt.Sprintf("%q", fmt.Sprint(version)) {
		t.Fatalf("status %d, ETag %s, want version %d: %s", a.status, a.header.Get("ETag"), version, a.body)
	}
	a.decode(t, &body)
	return body
}

// prices are those of the tiers, now and next.
func (p *pricingJSON) prices() (list []int64) {
	for _, tier := range p.Tiers {
		list = append(list, tier.PriceMinor, tier.NextPriceMinor)
	}
	return list
}

const steps = `{"step":{"every_seats":2,"add_minor":100}}`

func TestPricing_RuleIsSetReadAndRemoved(t *testing.T) {
	w, box, organizer, _ := pricedBox(t)
	none := w.do(t, "GET", pricingOf1, "", "Authorization", organizer).pricing(t, 1)
	want := pricingJSON{EventID: "evt_0000000000001", Currency: "EUR", Tiers: []tierPriceJSON{{"t1", 1000, 1000, 1000}, {"t2", 500, 500, 500}}}
	if diff := cmp.Diff(want, none); diff != "" {
		t.Errorf("without a rule (-want +got):\n%s", diff)
	}
	const rule = `{"curve":[{"demand_bps":0,"factor_bps":9000},{"demand_bps":10000,"factor_bps":15000}],` +
		`"time":[{"hours_before":24,"factor_bps":12000},{"hours_before":48,"factor_bps":10000}],"step":{"every_seats":5,"add_minor":70},` +
		`"floor_bps":8000,"ceiling_bps":20000,"round_minor":10,"rounding":"up"}`
	set := w.do(t, "PUT", pricingOf1, rule, "Authorization", organizer, "If-Match", `"1"`)
	got := set.pricing(t, 2)
	if diff := cmp.Diff([]int64{900, 900, 450, 450}, got.prices()); diff != "" {
		t.Errorf("prices (-want +got):\n%s", diff)
	}
	if !strings.Contains(string(set.body), `"rule":`+rule+`,`) {
		t.Errorf("the rule is answered as %s", set.body)
	}
	read := w.do(t, "GET", pricingOf1, "", "Authorization", organizer)
	if read.pricing(t, 2); string(read.body) != string(set.body) {
		t.Errorf("read %s\nset  %s", read.body, set.body)
	}
	var event eventJSON
	w.do(t, "GET", "/events/evt_0000000000001", "").decode(t, &event)
	if event.Version != 2 || event.Tiers[0].PriceMinor != 900 || event.Tiers[0].BasePriceMinor != 1000 {
		t.Errorf("the event is %+v", event)
	}

	for _, tag := range []string{`"1"`, `"3"`} {
		w.do(t, "PUT", pricingOf1, rule, "Authorization", organizer, "If-Match", tag).problem(t, evently.CodeVersionStale)
		w.do(t, "DELETE", pricingOf1, "", "Authorization", organizer, "If-Match", tag).problem(t, evently.CodeVersionStale)
	}
	for _, method := range []string{"PUT", "DELETE"} {
		body := ""
		if method == "PUT" {
			body = rule
		}
		w.do(t, method, pricingOf1, body, "Authorization", organizer).problem(t, evently.CodeVersionRequired)
		w.do(t, method, pricingOf1, body, "Authorization", organizer, "If-Match", "2").field(t, "If-Match")
	}
	if a := w.do(t, "DELETE", pricingOf1, "", "Authorization", organizer, "If-Match", `"2"`); a.status != 204 || a.header.Get("ETag") != `"3"` {
		t.Fatalf("remove: %d %v %s", a.status, a.header, a.body)
	}
	if diff := cmp.Diff(want, w.do(t, "GET", pricingOf1, "", "Authorization", organizer).pricing(t, 3)); diff != "" {
		t.Errorf("after the removal (-want +got):\n%s", diff)
	}
	if got := box.ledgers[1].Event().Pricing; got != nil {
		t.Errorf("the rule is still %+v", got)
	}
}

func TestPricing_LeftOutPartsChangeNothing(t *testing.T) {
	w, _, organizer, _ := pricedBox(t)
	for i, body := range []string{
		`{}`, `{"curve":[],"time":[],"step":null,"floor_bps":null,"ceiling_bps":0,"round_minor":0,"rounding":null}`,
	} {
		set := w.do(t, "PUT", pricingOf1, body, "Authorization", organizer, "If-Match", fmt.Sprintf(`"%d"`, i+1))
		got := set.pricing(t, i+2)
		if diff := cmp.Diff([]int64{1000, 1000, 500, 500}, got.prices()); diff != "" {
			t.Errorf("%s: prices (-want +got):\n%s", body, diff)
		}
		const rule = `"rule":{"curve":[],"time":[],"step":null,"floor_bps":null,"ceiling_bps":null,"round_minor":1,"rounding":"nearest"},`
		if !strings.Contains(string(set.body), rule) {
			t.Errorf("%s is answered as %s", body, set.body)
		}
	}
}

func TestPricing_WrongRulesNameTheirFields(t *testing.T) {
	w, _, organizer, _ := pricedBox(t)
	for body, field := range map[string]string{
		`{"curve":[{"factor_bps":1}]}`: "curve[0].demand_bps",
		`{"curve":[{"demand_bps":1}]}`: "curve[0].factor_bps",
		`{"curve":[{"demand_bps":5,"factor_bps":1},{"demand_bps":5,"factor_bps":1}]}`: "curve[1].demand_bps",
		`{"curve":[{"demand_bps":100001,"factor_bps":1}]}`:                            "curve[0].demand_bps",
		`{"curve":[{"demand_bps":1,"factor_bps":1000001}]}`:                           "curve[0].factor_bps",
		`{"curve":[{"demand_bps":1,"factor_bps":1,"hours_before":1}]}`:                "curve[0].hours_before",
		`{"curve":[null]}`: "curve[0]",
		`{"curve":[` + strings.Repeat(`{"demand_bps":1,"factor_bps":1},`, 32) + `{"demand_bps":1,"factor_bps":1}]}`: "curve",
		`{"time":[{"hours_before":-1,"factor_bps":1}]}`:                                                             "time[0].hours_before",
		`{"time":[{"hours_before":1.5,"factor_bps":1}]}`:                                                            "time[0].hours_before",
		`{"step":{"add_minor":1}}`:                                                                                  "step.every_seats",
		`{"step":{"every_seats":0,"add_minor":1}}`:                                                                  "step.every_seats",
		`{"step":{"every_seats":1}}`:                                                                                "step.add_minor",
		`{"step":{"every_seats":1,"add_minor":-1}}`:                                                                 "step.add_minor",
		`{"floor_bps":-1}`:                                                                                          "floor_bps",
		`{"floor_bps":2,"ceiling_bps":1}`:                                                                           "ceiling_bps",
		`{"round_minor":-5}`:                                                                                        "round_minor",
		`{"rounding":"even"}`:                                                                                       "rounding",
		`{"surge":true}`:                                                                                            "surge",
	} {
		if got := w.do(t, "PUT", pricingOf1, body, "Authorization", organizer, "If-Match", `"1"`).field(t, field); got == "" {
			t.Errorf("%s: no message", body)
		}
	}
	w.do(t, "PUT", pricingOf1+"?dry_run=maybe", `{}`, "Authorization", organizer, "If-Match", `"1"`).field(t, "dry_run")
	w.do(t, "PUT", pricingOf1+"?dry_run=true&dry_run=false", `{}`, "Authorization", organizer, "If-Match", `"1"`).field(t, "dry_run")
	w.do(t, "GET", pricingOf1, "", "Authorization", organizer).pricing(t, 1)
}

func TestPricing_DryRunTellsAndChangesNothing(t *testing.T) {
	w, box, organizer, _ := pricedBox(t)
	user, _ := w.token(t, evently.RoleUser)
	w.book(t, 1, user, "k", `{"items":[{"tier_id":"t1","quantity":5}]}`)
	seq := box.ledgers[1].Seq()
	a := w.do(t, "PUT", pricingOf1+"?dry_run=true", steps, "Authorization", organizer, "If-Match", `"1"`)
	got := a.pricing(t, 1)
	if diff := cmp.Diff([]int64{1000, 1200, 500, 500}, got.prices()); diff != "" || got.Rule == nil || got.Rule.Step.EverySeats != 2 {
		t.Errorf("rule %+v, prices (-want +got):\n%s", got.Rule, diff)
	}
	now := w.do(t, "GET", pricingOf1, "", "Authorization", organizer).pricing(t, 1)
	if box.ledgers[1].Seq() != seq || now.Rule != nil || !cmp.Equal([]int64{1000, 1000, 500, 500}, now.prices()) {
		t.Errorf("after the dry run: entry %d, was %d; %+v", box.ledgers[1].Seq(), seq, now)
	}
	w.do(t, "PUT", pricingOf1+"?dry_run=true", steps, "Authorization", organizer, "If-Match", `"2"`).problem(t, evently.CodeVersionStale)
}

func TestPricing_RunsFollowTheSales(t *testing.T) {
	w, box, organizer, who := pricedBox(t)
	box.add(box.event(2, who.User, seats("Floor", 10, 1000)), nil)
	box.add(box.event(3, 77, seats("Floor", 10, 1000)), func(event *evently.Event) {
		event.Pricing = &evently.PricingRule{FloorBps: 20_000}
	})
	w.do(t, "PUT", pricingOf1, steps, "Authorization", organizer, "If-Match", `"1"`).pricing(t, 2)
	user, _ := w.token(t, evently.RoleUser)
	_, early := w.book(t, 1, user, "early", `{"items":[{"tier_id":"t1","quantity":4}]}`)
	if early.TotalMinor != 4000 {
		t.Errorf("the early reservation costs %d", early.TotalMinor)
	}
	due := w.do(t, "GET", pricingOf1, "", "Authorization", organizer).pricing(t, 2)
	if diff := cmp.Diff([]int64{1000, 1200, 500, 500}, due.prices()); diff != "" {
		t.Errorf("prices before the run (-want +got):\n%s", diff)
	}
	run := func(bearer, body string) (report pricingRunJSON) {
		t.Helper()
		a := w.do(t, "POST", "/admin/pricing/run", body, "Authorization", bearer)
		if a.status != 200 {
			t.Fatalf("run: %d %s", a.status, a.body)
		}
		a.decode(t, &report)
		return report
	}
	change := []priceChangeJSON{{"evt_0000000000001", "t1", 1000, 1200}}
	for _, test := range []struct {
		body string
		want pricingRunJSON
	}{
		{`{"dry_run":true}`, pricingRunJSON{Data: change, Changed: 1, Examined: 1, DryRun: true}},
		{``, pricingRunJSON{Data: change, Changed: 1, Examined: 1}},
		{`{"dry_run":false,"event_id":null}`, pricingRunJSON{Data: []priceChangeJSON{}, Examined: 1}},
		{`{"event_id":"evt_0000000000001"}`, pricingRunJSON{Data: []priceChangeJSON{}, Examined: 1}},
	} {
		if diff := cmp.Diff(test.want, run(organizer, test.body)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.body, diff)
		}
	}
	for _, event := range []string{"evt_0000000000003", "evt_0000000000009", "nonsense"} {
		w.do(t, "POST", "/admin/pricing/run", `{"event_id":"`+event+`"}`, "Authorization", organizer).problem(t, evently.CodeEventNotFound)
	}
	w.do(t, "POST", "/admin/pricing/run", ``, "Authorization", user).problem(t, evently.CodeForbidden)
	admin, _ := w.token(t, evently.RoleAdmin)
	want := pricingRunJSON{Data: []priceChangeJSON{{"evt_0000000000003", "t1", 1000, 2000}}, Changed: 1, Examined: 2}
	if diff := cmp.Diff(want, run(admin, "{}")); diff != "" {
		t.Errorf("of an admin (-want +got):\n%s", diff)
	}

	// Who reserved before keeps the price, and who reserves now pays the new one.
	var kept, fresh reservationBody
	w.do(t, "POST", "/reservations/"+early.ID+"/confirm", "", "Authorization", user).decode(t, &kept)
	if _, fresh = w.book(t, 1, user, "late", `{"items":[{"tier_id":"t1","quantity":1}]}`); kept.TotalMinor != 4000 || fresh.TotalMinor != 1200 {
		t.Errorf("the early one costs %d, the late one %d", kept.TotalMinor, fresh.TotalMinor)
	}
	if last := box.runs[len(box.runs)-1]; last.Organizer != 0 || last.Who == 0 || last.RequestID == "" {
		t.Errorf("the admin's run was asked for as %+v", last)
	}
}

// A run that is repeated with its key has one effect and one answer.
func TestPricing_RunTakesAKey(t *testing.T) {
	w, box, organizer, _ := pricedBox(t)
	w.do(t, "PUT", pricingOf1, steps, "Authorization", organizer, "If-Match", `"1"`)
	first := w.do(t, "POST", "/admin/pricing/run", "{}", "Authorization", organizer, "Idempotency-Key", "k")
	again := w.do(t, "POST", "/admin/pricing/run", "{}", "Authorization", organizer, "Idempotency-Key", "k")
	if len(box.runs) != 1 || string(first.body) != string(again.body) || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d runs\n%s\n%s", len(box.runs), first.body, again.body)
	}
}

// The prices that this node commits are in the lists at once.
func TestPricing_ListsFollowAtOnce(t *testing.T) {
	w, box, organizer, _ := pricedBox(t)
	box.observer = w.server
	price := func() int64 {
		t.Helper()
		var list listJSON[eventJSON]
		w.do(t, "GET", "/events", "").decode(t, &list)
		return list.Data[0].Tiers[0].PriceMinor
	}
	if got := price(); got != 1000 {
		t.Fatalf("price %d", got)
	}
	w.do(t, "PUT", pricingOf1, `{"floor_bps":11000}`, "Authorization", organizer, "If-Match", `"1"`)
	if got := price(); got != 1100 {
		t.Errorf("price %d, want 1100", got)
	}
	box.ledgers[1].Event().Pricing = &evently.PricingRule{FloorBps: 12_000}
	if _, err := box.Do(t.Context(), &evently.Request{Event: 1, Command: &evently.Reprice{}}); err != nil {
		t.Fatal(err)
	}
	if got := price(); got != 1200 {
		t.Errorf("price %d, want 1200", got)
	}
}

func TestPricing_OfCancelledEventsStays(t *testing.T) {
	w, box, organizer, _ := pricedBox(t)
	w.do(t, "PUT", pricingOf1, `{"floor_bps":11000}`, "Authorization", organizer, "If-Match", `"1"`)
	w.do(t, "POST", "/admin/events/evt_0000000000001/cancel", "", "Authorization", organizer)
	got := w.do(t, "GET", pricingOf1, "", "Authorization", organizer).pricing(t, 3)
	if !cmp.Equal([]int64{1100, 1100, 550, 550}, got.prices()) {
		t.Errorf("prices %v", got.prices())
	}
	w.do(t, "PUT", pricingOf1, `{}`, "Authorization", organizer, "If-Match", `"3"`).problem(t, evently.CodeEventCancelled)
	w.do(t, "DELETE", pricingOf1, "", "Authorization", organizer, "If-Match", `"3"`).problem(t, evently.CodeEventCancelled)
	w.do(t, "DELETE", pricingOf1, "{}", "Authorization", organizer, "If-Match", `"3"`).problem(t, evently.CodeEventCancelled)

	stranger, _ := w.token(t, evently.RoleOrganizer)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		w.do(t, method, pricingOf1, "", "Authorization", stranger).problem(t, evently.CodeEventNotFound)
	}
	box.failWith(evently.ErrOverloaded)
	w.clock.add(time.Minute)
	w.do(t, "POST", "/admin/pricing/run", "", "Authorization", organizer).problem(t, evently.CodeOverloaded)
}
