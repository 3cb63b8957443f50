package store

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/evently/evently"
)

// replay is what the journal of one event says, without trust in any of it: unlike a ledger it goes on after an entry that
// cannot be, and it forgets no reservation.
type replay struct {
	event  evently.EventID
	report func(Difference)

	last         entryRow // the last entry that was posted
	state        *evently.Event
	deleted      bool
	tiers        []seats
	reservations map[int64]replayed // by token
	offers       map[evently.Item]*evently.Items
	keys         map[evently.Key]int64
	rows         []seats // live seats in the rows of reservations, by tier
	rowCount     int
	waitlist     replayedWaitlist
}

type seats struct{ capacity, held, booked int }

// replayed is a reservation as its entries leave it.
type replayed struct {
	items                                      *evently.Items // shared by those with the same
	user                                       int64
	createdAt, expiresAt, confirmedAt, endedAt instant
	createdSeq, confirmedSeq, seq              int64
	status                                     evently.ReservationStatus
	compared                                   bool // with its row
}

func newReplay(event evently.EventID, report func(Difference)) *replay {
	return &replay{
		event: event, report: report, last: entryRow{at: never}, reservations: make(map[int64]replayed),
		offers: make(map[evently.Item]*evently.Items), waitlist: newReplayedWaitlist(),
	}
}

func (r *replay) differ(token, seq int64, format string, args ...any) {
	r.report(Difference{Event: r.event, Token: evently.Token(token), Seq: uint64(seq), What: fmt.Sprintf(format, args...)})
}

// post applies an entry, as far as it makes sense.
func (r *replay) post(e *entryRow) {
	if e.seq != r.last.seq+1 {
		r.differ(0, e.seq, "follows entry %d", r.last.seq)
	}
	if e.epoch < r.last.epoch {
		r.differ(0, e.seq, "has epoch %d after epoch %d", e.epoch, r.last.epoch)
	}
	if e.at < r.last.at {
		r.differ(0, e.seq, "is of %s, before the entry before it, of %s", e.at, r.last.at)
	}
	if e.at%instant(time.Millisecond/time.Microsecond) != 0 {
		r.differ(0, e.seq, "is of %s, not of a whole millisecond", e.at)
	}
	if r.deleted {
		r.differ(0, e.seq, "comes after the event's deletion")
	}
	r.last = *e
	kind := evently.EntryKind(e.kind)
	switch {
	case e.kind < int16(evently.EventCreatedEntry) || e.kind > int16(evently.EventRepricedEntry):
		r.differ(e.token, e.seq, "is of the unknown kind %d", e.kind)
	case kind == evently.EventDeletedEntry:
		r.postDeleted(e)
	case kind <= evently.EventCancelledEntry || kind >= evently.EventPricingSetEntry:
		r.postEvent(e, kind)
	case e.token == 0 && kind >= evently.WaitlistedEntry:
		r.differ(0, e.seq, "%s names no waiter", kind)
	case e.token == 0:
		r.differ(0, e.seq, "%s names no reservation", kind)
	case kind == evently.HeldEntry:
		r.postHeld(e)
	case kind == evently.WaitlistedEntry:
		r.postWaitlisted(e)
	case kind > evently.WaitlistedEntry:
		r.postWaiterChange(e, kind)
	default:
		r.postChange(e, kind)
	}
}

func (r *replay) postDeleted(e *entryRow) {
	if r.state == nil || r.state.Status != evently.EventDraft {
		r.differ(0, e.seq, "deletes an event that is not a draft")
	}
	r.deleted = true
}

// postEvent checks the stages of an event's life and takes over its details.
func (r *replay) postEvent(e *entryRow, kind evently.EntryKind) {
	next, err := decodeEvent(e.data)
	if err != nil {
		r.differ(0, e.seq, "%s: %v", kind, err)
		return
	}
	if next.ID != r.event {
		r.differ(0, e.seq, "%s: carries event %s", kind, next.ID)
	}
	before := r.state
	switch {
	case (before == nil) != (kind == evently.EventCreatedEntry):
		r.differ(0, e.seq, "%s stands in the wrong place", kind)
	case before == nil:
		if next.Status == evently.EventCancelled {
			r.differ(0, e.seq, "%s: is cancelled from the beginning", kind)
		}
	default:
		if next.Version != before.Version+1 {
			r.differ(0, e.seq, "%s: has version %d after %d", kind, next.Version, before.Version)
		}
		want := map[evently.EntryKind]evently.EventStatus{
			evently.EventRevisedEntry: before.Status, evently.EventPublishedEntry: evently.EventPublished,
			evently.EventCancelledEntry: evently.EventCancelled, evently.EventPricingSetEntry: before.Status,
			evently.EventRepricedEntry: before.Status,
		}[kind]
		if next.Status != want || before.Status == evently.EventCancelled ||
			kind == evently.EventPublishedEntry && before.Status != evently.EventDraft {
			r.differ(0, e.seq, "%s: makes a %s event %s", kind, before.Status, next.Status)
		}
		if len(next.Tiers) < len(before.Tiers) {
			r.differ(0, e.seq, "%s: has %d tiers after %d", kind, len(next.Tiers), len(before.Tiers))
		}
		if next.Currency != before.Currency {
			r.differ(0, e.seq, "%s: changes the currency from %s to %s", kind, before.Currency, next.Currency)
		}
		r.checkPricing(e, kind, before, next)
	}
	r.state = next
	for len(r.tiers) < len(next.Tiers) {
		r.tiers = append(r.tiers, seats{})
	}
	for i := range r.tiers {
		r.tiers[i].capacity = 0
		if i < len(next.Tiers) {
			r.tiers[i].capacity = next.Tiers[i].Capacity
		}
		r.checkFits(e, i)
	}
}

// checkPricing checks that a rule changes by an entry of its own alone, and that entries of prices change nothing else.
func (r *replay) checkPricing(e *entryRow, kind evently.EntryKind, before, next *evently.Event) {
	if kind != evently.EventPricingSetEntry && !reflect.DeepEqual(before.Pricing, next.Pricing) {
		r.differ(0, e.seq, "%s: changes the pricing rule", kind)
	}
	if kind == evently.EventRepricedEntry && before.Pricing == nil {
		r.differ(0, e.seq, "%s: there is no pricing rule", kind)
	}
	if kind < evently.EventPricingSetEntry {
		return
	}
	unpriced := func(event *evently.Event) *eventJSON {
		form := newEventJSON(event)
		form.Version, form.Pricing = 0, nil
		for i := range form.Tiers {
			form.Tiers[i].PriceMinor = 0
		}
		return form
	}
	if !reflect.DeepEqual(unpriced(before), unpriced(next)) {
		r.differ(0, e.seq, "%s: changes more than prices", kind)
	}
}

func (r *replay) checkFits(e *entryRow, tier int) {
	if t := r.tiers[tier]; t.held+t.booked > t.capacity {
		r.differ(e.token, e.seq, "oversells tier %s: %d held and %d booked of %d", evently.TierID(tier), t.held, t.booked, t.capacity)
	}
}

func (r *replay) postHeld(e *entryRow) {
	if _, found := r.reservations[e.token]; found {
		r.differ(e.token, e.seq, "holds a reservation that was held before")
		return
	}
	if r.state == nil || r.state.Status != evently.EventPublished {
		r.differ(e.token, e.seq, "holds seats of an event that is not published")
	}
	if e.expiresAt <= e.at {
		r.differ(e.token, e.seq, "holds until %s, from %s", e.expiresAt, e.at)
	}
	items, err := decodeItems(evently.Item{Tier: int(e.tier), Quantity: int(e.quantity), UnitPriceMinor: e.unitPrice}, e.data)
	if err != nil {
		r.differ(e.token, e.seq, "%v", err)
	}
	r.reservations[e.token] = replayed{
		items: r.offer(items), user: e.user, createdAt: e.at, expiresAt: e.expiresAt, confirmedAt: never, endedAt: never,
		createdSeq: e.seq, seq: e.seq, status: evently.Held,
	}
	r.postServed(e, &items)
	for item := range items.All() {
		if item.Tier >= len(r.tiers) {
			r.differ(e.token, e.seq, "holds seats of tier %s of %d", evently.TierID(item.Tier), len(r.tiers))
			continue
		}
		r.tiers[item.Tier].held += item.Quantity
		r.checkFits(e, item.Tier)
	}
}

// offer returns items to keep. Nearly all reservations have one of a few offers, which are stored once.
func (r *replay) offer(items evently.Items) *evently.Items {
	first := items.At(0)
	if shared, found := r.offers[first]; found && items.Len() == 1 {
		return shared
	}
	kept := items
	if items.Len() == 1 {
		r.offers[first] = &kept
	}
	return &kept
}

// postChange applies a confirmation or an ending.
func (r *replay) postChange(e *entryRow, kind evently.EntryKind) {
	reservation, found := r.reservations[e.token]
	if !found {
		r.differ(e.token, e.seq, "%s: was never held", kind)
		return
	}
	was := reservation.status
	switch {
	case !was.Live(), kind != evently.CancelledEntry && was != evently.Held:
		r.differ(e.token, e.seq, "%s: was %s", kind, was)
	case kind == evently.ConfirmedEntry && e.at >= reservation.expiresAt:
		r.differ(e.token, e.seq, "%s: at %s, expired at %s", kind, e.at, reservation.expiresAt)
	case kind == evently.ExpiredEntry && e.at < reservation.expiresAt:
		r.differ(e.token, e.seq, "%s: at %s, expires at %s", kind, e.at, reservation.expiresAt)
	}
	reservation.seq = e.seq
	switch kind { //nolint:exhaustive // the kinds that change a reservation
	case evently.ConfirmedEntry:
		reservation.status, reservation.confirmedAt, reservation.confirmedSeq = evently.Confirmed, e.at, e.seq
	case evently.CancelledEntry:
		reservation.status, reservation.endedAt = evently.Cancelled, e.at
	case evently.ExpiredEntry:
		reservation.status, reservation.endedAt = evently.Expired, e.at
	}
	for item := range reservation.items.All() {
		if item.Tier < len(r.tiers) {
			r.tiers[item.Tier].count(was, -item.Quantity)
			r.tiers[item.Tier].count(reservation.status, item.Quantity)
		}
	}
	r.reservations[e.token] = reservation
}

func (s *seats) count(status evently.ReservationStatus, quantity int) {
	switch status {
	case evently.Held:
		s.held += quantity
	case evently.Confirmed:
		s.booked += quantity
	case evently.Cancelled, evently.Expired:
	}
}

// compareReservation holds a row against the entries.
func (r *replay) compareReservation(row *reservationRow) {
	r.rowCount++
	items, err := decodeItems(evently.Item{Tier: int(row.tier), Quantity: int(row.quantity), UnitPriceMinor: row.unitPrice}, row.more)
	if err != nil {
		r.differ(row.token, 0, "%v", err)
	}
	for item := range items.All() {
		for item.Tier >= len(r.rows) {
			r.rows = append(r.rows, seats{})
		}
		r.rows[item.Tier].count(evently.ReservationStatus(row.status), item.Quantity)
	}
	if key := uuidKey(row.key); row.key.Valid {
		if other, found := r.keys[key]; found {
			r.differ(row.token, 0, "has the idempotency key of %s", evently.ReservationID{Event: r.event, Token: evently.Token(other)})
		}
		if r.keys == nil {
			r.keys = make(map[evently.Key]int64)
		}
		r.keys[key] = row.token
	}
	reservation, found := r.reservations[row.token]
	if !found {
		r.differ(row.token, 0, "has a row and no entries")
		return
	}
	reservation.compared = true
	r.reservations[row.token] = reservation
	for _, c := range [...]struct {
		column       string
		row, journal int64
	}{
		{"user_id", row.user, reservation.user},
		{"status", int64(row.status), int64(reservation.status)},
		{"created_seq", row.createdSeq, reservation.createdSeq},
		{"confirmed_seq", row.confirmedSeq, reservation.confirmedSeq},
		{"seq", row.seq, reservation.seq},
	} {
		if c.row != c.journal {
			r.differ(row.token, 0, "%s is %d, and %d by the journal", c.column, c.row, c.journal)
		}
	}
	for _, c := range [...]struct {
		column       string
		row, journal instant
	}{
		{"created_at", row.createdAt, reservation.createdAt},
		{"expires_at", row.expiresAt, reservation.expiresAt},
		{"confirmed_at", row.confirmedAt, reservation.confirmedAt},
		{"ended_at", row.endedAt, reservation.endedAt},
	} {
		if c.row != c.journal {
			r.differ(row.token, 0, "%s is %s, and %s by the journal", c.column, c.row, c.journal)
		}
	}
	if !slices.Equal(slices.Collect(items.All()), slices.Collect(reservation.items.All())) {
		r.differ(row.token, 0, "has the items %+v, and %+v by the journal", slices.Collect(items.All()),
			slices.Collect(reservation.items.All()))
	}
}

// compareEvent holds the event and its head against the entries and the rows of reservations.
func (r *replay) compareEvent(row *eventRow) {
	switch {
	case r.last.seq == 0:
		r.differ(0, 0, "has rows and no entries")
	case r.deleted:
		r.differ(0, r.last.seq, "is deleted and still has rows")
	}
	if row.data == nil {
		r.differ(0, 0, "has no row in events")
	} else {
		r.compareDetails(row.data)
	}
	if !row.head {
		r.differ(0, 0, "has no row in event_heads")
		return
	}
	if row.seq != r.last.seq {
		r.differ(0, 0, "event_heads.seq is %d, the last entry is %d", row.seq, r.last.seq)
	}
	if row.epoch < r.last.epoch {
		r.differ(0, 0, "event_heads.epoch is %d, the last entry has %d", row.epoch, r.last.epoch)
	}
	if row.lastAt < r.last.at {
		r.differ(0, 0, "event_heads.last_at is %s, the last entry is of %s", row.lastAt, r.last.at)
	}
	for _, c := range [...]struct {
		column, head string
		count        func(seats) int
	}{
		{"capacity", row.capacity, func(s seats) int { return s.capacity }},
		{"held", row.held, func(s seats) int { return s.held }},
		{"booked", row.booked, func(s seats) int { return s.booked }},
	} {
		if journal := arrayText(r.tiers, c.count); c.head != journal {
			r.differ(0, 0, "event_heads.%s is %s, and %s by the journal", c.column, c.head, journal)
		}
	}
	r.compareRows()
	r.compareWaiting(row.waiting)
	r.compareDue(row.nextDue)
}

// compareDetails compares the row of events with the last entry that carries the event, column by column.
func (r *replay) compareDetails(data []byte) {
	event, err := decodeEvent(data)
	switch {
	case err != nil:
		r.differ(0, 0, "events: %v", err)
		return
	case r.state == nil:
		return
	}
	row, journal := reflect.ValueOf(newEventJSON(event)).Elem(), reflect.ValueOf(newEventJSON(r.state)).Elem()
	for i := range row.NumField() {
		if a, b := row.Field(i).Interface(), journal.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			column, _, _ := strings.Cut(row.Type().Field(i).Tag.Get("json"), ",")
			r.differ(0, 0, "events.%s is %v, and %v by the journal", column, a, b)
		}
	}
}

// compareRows adds up the rows of reservations, whatever the journal says of each.
func (r *replay) compareRows() {
	for i := range max(len(r.rows), len(r.tiers)) {
		var rows, journal seats
		if i < len(r.rows) {
			rows = r.rows[i]
		}
		if i < len(r.tiers) {
			journal = r.tiers[i]
		}
		if rows.held != journal.held || rows.booked != journal.booked {
			r.differ(0, 0, "the rows of tier %s have %d held and %d booked, the journal %d and %d", evently.TierID(i), rows.held,
				rows.booked, journal.held, journal.booked)
		}
		if rows.held+rows.booked > journal.capacity {
			r.differ(0, 0, "tier %s is oversold: the rows have %d held and %d booked of %d", evently.TierID(i), rows.held, rows.booked,
				journal.capacity)
		}
	}
}

// compareDue checks that no hold is forgotten, nor a reservation of a cancelled event: it would keep its seats for ever. Nor is
// anybody who waits.
func (r *replay) compareDue(nextDue instant) {
	due := r.waitersDue()
	for _, reservation := range r.reservations {
		switch {
		case reservation.status.Live() && r.state != nil && r.state.Status == evently.EventCancelled:
			due = min(due, r.last.at)
		case reservation.status == evently.Held:
			due = min(due, reservation.expiresAt)
		}
	}
	if due != infinity && (nextDue == never || nextDue > due) {
		r.differ(0, 0, "event_heads.next_due is %s, something is due at %s", nextDue, due)
	}
}

// compareNoEvent is for an event that has entries or reservations and no row.
func (r *replay) compareNoEvent() {
	if !r.deleted {
		r.differ(0, r.last.seq, "has no rows in events and event_heads")
	}
	if r.deleted && r.rowCount > 0 {
		r.differ(0, r.last.seq, "is deleted and has %d reservations", r.rowCount)
	}
	if r.deleted && r.waitlist.rowCount > 0 {
		r.differ(0, r.last.seq, "is deleted and has %d waiters", r.waitlist.rowCount)
	}
}

// compareRest reports the reservations that have entries and no row, in the order of the entries.
func (r *replay) compareRest() {
	var tokens []int64
	for token, reservation := range r.reservations {
		if !reservation.compared {
			tokens = append(tokens, token)
		}
	}
	slices.SortFunc(tokens, func(a, b int64) int { return int(r.reservations[a].createdSeq - r.reservations[b].createdSeq) })
	for _, token := range tokens {
		r.differ(token, r.reservations[token].createdSeq, "is held and has no row")
	}
	r.compareRestOfWaiters()
}

// arrayText is the text form of an int4[].
func arrayText(tiers []seats, count func(seats) int) string {
	parts := make([]string, len(tiers))
	for i, tier := range tiers {
		parts[i] = strconv.Itoa(count(tier))
	}
	return "{" + strings.Join(parts, ",") + "}"
}
