package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
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
