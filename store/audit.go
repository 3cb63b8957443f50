package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Audit reads the journal and the security log as one list.
//
// First it finds the keys of a page's records, each kind of question by an index, and then reads these records by the primary keys.
// What is found by the row of a reservation or a waiter is not looked for in the journal: the rows have the times and numbers of their
// entries.
type Audit struct{ pool *pgxpool.Pool }

var _ evently.Audit = (*Audit)(nil)

// NewAudit returns the audit log of a database.
func NewAudit(pool *pgxpool.Pool) *Audit { return &Audit{pool} }

// Bounds of one page.
const (
	// auditScanMax bounds the entries of an event that are looked at for some of a kind.
	auditScanMax = 10_000
	// auditTimeMax is when the search through the time of all events is broken off, to go on with the next page. A step looks through
	// auditSpanMin to auditSpanMax: four times as much as the one before when that was quick, and a quarter when it was slow.
	auditTimeMax = time.Second
	auditSpanMin = time.Second
	auditSpanMax = 10 * time.Minute
	auditQuick   = 25 * time.Millisecond
	auditSlow    = 100 * time.Millisecond
)

// auditKey is where a record stands. Those of the security log have no event, and their id as seq.
type auditKey struct {
	at         int64 // Unix milliseconds
	event, seq int64
}

func (k auditKey) compare(other auditKey) int {
	return cmp.Or(cmp.Compare(k.at, other.at), cmp.Compare(k.event, other.event), cmp.Compare(k.seq, other.seq))
}

// The keys before and after all others.
var (
	auditKeyMax = auditKey{timeBoundMax, math.MaxInt64, math.MaxInt64}
	auditKeyMin = auditKey{timeBoundMin, math.MinInt64, math.MinInt64}
)

// The years 1 and 10,000: beyond all times of the journal, and within those of Postgres.
const (
	timeBoundMin = -62_135_596_800_000
	timeBoundMax = 253_402_300_800_000
)

func (k auditKey) time() time.Time { return time.UnixMilli(k.at) }

// auditQuery is what is asked for.
type auditQuery struct {
	evently.AuditFilter
	entryKind evently.EntryKind // zero: of all kinds
	before    auditKey
	from, to  int64 // Unix milliseconds
	limit     int   // one more than the page has
}

// auditPart is keys that were found, newest first. All that are not before end are there.
type auditPart struct {
	keys []auditKey
	end  auditKey
}

// Records implements evently.Audit.
func (a *Audit) Records(ctx context.Context, filter evently.AuditFilter, page evently.Page) (
	records []*evently.AuditRecord, next *evently.Cursor, err error,
) {
	q, err := newAuditQuery(filter, page)
	if err != nil {
		return nil, nil, err
	}
	err = pgx.BeginTxFunc(ctx, a.pool, snapshot, func(tx pgx.Tx) error {
		parts, err := q.find(ctx, tx)
		if err != nil {
			return err
		}
		var keys []auditKey
		keys, next = q.merge(parts)
		records, err = readAudit(ctx, tx, keys)
		return err
	})
	if err != nil {
		return nil, nil, failed(err, "read the audit log")
	}
	return records, next, nil
}

func newAuditQuery(filter evently.AuditFilter, page evently.Page) (*auditQuery, error) {
	q := &auditQuery{AuditFilter: filter, before: auditKeyMax, from: auditKeyMin.at, to: auditKeyMax.at, limit: limitOf(page) + 1}
	if filter.Event == 0 && filter.User == 0 {
		if span := filter.To.Sub(filter.From); filter.From.IsZero() || filter.To.IsZero() || span > evently.AuditRangeMax {
			return nil, evently.FieldErrors{{Field: "from", Message: "must be given with to, and at most 31 days before it"}}.Err()
		}
	}
	if filter.Token != 0 && filter.Event == 0 {
		return nil, errors.New("read the audit log: the filter names a reservation without its event")
	}
	if kind, found := evently.ParseEntryKind(filter.Kind); found {
		q.entryKind = kind
	}
	if page.After != nil {
		q.before = auditKey{page.After.Order, int64(page.After.Event), int64(page.After.Token)}
	}
	if !filter.From.IsZero() {
		q.from = max(q.from, filter.From.UnixMilli())
	}
	if !filter.To.IsZero() {
		q.to = min(q.to, filter.To.UnixMilli())
	}
	q.to = min(q.to, q.before.at+1)
	return q, nil
}

// find asks the journal, the security log or both.
func (q *auditQuery) find(ctx context.Context, tx pgx.Tx) (parts []auditPart, err error) {
	var asks []func(context.Context, pgx.Tx) (auditPart, error)
	if q.Kind == "" || q.entryKind != 0 {
		switch {
		case q.Token != 0:
			asks = append(asks, q.ofToken)
		case q.User != 0:
			asks = append(asks, q.ofUser)
		case q.Event != 0:
			asks = append(asks, q.ofEvent)
		default:
			asks = append(asks, q.ofTime)
		}
	}
	if q.Event == 0 && q.entryKind == 0 {
		if q.User != 0 {
			asks = append(asks, q.ofAccount)
		} else {
			asks = append(asks, q.ofAccounts)
		}
	}
	for _, ask := range asks {
		part, err := ask(ctx, tx)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// merge returns the keys of the page, and the cursor of the next one.
func (q *auditQuery) merge(parts []auditPart) (keys []auditKey, next *evently.Cursor) {
	end := auditKeyMin
	for _, part := range parts {
		keys = append(keys, part.keys...)
		if part.end.compare(end) > 0 {
			end = part.end
		}
	}
	slices.SortFunc(keys, func(a, b auditKey) int { return b.compare(a) })
	keys = slices.DeleteFunc(slices.Compact(keys), func(k auditKey) bool { return k.compare(end) < 0 })
	if len(keys) >= q.limit {
		keys = keys[:q.limit-1]
		end = keys[len(keys)-1]
	}
	if end == auditKeyMin {
		return keys, nil
	}
	return keys, &evently.Cursor{Order: end.at, Event: evently.EventID(end.event), Token: evently.Token(end.seq)}
}

// collect reads a part of which q.limit keys were asked for.
func (q *auditQuery) collect(rows pgx.Rows, err error) (auditPart, error) {
	part := auditPart{end: auditKeyMin}
	part.keys, err = collect(rows, err, func(row pgx.CollectableRow) (k auditKey, err error) {
		var at time.Time
		err = row.Scan(&at, &k.event, &k.seq)
		k.at = at.UnixMilli()
		return k, err
	})
	if len(part.keys) == q.limit {
		part.end = part.keys[q.limit-1]
	}
	return part, err
}

// auditOfTokenSQL reads the row for the numbers of the entries. Indexes: the primary keys, and journal_of_priorities.
const auditOfTokenSQL = `
select at, event_id, seq from journal
where event_id = $1 and seq = any (array(
    select unnest(array[created_seq, confirmed_seq, seq]) from reservations where event_id = $1 and token = $2
    union select unnest(array[joined_seq, seq]) from waitlist where event_id = $1 and token = $2
    union select seq from journal where event_id = $1 and token = $2 and kind = 11
))
  and ($3 = 0::int2 or kind = $3) and at >= $4 and at < $5 and (at, event_id, seq) < ($6, $7, $8)
  and ($9 = 0::int8 or who = $9 or exists (select from reservations where event_id = $1 and token = $2 and user_id = $9)
      or exists (select from waitlist where event_id = $1 and token = $2 and user_id = $9))
order by at desc, event_id desc, seq desc
limit $10`

func (q *auditQuery) ofToken(ctx context.Context, tx pgx.Tx) (auditPart, error) {
	return q.collect(tx.Query(ctx, auditOfTokenSQL, int64(q.Event), int64(q.Token), q.entryKind, time.UnixMilli(q.from),
		time.UnixMilli(q.to), q.before.time(), q.before.event, q.before.seq, int64(q.User), q.limit))
}

// auditOfUserSQL reads all rows of a user. Indexes: reservations_by_user, waitlist_by_user, journal_of_priorities, journal_by_who.
const auditOfUserSQL = `
select at, event_id, seq
from (
    select created_at as at, event_id, created_seq as seq, 5 as kind from reservations where user_id = $1
    union all
    select confirmed_at, event_id, confirmed_seq, 6 from reservations where user_id = $1 and confirmed_seq is not null
    union all
    select ended_at, event_id, seq, case status when 2 then 7 else 8 end from reservations where user_id = $1 and ended_at is not null
    union all
    select joined_at, event_id, joined_seq, 10 from waitlist where user_id = $1
    union all
    select ended_at, event_id, seq, case status when 2 then 12 else 13 end from waitlist where user_id = $1 and status in (2, 3)
    union all
    select j.at, j.event_id, j.seq, 11
    from waitlist w join journal j on j.event_id = w.event_id and j.token = w.token and j.kind = 11
    where w.user_id = $1
    union
    select at, event_id, seq, kind from journal where who = $1 and kind in (1, 2, 3, 4, 9, 11, 14, 15)
) e
where ($2 = 0::int8 or event_id = $2) and ($3 = 0::int2 or kind = $3) and at >= $4 and at < $5 and (at, event_id, seq) < ($6, $7, $8)
order by at desc, event_id desc, seq desc
limit $9`

func (q *auditQuery) ofUser(ctx context.Context, tx pgx.Tx) (auditPart, error) {
	return q.collect(tx.Query(ctx, auditOfUserSQL, int64(q.User), int64(q.Event), q.entryKind, time.UnixMilli(q.from),
		time.UnixMilli(q.to), q.before.time(), q.before.event, q.before.seq, q.limit))
}

// The journal of an event stands in the order of time: what is before a moment ends with a number, which is found by halving. Indexes:
// the primary key, and journal_of_details for the second one.
const (
	auditOfEventSQL = `
with recursive search (low, high) as (
    select 0::int8, coalesce(max(seq), 0) from journal where event_id = $1
    union all
    select case when j.at < $2 then j.seq else s.low end, case when j.at < $2 then s.high else j.seq - 1 end
    from search s join journal j on j.event_id = $1 and j.seq = (s.low + s.high + 1) / 2
    where s.low < s.high
)
select at, seq, kind from journal
where event_id = $1 and seq <= (select low from search where low = high) and seq < $3
order by seq desc
limit $4`

	auditOfDetailsSQL = `
select at, seq, kind from journal
where event_id = $1 and kind in (1, 2, 3, 4, 14, 15) and at < $2 and seq < $3
order by seq desc
limit $4`
)

func (q *auditQuery) ofEvent(ctx context.Context, tx pgx.Tx) (auditPart, error) {
	statement, most, before := auditOfEventSQL, auditScanMax, int64(math.MaxInt64)
	switch {
	case slices.Contains(detailKinds, q.entryKind):
		statement = auditOfDetailsSQL
	case q.entryKind == 0:
		most = q.limit
	}
	if q.before.event == int64(q.Event) {
		before = q.before.seq
	}
	part := auditPart{end: auditKeyMin}
	rows, err := tx.Query(ctx, statement, int64(q.Event), time.UnixMilli(q.to), before, most)
	if err != nil {
		return part, err
	}
	var at time.Time
	var seq int64
	var kind evently.EntryKind
	read, early := 0, false
	_, err = pgx.ForEachRow(rows, []any{&at, &seq, &kind}, func() error {
		key := auditKey{at.UnixMilli(), int64(q.Event), seq}
		read++
		if early = early || key.at < q.from; !early {
			part.end = key
			if q.entryKind == 0 || kind == q.entryKind {
				part.keys = append(part.keys, key)
			}
		}
		return nil
	})
	if early || read < most {
		part.end = auditKeyMin
	}
	return part, err
}

// detailKinds are those that journal_of_details has.
var detailKinds = []evently.EntryKind{
	evently.EventCreatedEntry, evently.EventRevisedEntry, evently.EventPublishedEntry, evently.EventCancelledEntry,
	evently.EventPricingSetEntry, evently.EventRepricedEntry,
}

// auditOfTimeSQL is served by journal_by_age, which finds the pages of a time.
const auditOfTimeSQL = `
select at, event_id, seq from journal
where at >= $1 and at < $2 and (at, event_id, seq) < ($3, $4, $5) and ($6 = 0::int2 or kind = $6)
order by at desc, event_id desc, seq desc
limit $7`

// ofTime goes back in time until the page is full, in steps: the index does not order what it finds. The first step is what is
// to come, which is nothing but for clocks that differ.
func (q *auditQuery) ofTime(ctx context.Context, tx pgx.Tx) (auditPart, error) {
	found := auditPart{end: auditKeyMin}
	var now time.Time
	if err := tx.QueryRow(ctx, nowSQL).Scan(&now); err != nil {
		return found, err
	}
	began, span := time.Now(), auditSpanMin
	for to := q.to; to > q.from; {
		from := max(to-span.Milliseconds(), q.from)
		if now := now.UnixMilli(); to > now {
			from = max(now, q.from)
		}
		step := time.Now()
		part, err := q.collect(tx.Query(ctx, auditOfTimeSQL, time.UnixMilli(from), time.UnixMilli(to), q.before.time(), q.before.event,
			q.before.seq, q.entryKind, q.limit))
		if err != nil {
			return part, err
		}
		found.keys = append(found.keys, part.keys...)
		switch {
		case len(found.keys) >= q.limit:
			found.end = found.keys[q.limit-1]
			return found, nil
		case from > q.from && time.Since(began) > auditTimeMax:
			found.end = auditKey{from, math.MinInt64, math.MinInt64}
			return found, nil
		}
		switch took := time.Since(step); {
		case took < auditQuick:
			span = min(4*span, auditSpanMax)
		case took > auditSlow:
			span = max(span/4, auditSpanMin)
		}
		to = from
	}
	return found, nil
}

const (
	// auditOfAccountSQL is served by security_log_by_user_age and security_log_by_actor_age.
	auditOfAccountSQL = `
select at, 0::int8, id
from (
    (select at, id from security_log
    where user_id = $1 and at >= $2 and at < $3 and (at, 0::int8, id) < ($4, $5, $6) and ($7 = '' or kind = $7)
    order by at desc, id desc limit $8)
    union
    (select at, id from security_log
    where actor = $1 and at >= $2 and at < $3 and (at, 0::int8, id) < ($4, $5, $6) and ($7 = '' or kind = $7)
    order by at desc, id desc limit $8)
) l
order by at desc, id desc
limit $8`

	// auditOfAccountsSQL is served by security_log_by_age.
	auditOfAccountsSQL = `
select at, 0::int8, id from security_log
where at >= $1 and at < $2 and (at, 0::int8, id) < ($3, $4, $5) and ($6 = '' or kind = $6)
order by at desc, id desc
limit $7`
)

func (q *auditQuery) ofAccount(ctx context.Context, tx pgx.Tx) (auditPart, error) {
	return q.collect(tx.Query(ctx, auditOfAccountSQL, int64(q.User), time.UnixMilli(q.from), time.UnixMilli(q.to), q.before.time(),
		q.before.event, q.before.seq, q.Kind, q.limit))
}

func (q *auditQuery) ofAccounts(ctx context.Context, tx pgx.Tx) (auditPart, error) {
	return q.collect(tx.Query(ctx, auditOfAccountsSQL, time.UnixMilli(q.from), time.UnixMilli(q.to), q.before.time(),
		q.before.event, q.before.seq, q.Kind, q.limit))
}

// readAudit reads the records of keys, in their order.
func readAudit(ctx context.Context, tx pgx.Tx, keys []auditKey) ([]*evently.AuditRecord, error) {
	var spans []Span
	var lines []int64
	for _, key := range keys {
		if key.event != 0 {
			spans = append(spans, Span{Event: evently.EventID(key.event), After: uint64(key.seq - 1), Upto: uint64(key.seq)})
		} else {
			lines = append(lines, key.seq)
		}
	}
	entries, err := readAuditEntries(ctx, tx, spans)
	if err != nil {
		return nil, err
	}
	log, err := readSecurityLines(ctx, tx, lines)
	if err != nil {
		return nil, err
	}
	records := make([]*evently.AuditRecord, 0, len(keys))
	for _, key := range keys {
		switch {
		case key.event != 0:
			e := entries[0]
			entries = entries[1:]
			records = append(records, &evently.AuditRecord{
				At: e.At, Kind: e.Kind.String(), Actor: e.Who, User: e.User, RequestID: e.RequestID, Entry: e,
			})
		case log[key.seq] == nil:
			return nil, fmt.Errorf("read the security log: line %d is missing", key.seq)
		default:
			e := log[key.seq]
			records = append(records, &evently.AuditRecord{
				At: e.At, Kind: string(e.Kind), Actor: e.Actor, User: e.User, RequestID: e.RequestID, Security: e,
			})
		}
	}
	return records, nil
}

const (
	// auditEventsBeforeSQL reads the events $1 as they were before the entries $2. It is served by journal_of_details.
	auditEventsBeforeSQL = `
select e.event_id, e.seq, b.data
from unnest($1::int8[], $2::int8[]) as e (event_id, seq)
cross join lateral (
    select j.data from journal j
    where j.event_id = e.event_id and j.seq < e.seq and j.kind in (1, 2, 3, 4, 14, 15)
    order by j.seq desc
    limit 1
) b`

	// auditPrioritiesBeforeSQL reads the priorities of the waiters $2 before the entries $3. It is served by journal_of_priorities.
	auditPrioritiesBeforeSQL = `
select e.event_id, e.seq, b.priority
from unnest($1::int8[], $2::int8[], $3::int8[]) as e (event_id, token, seq)
cross join lateral (
    select j.priority from journal j
    where j.event_id = e.event_id and j.token = e.token and j.kind = 11 and j.seq < e.seq
    order by j.seq desc
    limit 1
) b`
)

// readAuditEntries reads entries with what they changed.
func readAuditEntries(ctx context.Context, tx pgx.Tx, spans []Span) (entries []*evently.AuditEntry, err error) {
	byKey := make(map[auditKey]*evently.AuditEntry)
	var changed, ranked, tokens, changedSeqs, rankedSeqs []int64
	err = ReadSpans(ctx, tx, spans, func(e *FeedEntry) error {
		entry := &evently.AuditEntry{Entry: e.Entry, EventID: e.EventID, Epoch: e.Epoch, WasConfirmed: e.WasConfirmed}
		entries = append(entries, entry)
		byKey[auditKey{event: int64(e.EventID), seq: int64(e.Seq)}] = entry
		switch {
		case e.Kind == evently.WaiterPrioritizedEntry:
			ranked, tokens, rankedSeqs = append(ranked, int64(e.EventID)), append(tokens, int64(e.Token)), append(rankedSeqs, int64(e.Seq))
		case e.Token == 0:
			changed, changedSeqs = append(changed, int64(e.EventID)), append(changedSeqs, int64(e.Seq))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(changed) > 0 {
		var event, seq int64
		var data []byte
		rows, err := tx.Query(ctx, auditEventsBeforeSQL, changed, changedSeqs)
		if err != nil {
			return nil, err
		}
		_, err = pgx.ForEachRow(rows, []any{&event, &seq, &data}, func() (err error) {
			byKey[auditKey{event: event, seq: seq}].Before, err = decodeEvent(data)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(ranked) > 0 {
		var event, seq int64
		var priority int
		rows, err := tx.Query(ctx, auditPrioritiesBeforeSQL, ranked, tokens, rankedSeqs)
		if err != nil {
			return nil, err
		}
		_, err = pgx.ForEachRow(rows, []any{&event, &seq, &priority}, func() error {
			byKey[auditKey{event: event, seq: seq}].PriorityWas = priority
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
}

const securityLinesSQL = `
select id, at, coalesce(user_id, 0), kind, coalesce(actor, 0), session_id, ip, user_agent, request_id, detail
from security_log where id = any ($1)`

func readSecurityLines(ctx context.Context, tx pgx.Tx, ids []int64) (map[int64]*evently.SecurityEntry, error) {
	lines := make(map[int64]*evently.SecurityEntry)
	if len(ids) == 0 {
		return lines, nil
	}
	rows, err := tx.Query(ctx, securityLinesSQL, ids)
	list, err := collect(rows, err, func(row pgx.CollectableRow) (*evently.SecurityEntry, error) {
		var e evently.SecurityEntry
		var user, actor int64
		var session pgtype.UUID
		err := row.Scan(&e.ID, &e.At, &user, &e.Kind, &actor, &session, &e.IP, &e.UserAgent, &e.RequestID, &e.Detail)
		e.At, e.User, e.Actor, e.Session = milliseconds(e.At), evently.UserID(user), evently.UserID(actor), session.Bytes
		return &e, err
	})
	for _, e := range list {
		lines[e.ID] = e
	}
	return lines, err
}
