package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

const stepRule = `{"step":{"every_seats":2,"add_minor":100},"ceiling_bps":15000}`

// price is what a seat of an event costs now, by the public answer.
func (o *theatre) price(t *testing.T, path string) int64 {
	t.Helper()
	var event struct {
		Tiers []struct {
			PriceMinor int64 `json:"price_minor"`
		}
	}
	into(t, o.users[0].Must(t, 200, "GET", path, "", ""), &event)
	return event.Tiers[0].PriceMinor
}

// total is what a reservation costs.
func total(t *testing.T, a proctest.Answer) int64 {
	t.Helper()
	var r struct {
		TotalMinor int64 `json:"total_minor"`
	}
	into(t, a, &r)
	return r.TotalMinor
}

type priceRun struct {
	Data []struct {
		EventID   string `json:"event_id"`
		TierID    string `json:"tier_id"`
		FromMinor int64  `json:"from_minor"`
		ToMinor   int64  `json:"to_minor"`
	}
	Changed, Examined, Failed int
	DryRun                    bool `json:"dry_run"`
}

// Prices follow the sales when they are told to, reservations keep theirs, and the journal has every change.
func TestPricing_RunsOnDemandAndReservationsKeepTheirPrice(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 2, "--pricing-interval=off")
	path := o.show(t, 10, time.Hour, nil)
	o.show(t, 10, time.Hour, nil) // without a rule
	o.admin.Must(t, 200, "PUT", "/admin"+path+"/pricing?dry_run=true", "", stepRule, "If-Match", `"1"`)
	o.admin.Must(t, 412, "PUT", "/admin"+path+"/pricing", "", stepRule, "If-Match", `"2"`)
	o.admin.Must(t, 200, "PUT", "/admin"+path+"/pricing", "", stepRule, "If-Match", `"1"`)
	first := o.users[0].Must(t, 201, "POST", path+"/book", "first", `{"quantity":4}`)
	if got := total(t, first); got != 4000 || o.price(t, path) != 1000 {
		t.Fatalf("the first four seats cost %d, the next ones %d", got, o.price(t, path))
	}
	run := func(body string) (report priceRun) {
		t.Helper()
		into(t, o.admin.Must(t, 200, "POST", "/admin/pricing/run", "", body), &report)
		return report
	}
	before := o.journal(t, path)
	dry := run(`{"dry_run":true}`)
	if dry.Changed != 1 || dry.Examined != 1 || !dry.DryRun || dry.Data[0].FromMinor != 1000 || dry.Data[0].ToMinor != 1200 {
		t.Errorf("dry run %+v", dry)
	}
	if now := o.journal(t, path); len(now) != len(before) || o.price(t, path) != 1000 {
		t.Errorf("the dry run changed the journal to %s, the price to %d", kinds(now), o.price(t, path))
	}
	if done := run(``); done.Changed != 1 || done.Failed != 0 || done.DryRun || o.price(t, path) != 1200 {
		t.Errorf("run %+v, price %d", done, o.price(t, path))
	}
	if again := run(`{}`); again.Changed != 0 || again.Examined != 1 || len(again.Data) != 0 {
		t.Errorf("once more %+v", again)
	}

	// The hold is confirmed at its price, also by a node that never saw it made, and a repetition tells the same.
	o.restart(t)
	id := first.Seats(t).ID
	if got := total(t, o.users[0].Must(t, 200, "POST", "/reservations/"+id+"/confirm", "", "")); got != 4000 {
		t.Errorf("the first four seats cost %d when they are confirmed", got)
	}
	if got := total(t, o.users[1].Must(t, 201, "POST", path+"/book", "second", `{"quantity":2}`)); got != 2400 {
		t.Errorf("two seats cost %d, want 2400", got)
	}
	again := o.users[0].Must(t, 201, "POST", path+"/book", "first", `{"quantity":4}`)
	if string(again.Body) != string(first.Body) {
		t.Errorf("repeated\n%s\n%s", again.Body, first.Body)
	}
	var pricing struct {
		Tiers []struct {
			Now  int64 `json:"price_minor"`
			Next int64 `json:"next_price_minor"`
		}
	}
	into(t, o.admin.Must(t, 200, "GET", "/admin"+path+"/pricing", "", ""), &pricing)
	if pricing.Tiers[0].Now != 1200 || pricing.Tiers[0].Next != 1300 {
		t.Errorf("prices %+v", pricing.Tiers)
	}
	o.admin.Must(t, 204, "DELETE", "/admin"+path+"/pricing", "", "", "If-Match", `"3"`)
	if got := o.price(t, path); got != 1000 {
		t.Errorf("without the rule a seat costs %d", got)
	}

	entries := o.journal(t, path)
	const want = "event_created event_pricing_set held event_repriced confirmed held event_pricing_set"
	if got := kinds(entries); got != want {
		t.Fatalf("the journal says %s, want %s", got, want)
	}
	var prices []int64
	for _, e := range entries {
		if len(e.data) == 0 {
			continue
		}
		var event struct {
			Tiers []map[string]any `json:"tiers"`
		}
		if err := json.Unmarshal(e.data, &event); err != nil {
			t.Fatal(err)
		}
		price, priced := event.Tiers[0]["price_minor"].(float64)
		if !priced || e.who == 0 {
			t.Errorf("entry %s of %d: %s", e.kind, e.who, e.data)
		}
		prices = append(prices, int64(price))
	}
	if want := []int64{1000, 1000, 1200, 1000}; !slices.Equal(prices, want) {
		t.Errorf("the journal has the prices %v, want %v", prices, want)
	}
	o.close(t)
}

// The job applies the rules by itself.
func TestPricing_FollowsBySchedule(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 1, "--pricing-interval=1s")
	path := o.show(t, 10, time.Hour, nil)
	o.admin.Must(t, 200, "PUT", "/admin"+path+"/pricing", "", stepRule, "If-Match", `"1"`)
	o.users[0].Must(t, 201, "POST", path+"/book", "first", `{"quantity":6}`)
	proctest.Eventually(t, 60*time.Second, func() error {
		if price := o.price(t, path); price != 1300 {
			return fmt.Errorf("a seat costs %d, want 1300", price)
		}
		return nil
	})
	entries := o.journal(t, path)
	if last := entries[len(entries)-1]; kinds(entries[len(entries)-1:]) != "event_repriced" || last.who != 0 {
		t.Errorf("the last entry is %s of %d", last.kind, last.who)
	}
	o.close(t)
}

// An organizer has own prices set anew, and nobody else's.
func TestPricing_OfOneOrganizer(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 1, "--pricing-interval=off")
	if _, err := o.db.Exec(t.Context(), `update users set role = 1 where email = 'user0@example.com'`); err != nil {
		t.Fatal(err)
	}
	var session struct {
		AccessToken string `json:"access_token"`
	}
	into(t, o.admin.Must(t, 200, "POST", "/login", "", `{"email":"user0@example.com","password":"a-long-enough-password"}`), &session)
	organizer := o.Client(t, session.AccessToken)
	others := o.show(t, 10, time.Hour, nil)
	own := "/events/" + organizer.Must(t, 201, "POST", "/admin/events", "", proctest.EventBody("Own", 10, time.Hour)).Seats(t).ID
	o.admin.Must(t, 200, "PUT", "/admin"+others+"/pricing", "", stepRule, "If-Match", `"1"`)
	organizer.Must(t, 200, "PUT", "/admin"+own+"/pricing", "", stepRule, "If-Match", `"1"`)
	organizer.Must(t, 404, "PUT", "/admin"+others+"/pricing", "", stepRule, "If-Match", `"2"`)
	for _, path := range []string{own, others} {
		o.admin.Must(t, 201, "POST", path+"/book", "k", `{"quantity":2}`)
	}
	var report priceRun
	into(t, organizer.Must(t, 200, "POST", "/admin/pricing/run", "", ""), &report)
	if report.Changed != 1 || report.Examined != 1 || "/events/"+report.Data[0].EventID != own {
		t.Errorf("the organizer's run %+v", report)
	}
	if o.price(t, own) != 1100 || o.price(t, others) != 1000 {
		t.Errorf("own seats cost %d, others' %d", o.price(t, own), o.price(t, others))
	}
	id := others[len("/events/"):]
	organizer.Must(t, 404, "POST", "/admin/pricing/run", "", `{"event_id":"`+id+`"}`)
	into(t, o.admin.Must(t, 200, "POST", "/admin/pricing/run", "", `{"event_id":"`+id+`"}`), &report)
	if report.Changed != 1 || o.price(t, others) != 1100 {
		t.Errorf("the administrator's run %+v", report)
	}
	o.close(t)
}

// On another node than the event's the new price is there within a second.
func TestPricing_OtherNodesFollowWithinASecond(t *testing.T) {
	t.Parallel()
	c := proctest.Start(t, proctest.Config{Nodes: 2, Quorum: 1, Args: []string{"--pricing-interval=off"}})
	first, second := c.Members[0], c.Members[1]
	path := first.CreateEvent(t, 10, time.Hour)
	admin := first.Client(t, first.Login(t))
	admin.Must(t, 200, "PUT", "/admin"+path+"/pricing", "", stepRule, "If-Match", `"1"`)
	readers := []*theatre{{users: []*proctest.Client{first.Client(t, "")}}, {users: []*proctest.Client{second.Client(t, "")}}}
	for _, reader := range readers {
		if got := reader.price(t, path); got != 1000 {
			t.Fatalf("a seat costs %d", got)
		}
	}
	admin.Must(t, 201, "POST", path+"/book", "first", `{"quantity":2}`)
	second.Client(t, admin.Token).Must(t, 200, "POST", "/admin/pricing/run", "", "")
	changed := time.Now()
	for node, reader := range readers {
		proctest.Eventually(t, 10*time.Second, func() error {
			price, late := reader.price(t, path), time.Since(changed)
			if price != 1100 && late > 1200*time.Millisecond {
				t.Fatalf("at node %d a seat still costs %d after %s", node, price, late)
			}
			if price != 1100 {
				return errors.New("the old price")
			}
			return nil
		})
	}
}

func TestPricingInterval_IsAPeriodOrOff(t *testing.T) {
	t.Parallel()
	var period time.Duration
	v := periodValue{&period, time.Second, time.Hour}
	for text, want := range map[string]time.Duration{"off": 0, "1s": time.Second, "90s": 90 * time.Second, "1h": time.Hour} {
		if err := v.set(text); err != nil || period != want {
			t.Errorf("%s is %s (%v), want %s", text, period, err, want)
		}
		var again time.Duration
		if err := (periodValue{&again, time.Second, time.Hour}).set(v.String()); err != nil || again != want {
			t.Errorf("%s is shown as %s, which is %s (%v)", text, v.String(), again, err)
		}
	}
	for _, text := range []string{"", "0s", "500ms", "2h", "never"} {
		if err := v.set(text); err == nil {
			t.Errorf("%q is taken as %s", text, period)
		}
	}
}
