package store

import "github.com/evently/evently"

// appendHoldsSQL is appendSQL for batches of nothing but holds, each with a key and of one line item: what a sale is made of, at its
// busiest.
//
// The arrays of its entries are indexed and not unnested: an unnested array is a function's result that is stored before it is joined,
// which costs more than an index does. Elements of a fixed length are found at once where none is null; so the request ids, which
// have no such length, are unnested. first is the place of a head's first entry in the arrays. Holds change neither capacities
// nor bookings nor who waits. Indexes: the primary keys.
const appendHoldsSQL = lockHeads + `, head as (
    update event_heads h
    set seq = b.seq, last_at = b.last_at, held = b.held::int4[], next_due = b.next_due
    from unnest($1::int8[], $2::int8[], $3::uuid[], $4::int8[], $5::int8[], $6::timestamptz[], $7::text[], $8::timestamptz[],
        $9::int4[]) as b (event_id, epoch, owner, prev_seq, seq, last_at, held, next_due, first)
    where ` + fence + `
    returning h.event_id, b.epoch, b.prev_seq + 1 - b.first as base, b.first, b.first + (b.seq - b.prev_seq)::int4 - 1 as last
), journaled as (
    insert into journal (event_id, seq, epoch, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at)
    select h.event_id, h.base + e.i, h.epoch, 5, ($12::timestamptz[])[e.i], ($13::int8[])[e.i], e.request_id, ($14::int8[])[e.i],
        ($15::int8[])[e.i], ($16::int2[])[e.i], ($17::int4[])[e.i], ($18::int8[])[e.i], ($19::timestamptz[])[e.i]
    from unnest($10::text[]) with ordinality as e (request_id, i) join head h on h.first = ($11::int4[])[e.i]
), held as (
    insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, created_seq,
        seq, key)
    select h.event_id, ($14::int8[])[i], ($15::int8[])[i], 0, ($16::int2[])[i], ($17::int4[])[i], ($18::int8[])[i],
        ($12::timestamptz[])[i], ($19::timestamptz[])[i], h.base + i, h.base + i, ($20::uuid[])[i]
    from head h cross join generate_series(h.first, h.last) as i
)
select event_id, epoch, (extract(epoch from clock_timestamp()) * 1000)::int8 from head`

// holdsArgs builds the parameters of appendHoldsSQL.
type holdsArgs struct {
	heads   []column
	entries []column
}

func newHoldsArgs() holdsArgs {
	return holdsArgs{
		heads:   columnsOf(oidInt8, oidInt8, oidUUID, oidInt8, oidInt8, oidTime, oidText, oidTime, oidInt4),
		entries: columnsOf(oidText, oidInt4, oidTime, oidInt8, oidInt8, oidInt8, oidInt2, oidInt4, oidInt8, oidTime, oidUUID),
	}
}

// plainHold reports whether appendHoldsSQL can write an entry. Its columns cannot be null.
func plainHold(entry *evently.Entry) bool {
	return entry.Kind == evently.HeldEntry && !entry.Waiter && entry.Items.Len() == 1 && entry.Key != (evently.Key{}) &&
		!entry.At.IsZero() && !entry.ExpiresAt.IsZero()
}

// params appends the parameters for batches of holds.
func (a *holdsArgs) params(dst [][]byte, batches []*evently.Batch, tiers *tiersText) [][]byte {
	reset(a.heads)
	reset(a.entries)
	h, c := a.heads, a.entries
	for _, batch := range batches {
		first := c[0].len + 1
		h[0].int8(uint64(batch.Event))
		h[1].int8(batch.Epoch)
		h[2].uuid(batch.Owner)
		h[3].int8(batch.PrevSeq)
		h[4].int8(batch.LastSeq())
		h[5].time(batch.Entries[len(batch.Entries)-1].At)
		h[6].json(tiers.of(batch, held))
		h[7].time(batch.NextDue)
		h[8].int4(first)
		for i := range batch.Entries {
			entry := &batch.Entries[i]
			item := entry.Items.At(0)
			c[0].text(entry.RequestID)
			c[1].int4(first)
			c[2].time(entry.At)
			c[3].int8(uint64(entry.Who))
			c[4].int8(uint64(entry.Token))
			c[5].int8(uint64(entry.User))
			c[6].int2(item.Tier)
			c[7].int4(item.Quantity)
			c[8].int8(uint64(item.UnitPriceMinor))
			c[9].time(entry.ExpiresAt)
			c[10].key(entry.Key)
		}
	}
	return appendBytes(appendBytes(dst, h), c)
}
