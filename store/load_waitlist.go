package store

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

const (
	loadedWaiterColumns = `w.token, w.user_id, w.status, w.tier, w.quantity, w.more::text, w.on_release, w.priority, w.position, w.joined_at,
    w.ended_at, w.joined_seq, w.seq, w.key`

	// loadWaitersSQL reads what a ledger knows: those who wait, ended ones whose key is still kept, and those whose offer is held. The last
	// are joined: as a condition in the where clause they can be had by a scan of all reservations of all events, and that is what the
	// planner makes of an event with many waiters. Indexes: waitlist_in_order, and the primary keys.
	loadWaitersSQL = `
select ` + loadedWaiterColumns + `
from waitlist w
where w.event_id = $1 and (w.status = 0 or w.key is not null)
union all
select ` + loadedWaiterColumns + `
from waitlist w join reservations r on r.event_id = w.event_id and r.token = w.token
where w.event_id = $1 and w.status = 1 and w.key is null and r.event_id = $1 and r.status = 0`
)

// storedWaiter is a row of waitlist.
type storedWaiter struct {
	evently.Waiter
	key evently.Key
}

// readWaiters restores the ledger's waiters, but those that ended before forgotten and have no offer that is held. overdue: there
// are some.
func readWaiters(rows pgx.Rows, ledger *evently.Ledger, forgotten time.Time) (overdue bool, err error) {
	var ended []storedWaiter
	for rows.Next() {
		stored, err := readWaiter(rows)
		if err != nil {
			return false, fmt.Errorf("read a waiter: %w", err)
		}
		stored.ID.Event = ledger.Event().ID
		if stored.Status == evently.Waiting {
			if err := ledger.RestoreWaiter(&stored.Waiter, stored.key); err != nil {
				return false, err
			}
			continue
		}
		if stored.EndedAt.Before(forgotten) {
			overdue = overdue || stored.key != evently.Key{}
			if offer, found := ledger.Reservation(stored.ID.Token); !found || offer.Status != evently.Held {
				continue
			}
		}
		ended = append(ended, stored)
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	// A ledger forgets in the order of the endings.
	slices.SortFunc(ended, func(a, b storedWaiter) int { return int(int64(a.Seq) - int64(b.Seq)) })
	for i := range ended {
		if err := ledger.RestoreWaiter(&ended[i].Waiter, ended[i].key); err != nil {
			return false, err
		}
	}
	return overdue, nil
}

// readWaiter reads a row of loadWaitersSQL.
func readWaiter(rows pgx.Rows) (storedWaiter, error) {
	if rows.FieldDescriptions()[0].Format == pgx.BinaryFormatCode {
		return decodeWaiter(rows.RawValues())
	}
	return scanWaiter(rows)
}

// decodeWaiter decodes binary values, see decodeReservation.
func decodeWaiter(v [][]byte) (w storedWaiter, err error) {
	for i, length := range []int{8, 8, 2, 2, 4, -1, 2, 4, 4, 8, 8, 8, 8, 16} {
		if nullable := i == 5 || i == 10 || i == 13; v[i] == nil && nullable || length < 0 {
			continue
		}
		if len(v[i]) != length {
			return w, fmt.Errorf("column %d has %d bytes, not %d", i, len(v[i]), length)
		}
	}
	w.ID.Token = evently.Token(binary.BigEndian.Uint64(v[0]))
	w.User = evently.UserID(binary.BigEndian.Uint64(v[1]))
	w.Status = evently.WaiterStatus(binary.BigEndian.Uint16(v[2]))
	first := evently.Item{Tier: int(binary.BigEndian.Uint16(v[3])), Quantity: int(binary.BigEndian.Uint32(v[4]))}
	w.Items = evently.OneItem(first)
	if v[5] != nil {
		if w.Items, err = decodeItems(first, v[5]); err != nil {
			return w, err
		}
	}
	w.OnRelease = evently.OnRelease(binary.BigEndian.Uint16(v[6]))
	w.Priority = int(int32(binary.BigEndian.Uint32(v[7])))
	w.Position = int(int32(binary.BigEndian.Uint32(v[8])))
	w.JoinedAt, w.EndedAt = readTime(v[9]), readTime(v[10])
	w.JoinedSeq, w.Seq = binary.BigEndian.Uint64(v[11]), binary.BigEndian.Uint64(v[12])
	if v[13] != nil {
		w.key = evently.Key{Hi: binary.BigEndian.Uint64(v[13][:8]), Lo: binary.BigEndian.Uint64(v[13][8:])}
	}
	return w, nil
}

// scanWaiter reads text values, see scanStored.
func scanWaiter(rows pgx.Rows) (w storedWaiter, err error) {
	var token, user int64
	var first evently.Item
	var more []byte
	var endedAt *time.Time
	var key pgtype.UUID
	if err := rows.Scan(&token, &user, &w.Status, &first.Tier, &first.Quantity, &more, &w.OnRelease, &w.Priority, &w.Position,
		&w.JoinedAt, &endedAt, &w.JoinedSeq, &w.Seq, &key); err != nil {
		return w, err
	}
	w.ID.Token, w.User, w.key = evently.Token(token), evently.UserID(user), uuidKey(key)
	w.JoinedAt, w.EndedAt = milliseconds(w.JoinedAt), timeOf(endedAt)
	w.Items, err = decodeItems(first, more)
	return w, err
}
