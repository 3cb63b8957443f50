package store

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Webhooks keeps webhooks and shows the log of their deliveries. What sends them is WebhookQueue.
type Webhooks struct {
	pool *pgxpool.Pool
	seal seal
}

var _ evently.Webhooks = (*Webhooks)(nil)

// NewWebhooks returns the webhooks of a database. Their signing secrets are sealed with the first of the secrets, and opened with any of
// them; there has to be one at least.
func NewWebhooks(pool *pgxpool.Pool, secrets [][]byte) (*Webhooks, error) {
	seal, err := newWebhookSeal(secrets)
	if err != nil {
		return nil, err
	}
	return &Webhooks{pool, seal}, nil
}

const webhookColumns = `w.webhook_id, w.owner, w.url, w.description, w.types, w.ended, w.ended_at, w.failing_since, w.overlap_until,
    w.created_at, w.updated_at`

func scanWebhook(row pgx.Row) (*evently.Webhook, error) {
	var w evently.Webhook
	var id, owner, types int64
	var endedAt, failingSince, overlapUntil *time.Time
	err := row.Scan(&id, &owner, &w.URL, &w.Description, &types, &w.Ended, &endedAt, &failingSince, &overlapUntil, &w.CreatedAt, &w.UpdatedAt)
	w.ID, w.Owner, w.Types = evently.WebhookID(id), evently.UserID(owner), evently.WebhookTypes(types)
	w.EndedAt, w.FailingSince, w.OverlapUntil = timeOf(endedAt), timeOf(failingSince), timeOf(overlapUntil)
	w.CreatedAt, w.UpdatedAt = milliseconds(w.CreatedAt), milliseconds(w.UpdatedAt)
	return &w, err
}

const (
	// countWebhooksSQL leaves out the one that may be there already. It is served by webhooks_by_owner.
	countWebhooksSQL = `select count(*) from webhooks where owner = $1 and webhook_id <> $2`

	createWebhookSQL = `
insert into webhooks as w (webhook_id, owner, url, description, types, ended, ended_at, secret, created_at, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
on conflict (webhook_id) do update set secret = excluded.secret where w.owner = excluded.owner
returning ` + webhookColumns
)

// CreateWebhook implements evently.Webhooks.
func (s *Webhooks) CreateWebhook(ctx context.Context, webhook *evently.Webhook, secret []byte) (*evently.Webhook, error) {
	var created *evently.Webhook
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockUserSQL, int64(webhook.Owner)); err != nil { // one counts after the other
			return err
		}
		var others int
		if err := tx.QueryRow(ctx, countWebhooksSQL, int64(webhook.Owner), int64(webhook.ID)).Scan(&others); err != nil {
			return err
		}
		if others >= evently.WebhooksMax {
			return evently.ErrWebhooksFull
		}
		var err error
		created, err = scanWebhook(tx.QueryRow(ctx, createWebhookSQL, int64(webhook.ID), int64(webhook.Owner), webhook.URL,
			webhook.Description, int64(webhook.Types), webhook.Ended, nullable(webhook.EndedAt), s.seal.close(secret, boundTo(webhook.ID)),
			milliseconds(webhook.CreatedAt)))
		return err
	})
	if errors.Is(err, evently.ErrWebhooksFull) {
		return nil, evently.ErrWebhooksFull
	}
	return found(created, err, evently.ErrNotFound, "create webhook %s", webhook.ID)
}

// nullable is the column form of a time that may be zero.
func nullable(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = milliseconds(t)
	return &t
}

const webhookSQL = `select ` + webhookColumns + ` from webhooks w where w.webhook_id = $1 and ($2 = 0::int8 or w.owner = $2)`

// Webhook implements evently.Webhooks.
func (s *Webhooks) Webhook(ctx context.Context, owner evently.UserID, id evently.WebhookID) (*evently.Webhook, error) {
	webhook, err := scanWebhook(s.pool.QueryRow(ctx, webhookSQL, int64(id), int64(owner)))
	return found(webhook, err, evently.ErrNotFound, "read webhook %s", id)
}

const (
	// webhooksSQL is served by webhooks_by_age.
	webhooksSQL = `
select ` + webhookColumns + ` from webhooks w where (w.created_at, w.webhook_id) > ($1, $2)
order by w.created_at, w.webhook_id
limit $3`

	// webhooksOfOwnerSQL is served by webhooks_by_owner.
	webhooksOfOwnerSQL = `
select ` + webhookColumns + ` from webhooks w where w.owner = $4 and (w.created_at, w.webhook_id) > ($1, $2)
order by w.created_at, w.webhook_id
limit $3`
)

// Webhooks implements evently.Webhooks.
func (s *Webhooks) Webhooks(ctx context.Context, owner evently.UserID, page evently.Page) (
	[]*evently.Webhook, *evently.Cursor, error,
) {
	after := pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	id := int64(math.MinInt64)
	if page.After != nil {
		after, id = pgtype.Timestamptz{Time: time.UnixMilli(page.After.Order), Valid: true}, int64(page.After.Token)
	}
	limit := limitOf(page)
	query, arguments := webhooksSQL, []any{after, id, limit + 1}
	if owner != 0 {
		query, arguments = webhooksOfOwnerSQL, append(arguments, int64(owner))
	}
	rows, err := s.pool.Query(ctx, query, arguments...)
	list, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.Webhook, error) { return scanWebhook(row) })
	if err != nil {
		return nil, nil, failed(err, "list webhooks")
	}
	if len(list) <= limit {
		return list, nil, nil
	}
	last := list[limit-1]
	return list[:limit], &evently.Cursor{Order: last.CreatedAt.UnixMilli(), Token: evently.Token(last.ID)}, nil
}

// reviseWebhookSQL takes $6, the wish to be active or paused. One that has ended for another reason stays ended unless it is to be active.
const reviseWebhookSQL = `
update webhooks w set
    url = $3, description = $4, types = $5, updated_at = $7,
    ended = case when $6 = 0::int2 or w.ended = 0 then $6 else w.ended end,
    ended_at = case when $6 = 0::int2 then null when w.ended = 0 then $7 else w.ended_at end,
    failing_since = case when $6 = 0::int2 and w.ended <> 0 then null else w.failing_since end
where w.webhook_id = $1 and ($2 = 0::int8 or w.owner = $2)
returning ` + webhookColumns

// ReviseWebhook implements evently.Webhooks.
func (s *Webhooks) ReviseWebhook(ctx context.Context, owner evently.UserID, webhook *evently.Webhook) (*evently.Webhook, error) {
	revised, err := scanWebhook(s.pool.QueryRow(ctx, reviseWebhookSQL, int64(webhook.ID), int64(owner), webhook.URL, webhook.Description,
		int64(webhook.Types), webhook.Ended, milliseconds(webhook.UpdatedAt)))
	return found(revised, err, evently.ErrNotFound, "revise webhook %s", webhook.ID)
}

// deleteWebhookSQL leaves deliveries and backlog to Sweep: there may be many.
const deleteWebhookSQL = `delete from webhooks where webhook_id = $1 and ($2 = 0::int8 or owner = $2)`

// DeleteWebhook implements evently.Webhooks.
func (s *Webhooks) DeleteWebhook(ctx context.Context, owner evently.UserID, id evently.WebhookID) error {
	tag, err := s.pool.Exec(ctx, deleteWebhookSQL, int64(id), int64(owner))
	if err != nil {
		return failed(err, "delete webhook %s", id)
	}
	if tag.RowsAffected() == 0 {
		return evently.ErrNotFound
	}
	return nil
}

const enableWebhookSQL = `
update webhooks w set ended = 0, ended_at = null, updated_at = case when w.ended = 0 then w.updated_at else $3 end,
    failing_since = case when w.ended = 0 then w.failing_since end
where w.webhook_id = $1 and ($2 = 0::int8 or w.owner = $2)
returning ` + webhookColumns

// EnableWebhook implements evently.Webhooks.
func (s *Webhooks) EnableWebhook(ctx context.Context, owner evently.UserID, id evently.WebhookID, now time.Time) (*evently.Webhook, error) {
	webhook, err := scanWebhook(s.pool.QueryRow(ctx, enableWebhookSQL, int64(id), int64(owner), milliseconds(now)))
	return found(webhook, err, evently.ErrNotFound, "enable webhook %s", id)
}

const rotateSecretSQL = `
update webhooks w set past_secret = w.secret, overlap_until = $4, secret = $3, updated_at = $5
where w.webhook_id = $1 and ($2 = 0::int8 or w.owner = $2)
returning ` + webhookColumns

// RotateSecret implements evently.Webhooks. A secret replaced before the last rotation no longer signs.
func (s *Webhooks) RotateSecret(ctx context.Context, owner evently.UserID, id evently.WebhookID, secret []byte, now time.Time) (
	*evently.Webhook, error,
) {
	webhook, err := scanWebhook(s.pool.QueryRow(ctx, rotateSecretSQL, int64(id), int64(owner), s.seal.close(secret, boundTo(id)),
		milliseconds(now.Add(evently.WebhookSecretOverlap)), milliseconds(now)))
	return found(webhook, err, evently.ErrNotFound, "rotate the secret of webhook %s", id)
}
