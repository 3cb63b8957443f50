package evently

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Limits of webhooks.
const (
	WebhooksMax        = 20   // of one owner
	WebhookURLBytesMax = 2000 // of a Webhook's URL
	webhookTextMax     = 500  // characters of a description

	// WebhookSecretBytes is the length of a signing secret.
	WebhookSecretBytes = 32
	// WebhookSecretOverlap is how long a secret that was replaced still signs along.
	WebhookSecretOverlap = 24 * time.Hour
	// WebhookGiveUp is how long a delivery is tried. What has failed by then is tried again only when somebody asks for it.
	WebhookGiveUp = 3 * 24 * time.Hour
	// WebhookFailingMax is how long a webhook may fail without a success before it is disabled.
	WebhookFailingMax = 5 * 24 * time.Hour
	// WebhookAttemptsKept bounds the attempts of one delivery that are remembered, the latest ones.
	WebhookAttemptsKept = 20
	// WebhookExcerptBytesMax bounds what is remembered of a response.
	WebhookExcerptBytesMax = 512
)

// WebhookType is what a message to a webhook tells of.
type WebhookType uint8

// The values are stored; never renumber them.
const (
	WebhookPing WebhookType = iota // a test; nobody subscribes to it
	WebhookEventPublished
	WebhookEventUpdated
	WebhookEventCancelled
	WebhookEventRepriced
	WebhookReservationHeld
	WebhookBookingConfirmed
	WebhookBookingCancelled
	WebhookReservationExpired
	WebhookReservationReleased
	WebhookWaitlistJoined
	WebhookWaitlistOffered
	WebhookWaitlistBooked
	WebhookWaitlistLeft
	WebhookWaitlistClosed
)

var webhookTypeNames = [...]string{
	WebhookPing:                "ping",
	WebhookEventPublished:      "event.published",
	WebhookEventUpdated:        "event.updated",
	WebhookEventCancelled:      "event.cancelled",
	WebhookEventRepriced:       "event.repriced",
	WebhookReservationHeld:     "reservation.held",
	WebhookBookingConfirmed:    "booking.confirmed",
	WebhookBookingCancelled:    "booking.cancelled",
	WebhookReservationExpired:  "reservation.expired",
	WebhookReservationReleased: "reservation.released",
	WebhookWaitlistJoined:      "waitlist.joined",
	WebhookWaitlistOffered:     "waitlist.offered",
	WebhookWaitlistBooked:      "waitlist.booked",
	WebhookWaitlistLeft:        "waitlist.left",
	WebhookWaitlistClosed:      "waitlist.closed",
}

func (t WebhookType) String() string {
	if int(t) < len(webhookTypeNames) {
		return webhookTypeNames[t]
	}
	return "WebhookType(" + strconv.Itoa(int(t)) + ")"
}

// ParseWebhookType is the inverse of WebhookType.String.
func ParseWebhookType(s string) (WebhookType, error) {
	for i, name := range webhookTypeNames {
		if name == s {
			return WebhookType(i), nil
		}
	}
	return 0, fmt.Errorf("parse webhook type %.40q: there is no such type", s)
}

// WebhookTypes is a set of types: a bit for each, at the place of its value.
type WebhookTypes uint64

// Add puts a type into the set.
func (s *WebhookTypes) Add(t WebhookType) { *s |= 1 << t }

// Has reports whether a type is in the set.
func (s WebhookTypes) Has(t WebhookType) bool { return s&(1<<t) != 0 }

// List returns the types in the order of their values.
func (s WebhookTypes) List() []WebhookType {
	list := make([]WebhookType, 0, bits.OnesCount64(uint64(s)))
	for t := range WebhookType(len(webhookTypeNames)) {
		if s.Has(t) {
			list = append(list, t)
		}
	}
	return list
}

// WebhookTypesAll are the types that a webhook can subscribe to.
const WebhookTypesAll WebhookTypes = 1<<(WebhookWaitlistClosed+1) - 1<<WebhookEventPublished

// WebhookID identifies a webhook. Zero is none.
type WebhookID uint64

const webhookPrefix = "whk_"

func (id WebhookID) String() string { return string(appendID([]byte(webhookPrefix), uint64(id))) }

// ParseWebhookID is the inverse of WebhookID.String; any other text is an error.
func ParseWebhookID(s string) (WebhookID, error) {
	id, err := parsePrefixed(s, webhookPrefix, "webhook")
	return WebhookID(id), err
}

// DeliveryID identifies a message to one webhook. It is sent as webhook-id with every attempt, and receivers tell repetitions by it.
type DeliveryID struct{ Hi, Lo uint64 }

const deliveryPrefix = "msg_"

// NewDeliveryID names the message that tells a webhook of an entry: SHA-256 of the three, truncated to 128 bits, so that it is the same
// whoever makes it, however often.
func NewDeliveryID(webhook WebhookID, event EventID, seq uint64) DeliveryID {
	var text [24]byte
	binary.BigEndian.PutUint64(text[:8], uint64(webhook))
	binary.BigEndian.PutUint64(text[8:16], uint64(event))
	binary.BigEndian.PutUint64(text[16:], seq)
	sum := sha256.Sum256(text[:])
	return DeliveryID{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])}
}

func (id DeliveryID) String() string {
	return string(appendID(appendID([]byte(deliveryPrefix), id.Hi), id.Lo))
}

// ParseDeliveryID is the inverse of DeliveryID.String; any other text is an error.
func ParseDeliveryID(s string) (DeliveryID, error) {
	digits, found := strings.CutPrefix(s, deliveryPrefix)
	if found && len(digits) == 2*idDigits {
		hi, hiOK := parseID(digits[:idDigits])
		lo, loOK := parseID(digits[idDigits:])
		if hiOK && loOK {
			return DeliveryID{hi, lo}, nil
		}
	}
	return DeliveryID{}, fmt.Errorf("parse delivery id %.40q: not of the form %s and %d digits", s, deliveryPrefix, 2*idDigits)
}

// WebhookEnd is why a webhook is not active.
type WebhookEnd uint8

// The values are stored; never renumber them.
const (
	WebhookActive   WebhookEnd = iota
	WebhookPaused              // by its owner
	WebhookGone                // the receiver answered 410
	WebhookDisabled            // it failed for WebhookFailingMax
)

func (e WebhookEnd) String() string {
	switch e {
	case WebhookActive:
		return "active"
	case WebhookPaused:
		return "paused"
	case WebhookGone:
		return "gone"
	case WebhookDisabled:
		return "failing"
	}
	return "WebhookEnd(" + strconv.Itoa(int(e)) + ")"
}

// Webhook is where messages are sent to, by Standard Webhooks. That of an administrator hears of all events, that of an organizer of
// the organizer's own; that of somebody who is neither any more hears nothing.
type Webhook struct {
	ID           WebhookID
	Owner        UserID
	URL          string
	Description  string
	Types        WebhookTypes
	Ended        WebhookEnd
	EndedAt      time.Time // when it ceased to be active; zero: it is
	FailingSince time.Time // of the first failure since the last success; zero: none
	OverlapUntil time.Time // until when the secret before this one signs along; zero: there is none
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Validate returns an *Error with CodeInvalidRequest that names every field out of its bounds, or nil. Whether the URL is one that
// may be called is decided elsewhere. Field names are those of the HTTP API.
func (w *Webhook) Validate() error {
	var fields FieldErrors
	fields.checkText("url", w.URL, 1, WebhookURLBytesMax)
	fields.checkText("description", w.Description, 0, webhookTextMax)
	if w.Types == 0 || w.Types&^WebhookTypesAll != 0 {
		fields.Add("events", fmt.Sprintf("must have 1 to %d types", bits.OnesCount64(uint64(WebhookTypesAll))))
	}
	return fields.Err()
}

// DeliveryStatus is the stage of a delivery: pending -> delivered | failed, and pending again when somebody asks for it.
type DeliveryStatus uint8

// The values are stored; never renumber them.
const (
	DeliveryPending DeliveryStatus = iota
	DeliveryDone
	DeliveryFailed
)

func (s DeliveryStatus) String() string {
	switch s {
	case DeliveryPending:
		return "pending"
	case DeliveryDone:
		return "delivered"
	case DeliveryFailed:
		return "failed"
	}
	return "DeliveryStatus(" + strconv.Itoa(int(s)) + ")"
}

// Delivery is a message to a webhook and what became of it.
type Delivery struct {
	ID        DeliveryID
	Webhook   WebhookID
	Type      WebhookType
	Event     EventID // zero for WebhookPing
	Seq       uint64  // of the entry that it tells of
	Payload   []byte  // the body, as it is sent each time
	Status    DeliveryStatus
	Tried     int               // attempts since it was queued, or queued again
	Attempts  []DeliveryAttempt // the last WebhookAttemptsKept, oldest first
	CreatedAt time.Time
	DueAt     time.Time // of the next attempt; zero: none
	GiveUpAt  time.Time // when a failure is final
	EndedAt   time.Time // zero: pending
}

// DeliveryAttempt is what came of sending a delivery once.
type DeliveryAttempt struct {
	At        time.Time
	LatencyMS int64
	HTTPCode  int    // of the response; 0: there was none
	Fault     string // one of a few words for what went wrong; "": delivered
	Excerpt   string // the begin of the response's body, at most WebhookExcerptBytesMax
}

// Refusals of Webhooks.
var (
	ErrWebhooksFull = &Error{
		Code: CodeWebhookLimitReached, Detail: "The owner has " + strconv.Itoa(WebhooksMax) + " webhooks, as many as can be: delete one first.",
	}
	ErrWebhookDisabled = &Error{Code: CodeWebhookDisabled, Detail: "The webhook is not active: enable it first."}
)

// Webhooks keeps webhooks and the log of their deliveries. Where an owner is asked for, zero is anybody; a webhook of another owner is
// ErrNotFound, like one that is not there.
type Webhooks interface {
	// CreateWebhook stores a webhook with its signing secret. It returns ErrWebhooksFull. A webhook with that ID that is already there is
	// given the new secret and returned instead when it has the same owner, so that a repeated request has one effect.
	CreateWebhook(ctx context.Context, webhook *Webhook, secret []byte) (*Webhook, error)
	// Webhook returns ErrNotFound.
	Webhook(ctx context.Context, owner UserID, id WebhookID) (*Webhook, error)
	// Webhooks lists by age, oldest first. next is nil at the end.
	Webhooks(ctx context.Context, owner UserID, page Page) (list []*Webhook, next *Cursor, err error)
	// ReviseWebhook replaces URL, description and types, and pauses or enables the webhook unless it is that already. A pending delivery
	// goes to the new URL. It returns ErrNotFound.
	ReviseWebhook(ctx context.Context, owner UserID, webhook *Webhook) (*Webhook, error)
	// DeleteWebhook ends the webhook and what is pending. It returns ErrNotFound.
	DeleteWebhook(ctx context.Context, owner UserID, id WebhookID) error
	// EnableWebhook makes the webhook active; what was pending when it ended goes out unless it is too old. It returns ErrNotFound.
	EnableWebhook(ctx context.Context, owner UserID, id WebhookID, now time.Time) (*Webhook, error)
	// RotateSecret replaces the secret. The one before signs along for WebhookSecretOverlap. It returns ErrNotFound.
	RotateSecret(ctx context.Context, owner UserID, id WebhookID, secret []byte, now time.Time) (*Webhook, error)

	// Ping queues a test message. nonce, which is not zero, tells it from others: with the same one there is one message. It returns
	// ErrNotFound, ErrWebhookDisabled or ErrOverloaded.
	Ping(ctx context.Context, owner UserID, id WebhookID, nonce uint64, now time.Time) (*Delivery, error)
	// Deliveries lists newest first, without payloads. next is nil at the end. It returns ErrNotFound.
	Deliveries(ctx context.Context, owner UserID, id WebhookID, page Page) (list []*Delivery, next *Cursor, err error)
	// Redeliver queues a delivery again, whatever became of it, under its ID. It returns ErrNotFound, ErrWebhookDisabled or
	// ErrOverloaded.
	Redeliver(ctx context.Context, owner UserID, id WebhookID, delivery DeliveryID, now time.Time) (*Delivery, error)
}

// WebhookLane is a webhook that has deliveries due, and what is needed to send them.
type WebhookLane struct {
	Webhook WebhookID
	URL     string
	Secrets [][]byte // sign each message; none: they cannot be read
	Due     bool     // deliveries are due
	Backlog bool     // there is something for Refill
}

// WebhookQueue is the deliveries that wait to be sent. Any number of nodes may take from it.
type WebhookQueue interface {
	// Lanes lists active webhooks with deliveries due, or with a backlog that there is room for: limit at most, in an order of IDs,
	// those after one of them. Zero is before all.
	Lanes(ctx context.Context, after WebhookID, limit int, now time.Time) ([]WebhookLane, error)
	// Claim takes the delivery of a webhook that has been due the longest, or nil. Nobody else gets it before until: when its outcome is
	// not recorded by then, it is due again.
	Claim(ctx context.Context, id WebhookID, now, until time.Time) (*Delivery, error)
	// Unclaim gives a delivery that was not sent back: it is due at once.
	Unclaim(ctx context.Context, delivery *Delivery, now time.Time) error
	// Record keeps an outcome: Attempts has the one attempt to add; Status, DueAt and EndedAt are the new ones. ended is what the webhook
	// becomes by it: WebhookGone, or WebhookActive for no change. When the webhook has failed for WebhookFailingMax it is disabled.
	// Record returns what has just ended the webhook, or WebhookActive. A success that was recorded before stays one.
	Record(ctx context.Context, delivery *Delivery, ended WebhookEnd, now time.Time) (WebhookEnd, error)
	// Refill makes deliveries of the backlog of a webhook, oldest first, as far as there is room.
	Refill(ctx context.Context, id WebhookID, now time.Time) error
	// Load counts what waits, for metrics.
	Load(ctx context.Context) (WebhookLoad, error)
}

// WebhookLoad is what waits in a WebhookQueue.
type WebhookLoad struct {
	Pending  int64 // deliveries
	Backlogs int64 // ranges of entries that wait to be made deliveries
	Active   int64 // webhooks
	Ended    int64 // webhooks that are not active
}
