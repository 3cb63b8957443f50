package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// webhookLogMax bounds the ended deliveries that are kept of one webhook, the latest ones.
const webhookLogMax = 100_000

const (
	// expireDeliveriesSQL ends deliveries of webhooks that are not active, which nobody sends any more. It is served by
	// webhook_deliveries_due.
	expireDeliveriesSQL = `
update webhook_deliveries d set status = 2, due_at = null, ended_at = $1
from (
    select p.delivery_id
    from webhooks w cross join lateral (
        select d.delivery_id from webhook_deliveries d where d.webhook_id = w.webhook_id and d.due_at is not null and d.give_up_at <= $1
    ) p
    where w.ended <> 0
    limit $2
) old
where d.delivery_id = old.delivery_id`

	// sweepDeliveriesSQL removes ended deliveries from before $1, and of each webhook those before the latest $3. It is served by
	// webhook_deliveries_by_age.
	sweepDeliveriesSQL = `
delete from webhook_deliveries d using (
    select o.delivery_id
    from webhooks w
    cross join lateral (
        select greatest($1, (
            select d.created_at from webhook_deliveries d where d.webhook_id = w.webhook_id
            order by d.created_at desc, d.delivery_id desc offset $3 - 1 limit 1
        )) as before
    ) b
    cross join lateral (
        select d.delivery_id from webhook_deliveries d
        where d.webhook_id = w.webhook_id and d.created_at < b.before and d.due_at is null
        order by d.created_at
        limit $2
    ) o
    limit $2
) old
where d.delivery_id = old.delivery_id`

	// sweepOrphansSQL removes deliveries of webhooks that are gone. It hops along webhook_deliveries_by_age.
	sweepOrphansSQL = `
with recursive ids (webhook_id) as (
    (select webhook_id from webhook_deliveries order by webhook_id limit 1)
    union all
    select (select d.webhook_id from webhook_deliveries d where d.webhook_id > i.webhook_id order by d.webhook_id limit 1)
    from ids i where i.webhook_id is not null
)
delete from webhook_deliveries d using (
    select o.delivery_id
    from ids i cross join lateral (
        select d.delivery_id from webhook_deliveries d where d.webhook_id = i.webhook_id limit $1
    ) o
    where not exists (select from webhooks w where w.webhook_id = i.webhook_id)
    limit $1
) old
where d.delivery_id = old.delivery_id`

	sweepBacklogSQL = `
delete from webhook_backlog b using (
    select o.backlog_id from webhook_backlog o where not exists (select from webhooks w where w.webhook_id = o.webhook_id) limit $1
) old
where b.backlog_id = old.backlog_id`
)

// sweepWebhooks ends deliveries that wait for a webhook which is not active and are too old by now, and removes from the log what its
// policy does not keep, what is beyond the bound of a webhook, and what belongs to none. It returns how many deliveries it removed. A step
// that fails does not keep the others from theirs.
func (r *Retention) sweepWebhooks(ctx context.Context, now time.Time) (removed int64, err error) {
	now = milliseconds(now)
	_, expireErr := r.sweepRows(ctx, expireDeliveriesSQL, now, sweptRowsMax)
	var before time.Time
	if r.Policies.Webhooks != 0 {
		before = now.Add(-r.Policies.Webhooks)
	}
	oldest := bound(before, pgtype.NegativeInfinity) // a log that is kept for ever has its bound still
	removed, removeErr := r.sweepRows(ctx, sweepDeliveriesSQL, oldest, sweptRowsMax, webhookLogMax)
	orphans, orphansErr := r.sweepRows(ctx, sweepOrphansSQL, sweptRowsMax)
	_, backlogErr := r.sweepRows(ctx, sweepBacklogSQL, sweptRowsMax)
	return removed + orphans, errors.Join(expireErr, removeErr, orphansErr, backlogErr)
}
