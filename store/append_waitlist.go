package store

import (
	"fmt"

	"github.com/evently/evently"
)

// appendWaitlistSQL is appendSQL for batches that concern waiters. A waiter that changes several times in one batch is written
// once, as it is in the end.
//
// The updates come before the insertions: a user who stops waiting and joins again in one batch waits once at every
// moment, as the index waitlist_waiting_once wants it. Indexes: the primary keys.
const appendWaitlistSQL = appendHeads + `
), entry as materialized (
    select e.* from unnest(` + entryArrays + `,
        $33::int2[], $34::int4[], $35::int4[], $36::bool[])
        as e (` + entryColumns + `, on_release, position, priority, waiter)
        join head h on h.event_id = e.event_id and h.epoch = e.epoch
), journaled as (
    insert into journal (` + journalColumns + `, on_release, position, priority, waiter)
    select ` + journalValues + `, on_release, position, priority, waiter from entry
` + appendRows + `
), waiter as materialized (
    select w.* from unnest($37::int8[], $38::int8[], $39::int8[], $40::int8[], $41::int2[], $42::int2[], $43::int4[], $44::text[],
        $45::int2[], $46::int4[], $47::int4[], $48::timestamptz[], $49::timestamptz[], $50::int8[], $51::int8[], $52::uuid[])
        as w (event_id, epoch, token, user_id, status, tier, quantity, more, on_release, priority, position, joined_at, ended_at,
            joined_seq, seq, key)
        join head h on h.event_id = w.event_id and h.epoch = w.epoch
), waited as (
    update waitlist l
    set status = w.status, priority = coalesce(w.priority, l.priority), ended_at = w.ended_at, seq = w.seq
    from waiter w
    where w.joined_seq is null and l.event_id = w.event_id and l.token = w.token and l.ended_at is null
    returning 1
), waiting as (
    insert into waitlist (event_id, token, user_id, status, tier, quantity, more, on_release, priority, position, joined_at,
        ended_at, joined_seq, seq, key)
    select event_id, token, user_id, status, tier, quantity, more::jsonb, on_release, priority, position, joined_at, ended_at,
        joined_seq, seq, key
    from waiter where joined_seq is not null and (select count(*) from waited) >= 0
)` + appendOutcome + `
  and ((select count(*) from waited) = (select count(*) from waiter where joined_seq is null)
    or raise_error('EV001', 'a waiter that an entry changes is missing or waits no more'))`

// waitlistArgs builds the parameters that appendWaitlistSQL has beyond those of appendSQL.
type waitlistArgs struct {
	entries []column // of the journal
	waiters []column
	first   map[reservationKey]int // index in rows
	rows    []waiterRow
}

// waiterRow is what the entries of one batch make of a waiter.
type waiterRow struct {
	batch  *evently.Batch
	joined *evently.Entry // nil: in an earlier batch
	ranked *evently.Entry // that set the priority
	ended  *evently.Entry
	status evently.WaiterStatus
	last   *evently.Entry
}

func newWaitlistArgs() waitlistArgs {
	return waitlistArgs{
		entries: columnsOf(oidInt2, oidInt4, oidInt4, oidBool),
		waiters: columnsOf(oidInt8, oidInt8, oidInt8, oidInt8, oidInt2, oidInt2, oidInt4, oidText, oidInt2, oidInt4, oidInt4, oidTime,
			oidTime, oidInt8, oidInt8, oidUUID),
		first: make(map[reservationKey]int),
	}
}

func (a *waitlistArgs) reset() {
	reset(a.entries)
	reset(a.waiters)
	clear(a.first)
	clear(a.rows)
	a.rows = a.rows[:0]
}

// fold notes what an entry makes of a waiter.
func (a *waitlistArgs) fold(batch *evently.Batch, entry *evently.Entry) {
	key := reservationKey{batch.Event, entry.Token}
	i, known := a.first[key]
	if !known || entry.Kind == evently.WaitlistedEntry { // one that joins twice is for storage to refuse
		i = len(a.rows)
		a.first[key] = i
		a.rows = append(a.rows, waiterRow{batch: batch})
	}
	row := &a.rows[i]
	row.last = entry
	switch entry.Kind { //nolint:exhaustive // the kinds that concern a waiter
	case evently.WaitlistedEntry:
		row.joined = entry
	case evently.WaiterPrioritizedEntry:
		row.ranked = entry
	case evently.HeldEntry:
		row.status, row.ended = evently.Served, entry
	case evently.WaiterLeftEntry:
		row.status, row.ended = evently.Left, entry
	case evently.WaiterClosedEntry:
		row.status, row.ended = evently.Closed, entry
	}
}

// params appends the parameters for the entries, and for the waiters that were folded.
func (a *waitlistArgs) params(dst [][]byte, entries []row) ([][]byte, error) {
	for i := range entries {
		a.addEntry(entries[i].entry)
	}
	for i := range a.rows {
		if err := a.addWaiter(&a.rows[i]); err != nil {
			return dst, err
		}
	}
	return appendBytes(appendBytes(dst, a.entries), a.waiters), nil
}

func (a *waitlistArgs) addEntry(entry *evently.Entry) {
	c := a.entries
	if entry.Kind == evently.WaitlistedEntry {
		c[0].int2(int(entry.OnRelease))
		c[1].int4(entry.Position)
	} else {
		c[0].null()
		c[1].null()
	}
	if entry.Kind == evently.WaiterPrioritizedEntry {
		c[2].int4(entry.Priority)
	} else {
		c[2].null()
	}
	if entry.Kind == evently.HeldEntry && entry.Waiter {
		c[3].bool(true)
	} else {
		c[3].null()
	}
}

func (a *waitlistArgs) addWaiter(r *waiterRow) error {
	c := a.waiters
	c[0].int8(uint64(r.batch.Event))
	c[1].int8(r.batch.Epoch)
	c[2].int8(uint64(r.last.Token))
	c[4].int2(int(r.status))
	switch {
	case r.ranked != nil:
		c[9].int4(r.ranked.Priority)
	case r.joined != nil:
		c[9].int4(0)
	default:
		c[9].null() // as it is
	}
	if r.ended != nil {
		c[12].time(r.ended.At)
	} else {
		c[12].null()
	}
	c[14].int8(r.last.Seq)
	if r.joined == nil {
		for _, i := range []int{3, 5, 6, 7, 8, 10, 11, 13, 15} {
			c[i].null()
		}
		return nil
	}
	first := r.joined.Items.At(0)
	more, err := encodeItems(&r.joined.Items)
	if err != nil {
		return fmt.Errorf("event %s entry %d: %w", r.batch.Event, r.joined.Seq, err)
	}
	c[3].int8(uint64(r.joined.User))
	c[5].int2(first.Tier)
	c[6].int4(first.Quantity)
	c[7].json(more)
	c[8].int2(int(r.joined.OnRelease))
	c[10].int4(r.joined.Position)
	c[11].time(r.joined.At)
	c[13].int8(r.joined.Seq)
	c[15].key(r.joined.Key)
	return nil
}
