package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

// Payloads are read only where they are sent.
const deliveryColumns = `d.delivery_id, d.webhook_id, d.type, d.event_id, d.seq, d.status, d.tried, d.attempts, d.created_at, d.due_at,
    d.give_up_at, d.ended_at`

// deliveryAttempt is the stored form of an evently.DeliveryAttempt.
type deliveryAttempt struct {
	AtMS      int64  `json:"at"`
	LatencyMS int64  `json:"ms"`
	HTTPCode  int    `json:"code,omitempty"`
	Fault     string `json:"fault,omitempty"`
	Excerpt   string `json:"excerpt,omitempty"`
}

func scanDelivery(row pgx.Row, more ...any) (*evently.Delivery, error) {
	var d evently.Delivery
	var id [16]byte
	var webhook, event, seq int64
	var attempts []byte
	var dueAt, endedAt *time.Time
	if err := row.Scan(append([]any{
		&id, &webhook, &d.Type, &event, &seq, &d.Status, &d.Tried, &attempts, &d.CreatedAt, &dueAt,
		&d.GiveUpAt, &endedAt,
	}, more...)...); err != nil {
		return nil, err
	}
	d.ID = evently.DeliveryID{Hi: binary.BigEndian.Uint64(id[:8]), Lo: binary.BigEndian.Uint64(id[8:])}
	d.Webhook, d.Event, d.Seq = evently.WebhookID(webhook), evently.EventID(event), uint64(seq)
	d.CreatedAt, d.GiveUpAt, d.DueAt, d.EndedAt = milliseconds(d.CreatedAt), milliseconds(d.GiveUpAt), timeOf(dueAt), timeOf(endedAt)
	var stored []deliveryAttempt
	if err := json.Unmarshal(attempts, &stored); err != nil {
		return nil, fmt.Errorf("attempts of delivery %s: %w", d.ID, err)
	}
	for _, a := range stored {
		d.Attempts = append(d.Attempts, evently.DeliveryAttempt{
			At: time.UnixMilli(a.AtMS).UTC(), LatencyMS: a.LatencyMS, HTTPCode: a.HTTPCode, Fault: a.Fault, Excerpt: a.Excerpt,
		})
	}
	return &d, nil
}

// deliveryKey is the column form of a DeliveryID.
func deliveryKey(id evently.DeliveryID) (key [16]byte) {
	binary.BigEndian.PutUint64(key[:8], id.Hi)
	binary.BigEndian.PutUint64(key[8:], id.Lo)
	return key
}

// deliveriesSQL is served by webhook_deliveries_by_age.
const deliveriesSQL = `
select ` + deliveryColumns + ` from webhook_deliveries d
where d.webhook_id = $1 and (d.created_at, d.delivery_id) < ($2, $3)
order by d.created_at desc, d.delivery_id desc
limit $4`

// Deliveries implements evently.Webhooks.
func (s *Webhooks) Deliveries(ctx context.Context, owner evently.UserID, id evently.WebhookID, page evently.Page) (
	[]*evently.Delivery, *evently.Cursor, error,
) {
	if _, err := s.Webhook(ctx, owner, id); err != nil {
		return nil, nil, err
	}
	before := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	last := deliveryKey(evently.DeliveryID{Hi: math.MaxUint64, Lo: math.MaxUint64})
	if page.After != nil {
		before = pgtype.Timestamptz{Time: time.UnixMilli(page.After.Order), Valid: true}
		last = deliveryKey(evently.DeliveryID{Hi: uint64(page.After.Event), Lo: uint64(page.After.Token)})
	}
	limit := limitOf(page)
	rows, err := s.pool.Query(ctx, deliveriesSQL, int64(id), before, last, limit+1)
	list, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.Delivery, error) { return scanDelivery(row) })
	if err != nil {
		return nil, nil, failed(err, "list deliveries of webhook %s", id)
	}
	if len(list) <= limit {
		return list, nil, nil
	}
	end := list[limit-1]
	return list[:limit], &evently.Cursor{
		Order: end.CreatedAt.UnixMilli(), Event: evently.EventID(end.ID.Hi), Token: evently.Token(end.ID.Lo),
	}, nil
}

const (
	// roomSQL tells whether a webhook is active and has room for another delivery. It is served by webhook_deliveries_due.
	roomSQL = `
select w.ended, (select count(*) from (select from webhook_deliveries d where d.webhook_id = $1 and d.due_at is not null limit $3) p)
from webhooks w
where w.webhook_id = $1 and ($2 = 0::int8 or w.owner = $2)`

	pingSQL = `
insert into webhook_deliveries as d (delivery_id, webhook_id, type, event_id, seq, payload, created_at, due_at, give_up_at)
values ($1, $2, $3, 0, $4, $5, $6, $6, $7)
on conflict (delivery_id) do update set seq = d.seq -- to have it returned
returning ` + deliveryColumns

	redeliverSQL = `
update webhook_deliveries d set status = 0, tried = 0, due_at = $3, give_up_at = $4, ended_at = null
where d.delivery_id = $1 and d.webhook_id = $2
returning ` + deliveryColumns
)

// room returns an error when a webhook is not there, not active, or has too many deliveries that wait.
func (s *Webhooks) room(ctx context.Context, owner evently.UserID, id evently.WebhookID) error {
	var ended evently.WebhookEnd
	var pending int
	err := s.pool.QueryRow(ctx, roomSQL, int64(id), int64(owner), webhookPendingMax).Scan(&ended, &pending)
	_, err = found(&ended, err, evently.ErrNotFound, "read webhook %s", id)
	switch {
	case err != nil:
		return err
	case ended != evently.WebhookActive:
		return evently.ErrWebhookDisabled
	case pending >= webhookPendingMax:
		return evently.ErrOverloaded
	}
	return nil
}

// Ping implements evently.Webhooks.
func (s *Webhooks) Ping(ctx context.Context, owner evently.UserID, id evently.WebhookID, nonce uint64, now time.Time) (
	*evently.Delivery, error,
) {
	if err := s.room(ctx, owner, id); err != nil {
		return nil, err
	}
	now = milliseconds(now)
	message, err := pingMessage(id, now)
	if err != nil {
		return nil, err
	}
	name := evently.NewDeliveryID(id, 0, nonce)
	delivery, err := scanDelivery(s.pool.QueryRow(ctx, pingSQL, deliveryKey(name), int64(id), evently.WebhookPing, int64(nonce), message,
		now, now.Add(evently.WebhookGiveUp)))
	return found(delivery, err, evently.ErrNotFound, "ping webhook %s", id)
}

// Redeliver implements evently.Webhooks.
func (s *Webhooks) Redeliver(
	ctx context.Context, owner evently.UserID, id evently.WebhookID, delivery evently.DeliveryID, now time.Time,
) (*evently.Delivery, error) {
	if err := s.room(ctx, owner, id); err != nil {
		return nil, err
	}
	now = milliseconds(now)
	queued, err := scanDelivery(s.pool.QueryRow(ctx, redeliverSQL, deliveryKey(delivery), int64(id), now, now.Add(evently.WebhookGiveUp)))
	return found(queued, err, evently.ErrNotFound, "redeliver %s to webhook %s", delivery, id)
}
