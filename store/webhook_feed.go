package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// Bounds of the deliveries of one webhook.
const (
	// webhookPendingMax bounds those that wait to be sent.
	webhookPendingMax = 1000
	// webhookStepMax bounds the entries that become deliveries in one transaction.
	webhookStepMax = 500
)

// Consumer makes deliveries of the journal's new entries, for the feed.
//
// Problem: a webhook may be dead for days, while bookings go on, and nothing may be left out for it, and no other one may
// wait for it.
//
// At most webhookPendingMax deliveries wait for a webhook. What happens while it has so many stays in the journal, and
// webhook_backlog remembers where: one range of entries for each event, which grows with it. WebhookQueue.Refill makes deliveries
// of the ranges when there is room. So a dead webhook costs a bounded number of rows and a range for each event, the cursor of the
// consumer never waits, and a step costs one query while there are no webhooks.
//
// A webhook hears of everything that is committed after it was created or enabled, and of what was committed in the moments before,
// as far as the feed had not come to it.
func (s *Webhooks) Consumer(now func() time.Time) Consumer {
	return Consumer{
		Name: "webhooks", FromNow: true, EntriesMax: webhookStepMax,
		Consume: func(ctx context.Context, tx pgx.Tx, spans []Span) error { return queueWebhooks(ctx, tx, spans, now()) },
	}
}

// listeningSQL lists the active webhooks that may hear of events $1, with what waits for each. Users of roles $3 hear of all events and
// those of role $4 of their own. It is served by webhook_deliveries_due and webhook_backlog_by_event.
const listeningSQL = `
select w.webhook_id, w.owner, w.types, u.role = $3,
    (select count(*) from (select from webhook_deliveries d where d.webhook_id = w.webhook_id and d.due_at is not null limit $2) p),
    exists (select from webhook_backlog b where b.webhook_id = w.webhook_id)
from webhooks w join users u on u.user_id = w.owner
where w.ended = 0
  and (u.role = $3 or u.role = $4 and w.owner in (select e.organizer from events e where e.event_id = any ($1)))
order by w.webhook_id`

// listening is a webhook that may hear of something.
type listening struct {
	id        evently.WebhookID
	owner     evently.UserID
	types     evently.WebhookTypes
	all       bool // whose event it is does not matter
	pending   int
	backlog   bool
	collected []int // indexes of its messages
}

func (l *listening) hears(e *webhookSource) bool { return l.all || e.organizer == l.owner }

func queueWebhooks(ctx context.Context, tx pgx.Tx, spans []Span, now time.Time) error {
	events, _, _ := spanColumns(spans)
	rows, err := tx.Query(ctx, listeningSQL, events, webhookPendingMax, evently.RoleAdmin, evently.RoleOrganizer)
	hearers, err := collect(rows, err, func(row pgx.CollectableRow) (*listening, error) {
		var l listening
		var id, owner, types int64
		err := row.Scan(&id, &owner, &types, &l.all, &l.pending, &l.backlog)
		l.id, l.owner, l.types = evently.WebhookID(id), evently.UserID(owner), evently.WebhookTypes(types)
		return &l, err
	})
	if err != nil {
		return failed(err, "list the webhooks that listen")
	}
	if len(hearers) == 0 {
		return nil
	}
	messages, sources, err := readMessages(ctx, tx, spans, hearers)
	if err != nil {
		return err
	}
	var full []*listening
	for _, l := range hearers {
		if l.backlog || l.pending+len(l.collected) > webhookPendingMax {
			full = append(full, l)
		}
	}
	if err := keepForLater(ctx, tx, spans, sources, messages, full); err != nil {
		return err
	}
	for _, l := range full {
		l.collected = nil
	}
	return insertDeliveries(ctx, tx, messages, hearers, now)
}

// webhookSource is what messages say of an event besides its entries.
type webhookSource struct {
	organizer evently.UserID
	currency  string
}

const webhookSourcesSQL = `select event_id, organizer, currency from events where event_id = any ($1)`

// webhookNotice is a message before it is addressed.
type webhookNotice struct {
	event evently.EventID
	seq   uint64
	kind  evently.WebhookType
	body  []byte
}

// readMessages makes the messages that anybody hears and tells each who hears it. Spans of which nobody hears are not read.
func readMessages(ctx context.Context, tx pgx.Tx, spans []Span, hearers []*listening) (
	messages []webhookNotice, sources map[evently.EventID]*webhookSource, err error,
) {
	if sources, err = readSources(ctx, tx, spans); err != nil {
		return nil, nil, err
	}
	var heard []Span
	for _, span := range spans {
		for _, l := range hearers {
			if source := sources[span.Event]; source != nil && l.hears(source) { // drafts that were deleted have none
				heard = append(heard, span)
				break
			}
		}
	}
	if len(heard) == 0 {
		return nil, sources, nil
	}
	var entries []*FeedEntry
	var served []*FeedEntry // waiters
	if err := ReadSpans(ctx, tx, heard, func(e *FeedEntry) error {
		kept := *e
		entries = append(entries, &kept)
		if e.Waiter {
			served = append(served, &kept)
		}
		return nil
	}); err != nil {
		return nil, nil, err
	}
	wishes, err := readWishes(ctx, tx, served)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		t, told := webhookType(e, wishes[evently.ReservationID{Event: e.EventID, Token: e.Token}])
		if !told {
			continue
		}
		source, wanted := sources[e.EventID], false
		for _, l := range hearers {
			if l.types.Has(t) && l.hears(source) {
				l.collected, wanted = append(l.collected, len(messages)), true
			}
		}
		if !wanted {
			continue
		}
		body, err := webhookMessage(e, t, source.currency)
		if err != nil {
			return nil, nil, err
		}
		messages = append(messages, webhookNotice{e.EventID, e.Seq, t, body})
	}
	return messages, sources, nil
}

func readSources(ctx context.Context, tx pgx.Tx, spans []Span) (map[evently.EventID]*webhookSource, error) {
	events, _, _ := spanColumns(spans)
	rows, err := tx.Query(ctx, webhookSourcesSQL, events)
	if err != nil {
		return nil, failed(err, "read whose events they are")
	}
	sources := make(map[evently.EventID]*webhookSource, len(spans))
	var event, organizer int64
	var currency string
	_, err = pgx.ForEachRow(rows, []any{&event, &organizer, &currency}, func() error {
		sources[evently.EventID(event)] = &webhookSource{evently.UserID(organizer), currency}
		return nil
	})
	if err != nil {
		return nil, failed(err, "read whose events they are")
	}
	return sources, nil
}

// wishesSQL is served by the primary key.
const wishesSQL = `
select w.event_id, w.token, w.on_release
from unnest($1::int8[], $2::int8[]) u (event_id, token) join waitlist w using (event_id, token)`

// readWishes returns what the waiters wanted whom entries serve.
func readWishes(ctx context.Context, tx pgx.Tx, served []*FeedEntry) (map[evently.ReservationID]evently.OnRelease, error) {
	wishes := make(map[evently.ReservationID]evently.OnRelease, len(served))
	if len(served) == 0 {
		return wishes, nil
	}
	events, tokens := make([]int64, len(served)), make([]int64, len(served))
	for i, e := range served {
		events[i], tokens[i] = int64(e.EventID), int64(e.Token)
	}
	rows, err := tx.Query(ctx, wishesSQL, events, tokens)
	if err != nil {
		return nil, failed(err, "read what waiters wanted")
	}
	var event, token int64
	var wish evently.OnRelease
	_, err = pgx.ForEachRow(rows, []any{&event, &token, &wish}, func() error {
		wishes[evently.ReservationID{Event: evently.EventID(event), Token: evently.Token(token)}] = wish
		return nil
	})
	if err != nil {
		return nil, failed(err, "read what waiters wanted")
	}
	return wishes, nil
}

// keepForLaterSQL has the ranges that end where spans begin grow, and begins others for spans that hold something. A range that a
// refill is reading is waited for; when it is used up by then another one begins.
const keepForLaterSQL = `
with spans as (
    select * from unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::bool[]) s (webhook_id, event_id, after_seq, upto_seq, holds)
), grown as (
    update webhook_backlog b set upto_seq = s.upto_seq
    from spans s
    where b.webhook_id = s.webhook_id and b.event_id = s.event_id and b.upto_seq = s.after_seq
    returning b.webhook_id, b.event_id
)
insert into webhook_backlog (webhook_id, event_id, after_seq, upto_seq)
select s.webhook_id, s.event_id, s.after_seq, s.upto_seq
from spans s
where s.holds and not exists (select from grown g where g.webhook_id = s.webhook_id and g.event_id = s.event_id)`

// keepForLater adds spans to the backlog of webhooks that have no room. Also those that hold nothing for a webhook, where a range
// leads up to them: else an event would have a range for each piece.
func keepForLater(ctx context.Context, tx pgx.Tx, spans []Span, sources map[evently.EventID]*webhookSource, messages []webhookNotice,
	full []*listening,
) error {
	var ids, events, after, upto []int64
	var holds []bool
	for _, l := range full {
		holding := make(map[evently.EventID]bool)
		for _, i := range l.collected {
			holding[messages[i].event] = true
		}
		for _, span := range spans {
			if source := sources[span.Event]; source != nil && l.hears(source) {
				ids, events = append(ids, int64(l.id)), append(events, int64(span.Event))
				after, upto = append(after, int64(span.After)), append(upto, int64(span.Upto))
				holds = append(holds, holding[span.Event])
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, keepForLaterSQL, ids, events, after, upto, holds); err != nil {
		return failed(err, "keep entries for webhooks")
	}
	return nil
}

// insertDeliveriesSQL takes messages $4 to $7 and whose they are: webhooks $1 and the places $2 of the messages, with ids $3.
const insertDeliveriesSQL = `
insert into webhook_deliveries (delivery_id, webhook_id, type, event_id, seq, payload, created_at, due_at, give_up_at)
select a.delivery_id, a.webhook_id, m.type, m.event_id, m.seq, m.payload, $8, $8, $9
from unnest($1::int8[], $2::int8[], $3::uuid[]) a (webhook_id, number, delivery_id)
join unnest($4::int2[], $5::int8[], $6::int8[], $7::bytea[]) with ordinality m (type, event_id, seq, payload, number) using (number)
on conflict (delivery_id) do nothing`

func insertDeliveries(ctx context.Context, tx pgx.Tx, messages []webhookNotice, hearers []*listening, now time.Time) error {
	var webhooks, numbers []int64
	var ids [][16]byte
	for _, l := range hearers {
		for _, i := range l.collected {
			webhooks, numbers = append(webhooks, int64(l.id)), append(numbers, int64(i)+1)
			ids = append(ids, deliveryKey(evently.NewDeliveryID(l.id, messages[i].event, messages[i].seq)))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	types, events, seqs := make([]int16, len(messages)), make([]int64, len(messages)), make([]int64, len(messages))
	bodies := make([][]byte, len(messages))
	for i := range messages {
		m := &messages[i]
		types[i], events[i], seqs[i], bodies[i] = int16(m.kind), int64(m.event), int64(m.seq), m.body
	}
	now = milliseconds(now)
	if _, err := tx.Exec(ctx, insertDeliveriesSQL, webhooks, numbers, ids, types, events, seqs, bodies, now,
		now.Add(evently.WebhookGiveUp)); err != nil {
		return failed(err, "insert %d deliveries", len(ids))
	}
	return nil
}

const (
	// lockRefillSQL has one node refill a webhook at a time. $2 is as many deliveries as leave too little room.
	lockRefillSQL = `
select w.owner, w.types, u.role = $3,
    (select count(*) from (select from webhook_deliveries d where d.webhook_id = w.webhook_id and d.due_at is not null limit $2) p)
from webhooks w join users u on u.user_id = w.owner
where w.webhook_id = $1 and w.ended = 0 and u.role in ($3, $4)
for no key update of w skip locked`

	// backlogSQL takes the oldest ranges.
	backlogSQL = `
select backlog_id, event_id, after_seq, upto_seq from webhook_backlog where webhook_id = $1 order by backlog_id limit $2 for update`

	shortenBacklogSQL = `
update webhook_backlog b set after_seq = u.after_seq
from unnest($1::int8[], $2::int8[]) u (backlog_id, after_seq)
where b.backlog_id = u.backlog_id and b.upto_seq > u.after_seq`
	endBacklogSQL = `
delete from webhook_backlog b using unnest($1::int8[], $2::int8[]) u (backlog_id, after_seq)
where b.backlog_id = u.backlog_id and b.upto_seq = u.after_seq`
)

// refillRangesMax bounds the ranges that one Refill looks at.
const refillRangesMax = 100

// Refill implements evently.WebhookQueue.
func (q *WebhookQueue) Refill(ctx context.Context, id evently.WebhookID, now time.Time) error {
	err := pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		l := listening{id: id}
		var owner, types int64
		err := tx.QueryRow(ctx, lockRefillSQL, int64(id), webhookPendingMax, evently.RoleAdmin, evently.RoleOrganizer).
			Scan(&owner, &types, &l.all, &l.pending)
		if err != nil || l.pending > webhookPendingMax-webhookStepMax {
			return err
		}
		l.owner, l.types = evently.UserID(owner), evently.WebhookTypes(types)
		rows, err := tx.Query(ctx, backlogSQL, int64(id), refillRangesMax)
		if err != nil {
			return err
		}
		var spans []Span
		var ranges, ends []int64
		left := uint64(webhookStepMax)
		var backlog, event int64
		var after, upto uint64
		if _, err := pgx.ForEachRow(rows, []any{&backlog, &event, &after, &upto}, func() error {
			if end := min(upto, after+left); end > after {
				spans = append(spans, Span{evently.EventID(event), after, end})
				ranges, ends = append(ranges, backlog), append(ends, int64(end))
				left -= end - after
			}
			return nil
		}); err != nil {
			return err
		}
		messages, _, err := readMessages(ctx, tx, spans, []*listening{&l})
		if err != nil {
			return err
		}
		if err := insertDeliveries(ctx, tx, messages, []*listening{&l}, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, shortenBacklogSQL, ranges, ends); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, endBacklogSQL, ranges, ends)
		return err
	})
	if err = ignoreAbsent(err); err != nil {
		return failed(err, "refill webhook %s", id)
	}
	return nil
}
