package store

import (
	"fmt"
	"strconv"

	"github.com/evently/evently"
)

// appendSQL writes batches of many events, one of each: heads first, and of the entries those whose head was updated. An event whose
// head has another epoch, owner or seq by now drops out alone. The rows returned are the events written.
//
// A reservation that changes several times in one batch is written once, in its last form, by its first entry there
// (apply): two data-modifying parts of one statement do not see each other's rows. The same goes for an event, which is
// written by its last entry. Indexes: the primary keys.
//
// It is for batches that concern no waiter; for others there is appendWaitlistSQL, which has more parts and costs more. For batches of
// holds there is appendHoldsSQL, which costs less.
const appendSQL = appendHeads + `
), entry as materialized (
    select e.* from unnest(` + entryArrays + `)
        as e (` + entryColumns + `)
        join head h on h.event_id = e.event_id and h.epoch = e.epoch
), journaled as (
    insert into journal (` + journalColumns + `)
    select ` + journalValues + ` from entry
` + appendRows + `
)` + appendOutcome

// The parts of the appends.
const (
	// lockHeads locks the heads in the order of the ids, so that two statements cannot deadlock.
	lockHeads = `
with locked as (
    select event_id from event_heads where event_id = any ($1::int8[]) order by event_id for update
)`

	// fence lets only the owner write, once the heads are locked. It counts the locked and does not join them, which can take
	// the square of their number.
	fence = `(select count(*) from locked) >= 0
        and h.event_id = b.event_id and h.epoch = b.epoch and h.owner = b.owner and h.seq = b.prev_seq`

	appendHeads = lockHeads + `, head as (
    update event_heads h
    set seq = b.seq, last_at = b.last_at, capacity = b.capacity::int4[], held = b.held::int4[], booked = b.booked::int4[],
        next_due = b.next_due, waiting = b.waiting
    from unnest($1::int8[], $2::int8[], $3::uuid[], $4::int8[], $5::int8[], $6::timestamptz[],
        $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::int4[])
        as b (event_id, epoch, owner, prev_seq, seq, last_at, capacity, held, booked, next_due, waiting)
    where ` + fence + `
    returning h.event_id, b.epoch`

	entryArrays = `$12::int8[], $13::int8[], $14::int2[], $15::timestamptz[], $16::int8[], $17::text[], $18::int8[],
        $19::int8[], $20::int2[], $21::int4[], $22::int8[], $23::timestamptz[], $24::text[], $25::uuid[], $26::bool[],
        $27::int2[], $28::timestamptz[], $29::int8[], $30::timestamptz[], $31::int8[], $32::int8[]`
	entryColumns = `event_id, seq, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at, data, key,
            apply, status, confirmed_at, confirmed_seq, ended_at, last_seq, epoch`

	journalColumns = `event_id, seq, epoch, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at, data`
	journalValues  = `event_id, seq, epoch, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at, data::jsonb`

	appendRows = `
), held as (
    insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, more, created_at, expires_at,
        confirmed_at, ended_at, created_seq, confirmed_seq, seq, key)
    select event_id, token, user_id, status, tier, quantity, unit_price, data::jsonb, at, expires_at, confirmed_at, ended_at,
        seq, confirmed_seq, last_seq, key
    from entry where kind = 5
), changed as (
    update reservations r
    set status = e.status, confirmed_at = coalesce(e.confirmed_at, r.confirmed_at), ended_at = e.ended_at,
        confirmed_seq = coalesce(e.confirmed_seq, r.confirmed_seq), seq = e.last_seq
    from entry e
    where e.kind in (6, 7, 8) and e.apply and r.event_id = e.event_id and r.token = e.token and r.ended_at is null
    returning 1
), revised as (
    update events v
    set status = d.status, version = d.version, name = d.name, description = d.description, category = d.category,
        venue = d.venue, city = d.city, timezone = d.timezone, currency = d.currency, starts_at = d.starts_at,
        ends_at = d.ends_at, sales_start_at = d.sales_start_at, sales_end_at = d.sales_end_at, hold_ttl_ms = d.hold_ttl_ms,
        max_per_booking = d.max_per_booking, max_per_user = d.max_per_user, tiers = d.tiers, pricing = d.pricing
    from entry e, jsonb_to_record(e.data::jsonb) as d (status int2, version int8, name text, description text, category text,
        venue text, city text, timezone text, currency text, starts_at timestamptz, ends_at timestamptz,
        sales_start_at timestamptz, sales_end_at timestamptz, hold_ttl_ms int8, max_per_booking int4, max_per_user int4,
        tiers jsonb, pricing jsonb)
    where e.kind in (2, 3, 4, 14, 15) and e.apply and v.event_id = e.event_id`

	appendOutcome = `
select event_id, epoch, (extract(epoch from clock_timestamp()) * 1000)::int8 from head
where ((select count(*) from changed) = (select count(*) from entry where kind in (6, 7, 8) and apply)
    or raise_error('EV001', 'a reservation that an entry changes is missing or has ended'))`
)

// confirmSQL lists the events whose owner is still the owner: the answer to batches without entries.
const confirmSQL = `
select h.event_id, h.epoch, (extract(epoch from clock_timestamp()) * 1000)::int8
from unnest($1::int8[], $2::int8[], $3::uuid[], $4::int8[]) as b (event_id, epoch, owner, seq)
join event_heads h on h.event_id = b.event_id and h.epoch = b.epoch and h.owner = b.owner and h.seq = b.seq`

// appendArgs builds the parameters of the appends.
type appendArgs struct {
	heads    []column
	entries  []column
	waitlist waitlistArgs
	holds    holdsArgs
	tiers    tiersText
	first    map[reservationKey]int // index in rows of a reservation's first entry, which writes its row
	rows     []row
}

type reservationKey struct {
	event evently.EventID
	token evently.Token
}

// row is what an entry makes of its reservation or event.
type row struct {
	entry    *evently.Entry
	batch    *evently.Batch
	apply    bool
	status   evently.ReservationStatus
	lastSeq  uint64
	ended    *evently.Entry
	confirms *evently.Entry
}

func newAppendArgs() *appendArgs {
	return &appendArgs{
		heads: columnsOf(oidInt8, oidInt8, oidUUID, oidInt8, oidInt8, oidTime, oidText, oidText, oidText, oidTime, oidInt4),
		entries: columnsOf(oidInt8, oidInt8, oidInt2, oidTime, oidInt8, oidText, oidInt8, oidInt8, oidInt2, oidInt4, oidInt8, oidTime,
			oidText, oidUUID, oidBool, oidInt2, oidTime, oidInt8, oidTime, oidInt8, oidInt8),
		waitlist: newWaitlistArgs(),
		holds:    newHoldsArgs(),
		first:    make(map[reservationKey]int),
	}
}

// params returns the statement for batches of different events and its parameters, valid until the next call.
func (a *appendArgs) params(dst [][]byte, batches []*evently.Batch) (statement string, params [][]byte, err error) {
	plain, holds := survey(batches)
	if plain {
		return appendHoldsStatement, a.holds.params(dst, batches, &a.tiers), nil
	}
	reset(a.heads)
	reset(a.entries)
	a.waitlist.reset()
	clear(a.first)
	clear(a.rows)
	a.rows = a.rows[:0]
	for _, batch := range batches {
		a.addHead(batch)
		a.fold(batch, holds)
	}
	for i := range a.rows {
		if err := a.addEntry(&a.rows[i]); err != nil {
			return "", dst, err
		}
	}
	dst = appendBytes(appendBytes(dst, a.heads), a.entries)
	if len(a.waitlist.rows) == 0 {
		return appendStatement, dst, nil
	}
	dst, err = a.waitlist.params(dst, a.rows)
	return appendWaitlistStatement, dst, err
}

// survey reports whether all entries are for appendHoldsSQL, and whether all are at least holds, so that no row changes twice.
func survey(batches []*evently.Batch) (plain, holds bool) {
	plain = true
	for _, batch := range batches {
		for i := range batch.Entries {
			entry := &batch.Entries[i]
			if entry.Kind != evently.HeldEntry {
				return false, false
			}
			plain = plain && plainHold(entry)
		}
	}
	return plain, true
}

func appendBytes(dst [][]byte, columns []column) [][]byte {
	for i := range columns {
		dst = append(dst, columns[i].bytes())
	}
	return dst
}

func (a *appendArgs) addHead(batch *evently.Batch) {
	h := a.heads
	h[0].int8(uint64(batch.Event))
	h[1].int8(batch.Epoch)
	h[2].uuid(batch.Owner)
	h[3].int8(batch.PrevSeq)
	h[4].int8(batch.LastSeq())
	h[5].time(batch.Entries[len(batch.Entries)-1].At)
	h[6].json(a.tiers.of(batch, capacity))
	h[7].json(a.tiers.of(batch, held))
	h[8].json(a.tiers.of(batch, booked))
	h[9].time(batch.NextDue)
	h[10].int4(batch.Waiting)
}

// tiersText builds the text form of an int4[]: unnest would flatten an array of arrays.
type tiersText []byte

// of returns a count of each tier of a batch, valid until the next call.
func (t *tiersText) of(batch *evently.Batch, count func(*evently.TierAvailability) int) []byte {
	text := append((*t)[:0], '{')
	for i := range batch.Tiers {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(count(&batch.Tiers[i])), 10)
	}
	*t = append(text, '}')
	return *t
}

func capacity(t *evently.TierAvailability) int { return t.Capacity }
func held(t *evently.TierAvailability) int     { return t.Held }
func booked(t *evently.TierAvailability) int   { return t.Booked }

// fold notes for each entry what it writes to its row, so that each row is written once. In a statement of holds alone
// none changes twice.
func (a *appendArgs) fold(batch *evently.Batch, holds bool) {
	event := -1 // index in rows of the last entry of the event itself
	for i := range batch.Entries {
		entry := &batch.Entries[i]
		next := row{entry: entry, batch: batch, apply: true, lastSeq: entry.Seq}
		switch entry.Kind {
		case evently.HeldEntry:
			next.status = evently.Held
			if entry.Waiter {
				a.waitlist.fold(batch, entry)
			}
		case evently.ConfirmedEntry:
			next.status, next.confirms = evently.Confirmed, entry
		case evently.CancelledEntry:
			next.status, next.ended = evently.Cancelled, entry
		case evently.ExpiredEntry:
			next.status, next.ended = evently.Expired, entry
		case evently.WaitlistedEntry, evently.WaiterPrioritizedEntry, evently.WaiterLeftEntry, evently.WaiterClosedEntry:
			a.waitlist.fold(batch, entry)
			a.rows = append(a.rows, next)
			continue
		default:
			if event >= 0 {
				a.rows[event].apply = false
			}
			event = len(a.rows)
			a.rows = append(a.rows, next)
			continue
		}
		if !holds {
			key := reservationKey{batch.Event, entry.Token}
			if first, again := a.first[key]; again {
				a.rows[first].follow(&next)
				next.apply = false
			} else {
				a.first[key] = len(a.rows)
			}
		}
		a.rows = append(a.rows, next)
	}
}

// follow makes r write what a later change of the same reservation leaves.
func (r *row) follow(later *row) {
	r.status, r.lastSeq = later.status, later.lastSeq
	if later.confirms != nil {
		r.confirms = later.confirms
	}
	if later.ended != nil {
		r.ended = later.ended
	}
}

func (a *appendArgs) addEntry(r *row) error {
	c, entry := a.entries, r.entry
	c[0].int8(uint64(r.batch.Event))
	c[1].int8(entry.Seq)
	c[2].int2(int(entry.Kind))
	c[3].time(entry.At)
	c[4].int8(uint64(entry.Who))
	c[5].text(entry.RequestID)
	if entry.Token != 0 {
		c[6].int8(uint64(entry.Token))
	} else {
		c[6].null()
	}
	first := entry.Items.At(0)
	switch entry.Kind {
	case evently.HeldEntry:
		c[7].int8(uint64(entry.User))
		c[8].int2(first.Tier)
		c[9].int4(first.Quantity)
		c[10].int8(uint64(first.UnitPriceMinor))
	case evently.WaitlistedEntry:
		c[7].int8(uint64(entry.User))
		c[8].int2(first.Tier)
		c[9].int4(first.Quantity)
		c[10].null()
	default:
		for i := 7; i <= 10; i++ {
			c[i].null()
		}
	}
	c[11].time(entry.ExpiresAt)
	data, err := entryData(entry)
	if err != nil {
		return fmt.Errorf("event %s entry %d: %w", r.batch.Event, entry.Seq, err)
	}
	c[12].json(data)
	c[13].key(entry.Key)
	c[14].bool(r.apply)
	c[15].int2(int(r.status))
	if r.confirms != nil {
		c[16].time(r.confirms.At)
		c[17].int8(r.confirms.Seq)
	} else {
		c[16].null()
		c[17].null()
	}
	if r.ended != nil {
		c[18].time(r.ended.At)
	} else {
		c[18].null()
	}
	c[19].int8(r.lastSeq)
	c[20].int8(r.batch.Epoch)
	return nil
}

// entryData returns the JSON of what an entry has beyond its columns, or nil.
func entryData(entry *evently.Entry) ([]byte, error) {
	if entry.Event != nil {
		return encodeEvent(entry.Event)
	}
	return encodeItems(&entry.Items)
}
