package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// eventNotice is what holders know of an event from one of its entries on.
type eventNotice struct {
	event evently.EventID
	seq   uint64
	at    time.Time
	evently.EventNotice
	published, cancelled bool
}

func (n *eventNotice) tellsTheSame(other *eventNotice) bool {
	a, b := &n.EventNotice, &other.EventNotice
	return a.Name == b.Name && a.Venue == b.Venue && a.City == b.City && a.Timezone == b.Timezone &&
		a.StartsAt.Equal(b.StartsAt) && a.EndsAt.Equal(b.EndsAt)
}

const noticeColumns = `name, venue, city, timezone, starts_at, ends_at`

const (
	// lastNoticeSQL is served by the primary key.
	lastNoticeSQL = `
select ` + noticeColumns + `, cancelled from mail_events where event_id = $1 and seq < $2 order by seq desc limit 1`

	keepNoticeSQL = `
insert into mail_events (event_id, seq, ` + noticeColumns + `, cancelled) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict do nothing`
)

// keepNotices stores what becomes of events, and returns the entries that change something for holders of an event on sale.
func keepNotices(ctx context.Context, tx pgx.Tx, notices []eventNotice) (changed []eventNotice, err error) {
	for i := range notices {
		notice := &notices[i]
		before, err := noticeBefore(ctx, tx, notice.event, notice.seq)
		if err != nil {
			return nil, err
		}
		known := before != nil && before.tellsTheSame(notice)
		if known && before.cancelled == notice.cancelled {
			continue
		}
		if err := keepNotice(ctx, tx, notice); err != nil {
			return nil, err
		}
		if before != nil && !known && notice.published {
			changed = append(changed, *notice)
		}
	}
	return changed, nil
}

func keepNotice(ctx context.Context, tx pgx.Tx, n *eventNotice) error {
	if _, err := tx.Exec(ctx, keepNoticeSQL, int64(n.event), int64(n.seq), n.Name, n.Venue, n.City, n.Timezone, n.StartsAt, n.EndsAt,
		n.cancelled); err != nil {
		return failed(err, "keep what is told of event %s", n.event)
	}
	return nil
}

// noticeBefore returns what was told before an entry; nil: nothing, because it is the first one.
func noticeBefore(ctx context.Context, tx pgx.Tx, event evently.EventID, seq uint64) (*eventNotice, error) {
	if seq == 1 {
		return nil, nil
	}
	before := &eventNotice{event: event}
	err := tx.QueryRow(ctx, lastNoticeSQL, int64(event), int64(seq)).Scan(&before.Name, &before.Venue, &before.City, &before.Timezone,
		&before.StartsAt, &before.EndsAt, &before.cancelled)
	switch {
	case err == nil:
		return before, nil
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, failed(err, "read what was told of event %s", event)
	}
	older, err := readEventBefore(ctx, tx, event, seq) // once for each event that is older than mail
	if err != nil {
		return nil, err
	}
	// Kept as of the entry before, whatever that was: all that matters is that it is older.
	before.seq, before.EventNotice, before.cancelled = seq-1, older.Notice(), older.Status == evently.EventCancelled
	return before, keepNotice(ctx, tx, before)
}
