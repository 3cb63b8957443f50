package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/evently/evently"
)

// replayedWaitlist is the part of a replay that concerns waiters.
type replayedWaitlist struct {
	waiters  map[int64]replayedWaiter // by token
	byUser   map[int64]int64          // the tokens of those who wait
	keys     map[evently.Key]int64
	rowCount int
	waiting  int // rows of those who wait
}

// replayedWaiter is a waiter as its entries leave it.
type replayedWaiter struct {
	items              *evently.Items // shared by those with the same
	user               int64
	joinedAt, endedAt  instant
	joinedSeq, seq     int64
	priority, position int32
	onRelease          int16
	status             evently.WaiterStatus
	compared           bool // with its row
}

func newReplayedWaitlist() replayedWaitlist {
	return replayedWaitlist{
		waiters: make(map[int64]replayedWaiter), byUser: make(map[int64]int64), keys: make(map[evently.Key]int64),
	}
}

func (r *replay) differWaiter(token, seq int64, format string, args ...any) {
	r.report(Difference{
		Event: r.event, Token: evently.Token(token), Waiter: true, Seq: uint64(seq), What: fmt.Sprintf(format, args...),
	})
}

// waiterName is how a difference of another waiter, or of a reservation, names a waiter.
func (r *replay) waiterName(token int64) string {
	return evently.WaiterID{Event: r.event, Token: evently.Token(token)}.String()
}

func (r *replay) postWaitlisted(e *entryRow) {
	w := &r.waitlist
	if _, found := w.waiters[e.token]; found {
		r.differWaiter(e.token, e.seq, "joins the waitlist twice")
		return
	}
	if _, found := r.reservations[e.token]; found {
		r.differWaiter(e.token, e.seq, "has the token of a reservation that was held before")
	}
	if r.state == nil || r.state.Status != evently.EventPublished {
		r.differWaiter(e.token, e.seq, "waits for an event that is not published")
	}
	if other, found := w.byUser[e.user]; found {
		r.differWaiter(e.token, e.seq, "is of a user who waits as %s", r.waiterName(other))
	}
	if e.position < 1 || int(e.position) > len(w.byUser)+1 {
		r.differWaiter(e.token, e.seq, "joins at position %d behind %d waiters", e.position, len(w.byUser))
	}
	if e.onRelease < int16(evently.BookOnRelease) || e.onRelease > int16(evently.HoldOnRelease) {
		r.differWaiter(e.token, e.seq, "has the unknown on_release %d", e.onRelease)
	}
	items, err := decodeItems(evently.Item{Tier: int(e.tier), Quantity: int(e.quantity), UnitPriceMinor: max(0, e.unitPrice)}, e.data)
	if err != nil {
		r.differWaiter(e.token, e.seq, "%v", err)
	}
	for item := range items.All() {
		if item.Tier >= len(r.tiers) {
			r.differWaiter(e.token, e.seq, "waits for seats of tier %s of %d", evently.TierID(item.Tier), len(r.tiers))
		}
		if item.UnitPriceMinor != 0 {
			r.differWaiter(e.token, e.seq, "has the price %d", item.UnitPriceMinor)
		}
	}
	w.waiters[e.token] = replayedWaiter{
		items: r.offer(items), user: e.user, joinedAt: e.at, endedAt: never, joinedSeq: e.seq, seq: e.seq, position: e.position,
		onRelease: e.onRelease, status: evently.Waiting,
	}
	w.byUser[e.user] = e.token
}

// postWaiterChange applies a priority, or an end without a reservation.
func (r *replay) postWaiterChange(e *entryRow, kind evently.EntryKind) {
	waiter, found := r.waitlist.waiters[e.token]
	switch {
	case !found:
		r.differWaiter(e.token, e.seq, "%s: never joined", kind)
		return
	case waiter.status != evently.Waiting:
		r.differWaiter(e.token, e.seq, "%s: was %s", kind, waiter.status)
	}
	switch kind { //nolint:exhaustive // the kinds that change a waiter
	case evently.WaiterPrioritizedEntry:
		if e.priority < -evently.PriorityMax || e.priority > evently.PriorityMax {
			r.differWaiter(e.token, e.seq, "%s: gives the priority %d", kind, e.priority)
		}
		waiter.priority, waiter.seq = e.priority, e.seq
		r.waitlist.waiters[e.token] = waiter
	case evently.WaiterLeftEntry:
		r.endWaiter(e, waiter, evently.Left)
	case evently.WaiterClosedEntry:
		r.endWaiter(e, waiter, evently.Closed)
	}
}

func (r *replay) endWaiter(e *entryRow, waiter replayedWaiter, status evently.WaiterStatus) {
	waiter.status, waiter.endedAt, waiter.seq = status, e.at, e.seq
	r.waitlist.waiters[e.token] = waiter
	if r.waitlist.byUser[waiter.user] == e.token {
		delete(r.waitlist.byUser, waiter.user)
	}
}

// postServed checks that a reservation has the token of a waiter if, and only if, it serves it.
func (r *replay) postServed(e *entryRow, items *evently.Items) {
	waiter, found := r.waitlist.waiters[e.token]
	switch {
	case !e.waiter && found:
		r.differ(e.token, e.seq, "has the token of waiter %s, and does not serve it", r.waiterName(e.token))
		return
	case !e.waiter:
		return
	case !found:
		r.differ(e.token, e.seq, "serves a waiter that never joined")
		return
	case waiter.status != evently.Waiting:
		r.differ(e.token, e.seq, "serves a waiter that was %s", waiter.status)
	case r.state != nil && !r.state.OnSale(time.UnixMicro(int64(e.at))):
		r.differ(e.token, e.seq, "serves a waiter when the event is not on sale")
	}
	if e.user != waiter.user {
		r.differ(e.token, e.seq, "is of %s and serves a waiter of %s", evently.UserID(e.user), evently.UserID(waiter.user))
	}
	if !items.SameSeats(waiter.items) {
		r.differ(e.token, e.seq, "has the items %+v and serves a waiter for %+v", slices.Collect(items.All()),
			slices.Collect(waiter.items.All()))
	}
	r.endWaiter(e, waiter, evently.Served)
}

// compareWaiter holds a row against the entries.
func (r *replay) compareWaiter(row *waitlistRow) {
	w := &r.waitlist
	w.rowCount++
	if evently.WaiterStatus(row.status) == evently.Waiting {
		w.waiting++
	}
	items, err := decodeItems(evently.Item{Tier: int(row.tier), Quantity: int(row.quantity)}, row.more)
	if err != nil {
		r.differWaiter(row.token, 0, "%v", err)
	}
	if key := uuidKey(row.key); row.key.Valid {
		if other, found := w.keys[key]; found {
			r.differWaiter(row.token, 0, "has the idempotency key of %s", r.waiterName(other))
		}
		w.keys[key] = row.token
	}
	waiter, found := w.waiters[row.token]
	if !found {
		r.differWaiter(row.token, 0, "has a row and no entries")
		return
	}
	waiter.compared = true
	w.waiters[row.token] = waiter
	for _, c := range [...]struct {
		column       string
		row, journal int64
	}{
		{"user_id", row.user, waiter.user},
		{"status", int64(row.status), int64(waiter.status)},
		{"on_release", int64(row.onRelease), int64(waiter.onRelease)},
		{"priority", int64(row.priority), int64(waiter.priority)},
		{"position", int64(row.position), int64(waiter.position)},
		{"joined_seq", row.joinedSeq, waiter.joinedSeq},
		{"seq", row.seq, waiter.seq},
	} {
		if c.row != c.journal {
			r.differWaiter(row.token, 0, "%s is %d, and %d by the journal", c.column, c.row, c.journal)
		}
	}
	if row.joinedAt != waiter.joinedAt {
		r.differWaiter(row.token, 0, "joined_at is %s, and %s by the journal", row.joinedAt, waiter.joinedAt)
	}
	if row.endedAt != waiter.endedAt {
		r.differWaiter(row.token, 0, "ended_at is %s, and %s by the journal", row.endedAt, waiter.endedAt)
	}
	if !slices.Equal(slices.Collect(items.All()), slices.Collect(waiter.items.All())) {
		r.differWaiter(row.token, 0, "has the items %+v, and %+v by the journal", slices.Collect(items.All()),
			slices.Collect(waiter.items.All()))
	}
}

// compareWaiting holds the count of the head, and that of the rows, against the entries.
func (r *replay) compareWaiting(head int32) {
	journal := len(r.waitlist.byUser)
	if int(head) != journal {
		r.differ(0, 0, "event_heads.waiting is %d, and %d by the journal", head, journal)
	}
	if r.waitlist.waiting != journal {
		r.differ(0, 0, "the rows of the waitlist have %d who wait, the journal %d", r.waitlist.waiting, journal)
	}
}

// waitersDue is when somebody who waits is to be served or closed; infinity: nobody waits. While free seats suffice for one the
// event has to come back to it at once.
func (r *replay) waitersDue() instant {
	if len(r.waitlist.byUser) == 0 || r.state == nil {
		return infinity
	}
	if r.state.Status == evently.EventCancelled {
		return r.last.at
	}
	due := instant(r.state.SalesEnd().UnixMicro())
	if r.state.Status != evently.EventPublished {
		return due
	}
	for _, token := range r.waitlist.byUser {
		if r.suffices(r.waitlist.waiters[token].items) {
			return min(due, max(r.last.at, instant(r.state.SalesStartAt.UnixMicro())))
		}
	}
	return due
}

func (r *replay) suffices(items *evently.Items) bool {
	for item := range items.All() {
		if item.Tier >= len(r.tiers) {
			return false
		}
		if t := r.tiers[item.Tier]; item.Quantity > t.capacity-t.held-t.booked {
			return false
		}
	}
	return true
}

// compareRestOfWaiters reports the waiters that have entries and no row, in the order of the entries.
func (r *replay) compareRestOfWaiters() {
	var tokens []int64
	for token, waiter := range r.waitlist.waiters {
		if !waiter.compared {
			tokens = append(tokens, token)
		}
	}
	slices.SortFunc(tokens, func(a, b int64) int { return int(r.waitlist.waiters[a].joinedSeq - r.waitlist.waiters[b].joinedSeq) })
	for _, token := range tokens {
		r.differWaiter(token, r.waitlist.waiters[token].joinedSeq, "joined and has no row")
	}
}
