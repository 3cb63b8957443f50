package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/evently/evently"
)

// webhookType says what the message about an entry is called; of the entries that nobody is told of none. onRelease is the wish of the
// waiter that a held entry serves.
func webhookType(e *FeedEntry, onRelease evently.OnRelease) (t evently.WebhookType, told bool) {
	if e.Event != nil && e.Event.Status == evently.EventDraft { // nobody has seen it
		return 0, false
	}
	switch e.Kind {
	case evently.EventCreatedEntry, evently.EventPublishedEntry:
		return evently.WebhookEventPublished, true
	case evently.EventRevisedEntry:
		return evently.WebhookEventUpdated, true
	case evently.EventCancelledEntry:
		return evently.WebhookEventCancelled, true
	case evently.EventPricingSetEntry, evently.EventRepricedEntry:
		return evently.WebhookEventRepriced, true
	case evently.HeldEntry:
		switch {
		case !e.Waiter:
			return evently.WebhookReservationHeld, true
		case onRelease == evently.BookOnRelease: // booking.confirmed follows
			return evently.WebhookWaitlistBooked, true
		}
		return evently.WebhookWaitlistOffered, true
	case evently.ConfirmedEntry:
		return evently.WebhookBookingConfirmed, true
	case evently.CancelledEntry:
		if e.WasConfirmed {
			return evently.WebhookBookingCancelled, true
		}
		return evently.WebhookReservationReleased, true
	case evently.ExpiredEntry:
		return evently.WebhookReservationExpired, true
	case evently.WaitlistedEntry:
		return evently.WebhookWaitlistJoined, true
	case evently.WaiterLeftEntry:
		return evently.WebhookWaitlistLeft, true
	case evently.WaiterClosedEntry:
		return evently.WebhookWaitlistClosed, true
	case evently.EventDeletedEntry, evently.WaiterPrioritizedEntry:
	}
	return 0, false
}

// webhookBody is what is sent, by Standard Webhooks. It names people by their user ids alone.
type webhookBody struct {
	Type      string      `json:"type"`
	Timestamp time.Time   `json:"timestamp"`
	Data      webhookData `json:"data"`
}

type webhookData struct {
	WebhookID     string        `json:"webhook_id,omitempty"` // of a ping
	EventID       string        `json:"event_id,omitempty"`
	Seq           uint64        `json:"seq,omitempty"`
	ReservationID string        `json:"reservation_id,omitempty"`
	WaiterID      string        `json:"waiter_id,omitempty"`
	UserID        string        `json:"user_id,omitempty"`
	Quantity      int           `json:"quantity,omitempty"`
	Items         []webhookItem `json:"items,omitempty"`
	TotalMinor    *int64        `json:"total_minor,omitempty"`
	Currency      string        `json:"currency,omitempty"`
	ExpiresAt     *time.Time    `json:"expires_at,omitempty"`
	OnRelease     string        `json:"on_release,omitempty"`
	Position      int           `json:"position,omitempty"`
	Event         *webhookEvent `json:"event,omitempty"`
}

type webhookItem struct {
	TierID         string `json:"tier_id"`
	Quantity       int    `json:"quantity"`
	UnitPriceMinor *int64 `json:"unit_price_minor,omitempty"` // not of those who wait
}

type webhookEvent struct {
	Name         string        `json:"name"`
	Category     string        `json:"category"`
	Venue        string        `json:"venue"`
	City         string        `json:"city"`
	Timezone     string        `json:"timezone"`
	StartsAt     time.Time     `json:"starts_at"`
	EndsAt       time.Time     `json:"ends_at"`
	SalesStartAt *time.Time    `json:"sales_start_at"`
	SalesEndAt   *time.Time    `json:"sales_end_at"`
	Status       string        `json:"status"`
	Version      uint64        `json:"version"`
	Currency     string        `json:"currency"`
	Capacity     int           `json:"capacity"`
	Tiers        []webhookTier `json:"tiers"`
}

type webhookTier struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Capacity       int    `json:"capacity"`
	BasePriceMinor int64  `json:"base_price_minor"`
	PriceMinor     int64  `json:"price_minor"`
}

func encodeWebhook(body *webhookBody) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode message %s: %w", body.Type, err)
	}
	return text, nil
}

func pingMessage(id evently.WebhookID, now time.Time) ([]byte, error) {
	return encodeWebhook(&webhookBody{evently.WebhookPing.String(), now.UTC(), webhookData{WebhookID: id.String()}})
}

// webhookMessage is the body that tells of an entry.
func webhookMessage(e *FeedEntry, t evently.WebhookType, currency string) ([]byte, error) {
	data := webhookData{EventID: e.EventID.String(), Seq: e.Seq}
	switch {
	case e.Event != nil:
		data.Event = newWebhookEvent(e.Event)
	case e.Token != 0:
		id := evently.ReservationID{Event: e.EventID, Token: e.Token}
		data.UserID, data.Quantity = e.User.String(), e.Items.Quantity()
		waits := e.Kind == evently.WaitlistedEntry || e.Kind == evently.WaiterLeftEntry || e.Kind == evently.WaiterClosedEntry
		if waits || e.Waiter {
			data.WaiterID = evently.WaiterID(id).String()
		}
		if !waits {
			total := e.Items.TotalMinor()
			data.ReservationID, data.TotalMinor, data.Currency = id.String(), &total, currency
		}
		for item := range e.Items.All() {
			line := webhookItem{TierID: evently.TierID(item.Tier), Quantity: item.Quantity}
			if !waits {
				line.UnitPriceMinor = &item.UnitPriceMinor
			}
			data.Items = append(data.Items, line)
		}
		if !e.ExpiresAt.IsZero() && t != evently.WebhookWaitlistBooked {
			data.ExpiresAt = &e.ExpiresAt
		}
		if e.Kind == evently.WaitlistedEntry {
			data.OnRelease, data.Position = e.OnRelease.String(), e.Position
		}
	}
	return encodeWebhook(&webhookBody{t.String(), e.At.UTC(), data})
}

func newWebhookEvent(e *evently.Event) *webhookEvent {
	event := &webhookEvent{
		Name: e.Name, Category: e.Category, Venue: e.Venue, City: e.City, Timezone: e.Timezone, StartsAt: e.StartsAt, EndsAt: e.EndsAt,
		SalesStartAt: nullable(e.SalesStartAt), SalesEndAt: nullable(e.SalesEndAt), Status: e.Status.String(), Version: e.Version,
		Currency: e.Currency, Capacity: e.Capacity(), Tiers: []webhookTier{},
	}
	for i := range e.Tiers {
		if tier := &e.Tiers[i]; !tier.Retired {
			event.Tiers = append(event.Tiers, webhookTier{
				evently.TierID(i), tier.Name, tier.Capacity, tier.BasePriceMinor, tier.PriceMinor,
			})
		}
	}
	return event
}
