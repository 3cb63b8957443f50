package store

import (
	"context"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

const (
	beginLoadSQL = `begin isolation level repeatable read, read only`

	// loadEventSQL reads an event as an object whose keys are the columns, see eventJSON. Indexes: the primary keys.
	loadEventSQL = `
select h.epoch, h.owner, to_jsonb(e)
from event_heads h join events e on e.event_id = h.event_id
where h.event_id = $1`

	// loadReservationsSQL reads what a ledger knows: live reservations, and ended ones whose key is still kept, or would be if they
	// had one: those that served a waiter have none. It uses the index reservations_by_event, in whose order most of the rows lie.
	loadReservationsSQL = `
select token, user_id, status, tier, quantity, unit_price, more::text, created_at, expires_at, confirmed_at, ended_at,
    created_seq, confirmed_seq, seq, key
from reservations
where event_id = $1 and (ended_at is null or key is not null or ended_at >= $2)
order by created_seq`

	endLoadSQL = `commit`
)

// loadQuick is how old the time of a tenure may be when it begins.
const loadQuick = 50 * time.Millisecond

// loaded is an event as a snapshot shows it.
type loaded struct {
	ledger  *evently.Ledger
	overdue bool // some have ended and have keys that are past their time, and that the ledger does not know
	now     time.Time
}

// load is the second phase of an acquisition: it reads the event whose head was acquired, all in one round trip.
// It returns errSuperseded if somebody else has acquired the head since, and pgx.ErrNoRows if the event is gone.
func load(ctx context.Context, conn *pgx.Conn, owned *head) (l loaded, err error) {
	began := time.Now()
	var batch pgx.Batch
	batch.Queue(beginLoadSQL)
	batch.Queue(loadEventSQL, int64(owned.event)).QueryRow(func(row pgx.Row) (err error) {
		l.ledger, err = readEvent(row, owned)
		return err
	})
	batch.Queue(loadReservationsSQL, int64(owned.event), owned.now.Add(-evently.KeyRetentionMin)).Query(func(rows pgx.Rows) (err error) {
		l.overdue, err = readReservations(rows, l.ledger, owned.now.Add(-evently.KeyRetention))
		return err
	})
	batch.Queue(loadWaitersSQL, int64(owned.event)).Query(func(rows pgx.Rows) error {
		overdue, err := readWaiters(rows, l.ledger, owned.now.Add(-evently.KeyRetention))
		l.overdue = l.overdue || overdue
		return err
	})
	batch.Queue(nowSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&l.now) })
	batch.Queue(endLoadSQL)
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		return l, err
	}
	if err := checkHead(l.ledger, owned); err != nil {
		return l, err
	}
	if time.Since(began) > loadQuick {
		// A large event, and the owner goes by this time. The server was ahead of what it sent.
		return l, conn.QueryRow(ctx, nowSQL).Scan(&l.now)
	}
	return l, nil
}

func readEvent(row pgx.Row, owned *head) (*evently.Ledger, error) {
	var epoch uint64
	var owner [16]byte
	var data []byte
	if err := row.Scan(&epoch, &owner, &data); err != nil {
		return nil, err
	}
	if epoch != owned.epoch || owner != owned.owner {
		return nil, errSuperseded
	}
	event, err := decodeEvent(data)
	if err != nil {
		return nil, err
	}
	seed := mathrand.Uint64() //nolint:gosec // of an index, not a secret that lasts
	return evently.NewLedger(event, owned.seq, owned.lastAt, seed), nil
}

// readReservations restores the ledger's reservations, but those that ended before forgotten. overdue: there are some.
func readReservations(rows pgx.Rows, ledger *evently.Ledger, forgotten time.Time) (overdue bool, err error) {
	event := ledger.Event()
	var ended []storedReservation
	live := make([]storedReservation, 0, restoredTogether)
	for rows.Next() {
		if len(live) == cap(live) {
			if err := restore(ledger, live); err != nil {
				return false, err
			}
			live = live[:0]
		}
		live = live[:len(live)+1]
		stored := &live[len(live)-1]
		if err := readReservation(rows, stored); err != nil {
			return false, fmt.Errorf("read a reservation: %w", err)
		}
		stored.ID.Event, stored.Currency = event.ID, event.Currency
		if stored.Status.Live() {
			ledger.RestoreSoon(stored.ID.Token, stored.key)
			continue
		}
		if stored.EndedAt.Before(forgotten) {
			overdue = true
		} else {
			ended = append(ended, *stored)
		}
		live = live[:len(live)-1]
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	if err := restore(ledger, live); err != nil {
		return false, err
	}
	// A ledger forgets in the order of the endings.
	slices.SortFunc(ended, func(a, b storedReservation) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return overdue, restore(ledger, ended)
}

// restoredTogether is how many rows are read before they are restored, see RestoreSoon.
const restoredTogether = 32

func restore(ledger *evently.Ledger, stored []storedReservation) error {
	for i := range stored {
		r := &stored[i]
		if err := ledger.Restore(&r.Reservation, r.createdSeq, r.confirmedSeq, r.key); err != nil {
			return err
		}
	}
	return nil
}

// storedReservation is a row of reservations.
type storedReservation struct {
	evently.Reservation
	createdSeq, confirmedSeq uint64
	key                      evently.Key
}

// readReservation reads a row of loadReservationsSQL.
func readReservation(rows pgx.Rows, r *storedReservation) (err error) {
	if rows.FieldDescriptions()[0].Format == pgx.BinaryFormatCode {
		return decodeReservation(rows.RawValues(), r)
	}
	*r, err = scanStored(rows)
	return err
}

// decodeReservation decodes binary values. An event can have a million of them, which scanning by reflection would
// make slow.
func decodeReservation(v [][]byte, r *storedReservation) (err error) {
	*r = storedReservation{}
	const nullable = 1<<6 | 1<<9 | 1<<10 | 1<<12 | 1<<14
	for i, length := range [...]int{8, 8, 2, 2, 4, 8, -1, 8, 8, 8, 8, 8, 8, 8, 16} {
		if len(v[i]) != length && length >= 0 && (v[i] != nil || nullable>>i&1 == 0) {
			return fmt.Errorf("column %d has %d bytes, not %d", i, len(v[i]), length)
		}
	}
	r.ID.Token = evently.Token(binary.BigEndian.Uint64(v[0]))
	r.User = evently.UserID(binary.BigEndian.Uint64(v[1]))
	r.Status = evently.ReservationStatus(binary.BigEndian.Uint16(v[2]))
	first := evently.Item{
		Tier: int(binary.BigEndian.Uint16(v[3])), Quantity: int(binary.BigEndian.Uint32(v[4])),
		UnitPriceMinor: int64(binary.BigEndian.Uint64(v[5])),
	}
	r.Items = evently.OneItem(first)
	if v[6] != nil {
		if r.Items, err = decodeItems(first, v[6]); err != nil {
			return err
		}
	}
	r.CreatedAt, r.ExpiresAt, r.ConfirmedAt, r.EndedAt = readTime(v[7]), readTime(v[8]), readTime(v[9]), readTime(v[10])
	r.createdSeq = binary.BigEndian.Uint64(v[11])
	if v[12] != nil {
		r.confirmedSeq = binary.BigEndian.Uint64(v[12])
	}
	r.Seq = binary.BigEndian.Uint64(v[13])
	if v[14] != nil {
		r.key = evently.Key{Hi: binary.BigEndian.Uint64(v[14][:8]), Lo: binary.BigEndian.Uint64(v[14][8:])}
	}
	return nil
}

// readTime decodes a binary timestamptz; null is the zero time.
func readTime(v []byte) time.Time {
	if v == nil {
		return time.Time{}
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(v)) + postgresEpoch).UTC()
}

// scanStored reads text values: those of connections that may not prepare statements.
func scanStored(rows pgx.Rows) (r storedReservation, err error) {
	var token, user int64
	var first evently.Item
	var more []byte
	var confirmedAt, endedAt *time.Time
	var confirmedSeq *uint64
	var key pgtype.UUID
	if err := rows.Scan(&token, &user, &r.Status, &first.Tier, &first.Quantity, &first.UnitPriceMinor, &more, &r.CreatedAt, &r.ExpiresAt,
		&confirmedAt, &endedAt, &r.createdSeq, &confirmedSeq, &r.Seq, &key); err != nil {
		return r, err
	}
	r.ID.Token, r.User, r.key = evently.Token(token), evently.UserID(user), uuidKey(key)
	r.CreatedAt, r.ExpiresAt, r.ConfirmedAt, r.EndedAt = r.CreatedAt.UTC(), r.ExpiresAt.UTC(), timeOf(confirmedAt), timeOf(endedAt)
	if confirmedSeq != nil {
		r.confirmedSeq = *confirmedSeq
	}
	r.Items, err = decodeItems(first, more)
	return r, err
}

// checkHead compares the sums of the reservations and waiters with the head, which was written on its own.
func checkHead(ledger *evently.Ledger, owned *head) error {
	if err := ledger.Check(); err != nil {
		return err
	}
	var sums evently.Availability
	ledger.Availability(&sums)
	if len(sums.Tiers) != len(owned.capacity) || len(owned.capacity) != len(owned.held) || len(owned.capacity) != len(owned.booked) {
		return fmt.Errorf("storage is damaged: %d tiers, and %d in the head", len(sums.Tiers), len(owned.capacity))
	}
	if sums.Waiting != owned.waiting {
		return fmt.Errorf("storage is damaged: %d rows wait, and %d in the head", sums.Waiting, owned.waiting)
	}
	for i, sum := range sums.Tiers {
		head := evently.TierAvailability{Capacity: int(owned.capacity[i]), Held: int(owned.held[i]), Booked: int(owned.booked[i])}
		if sum != head {
			return fmt.Errorf("storage is damaged: tier %s has %+v in its rows and %+v in the head", evently.TierID(i), sum, head)
		}
	}
	return nil
}
