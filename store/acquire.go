package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

// acquireSQL waits for the row lock of a commit that is under way and fences all later ones of the owner before.
const acquireSQL = `
update event_heads set epoch = epoch + 1, owner = $2 where event_id = $1
returning epoch, seq, last_at, capacity, held, booked, clock_timestamp()`

// loadEventSQL reads an event as an object whose keys are the columns, see eventJSON.
const loadEventSQL = `select to_jsonb(e) from events e where event_id = $1`

// loadReservationsSQL reads what a ledger knows: live reservations, and ended ones whose key is still kept. It uses the
// index reservations_by_event, in whose order most of the rows lie.
const loadReservationsSQL = `
select token, user_id, status, tier, quantity, unit_price, more, created_at, expires_at, confirmed_at, ended_at,
    created_seq, confirmed_seq, seq, key
from reservations
where event_id = $1 and (ended_at is null or key is not null)
order by created_seq`

// forgetKeysSQL clears keys that are past their time; see Acquire.
const forgetKeysSQL = `
update reservations set key = null
where event_id = $1 and key is not null and ended_at < $2`

// lockTimeoutSQL bounds the wait for an owner that hangs in the middle of a commit.
const lockTimeoutSQL = `select set_config('lock_timeout', $1, true)`

const acquireLockTimeout = "5s"

// Acquire implements evently.Journal.
func (j *Journal) Acquire(ctx context.Context, event evently.EventID) (*evently.Tenure, error) {
	var tenure *evently.Tenure
	err := pgx.BeginFunc(ctx, j.pool, func(tx pgx.Tx) (err error) {
		tenure, err = acquire(ctx, tx, event)
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, evently.ErrEventNotFound
	case err != nil:
		return nil, failed(err, "acquire event %s", event)
	}
	return tenure, nil
}

func acquire(ctx context.Context, tx pgx.Tx, id evently.EventID) (*evently.Tenure, error) {
	if _, err := tx.Exec(ctx, lockTimeoutSQL, acquireLockTimeout); err != nil {
		return nil, err
	}
	tenure := new(evently.Tenure)
	if _, err := rand.Read(tenure.Owner[:]); err != nil {
		return nil, err
	}
	var head struct {
		seq                    int64
		lastAt                 time.Time
		capacity, held, booked []int32
	}
	var epoch int64
	err := tx.QueryRow(ctx, acquireSQL, int64(id), pgtype.UUID{Bytes: tenure.Owner, Valid: true}).
		Scan(&epoch, &head.seq, &head.lastAt, &head.capacity, &head.held, &head.booked, &tenure.Now)
	if err != nil {
		return nil, err
	}
	tenure.Epoch = uint64(epoch)
	var data []byte
	if err := tx.QueryRow(ctx, loadEventSQL, int64(id)).Scan(&data); err != nil {
		return nil, err
	}
	event, err := decodeEvent(data)
	if err != nil {
		return nil, err
	}
	seed := mathrand.Uint64() //nolint:gosec // of an index, not a secret that lasts
	tenure.Ledger = evently.NewLedger(event, uint64(head.seq), head.lastAt, seed)
	overdue, err := loadReservations(ctx, tx, tenure)
	if err != nil {
		return nil, err
	}
	if overdue {
		// The job that clears keys has not run for hours. The ledger would take such a key for new and storage would
		// refuse it.
		if _, err := tx.Exec(ctx, forgetKeysSQL, int64(id), tenure.Now.Add(-evently.KeyRetentionMin)); err != nil {
			return nil, err
		}
	}
	if err := checkHead(tenure.Ledger, head.capacity, head.held, head.booked); err != nil {
		return nil, err
	}
	// Once more: to load a large event takes a while, and the owner goes by this time.
	return tenure, tx.QueryRow(ctx, nowSQL).Scan(&tenure.Now)
}

// loadReservations restores the ledger's reservations. overdue: some have keys that are past their time.
func loadReservations(ctx context.Context, tx pgx.Tx, tenure *evently.Tenure) (overdue bool, err error) {
	event := tenure.Ledger.Event()
	rows, err := tx.Query(ctx, loadReservationsSQL, pgx.QueryResultFormats{pgx.BinaryFormatCode}, int64(event.ID))
	if err != nil {
		return false, err
	}
	defer rows.Close()
	forgotten := tenure.Now.Add(-evently.KeyRetention)
	var ended []storedReservation
	for rows.Next() {
		stored, err := readReservation(rows.RawValues())
		if err != nil {
			return false, fmt.Errorf("read a reservation: %w", err)
		}
		stored.ID.Event, stored.Currency = event.ID, event.Currency
		switch {
		case stored.Status.Live():
			err = tenure.Ledger.Restore(&stored.Reservation, stored.createdSeq, stored.confirmedSeq, stored.key)
		case stored.EndedAt.Before(forgotten):
			overdue = true
		default:
			ended = append(ended, stored)
		}
		if err != nil {
			return false, err
		}
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	// A ledger forgets in the order of the endings.
	slices.SortFunc(ended, func(a, b storedReservation) int { return int(int64(a.Seq) - int64(b.Seq)) })
	for i := range ended {
		r := &ended[i]
		if err := tenure.Ledger.Restore(&r.Reservation, r.createdSeq, r.confirmedSeq, r.key); err != nil {
			return false, err
		}
	}
	return overdue, nil
}

// storedReservation is a row of reservations.
type storedReservation struct {
	evently.Reservation
	createdSeq, confirmedSeq uint64
	key                      evently.Key
}

// readReservation decodes the binary values of loadReservationsSQL. An event can have a million of them, which scanning
// by reflection would make slow.
func readReservation(v [][]byte) (r storedReservation, err error) {
	for i, length := range []int{8, 8, 2, 2, 4, 8, -1, 8, 8, 8, 8, 8, 8, 8, 16} {
		if nullable := i == 6 || i == 9 || i == 10 || i == 12 || i == 14; v[i] == nil && nullable || length < 0 {
			continue
		}
		if len(v[i]) != length {
			return r, fmt.Errorf("column %d has %d bytes, not %d", i, len(v[i]), length)
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
		// The binary form of jsonb is a version byte, 1, and the text.
		if v[6][0] != 1 {
			return r, fmt.Errorf("jsonb of version %d", v[6][0])
		}
		if r.Items, err = decodeItems(first, v[6][1:]); err != nil {
			return r, err
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
	return r, nil
}

// readTime decodes a binary timestamptz; null is the zero time.
func readTime(v []byte) time.Time {
	if v == nil {
		return time.Time{}
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(v)) + postgresEpoch).UTC()
}

// checkHead compares the sums of the reservations with the head, which was written on its own.
func checkHead(ledger *evently.Ledger, capacity, held, booked []int32) error {
	if err := ledger.Check(); err != nil {
		return err
	}
	var sums evently.Availability
	ledger.Availability(&sums)
	if len(sums.Tiers) != len(capacity) || len(capacity) != len(held) || len(capacity) != len(booked) {
		return fmt.Errorf("storage is damaged: %d tiers, and %d in the head", len(sums.Tiers), len(capacity))
	}
	for i, sum := range sums.Tiers {
		head := evently.TierAvailability{Capacity: int(capacity[i]), Held: int(held[i]), Booked: int(booked[i])}
		if sum != head {
			return fmt.Errorf("storage is damaged: tier %s has %+v in its rows and %+v in the head", evently.TierID(i), sum, head)
		}
	}
	return nil
}
