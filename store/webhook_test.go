package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

var (
	sealSecret  = []byte("0123456789abcdef0123456789abcdef")
	otherSecret = []byte("fedcba9876543210fedcba9876543210")
)

// hooks is a bench with webhooks, whose clock the test moves.
type hooks struct {
	*bench
	*Webhooks
	queue   *WebhookQueue
	now     time.Time
	cursors map[evently.EventID]uint64
	users   evently.UserID
}

func newHooks(t *testing.T) *hooks {
	t.Helper()
	return hooksOn(newBench(t, JournalConfig{}))
}

func hooksOn(b *bench) *hooks {
	t := b.TB
	t.Helper()
	kept, err := NewWebhooks(b.pool, [][]byte{sealSecret})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := kept.Queue(t.Context(), discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(queue.Close)
	now := time.Now().UTC().Truncate(time.Millisecond)
	return &hooks{bench: b, Webhooks: kept, queue: queue, now: now, cursors: make(map[evently.EventID]uint64)}
}

// user makes one of a role.
func (h *hooks) user(role evently.Role) evently.UserID {
	h.Helper()
	h.users++
	user := &evently.User{ID: h.users + 100, Email: fmt.Sprintf("user%d@example.org", h.users), Role: role, CreatedAt: h.now}
	if err := NewAccounts(h.bench.pool, nil).CreateUser(h.Context(), user, nil, &evently.Origin{At: h.now}); err != nil {
		h.Fatal(err)
	}
	return user.ID
}

// of makes an event of an organizer and acquires it.
func (h *hooks) of(organizer evently.UserID, capacity int) *owner {
	h.Helper()
	event := newEvent(capacity)
	event.Organizer = organizer
	if _, err := h.events.CreateEvent(h.Context(), event, organizer, "create"); err != nil {
		h.Fatal(err)
	}
	return h.acquire(event.ID)
}

// hook makes a webhook of an owner; without types it hears of all.
func (h *hooks) hook(owner evently.UserID, types ...evently.WebhookType) *evently.Webhook {
	h.Helper()
	webhook := &evently.Webhook{
		ID: evently.WebhookID(mathrand.Uint64() | 1), Owner: owner, URL: "https://hooks.example.com", CreatedAt: h.now, UpdatedAt: h.now,
	}
	for _, t := range types {
		webhook.Types.Add(t)
	}
	if len(types) == 0 {
		webhook.Types = evently.WebhookTypesAll
	}
	created, err := h.CreateWebhook(h.Context(), webhook, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		h.Fatal(err)
	}
	return created
}

// spans are what the feed would give the consumer, in steps of at most so many entries.
func (h *hooks) spans(most uint64, events ...evently.EventID) (list []Span) {
	h.Helper()
	for _, event := range events {
		upto := uint64(h.count(`select seq from event_heads where event_id = $1`, int64(event)))
		for after := h.cursors[event]; after < upto; after = h.cursors[event] {
			h.cursors[event] = min(upto, after+most)
			list = append(list, Span{event, after, h.cursors[event]})
		}
	}
	return list
}

// consume has the consumer run over what is new of events, one span after another.
func (h *hooks) consume(events ...evently.EventID) {
	h.Helper()
	for _, span := range h.spans(webhookStepMax, events...) {
		h.step(span)
	}
}

func (h *hooks) step(spans ...Span) {
	h.Helper()
	if err := pgx.BeginFunc(h.Context(), h.bench.pool, func(tx pgx.Tx) error { return queueWebhooks(h.Context(), tx, spans, h.now) }); err != nil {
		h.Fatal(err)
	}
}

// claim takes the next delivery that is due, or nil.
func (h *hooks) claim(id evently.WebhookID) *evently.Delivery {
	h.Helper()
	delivery, err := h.queue.Claim(h.Context(), id, h.now, h.now.Add(time.Minute))
	if err != nil {
		h.Fatal(err)
	}
	return delivery
}

// record ends an attempt of a delivery.
func (h *hooks) record(d *evently.Delivery, fault string) evently.WebhookEnd {
	h.Helper()
	d.Attempts = []evently.DeliveryAttempt{{At: h.now, LatencyMS: 5, HTTPCode: 200, Fault: fault, Excerpt: "x"}}
	d.Status, d.EndedAt, d.DueAt = evently.DeliveryDone, h.now, time.Time{}
	if fault != "" {
		d.Status, d.EndedAt, d.DueAt = evently.DeliveryPending, time.Time{}, h.now.Add(time.Hour)
	}
	ended := evently.WebhookActive
	if fault == "gone" {
		ended = evently.WebhookGone
	}
	got, err := h.queue.Record(h.Context(), d, ended, h.now)
	if err != nil {
		h.Fatal(err)
	}
	return got
}

// body is a message as a receiver reads it.
type body struct {
	Type      string
	Timestamp time.Time
	Data      map[string]any
}

// drain claims and delivers everything that is due for a webhook, and refills it, until nothing is left. It returns the bodies.
func (h *hooks) drain(id evently.WebhookID) (bodies []body) {
	h.Helper()
	for {
		delivery := h.claim(id)
		if delivery == nil {
			before := h.count(`select count(*) from webhook_backlog where webhook_id = $1`, int64(id))
			if before == 0 {
				return bodies
			}
			if err := h.queue.Refill(h.Context(), id, h.now); err != nil {
				h.Fatal(err)
			}
			continue
		}
		var message body
		if err := json.Unmarshal(delivery.Payload, &message); err != nil {
			h.Fatal(err)
		}
		if message.Type != delivery.Type.String() || delivery.ID != evently.NewDeliveryID(id, delivery.Event, delivery.Seq) {
			h.Errorf("%+v is named %s and %s", delivery, message.Type, delivery.ID)
		}
		bodies = append(bodies, message)
		h.record(delivery, "")
	}
}

func (h *hooks) lanes() (ids []evently.WebhookID) {
	h.Helper()
	lanes, err := h.queue.Lanes(h.Context(), 0, 1000, h.now)
	if err != nil {
		h.Fatal(err)
	}
	for _, lane := range lanes {
		ids = append(ids, lane.Webhook)
	}
	return ids
}

func TestWebhooks_SecretsAreSealed(t *testing.T) {
	h := newHooks(t)
	webhook := h.hook(h.user(evently.RoleAdmin))
	first, second := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	for _, column := range []string{"secret", "past_secret"} {
		if n := h.count(`select count(*) from webhooks where position($1::bytea in `+column+`) > 0`, first); n != 0 {
			t.Errorf("%s has the secret as it is", column)
		}
	}
	if _, err := h.Ping(t.Context(), 0, webhook.ID, 1, h.now); err != nil {
		t.Fatal(err)
	}
	signing := func(secrets ...[]byte) (list [][]byte) {
		t.Helper()
		kept, err := NewWebhooks(h.bench.pool, secrets)
		if err != nil {
			t.Fatal(err)
		}
		lanes, err := (&WebhookQueue{h.bench.pool, kept.seal, discard}).Lanes(t.Context(), 0, 10, h.now)
		if err != nil || len(lanes) != 1 {
			t.Fatalf("%v, %v", lanes, err)
		}
		return lanes[0].Secrets
	}
	if diff := cmp.Diff([][]byte{first}, signing(sealSecret)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]byte{first}, signing(otherSecret, sealSecret)); diff != "" {
		t.Errorf("with the token secret in the past: %s", diff)
	}
	if got := signing(otherSecret); len(got) != 0 {
		t.Errorf("with another token secret: %x", got)
	}
	if _, err := NewWebhooks(h.bench.pool, nil); err == nil {
		t.Error("nothing to seal with, and no error")
	}
	// A day of two secrets.
	rotated, err := h.RotateSecret(t.Context(), 0, webhook.ID, second, h.now)
	if err != nil || !rotated.OverlapUntil.Equal(h.now.Add(24*time.Hour)) {
		t.Fatalf("%+v, %v", rotated, err)
	}
	if diff := cmp.Diff([][]byte{second, first}, signing(sealSecret)); diff != "" {
		t.Error(diff)
	}
	h.now = h.now.Add(24 * time.Hour)
	if diff := cmp.Diff([][]byte{second}, signing(sealSecret)); diff != "" {
		t.Errorf("a day later: %s", diff)
	}
	// What is sealed belongs to its row.
	other := h.hook(h.user(evently.RoleAdmin))
	h.exec(`update webhooks set secret = (select secret from webhooks where webhook_id = $1) where webhook_id = $2`, int64(other.ID), int64(webhook.ID))
	if got := signing(sealSecret); len(got) != 0 {
		t.Errorf("the secret of another webhook opens: %x", got)
	}
}

// A rotation of the token secret: a while later the former one is not needed any more.
func TestWebhooks_SecretsAreSealedAnew(t *testing.T) {
	h := newHooks(t)
	webhook, plain := h.hook(h.user(evently.RoleAdmin)), h.hook(h.user(evently.RoleAdmin))
	if _, err := h.RotateSecret(t.Context(), 0, webhook.ID, bytes.Repeat([]byte{8}, 32), h.now); err != nil {
		t.Fatal(err)
	}
	both, err := NewWebhooks(h.bench.pool, [][]byte{otherSecret, sealSecret})
	if err != nil {
		t.Fatal(err)
	}
	reseal := func(kept *Webhooks, want int) {
		t.Helper()
		if changed, err := kept.Reseal(t.Context(), h.now); err != nil || changed != want {
			t.Errorf("%d changed, %v; want %d", changed, err, want)
		}
	}
	reseal(h.Webhooks, 0)
	reseal(both, 2)
	reseal(both, 0)
	reseal(h.Webhooks, 0) // it cannot open them, and leaves them
	later, err := NewWebhooks(h.bench.pool, [][]byte{otherSecret})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[evently.WebhookID]int{webhook.ID: 2, plain.ID: 1} {
		if _, err := h.Ping(t.Context(), 0, id, 1, h.now); err != nil {
			t.Fatal(err)
		}
		lanes, err := (&WebhookQueue{h.bench.pool, later.seal, discard}).Lanes(t.Context(), id-1, 1, h.now)
		if err != nil || len(lanes) != 1 || len(lanes[0].Secrets) != want {
			t.Errorf("%+v, %v; want %d secrets", lanes, err, want)
		}
	}
	h.now = h.now.Add(evently.WebhookSecretOverlap)
	reseal(later, 1)
	reseal(later, 0)
	if n := h.count(`select count(*) from webhooks where past_secret is not null`); n != 0 {
		t.Errorf("%d webhooks keep a secret of the past", n)
	}
}

func TestWebhooks_KeptForTheirOwners(t *testing.T) {
	h := newHooks(t)
	ctx, ann, ben := t.Context(), h.user(evently.RoleOrganizer), h.user(evently.RoleOrganizer)
	webhook := h.hook(ann, evently.WebhookBookingConfirmed)
	if got, err := h.Webhook(ctx, ann, webhook.ID); err != nil || !cmp.Equal(got, webhook) {
		t.Errorf("%+v, %v; want %+v", got, err, webhook)
	}
	revision := &evently.Webhook{
		ID: webhook.ID, URL: "https://other.example.com", Description: "new", Types: evently.WebhookTypesAll, Ended: evently.WebhookPaused,
		UpdatedAt: h.now.Add(time.Minute),
	}
	for name, try := range map[string]func(owner evently.UserID, id evently.WebhookID) error{
		"read": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.Webhook(ctx, owner, id)
			return err
		},
		"deliveries": func(owner evently.UserID, id evently.WebhookID) error {
			_, _, err := h.Deliveries(ctx, owner, id, evently.Page{Limit: 10})
			return err
		},
		"revise": func(owner evently.UserID, id evently.WebhookID) error {
			revision := *revision
			revision.ID = id
			_, err := h.ReviseWebhook(ctx, owner, &revision)
			return err
		},
		"enable": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.EnableWebhook(ctx, owner, id, h.now)
			return err
		},
		"rotate": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.RotateSecret(ctx, owner, id, make([]byte, 32), h.now)
			return err
		},
		"ping": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.Ping(ctx, owner, id, 1, h.now)
			return err
		},
		"redeliver": func(owner evently.UserID, id evently.WebhookID) error {
			_, err := h.Redeliver(ctx, owner, id, evently.DeliveryID{}, h.now)
			return err
		},
		"delete": func(owner evently.UserID, id evently.WebhookID) error { return h.DeleteWebhook(ctx, owner, id) },
	} {
		if err := try(ben, webhook.ID); !errors.Is(err, evently.ErrNotFound) {
			t.Errorf("%s of another owner's: %v", name, err)
		}
		if err := try(ann, webhook.ID+2); !errors.Is(err, evently.ErrNotFound) {
			t.Errorf("%s of none: %v", name, err)
		}
	}
	if got, err := h.Webhook(ctx, 0, webhook.ID); err != nil || !cmp.Equal(got, webhook) {
		t.Errorf("refused changes left %+v, %v; want %+v", got, err, webhook)
	}
	want := *webhook
	want.URL, want.Description, want.Types, want.UpdatedAt = revision.URL, revision.Description, revision.Types, revision.UpdatedAt
	want.Ended, want.EndedAt = evently.WebhookPaused, revision.UpdatedAt
	if got, err := h.ReviseWebhook(ctx, ann, revision); err != nil || !cmp.Equal(got, &want) {
		t.Errorf("revised %v: %s", err, cmp.Diff(&want, got))
	}
	want.Ended, want.EndedAt, want.UpdatedAt = evently.WebhookActive, time.Time{}, h.now.Add(2*time.Minute)
	for range 2 { // the second time changes nothing
		if got, err := h.EnableWebhook(ctx, ann, webhook.ID, h.now.Add(2*time.Minute)); err != nil || !cmp.Equal(got, &want) {
			t.Errorf("enabled %v: %s", err, cmp.Diff(&want, got))
		}
	}
	if err := h.DeleteWebhook(ctx, ann, webhook.ID); err != nil {
		t.Error(err)
	}
	if _, err := h.Webhook(ctx, ann, webhook.ID); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("deleted, and there: %v", err)
	}
}

func TestWebhooks_AreBoundedForEachOwner(t *testing.T) {
	h := newHooks(t)
	ann, ben := h.user(evently.RoleOrganizer), h.user(evently.RoleAdmin)
	var group sync.WaitGroup
	var mu sync.Mutex
	var made []evently.WebhookID
	full := 0
	for i := range 2 * evently.WebhooksMax {
		group.Go(func() {
			webhook := &evently.Webhook{
				ID: evently.WebhookID(i + 1), Owner: ann, URL: "https://a.example", Types: 2, CreatedAt: h.now.Add(time.Duration(i) * time.Millisecond),
			}
			created, err := h.CreateWebhook(t.Context(), webhook, make([]byte, 32))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, evently.ErrWebhooksFull):
				full++
			case err != nil:
				t.Error(err)
			default:
				made = append(made, created.ID)
			}
		})
	}
	group.Wait()
	if len(made) != evently.WebhooksMax || full != evently.WebhooksMax {
		t.Errorf("%d were made, %d refused", len(made), full)
	}
	if _, err := h.CreateWebhook(t.Context(), &evently.Webhook{ID: made[0], Owner: ann, CreatedAt: h.now}, make([]byte, 32)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := h.CreateWebhook(t.Context(), &evently.Webhook{ID: made[0], Owner: ben, CreatedAt: h.now}, make([]byte, 32)); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("another owner's id: %v", err)
	}
	h.hook(ben)
	slices.Sort(made)
	var listed []evently.WebhookID
	page := evently.Page{Limit: 7}
	for {
		list, next, err := h.Webhooks.Webhooks(t.Context(), ann, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, webhook := range list {
			listed = append(listed, webhook.ID)
		}
		if next == nil {
			break
		}
		page.After = next
	}
	if diff := cmp.Diff(made, listed); diff != "" {
		t.Errorf("(-made +listed):\n%s", diff)
	}
	if all, _, err := h.Webhooks.Webhooks(t.Context(), 0, evently.Page{Limit: 100}); err != nil || len(all) != evently.WebhooksMax+1 {
		t.Errorf("all: %d, %v", len(all), err)
	}
}

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

func TestWebhooks_DraftsAreNotTold(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer)
	event := newEvent(5)
	event.Organizer, event.Status = organizer, evently.EventDraft
	if _, err := h.events.CreateEvent(t.Context(), event, organizer, "create"); err != nil {
		t.Fatal(err)
	}
	deleted := newEvent(5)
	deleted.Organizer, deleted.Status = organizer, evently.EventDraft
	if _, err := h.events.CreateEvent(t.Context(), deleted, organizer, "create"); err != nil {
		t.Fatal(err)
	}
	o := h.acquire(event.ID)
	o.decide(&evently.Revise{Version: 1, Details: event.EventDetails}, o.Now)
	o.MustFlush()
	h.consume(event.ID, deleted.ID)
	if got := h.drain(webhook.ID); len(got) != 0 {
		t.Errorf("told %+v", got)
	}
	if err := h.events.DeleteDraft(t.Context(), deleted.ID, organizer, "delete"); err != nil {
		t.Fatal(err)
	}
	h.step(Span{deleted.ID, 1, 2})
	o.decide(&evently.Publish{}, o.Now)
	o.MustFlush()
	h.consume(event.ID)
	if got := h.drain(webhook.ID); len(got) != 1 || got[0].Type != "event.published" {
		t.Errorf("told %+v", got)
	}
}

// Who hears of what: administrators of all events, organizers of theirs, those who are neither any more of nothing.
func TestWebhooks_HearOfTheirOwnersEvents(t *testing.T) {
	h := newHooks(t)
	ann, ben, boss, user := h.user(evently.RoleOrganizer), h.user(evently.RoleOrganizer), h.user(evently.RoleAdmin), h.user(evently.RoleUser)
	hearer := map[string]*evently.Webhook{
		"ann": h.hook(ann), "ben": h.hook(ben), "boss": h.hook(boss), "user": h.hook(user),
		"few":    h.hook(ann, evently.WebhookBookingConfirmed, evently.WebhookEventCancelled),
		"paused": h.hook(ann),
	}
	if _, err := h.ReviseWebhook(t.Context(), ann, &evently.Webhook{ID: hearer["paused"].ID, Ended: evently.WebhookPaused, UpdatedAt: h.now}); err != nil {
		t.Fatal(err)
	}
	anns, bens := h.of(ann, 10), h.of(ben, 10)
	sell := func(want map[string]int) {
		t.Helper()
		anns.sell(1)
		bens.sell(1)
		h.consume(anns.Ledger.Event().ID, bens.Ledger.Event().ID)
		got := make(map[string]int)
		for name, webhook := range hearer {
			if n := len(h.drain(webhook.ID)); n > 0 {
				got[name] = n
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	sell(map[string]int{"ann": 3, "ben": 3, "boss": 6, "few": 1})
	h.exec(`update users set role = $2 where user_id = $1`, int64(boss), evently.RoleOrganizer)
	h.exec(`update users set role = $2 where user_id = $1`, int64(ben), evently.RoleUser)
	sell(map[string]int{"ann": 2, "few": 1})
	if err := h.DeleteWebhook(t.Context(), ann, hearer["ann"].ID); err != nil {
		t.Fatal(err)
	}
	sell(map[string]int{"few": 1})
}

// The step is repeated after a crash before its commit, and whatever else happens: one delivery for an entry.
func TestWebhooks_OneDeliveryForAnEntry(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer)
	o := h.of(organizer, 100)
	o.sell(4)
	event := o.Ledger.Event().ID
	spans := h.spans(1000, event)
	ctx, cancel := context.WithCancel(t.Context())
	err := pgx.BeginFunc(ctx, h.bench.pool, func(tx pgx.Tx) error {
		if err := queueWebhooks(ctx, tx, spans, h.now); err != nil {
			return err
		}
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || h.count(`select count(*) from webhook_deliveries`) != 0 {
		t.Fatalf("%v", err)
	}
	h.step(spans...)
	first := h.claim(webhook.ID)
	h.record(first, "")
	h.step(spans...)
	h.step(spans...)
	got := h.drain(webhook.ID)
	if want := int(spans[0].Upto) - 1; len(got) != want {
		t.Errorf("%d more messages, want %d", len(got), want)
	}
}

// A dead webhook has a bounded queue; what is beyond stays in the journal, nothing is left out, and others do not notice.
func TestWebhooks_BacklogOfADeadOneIsBoundedAndComplete(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	dead, alive := h.hook(organizer), h.hook(organizer)
	few := h.hook(organizer, evently.WebhookBookingCancelled)
	var events []evently.EventID
	var owners []*owner
	for range 3 {
		o := h.of(organizer, 100_000)
		owners, events = append(owners, o), append(events, o.Ledger.Event().ID)
	}
	entries, heard := 0, 0
	for range 10 {
		for i, o := range owners {
			o.sell(40 + i)
		}
		for _, span := range h.spans(150, events...) {
			h.step(span)
			entries += int(span.Upto - span.After)
		}
		heard += len(h.drain(alive.ID))
	}
	pending := h.count(`select count(*) from webhook_deliveries where webhook_id = $1`, int64(dead.ID))
	ranges := h.count(`select count(*) from webhook_backlog`)
	if entries < 2*webhookPendingMax || pending > webhookPendingMax || pending < webhookPendingMax-webhookStepMax || ranges != len(events) {
		t.Errorf("of %d entries %d wait, and %d ranges", entries, pending, ranges)
	}
	if heard != entries {
		t.Errorf("the other one heard of %d of %d entries", heard, entries)
	}
	cancelled := len(h.drain(few.ID))

	// It comes back while bookings go on.
	ids := make(map[string]bool)
	told := 0
	take := func() {
		for _, message := range h.drain(dead.ID) {
			ids[fmt.Sprint(message.Data["event_id"], message.Data["seq"])] = true
			told++
		}
	}
	var group sync.WaitGroup
	more := h.spans(1000, events...)
	for _, o := range owners {
		o.sell(20)
	}
	more = append(more, h.spans(5, events...)...)
	for _, span := range more {
		entries += int(span.Upto - span.After)
	}
	group.Go(func() {
		for _, span := range more {
			if err := pgx.BeginFunc(t.Context(), h.bench.pool, func(tx pgx.Tx) error { return queueWebhooks(t.Context(), tx, []Span{span}, h.now) }); err != nil {
				t.Error(err)
			}
		}
	})
	take()
	group.Wait()
	take()
	if len(ids) != entries || told != entries {
		t.Errorf("told %d times of %d entries, there are %d", told, len(ids), entries)
	}
	if n := h.count(`select count(*) from webhook_backlog`); n != 0 {
		t.Errorf("%d ranges are left", n)
	}
	if want := h.count(`select count(*) from journal where kind = 7 and token in (select token from reservations where confirmed_at is not null)`); cancelled+len(h.drain(few.ID)) != want {
		t.Errorf("one that hears little was told %d times, want %d", cancelled, want)
	}
}

// Ranges of an event follow each other in one row, also where a webhook does not hear of what they hold.
func TestWebhooks_BacklogDoesNotFallApart(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer, evently.WebhookBookingConfirmed)
	o := h.of(organizer, 100_000)
	event := o.Ledger.Event().ID
	h.exec(`insert into webhook_backlog (webhook_id, event_id, after_seq, upto_seq) values ($1, 1, 0, 1)`, int64(webhook.ID)) // of another event
	for range 5 {
		o.sell(8)
	}
	for _, span := range h.spans(1, event) {
		h.step(span)
	}
	if n := h.count(`select count(*) from webhook_backlog where event_id = $1`, int64(event)); n != 1 {
		t.Errorf("%d ranges", n)
	}
	h.exec(`delete from webhook_backlog where event_id = 1`)
	want := h.count(`select count(*) from journal where kind = 6`)
	if got := h.drain(webhook.ID); len(got) != want || want == 0 {
		t.Errorf("%d messages, want %d", len(got), want)
	}
}

func TestWebhooks_FeedTellsOfWhatHappensFromNowOn(t *testing.T) {
	h := newHooks(t)
	boss := h.user(evently.RoleAdmin)
	webhook := h.hook(boss)
	o := h.of(boss, 1000)
	o.sell(3)
	before := h.count(`select count(*) from journal`)
	_, stop := h.feeding(h.bench.pool, h.Consumer(time.Now))
	h.waitUntil("the consumer has enrolled", func() bool { return h.count(`select count(*) from consumers where name = 'webhooks'`) == 1 })
	late := h.of(boss, 1000)
	late.sell(3)
	o.sell(20)
	want := h.count(`select count(*) from journal`) - before
	h.waitUntil("all is queued", func() bool { return h.count(`select count(*) from webhook_deliveries`) >= want })
	stop()
	h.now = time.Now()
	if got := len(h.drain(webhook.ID)); got != want {
		t.Errorf("told of %d entries, want %d", got, want)
	}
}

func TestWebhookQueue_ClaimsAreExclusiveUntilTheyRunOut(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer)
	o := h.of(organizer, 1000)
	o.sell(20)
	h.consume(o.Ledger.Event().ID)
	total := h.count(`select count(*) from webhook_deliveries`)
	var group sync.WaitGroup
	var mu sync.Mutex
	claimed := make(map[evently.DeliveryID]int)
	for range 8 {
		group.Go(func() {
			for {
				delivery, err := h.queue.Claim(t.Context(), webhook.ID, h.now, h.now.Add(30*time.Second))
				if err != nil {
					t.Error(err)
				}
				if delivery == nil {
					return
				}
				mu.Lock()
				claimed[delivery.ID]++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(claimed) != total {
		t.Errorf("%d of %d were claimed", len(claimed), total)
	}
	for id, times := range claimed {
		if times != 1 {
			t.Errorf("%s was claimed %d times", id, times)
		}
	}
	if h.now = h.now.Add(29 * time.Second); h.claim(webhook.ID) != nil || len(h.lanes()) != 0 {
		t.Error("claimed twice")
	}
	h.now = h.now.Add(time.Second)
	again := h.claim(webhook.ID)
	if again == nil || claimed[again.ID] != 1 || len(h.lanes()) != 1 {
		t.Fatalf("a claim that has run out gives %+v", again)
	}
	if err := h.queue.Unclaim(t.Context(), again, h.now); err != nil {
		t.Fatal(err)
	}
	ids := make(map[evently.DeliveryID]bool)
	for delivery := h.claim(webhook.ID); delivery != nil; delivery = h.claim(webhook.ID) {
		ids[delivery.ID] = true
		h.record(delivery, "")
	}
	if len(ids) != total || len(h.lanes()) != 0 {
		t.Errorf("%d of %d were delivered", len(ids), total)
	}
}

func TestWebhookQueue_OutcomesAreRecorded(t *testing.T) {
	h := newHooks(t)
	ctx := t.Context()
	webhook := h.hook(h.user(evently.RoleAdmin))
	ping := func(nonce uint64) *evently.Delivery {
		t.Helper()
		if _, err := h.Ping(ctx, 0, webhook.ID, nonce, h.now); err != nil {
			t.Fatal(err)
		}
		return h.claim(webhook.ID)
	}
	state := func() *evently.Webhook {
		t.Helper()
		got, err := h.Webhook(ctx, 0, webhook.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	delivery := ping(1)
	if delivery.Type != evently.WebhookPing || delivery.Tried != 0 || !strings.Contains(string(delivery.Payload), webhook.ID.String()) {
		t.Fatalf("%+v %s", delivery, delivery.Payload)
	}
	began := h.now
	for i := range evently.WebhookAttemptsKept + 5 {
		if ended := h.record(delivery, fmt.Sprint("fault ", i)); ended != evently.WebhookActive {
			t.Fatalf("attempt %d: %s", i, ended)
		}
		if since := state().FailingSince; !since.Equal(began) {
			t.Fatalf("failing since %s, want %s", since, began)
		}
		h.now = h.now.Add(time.Hour)
		if delivery = h.claim(webhook.ID); delivery == nil || delivery.Tried != i+1 {
			t.Fatalf("attempt %d: %+v", i, delivery)
		}
	}
	if n := len(delivery.Attempts); n != evently.WebhookAttemptsKept || delivery.Attempts[0].Fault != "fault 5" || delivery.Attempts[n-1].Fault != "fault 24" {
		t.Errorf("%d attempts: %+v", n, delivery.Attempts)
	}
	stale := *delivery
	h.record(delivery, "")
	if got := state(); !got.FailingSince.IsZero() {
		t.Errorf("%+v after a success", got)
	}
	// Somebody whose claim has run out says that it failed.
	h.record(&stale, "timeout")
	if list, _, err := h.Deliveries(ctx, 0, webhook.ID, evently.Page{Limit: 1}); err != nil || list[0].Status != evently.DeliveryDone || !list[0].DueAt.IsZero() {
		t.Errorf("%+v, %v", list[0], err)
	}

	// Nothing succeeds for five days.
	h.record(ping(2), "")
	h.record(ping(3), "status")
	h.now = h.now.Add(evently.WebhookFailingMax - time.Millisecond)
	if ended := h.record(ping(4), "status"); ended != evently.WebhookActive {
		t.Errorf("%s too early", ended)
	}
	h.now = h.now.Add(time.Millisecond)
	last := ping(5)
	if ended := h.record(last, "status"); ended != evently.WebhookDisabled {
		t.Errorf("%s after five days", ended)
	}
	if got := state(); got.Ended != evently.WebhookDisabled || !got.EndedAt.Equal(h.now) {
		t.Errorf("%+v", got)
	}
	if ended := h.record(last, "status"); ended != evently.WebhookActive {
		t.Errorf("%s twice", ended)
	}
	if _, err := h.Ping(ctx, 0, webhook.ID, 6, h.now); !errors.Is(err, evently.ErrWebhookDisabled) {
		t.Errorf("ping while it is disabled: %v", err)
	}
	if _, err := h.Redeliver(ctx, 0, webhook.ID, last.ID, h.now); !errors.Is(err, evently.ErrWebhookDisabled) {
		t.Errorf("redelivery while it is disabled: %v", err)
	}
	h.now = h.now.Add(time.Hour)
	if len(h.lanes()) != 0 || h.claim(webhook.ID) != nil {
		t.Error("something is due while it is disabled")
	}
	if got, err := h.EnableWebhook(ctx, 0, webhook.ID, h.now); err != nil || got.Ended != evently.WebhookActive || !got.FailingSince.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if len(h.lanes()) != 1 {
		t.Error("what waited is not due")
	}
	gone := h.claim(webhook.ID)
	if ended := h.record(gone, "gone"); ended != evently.WebhookGone || state().Ended != evently.WebhookGone {
		t.Errorf("410: %s, %+v", ended, state())
	}
	if load, err := h.queue.Load(ctx); err != nil || load.Active != 0 || load.Ended != 1 || load.Pending == 0 {
		t.Errorf("%+v, %v", load, err)
	}
}

// Behind a pooler that forbids prepared statements.
func TestWebhooks_WithoutPreparedStatements(t *testing.T) {
	h := hooksOn(benchOn(t, openPool(t, with(pgtest.Database(t), "default_query_exec_mode=exec"), 8), JournalConfig{}))
	o := h.of(h.user(evently.RoleOrganizer), 1000)
	hook := h.hook(o.Ledger.Event().Organizer)
	h.consume(o.Ledger.Event().ID)
	h.drain(hook.ID)
	o.sell(webhookPendingMax/2 + 1)
	h.consume(o.Ledger.Event().ID)
	if got := h.count(`select count(*) from webhook_backlog`); got == 0 {
		t.Error("no backlog")
	}
	if h.record(h.claim(hook.ID), "http_500") != evently.WebhookActive {
		t.Error("a failure ended the webhook")
	}
	h.now = h.now.Add(2 * time.Hour)
	if got := len(h.drain(hook.ID)); got != webhookPendingMax+2 {
		t.Errorf("%d messages, want %d", got, webhookPendingMax+2)
	}
	list, _, err := h.Deliveries(t.Context(), 0, hook.ID, evently.Page{Limit: 1})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if _, err := h.Redeliver(t.Context(), 0, hook.ID, list[0].ID, h.now); err != nil {
		t.Error(err)
	}
	if _, err := SweepWebhooks(t.Context(), h.bench.pool, h.now.Add(WebhookLogKeep), WebhookLogKeep); err != nil {
		t.Error(err)
	}
}

func TestWebhooks_DeliveriesAreListedAndSentAgain(t *testing.T) {
	h := newHooks(t)
	ctx := t.Context()
	webhook, other := h.hook(h.user(evently.RoleAdmin)), h.hook(h.user(evently.RoleAdmin))
	var want []evently.DeliveryID
	for i := range uint64(25) {
		if i%3 == 0 {
			h.now = h.now.Add(time.Second)
		}
		first, err := h.Ping(ctx, 0, webhook.ID, i+1, h.now)
		if err != nil {
			t.Fatal(err)
		}
		again, err := h.Ping(ctx, 0, webhook.ID, i+1, h.now)
		if err != nil || again.ID != first.ID {
			t.Fatalf("%+v, %v; want %s", again, err, first.ID)
		}
		want = append(want, first.ID)
	}
	if _, err := h.Ping(ctx, 0, other.ID, 1, h.now); err != nil {
		t.Fatal(err)
	}
	var got []evently.DeliveryID
	page := evently.Page{Limit: 4}
	for {
		list, next, err := h.Deliveries(ctx, 0, webhook.ID, page)
		if err != nil {
			t.Fatal(err)
		}
		for i, delivery := range list {
			if i > 0 && delivery.CreatedAt.After(list[i-1].CreatedAt) {
				t.Error("not newest first")
			}
			got = append(got, delivery.ID)
		}
		if next == nil {
			break
		}
		page.After = next
	}
	byDigits := func(a, b evently.DeliveryID) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(want, byDigits)
	slices.SortFunc(got, byDigits)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	delivery := h.claim(webhook.ID)
	h.record(delivery, "")
	h.now = h.now.Add(10 * 24 * time.Hour)
	again, err := h.Redeliver(ctx, 0, webhook.ID, delivery.ID, h.now)
	if err != nil || again.Status != evently.DeliveryPending || !again.DueAt.Equal(h.now) || !again.GiveUpAt.Equal(h.now.Add(evently.WebhookGiveUp)) ||
		len(again.Attempts) != 1 || again.Tried != 0 || !again.EndedAt.IsZero() {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := h.Redeliver(ctx, 0, other.ID, delivery.ID, h.now); !errors.Is(err, evently.ErrNotFound) {
		t.Errorf("redelivered to another webhook: %v", err)
	}
	for _, pending := range []int{webhookPendingMax - 27, 1} {
		h.exec(`
			insert into webhook_deliveries (delivery_id, webhook_id, type, event_id, seq, payload, created_at, due_at, give_up_at)
			select gen_random_uuid(), $1, 1, 1, 1, '', $2, $2, $2 from generate_series(1, $3)`, int64(webhook.ID), h.now, pending)
		_, pinged := h.Ping(ctx, 0, webhook.ID, 1000, h.now)
		_, redelivered := h.Redeliver(ctx, 0, webhook.ID, delivery.ID, h.now)
		if full := pending == 1; errors.Is(pinged, evently.ErrOverloaded) != full || errors.Is(redelivered, evently.ErrOverloaded) != full {
			t.Errorf("with %d more pending: %v, %v", pending, pinged, redelivered)
		}
	}
}

func TestSweepWebhooks(t *testing.T) {
	h := newHooks(t)
	ctx := t.Context()
	owner := h.user(evently.RoleAdmin)
	kept, paused, gone := h.hook(owner), h.hook(owner), h.hook(owner)
	add := func(id evently.WebhookID, count int, createdAt time.Time, due bool) {
		t.Helper()
		h.exec(`
			insert into webhook_deliveries (delivery_id, webhook_id, type, event_id, seq, payload, status, created_at, due_at, give_up_at, ended_at)
			select gen_random_uuid(), $1, 1, 1, 1, '', case when $4 then 0 else 1 end, $2, case when $4 then $2::timestamptz end,
			    $2::timestamptz + interval '3 days', case when not $4 then $2::timestamptz end
			from generate_series(1, $3)`, int64(id), createdAt, count, due)
	}
	day := 24 * time.Hour
	add(kept.ID, 3, h.now.Add(-31*day), false)
	add(kept.ID, 4, h.now.Add(-29*day), false)
	add(kept.ID, 2, h.now.Add(-40*day), true) // still tried, as after a redelivery
	add(paused.ID, 5, h.now.Add(-4*day), true)
	add(paused.ID, 6, h.now.Add(-2*day), true)
	add(gone.ID, sweptRowsMax+10, h.now.Add(-day), true)
	h.exec(`insert into webhook_backlog (webhook_id, event_id, after_seq, upto_seq) values ($1, 1, 0, 5), ($2, 1, 0, 5)`, int64(gone.ID), int64(kept.ID))
	if _, err := h.ReviseWebhook(ctx, 0, &evently.Webhook{ID: paused.ID, Ended: evently.WebhookPaused, UpdatedAt: h.now}); err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteWebhook(ctx, 0, gone.ID); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{3 + sweptRowsMax + 10, 0} {
		if removed, err := SweepWebhooks(ctx, h.bench.pool, h.now, WebhookLogKeep); err != nil || removed != want {
			t.Errorf("sweep %d removed %d, %v; want %d", i, removed, err, want)
		}
	}
	for statement, want := range map[string]int{
		`select count(*) from webhook_deliveries where status = 0 and due_at is not null`:                      2 + 6,
		`select count(*) from webhook_deliveries where status = 2 and due_at is null and ended_at is not null`: 5,
		`select count(*) from webhook_deliveries where status = 1`:                                             4,
		`select count(*) from webhook_backlog`:                                                                 1,
	} {
		if got := h.count(statement); got != want {
			t.Errorf("%s: %d, want %d", statement, got, want)
		}
	}
	// The log of one webhook is bounded whatever its age.
	add(kept.ID, webhookLogMax+7, h.now.Add(-time.Hour), false)
	add(kept.ID, 1, h.now, false)
	if _, err := SweepWebhooks(ctx, h.bench.pool, h.now, WebhookLogKeep); err != nil {
		t.Fatal(err)
	}
	if got := h.count(`select count(*) from webhook_deliveries where status = 1`); got > webhookLogMax+8 {
		t.Errorf("%d are left", got)
	}
	add(kept.ID, webhookLogMax, h.now.Add(time.Hour), false)
	if _, err := SweepWebhooks(ctx, h.bench.pool, h.now, WebhookLogKeep); err != nil {
		t.Fatal(err)
	}
	if got := h.count(`select count(*) from webhook_deliveries where status = 1`); got != webhookLogMax {
		t.Errorf("%d are left, want %d", got, webhookLogMax)
	}
}
