package proctest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

// audit is the state of some events as their rows have it, and what is wrong with them.
type audit struct {
	heads       map[int64]*head
	rows        map[string]*row // by reservation id
	differences []string
}

type head struct {
	event, epoch, seq      int64
	capacity, held, booked []int32

	entries    int64 // the last seq of the journal
	entryEpoch int64 // and its epoch
}

type row struct {
	event, user int64
	status      evently.ReservationStatus
	items       []item
	confirmed   bool // ever
	key         [16]byte
}

type item struct {
	Tier     int `json:"tier"` // from 0
	Quantity int `json:"quantity"`
}

func eventPath(event int64) string { return "/events/" + evently.EventID(event).String() }

func (h *head) path() string { return eventPath(h.event) }
func (r *row) path() string  { return eventPath(r.event) }

// eventKey is the inverse of eventPath, 0 for another text.
func eventKey(path string) int64 {
	event, err := evently.ParseEventID(strings.TrimPrefix(path, "/events/"))
	if err != nil {
		return 0
	}
	return int64(event)
}

// userOf returns the user that a promise was made to, as rows have it, and the digest of its key.
func userOf(p *Promise) (user int64, key [16]byte) {
	id, err := evently.ParseUserID(p.Client.User)
	if err != nil {
		return 0, key
	}
	digest := evently.BookKey(id, p.Key)
	return int64(id), keyBytes(digest.Hi, digest.Lo)
}

// reader is a connection, or a transaction.
type reader interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const (
	headsSQL = `select event_id, epoch, seq, capacity, held, booked from event_heads where event_id = any($1)`
	rowsSQL  = `select event_id, token, user_id, status, tier, quantity, coalesce(more, '[]'), confirmed_at is not null,
		coalesce(key, '00000000-0000-0000-0000-000000000000') from reservations where event_id = any($1)`
	entriesSQL = `select event_id, seq, epoch from journal where event_id = any($1) order by event_id, seq`
)

// read reads the rows of events. Nobody must be writing them.
func (a *audit) read(ctx context.Context, db reader, events []string) error {
	var keys []int64
	for _, path := range events {
		keys = append(keys, eventKey(path))
	}
	rows, err := db.Query(ctx, headsSQL, keys)
	if err != nil {
		return err
	}
	h := head{}
	if _, err = pgx.ForEachRow(rows, []any{&h.event, &h.epoch, &h.seq, &h.capacity, &h.held, &h.booked}, func() error {
		a.heads[h.event] = &head{event: h.event, epoch: h.epoch, seq: h.seq, capacity: h.capacity, held: h.held, booked: h.booked}
		h = head{}
		return nil
	}); err != nil {
		return err
	}
	if len(a.heads) != len(events) {
		return fmt.Errorf("%d heads for %d events", len(a.heads), len(events))
	}

	if rows, err = db.Query(ctx, rowsSQL, keys); err != nil {
		return err
	}
	var r row
	var token int64
	var first item
	var more []byte
	into := []any{&r.event, &token, &r.user, &r.status, &first.Tier, &first.Quantity, &more, &r.confirmed, &r.key}
	if _, err = pgx.ForEachRow(rows, into, func() error {
		one := r
		if err := json.Unmarshal(more, &one.items); err != nil {
			return err
		}
		one.items = append(one.items, first)
		id := evently.ReservationID{Event: evently.EventID(r.event), Token: evently.Token(token)}.String()
		if a.rows[id] != nil {
			a.differ("reservation %s has two rows", id)
		}
		a.rows[id] = &one
		return nil
	}); err != nil {
		return err
	}

	if rows, err = db.Query(ctx, entriesSQL, keys); err != nil {
		return err
	}
	var event, seq, epoch int64
	_, err = pgx.ForEachRow(rows, []any{&event, &seq, &epoch}, func() error {
		a.compareEntry(event, seq, epoch)
		return nil
	})
	a.compareEnd()
	return err
}
