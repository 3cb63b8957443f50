package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Difference is one thing in which the journal, read from its beginning, and the rows do not agree, or in which either breaks
// a rule of its own.
type Difference struct {
	Event  evently.EventID
	Token  evently.Token // of the reservation or waiter; zero: the event itself
	Waiter bool          // the token is that of a waiter
	Seq    uint64        // of the journal's entry; zero: the rows alone
	What   string
}

func (d Difference) String() string {
	subject := "event " + d.Event.String()
	switch {
	case d.Waiter:
		subject = "waiter " + evently.WaiterID{Event: d.Event, Token: d.Token}.String()
	case d.Token != 0:
		subject = "reservation " + evently.ReservationID{Event: d.Event, Token: d.Token}.String()
	}
	if d.Seq != 0 {
		subject += fmt.Sprintf(" entry %d", d.Seq)
	}
	return subject + ": " + d.What
}

// Summary counts what Verify read.
type Summary struct {
	Events       int // with deleted drafts
	Entries      int
	Reservations int
	Waiters      int
	Differences  int
}

// Verify replays the journal of every event and compares the outcome with the rows. It reports every difference and goes
// on, whatever it finds.
//
// It reads one snapshot, so it can run while events are served. It remembers the reservations and waiters of one event at a time, about
// 200 bytes each. For its duration Postgres keeps row versions that it would otherwise clean up.
// Idempotency keys are not in the journal; of them Verify checks that none stands twice.
func Verify(ctx context.Context, pool *pgxpool.Pool, report func(Difference)) (Summary, error) {
	var summary Summary
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, pool, options, func(tx pgx.Tx) error {
		return verify(ctx, tx, &summary, func(d Difference) {
			summary.Differences++
			report(d)
		})
	})
	if err != nil {
		return summary, failed(err, "verify")
	}
	return summary, nil
}

// The four cursors run through the events in the same order. They are of one transaction and so of one snapshot.
const (
	// verifyLimitSQL: reading takes its time, and so may report.
	verifyLimitSQL = `
select set_config('idle_in_transaction_session_timeout', '0', true), set_config('statement_timeout', '0', true)`

	verifyEventsSQL = `
declare verify_events no scroll cursor for
select coalesce(e.event_id, h.event_id) as event_id, to_jsonb(e), h.event_id is not null, coalesce(h.epoch, 0), coalesce(h.seq, 0),
    h.last_at, h.next_due, coalesce(h.capacity::text, ''), coalesce(h.held::text, ''), coalesce(h.booked::text, ''),
    coalesce(h.waiting, 0)
from events e full join event_heads h on h.event_id = e.event_id
order by 1`

	verifyEntriesSQL = `
declare verify_entries no scroll cursor for
select event_id, seq, epoch, kind, at, coalesce(token, 0), coalesce(user_id, 0), coalesce(tier, -1), coalesce(quantity, 0),
    coalesce(unit_price, -1), expires_at, data, coalesce(on_release, -1), coalesce(position, -1), coalesce(priority, 1000001),
    coalesce(waiter, false)
from journal
order by event_id, seq`

	verifyReservationsSQL = `
declare verify_reservations no scroll cursor for
select event_id, token, user_id, status, tier, quantity, unit_price, more, created_at, expires_at, confirmed_at, ended_at,
    created_seq, coalesce(confirmed_seq, 0), seq, key
from reservations
order by event_id, created_seq`

	verifyWaitlistSQL = `
declare verify_waitlist no scroll cursor for
select event_id, token, user_id, status, tier, quantity, more, on_release, priority, position, joined_at, ended_at, joined_seq, seq, key
from waitlist
order by event_id, token`

	fetchEventsSQL       = `fetch 256 from verify_events`
	fetchEntriesSQL      = `fetch 4096 from verify_entries`
	fetchReservationsSQL = `fetch 4096 from verify_reservations`
	fetchWaitlistSQL     = `fetch 4096 from verify_waitlist`
)

type eventRow struct {
	event                  int64
	data                   []byte // nil: no row in events
	head                   bool   // whether there is a row in event_heads
	epoch, seq             int64
	lastAt, nextDue        instant
	capacity, held, booked string // text forms of the arrays
	waiting                int32
}

type entryRow struct {
	event, seq, epoch int64
	kind              int16
	at                instant
	token, user       int64
	tier              int16
	quantity          int32
	unitPrice         int64
	expiresAt         instant
	data              []byte
	onRelease         int16 // -1: null
	position          int32 // -1: null
	priority          int32 // beyond evently.PriorityMax: null
	waiter            bool
}

type reservationRow struct {
	event, token, user, unitPrice              int64
	status, tier                               int16
	quantity                                   int32
	more                                       []byte
	createdAt, expiresAt, confirmedAt, endedAt instant
	createdSeq, confirmedSeq, seq              int64
	key                                        pgtype.UUID
}

type waitlistRow struct {
	event, token, user      int64
	status, tier, onRelease int16
	quantity                int32
	more                    []byte
	priority, position      int32
	joinedAt, endedAt       instant
	joinedSeq, seq          int64
	key                     pgtype.UUID
}

func verify(ctx context.Context, tx pgx.Tx, summary *Summary, report func(Difference)) error {
	for _, sql := range []string{verifyLimitSQL, verifyEventsSQL, verifyEntriesSQL, verifyReservationsSQL, verifyWaitlistSQL} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	events := &pages[eventRow]{tx: tx, sql: fetchEventsSQL, scan: func(rows pgx.Rows, r *eventRow) error {
		return rows.Scan(&r.event, &r.data, &r.head, &r.epoch, &r.seq, &r.lastAt, &r.nextDue, &r.capacity, &r.held, &r.booked,
			&r.waiting)
	}}
	entries := &pages[entryRow]{tx: tx, sql: fetchEntriesSQL, scan: func(rows pgx.Rows, r *entryRow) error {
		return rows.Scan(&r.event, &r.seq, &r.epoch, &r.kind, &r.at, &r.token, &r.user, &r.tier, &r.quantity, &r.unitPrice,
			&r.expiresAt, &r.data, &r.onRelease, &r.position, &r.priority, &r.waiter)
	}}
	reservations := &pages[reservationRow]{tx: tx, sql: fetchReservationsSQL, scan: func(rows pgx.Rows, r *reservationRow) error {
		return rows.Scan(&r.event, &r.token, &r.user, &r.status, &r.tier, &r.quantity, &r.unitPrice, &r.more, &r.createdAt,
			&r.expiresAt, &r.confirmedAt, &r.endedAt, &r.createdSeq, &r.confirmedSeq, &r.seq, &r.key)
	}}
	waiters := &pages[waitlistRow]{tx: tx, sql: fetchWaitlistSQL, scan: func(rows pgx.Rows, r *waitlistRow) error {
		return rows.Scan(&r.event, &r.token, &r.user, &r.status, &r.tier, &r.quantity, &r.more, &r.onRelease, &r.priority, &r.position,
			&r.joinedAt, &r.endedAt, &r.joinedSeq, &r.seq, &r.key)
	}}
	for {
		event, entry, reservation, waiter := events.peek(ctx), entries.peek(ctx), reservations.peek(ctx), waiters.peek(ctx)
		for _, err := range []error{events.err, entries.err, reservations.err, waiters.err} {
			if err != nil {
				return err
			}
		}
		var ids []int64
		if event != nil {
			ids = append(ids, event.event)
		}
		if entry != nil {
			ids = append(ids, entry.event)
		}
		if reservation != nil {
			ids = append(ids, reservation.event)
		}
		if waiter != nil {
			ids = append(ids, waiter.event)
		}
		if len(ids) == 0 {
			return nil
		}
		id := slices.Min(ids)
		summary.Events++
		r := newReplay(evently.EventID(id), report)
		for ; entry != nil && entry.event == id; entry = entries.peek(ctx) {
			r.post(entry)
			summary.Entries++
			entries.next()
		}
		for ; reservation != nil && reservation.event == id; reservation = reservations.peek(ctx) {
			r.compareReservation(reservation)
			summary.Reservations++
			reservations.next()
		}
		for ; waiter != nil && waiter.event == id; waiter = waiters.peek(ctx) {
			r.compareWaiter(waiter)
			summary.Waiters++
			waiters.next()
		}
		if event != nil && event.event == id {
			r.compareEvent(event)
			events.next()
		} else {
			r.compareNoEvent()
		}
		r.compareRest()
	}
}

// pages reads a cursor in pages, one row at a time.
type pages[T any] struct {
	tx   pgx.Tx
	sql  string
	scan func(rows pgx.Rows, row *T) error
	page []T
	at   int
	done bool
	err  error
}

// peek returns the row that comes next, or nil at the end and after an error. The row is valid until the next page is read.
func (f *pages[T]) peek(ctx context.Context) *T {
	if f.at == len(f.page) && !f.done && f.err == nil {
		f.err = f.fetch(ctx)
	}
	if f.err != nil || f.at == len(f.page) {
		return nil
	}
	return &f.page[f.at]
}

func (f *pages[T]) next() { f.at++ }

func (f *pages[T]) fetch(ctx context.Context) error {
	rows, err := f.tx.Query(ctx, f.sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	f.page, f.at = f.page[:0], 0
	for rows.Next() {
		var row T
		if err := f.scan(rows, &row); err != nil {
			return err
		}
		f.page = append(f.page, row)
	}
	f.done = len(f.page) == 0
	return rows.Err()
}

// instant is a timestamptz in microseconds, exactly as it is stored.
type instant int64

const (
	never    = instant(-1 << 63) // null
	infinity = instant(1<<63 - 1)
)

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (i *instant) ScanTimestamptz(v pgtype.Timestamptz) error {
	switch {
	case !v.Valid:
		*i = never
	case v.InfinityModifier == pgtype.Infinity:
		*i = infinity
	case v.InfinityModifier == pgtype.NegativeInfinity:
		*i = never + 1
	default:
		*i = instant(v.Time.UnixMicro())
	}
	return nil
}

func (i instant) String() string {
	switch i {
	case never:
		return "null"
	case infinity:
		return "infinity"
	case never + 1:
		return "-infinity"
	}
	return time.UnixMicro(int64(i)).UTC().Format(time.RFC3339Nano)
}
