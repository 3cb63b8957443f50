package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Past is an event as its journal tells it, up to one of its entries.
type Past struct {
	Ledger  *evently.Ledger // the details, the counts, and every live reservation
	Entry   evently.Entry   // the last one
	Epoch   uint64          // of that entry
	Deleted bool            // the entry deleted the event, a draft
	Live    []evently.Token // reservations that occupy seats, in the order of their making
}

// Moment is how far a replay goes: up to an entry, or up to a time, with the entries of that very time.
type Moment struct {
	Seq uint64    // zero: no bound
	At  time.Time // zero: no bound
}

func (m Moment) after(e *evently.Entry) bool {
	return m.Seq != 0 && e.Seq > m.Seq || !m.At.IsZero() && e.At.After(m.At)
}

// Errors of ReplayEvent.
var (
	// ErrNotYet: the event was made later.
	ErrNotYet = errors.New("the event was not there yet")
	// ErrNoEntry: the journal ends before the entry.
	ErrNoEntry = errors.New("the journal has no such entry yet")
)

const (
	// replayPage is how many entries are read at a time.
	replayPage = 4096

	// replayEntriesSQL is served by the primary key.
	replayEntriesSQL = `
select seq, epoch, kind, at, who, request_id, coalesce(token, 0), coalesce(user_id, 0), coalesce(tier, 0), coalesce(quantity, 0),
    coalesce(unit_price, 0), expires_at, data, coalesce(on_release, 0), coalesce(position, 0), coalesce(priority, 0),
    coalesce(waiter, false)
from journal
where event_id = $1 and seq > $2
order by seq
limit $3`
)

// ReplayEvent makes the state of an event at a moment out of its journal alone, by the ledger that its owner has. each is told the
// entries up to then, before they are posted; it may be nil. It takes some 100 bytes of memory for each reservation of the last day and
// each live one.
//
// It returns evently.ErrEventNotFound, ErrNotYet, ErrNoEntry, or an error that names the entry that cannot follow: then the journal is
// damaged, and Verify says more.
func ReplayEvent(
	ctx context.Context, pool *pgxpool.Pool, event evently.EventID, moment Moment, each func(*evently.Entry, uint64, *evently.Ledger),
) (past *Past, err error) {
	past = &Past{}
	live := newLiveTokens()
	for after, more := uint64(0), true; more; {
		rows, err := pool.Query(ctx, replayEntriesSQL, int64(event), int64(after), replayPage)
		page, err := collect(rows, err, scanReplayed)
		if err != nil {
			return nil, failed(err, "replay event %s", event)
		}
		more = len(page) == replayPage
		for i := range page {
			e := &page[i]
			if moment.after(&e.Entry) {
				more = false
				break
			}
			if each != nil {
				each(&e.Entry, e.epoch, past.Ledger)
			}
			if err := past.post(e, live); err != nil {
				return nil, fmt.Errorf("replay event %s: entry %d: %w", event, e.Seq, err)
			}
			after = e.Seq
		}
		switch {
		case len(page) == 0 && after == 0:
			return nil, evently.ErrEventNotFound
		case after == 0:
			return nil, fmt.Errorf("replay event %s: %w: it was made %s", event, ErrNotYet, page[0].At.Format(time.RFC3339Nano))
		}
	}
	if moment.Seq > past.Entry.Seq {
		return nil, fmt.Errorf("replay event %s: %w: the last one is %d", event, ErrNoEntry, past.Entry.Seq)
	}
	past.Live = live.list()
	return past, nil
}

// post posts an entry. What the ledger takes for impossible comes of a damaged journal.
func (p *Past) post(e *replayedEntry, live *liveTokens) (err error) {
	defer func() {
		if impossible := recover(); impossible != nil {
			err = fmt.Errorf("cannot follow the entries before it (see evently verify): %v", impossible)
		}
	}()
	switch {
	case p.Ledger == nil:
		if e.Kind != evently.EventCreatedEntry || e.Seq != 1 {
			return fmt.Errorf("is the first one, and a %s", e.Kind)
		}
		p.Ledger = evently.NewLedger(e.Event, e.Seq, e.At, uint64(e.Event.ID))
	case p.Deleted:
		return errors.New("comes after the event's deletion")
	case e.Kind == evently.EventDeletedEntry:
		p.Deleted = true
	default:
		p.Ledger.Post(&e.Entry)
		if err := p.Ledger.Check(); err != nil {
			return err
		}
		live.note(&e.Entry)
	}
	p.Entry, p.Epoch = e.Entry, e.epoch
	return nil
}

// replayedEntry is an entry as the journal alone has it: later entries of a reservation name it and no more.
type replayedEntry struct {
	evently.Entry
	epoch uint64
}

func scanReplayed(row pgx.CollectableRow) (e replayedEntry, err error) {
	var who, token, user int64
	var first evently.Item
	var data []byte
	var expiresAt *time.Time
	if err := row.Scan(&e.Seq, &e.epoch, &e.Kind, &e.At, &who, &e.RequestID, &token, &user, &first.Tier, &first.Quantity,
		&first.UnitPriceMinor, &expiresAt, &data, &e.OnRelease, &e.Position, &e.Priority, &e.Waiter); err != nil {
		return e, err
	}
	e.At, e.ExpiresAt = milliseconds(e.At), timeOf(expiresAt)
	e.Who, e.Token, e.User = evently.UserID(who), evently.Token(token), evently.UserID(user)
	switch {
	case first.Quantity > 0:
		e.Items, err = decodeItems(first, data)
	case data != nil:
		e.Event, err = decodeEvent(data)
	}
	if err != nil {
		return e, fmt.Errorf("entry %d: %w", e.Seq, err)
	}
	return e, nil
}

// liveTokens are the reservations that occupy seats.
type liveTokens struct {
	made  []evently.Token
	ended map[evently.Token]struct{} // of those made
}

func newLiveTokens() *liveTokens { return &liveTokens{ended: make(map[evently.Token]struct{})} }

func (l *liveTokens) note(e *evently.Entry) {
	switch e.Kind { //nolint:exhaustive // the kinds that take and free seats
	case evently.HeldEntry:
		l.made = append(l.made, e.Token)
	case evently.CancelledEntry, evently.ExpiredEntry:
		l.ended[e.Token] = struct{}{}
		if len(l.ended) > len(l.made)/2 {
			l.made = l.list()
			clear(l.ended)
		}
	}
}

// list drops the ended ones in place.
func (l *liveTokens) list() []evently.Token {
	kept := l.made[:0]
	for _, token := range l.made {
		if _, ended := l.ended[token]; !ended {
			kept = append(kept, token)
		}
	}
	return kept
}
