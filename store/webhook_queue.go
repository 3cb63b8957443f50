package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// webhookConnsMax bounds the connections that sending webhooks uses on a node, beside the pool of the API: so neither takes them from
// the other.
const webhookConnsMax = 4

// WebhookQueue is the deliveries that wait, on connections of its own.
type WebhookQueue struct {
	pool *pgxpool.Pool
	seal seal
	log  *slog.Logger
}

var _ evently.WebhookQueue = (*WebhookQueue)(nil)

// Queue opens the queue of the webhooks. It has to be closed.
func (s *Webhooks) Queue(ctx context.Context, log *slog.Logger) (*WebhookQueue, error) {
	config := s.pool.Config()
	config.MaxConns, config.MinConns, config.MinIdleConns = webhookConnsMax, 0, 0
	config.ConnConfig.RuntimeParams["application_name"] = "evently_webhooks"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, failed(err, "open the connections of the webhooks")
	}
	return &WebhookQueue{pool, s.seal, log}, nil
}

// Close ends the connections, once nobody uses them any more.
func (q *WebhookQueue) Close() { q.pool.Close() }

// lanesSQL hops from webhook to webhook along the indexes webhook_deliveries_due and webhook_backlog_by_event: it does not matter how
// many deliveries each has. $4 is as many as leave no room.
const lanesSQL = `
with recursive pending (webhook_id) as (
    (select webhook_id from webhook_deliveries where due_at is not null and webhook_id > $1 order by webhook_id limit 1)
    union all
    select (select d.webhook_id from webhook_deliveries d where d.due_at is not null and d.webhook_id > p.webhook_id
            order by d.webhook_id limit 1)
    from pending p where p.webhook_id is not null
), behind (webhook_id) as (
    (select webhook_id from webhook_backlog where webhook_id > $1 order by webhook_id limit 1)
    union all
    select (select b.webhook_id from webhook_backlog b where b.webhook_id > p.webhook_id order by b.webhook_id limit 1)
    from behind p where p.webhook_id is not null
), lanes as (
    select w.webhook_id, w.url, w.secret, w.past_secret, w.overlap_until,
        exists (select from webhook_deliveries d where d.webhook_id = w.webhook_id and d.due_at <= $2) as due,
        exists (select from webhook_backlog b where b.webhook_id = w.webhook_id)
            and (select count(*) < $4
                 from (select from webhook_deliveries d where d.webhook_id = w.webhook_id and d.due_at is not null limit $4) p) as backlog
    from webhooks w
    where w.ended = 0 and w.webhook_id in (select webhook_id from pending union select webhook_id from behind)
)
select webhook_id, url, secret, case when overlap_until > $2 then past_secret end, due, backlog
from lanes
where due or backlog
order by webhook_id
limit $3`

// Lanes implements evently.WebhookQueue.
func (q *WebhookQueue) Lanes(ctx context.Context, after evently.WebhookID, limit int, now time.Time) ([]evently.WebhookLane, error) {
	from := int64(after)
	if after == 0 {
		from = math.MinInt64
	}
	rows, err := q.pool.Query(ctx, lanesSQL, from, now, limit, webhookPendingMax-webhookStepMax+1)
	lanes, err := collect(rows, err, func(row pgx.CollectableRow) (lane evently.WebhookLane, err error) {
		var id int64
		var secret, past []byte
		if err := row.Scan(&id, &lane.URL, &secret, &past, &lane.Due, &lane.Backlog); err != nil {
			return lane, err
		}
		lane.Webhook = evently.WebhookID(id)
		for _, sealed := range [][]byte{secret, past} {
			if sealed == nil {
				continue
			}
			opened, err := q.seal.open(sealed, boundTo(lane.Webhook))
			if err != nil {
				q.log.ErrorContext(ctx, "webhook cannot sign: rotate its secret", "webhook", lane.Webhook, "error", err)
				continue
			}
			lane.Secrets = append(lane.Secrets, opened)
		}
		return lane, nil
	})
	if err != nil {
		return nil, failed(err, "list webhooks with deliveries due")
	}
	return lanes, nil
}

// claimSQL is served by webhook_deliveries_due. The time until which a delivery is claimed is when it is due again.
const claimSQL = `
update webhook_deliveries d set due_at = $3
where d.delivery_id = (
    select d.delivery_id from webhook_deliveries d
    where d.webhook_id = $1 and d.due_at <= $2 and exists (select from webhooks w where w.webhook_id = $1 and w.ended = 0)
    order by d.due_at limit 1 for update skip locked
)
returning ` + deliveryColumns + `, d.payload`

// Claim implements evently.WebhookQueue.
func (q *WebhookQueue) Claim(ctx context.Context, id evently.WebhookID, now, until time.Time) (*evently.Delivery, error) {
	var payload []byte
	delivery, err := scanDelivery(q.pool.QueryRow(ctx, claimSQL, int64(id), now, milliseconds(until)), &payload)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(err, "claim a delivery of webhook %s", id)
	}
	delivery.Payload = payload
	return delivery, nil
}

const unclaimSQL = `update webhook_deliveries set due_at = $2 where delivery_id = $1 and due_at is not null`

// Unclaim implements evently.WebhookQueue.
func (q *WebhookQueue) Unclaim(ctx context.Context, delivery *evently.Delivery, now time.Time) error {
	if _, err := q.pool.Exec(ctx, unclaimSQL, deliveryKey(delivery.ID), milliseconds(now)); err != nil {
		return failed(err, "give back delivery %s", delivery.ID)
	}
	return nil
}

// recordSQL writes to the row of the webhook only when a series of failures begins or ends, or the webhook does: else all its
// deliveries would wait for each other there.
const recordSQL = `
with recorded as (
    update webhook_deliveries d set status = $2, tried = d.tried + 1, due_at = $5, ended_at = $6,
        attempts = case when jsonb_array_length(d.attempts) >= $3 then d.attempts - 0 else d.attempts end || $4::jsonb
    where d.delivery_id = $1 and d.due_at is not null
)
update webhooks w set
    failing_since = case when $9::bool then null else coalesce(w.failing_since, $8) end,
    ended = case when $9 then 0 when $10 <> 0 then $10 when w.failing_since <= $11 then $12 else 0 end,
    ended_at = case when not $9 and ($10 <> 0 or w.failing_since <= $11) then $8 end
where w.webhook_id = $7 and w.ended = 0
  and case when $9 then w.failing_since is not null else w.failing_since is null or $10::int2 <> 0 or w.failing_since <= $11 end
returning w.ended`

// Record implements evently.WebhookQueue.
func (q *WebhookQueue) Record(ctx context.Context, d *evently.Delivery, ended evently.WebhookEnd, now time.Time) (
	evently.WebhookEnd, error,
) {
	attempts := make([]deliveryAttempt, len(d.Attempts))
	for i, a := range d.Attempts {
		attempts[i] = deliveryAttempt{a.At.UnixMilli(), a.LatencyMS, a.HTTPCode, a.Fault, a.Excerpt}
	}
	text, err := json.Marshal(attempts)
	if err != nil {
		return 0, fmt.Errorf("record delivery %s: %w", d.ID, err)
	}
	var state evently.WebhookEnd
	err = q.pool.QueryRow(ctx, recordSQL, deliveryKey(d.ID), d.Status, evently.WebhookAttemptsKept, string(text), nullable(d.DueAt),
		nullable(d.EndedAt), int64(d.Webhook), milliseconds(now), d.Status == evently.DeliveryDone, ended,
		milliseconds(now.Add(-evently.WebhookFailingMax)), evently.WebhookDisabled).Scan(&state)
	if err = ignoreAbsent(err); err != nil {
		return 0, failed(err, "record delivery %s", d.ID)
	}
	return state, nil
}

// ignoreAbsent makes no error of a query without a row.
func ignoreAbsent(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// webhookLoadSQL reads only what waits, which is bounded for each webhook.
const webhookLoadSQL = `
select (select count(*) from webhook_deliveries where due_at is not null), (select count(*) from webhook_backlog),
    count(*) filter (where ended = 0), count(*) filter (where ended <> 0)
from webhooks`

// Load implements evently.WebhookQueue.
func (q *WebhookQueue) Load(ctx context.Context) (load evently.WebhookLoad, err error) {
	if err := q.pool.QueryRow(ctx, webhookLoadSQL).Scan(&load.Pending, &load.Backlogs, &load.Active, &load.Ended); err != nil {
		return load, failed(err, "count deliveries")
	}
	return load, nil
}
