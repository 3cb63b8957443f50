package store

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// The life of an event, told.
func TestWebhooks_EveryTypeIsTold(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer)
	o := h.of(organizer, 2)
	event := o.Ledger.Event()
	at := o.Now.Truncate(time.Millisecond)
	one := evently.Item{Quantity: 1}
	booked := o.Book(21, at, one)
	o.decide(&evently.Confirm{User: 21, Token: booked.ID.Token}, at)
	held := o.Book(22, at, one)
	waiter := o.Join(23, at, evently.BookOnRelease, one)
	offered := o.Join(24, at, evently.HoldOnRelease, one)
	leaver := o.Join(25, at, evently.HoldOnRelease, one)
	o.decide(&evently.Prioritize{Token: leaver.ID.Token, Priority: -1}, at)
	o.decide(&evently.Cancel{User: 21, Token: booked.ID.Token}, at) // 23 is booked
	o.decide(&evently.Release{User: 22, Token: held.ID.Token}, at)  // 24 has an offer
	o.decide(&evently.LeaveWaitlist{User: 25}, at)
	o.decide(&evently.Expire{}, at.Add(event.HoldTTL+time.Second)) // the offer lapses
	details := event.EventDetails
	details.Name = "Concert, moved"
	o.decide(&evently.Revise{Version: event.Version, Details: details}, at.Add(event.HoldTTL+time.Second))
	o.decide(&evently.SetPricing{Version: o.Ledger.Event().Version, Rule: &evently.PricingRule{FloorBps: 20_000, CeilingBps: 30_000}}, at.Add(event.HoldTTL+time.Second))
	o.Book(26, at.Add(event.HoldTTL+time.Second), one)
	o.Join(27, at.Add(event.HoldTTL+time.Second), evently.HoldOnRelease, one)
	o.decide(&evently.CancelEvent{}, at.Add(event.HoldTTL+2*time.Second))
	o.MustFlush()
	h.consume(event.ID)

	bodies := h.drain(webhook.ID)
	var types []string
	seq := 0.0
	for _, message := range bodies {
		types = append(types, message.Type)
		if next := message.Data["seq"].(float64); next <= seq || message.Data["event_id"] != event.ID.String() || message.Timestamp.Location() != time.UTC {
			t.Errorf("%+v after seq %v", message, seq)
		} else {
			seq = next
		}
	}
	want := []string{
		"event.published", "reservation.held", "booking.confirmed", "reservation.held", "waitlist.joined", "waitlist.joined", "waitlist.joined",
		"booking.cancelled", "waitlist.booked", "booking.confirmed", "reservation.released", "waitlist.offered", "waitlist.left",
		"reservation.expired", "event.updated", "event.repriced", "reservation.held", "waitlist.joined", "event.cancelled",
	}
	if len(types) > len(want) {
		rest := types[len(want):]
		slices.Sort(rest)
		want = append(want, "booking.cancelled", "reservation.released", "waitlist.closed")
	}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	wanted := func(i int, data map[string]any) {
		t.Helper()
		data["event_id"], data["seq"] = event.ID.String(), bodies[i].Data["seq"]
		if diff := cmp.Diff(data, bodies[i].Data); diff != "" {
			t.Errorf("%s (-want +got):\n%s", bodies[i].Type, diff)
		}
	}
	items := []any{map[string]any{"tier_id": "t1", "quantity": 1.0, "unit_price_minor": 1200.0}}
	seats := []any{map[string]any{"tier_id": "t1", "quantity": 1.0}}
	reservation := func(r evently.ReservationID, user evently.UserID) map[string]any {
		return map[string]any{
			"reservation_id": r.String(), "user_id": user.String(), "quantity": 1.0, "items": items, "total_minor": 1200.0, "currency": "EUR",
		}
	}
	first := reservation(booked.ID, 21)
	wanted(2, first)
	wanted(7, first)
	first["expires_at"] = booked.ExpiresAt.Format(time.RFC3339Nano)
	wanted(1, first)
	wanted(4, map[string]any{
		"waiter_id": waiter.ID.String(), "user_id": evently.UserID(23).String(), "quantity": 1.0, "items": seats, "on_release": "book", "position": 1.0,
	})
	served := reservation(evently.ReservationID(waiter.ID), 23)
	wanted(9, served)
	served["waiter_id"] = waiter.ID.String()
	wanted(8, served)
	offer := reservation(evently.ReservationID(offered.ID), 24)
	wanted(13, offer)
	offer["waiter_id"], offer["expires_at"] = offered.ID.String(), at.Add(event.HoldTTL).Format(time.RFC3339Nano)
	wanted(11, offer)
	wanted(12, map[string]any{"waiter_id": leaver.ID.String(), "user_id": evently.UserID(25).String(), "quantity": 1.0, "items": seats})
	if told := bodies[14].Data["event"].(map[string]any); told["name"] != "Concert, moved" || told["status"] != "published" || told["capacity"] != 2.0 {
		t.Errorf("updated to %v", told)
	}
	if tier := bodies[15].Data["event"].(map[string]any)["tiers"].([]any)[0].(map[string]any); tier["base_price_minor"] != 1000.0 || tier["price_minor"] != 2000.0 {
		t.Errorf("repriced to %v", tier)
	}
	if told := bodies[18].Data["event"].(map[string]any); told["status"] != "cancelled" {
		t.Errorf("cancelled: %v", told)
	}
	for _, message := range bodies {
		text, err := json.Marshal(message)
		if err != nil || strings.Contains(string(text), "@") {
			t.Errorf("%s (%v) names a person", text, err)
		}
	}
}
