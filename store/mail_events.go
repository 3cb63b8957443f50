package store

import (
	"context"
	"errors"
	"fmt"
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

	// olderEventSQL finds the event as it was before entry $2, for one that is older than mail: it reads back to the last entry of a
	// kind that has the event, once for each such event.
	olderEventSQL = `
select data from journal where event_id = $1 and seq < $2 and kind in (1, 2, 3, 4, 14, 15) order by seq desc limit 1`

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
	var data []byte
	if err := tx.QueryRow(ctx, olderEventSQL, int64(event), int64(seq)).Scan(&data); err != nil {
		return nil, failed(err, "read event %s before entry %d", event, seq)
	}
	older, err := decodeEvent(data)
	if err != nil {
		return nil, fmt.Errorf("event %s before entry %d: %w", event, seq, err)
	}
	// Kept as of the entry before, whatever that was: all that matters is that it is older.
	before.seq, before.EventNotice, before.cancelled = seq-1, older.Notice(), older.Status == evently.EventCancelled
	return before, keepNotice(ctx, tx, before)
}
