package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/evently/evently"
)

// Tokens of the waiters of waitlistExhibit.
const (
	waiterBooked evently.Token = 21 + iota
	waiterOffered
	waiterLeft
	waiterMulti
	waiterWaits
)

// waitlistExhibit is an event whose seats are sold to user 7, with waiters in every status but closed. Its entries by seq: 1 created,
// 2 to 9 held and confirmed (tokens 11 to 14), 10 to 13 waitlisted(booked, offered, left, multi), 14 prioritized(offered), 15 left,
// 16 cancelled(11), 17 held(offered), 18 cancelled(12), 19 held(booked), 20 confirmed(booked), 21 pricing set, 22 waitlisted(waits),
// 23 held(15), 24 repriced.
func (b *bench) waitlistExhibit() evently.EventID {
	b.Helper()
	o := b.acquire(b.event(4, 5))
	at := o.Now.Truncate(time.Millisecond)
	one, other := evently.Item{Quantity: 1}, evently.Item{Tier: 1, Quantity: 1}
	book := func(token evently.Token, item evently.Item) {
		o.decide(&evently.Book{User: 7, Key: evently.Key{Hi: uint64(token)}, Items: evently.OneItem(item), Token: token}, at)
	}
	join := func(user evently.UserID, token evently.Token, onRelease evently.OnRelease, items ...evently.Item) {
		b.Helper()
		asked, err := evently.NewItems(items...)
		if err != nil {
			b.Fatal(err)
		}
		o.decide(&evently.JoinWaitlist{User: user, Key: evently.Key{Lo: uint64(token)}, Items: asked, OnRelease: onRelease, Token: token}, at)
	}
	for token := range evently.Token(4) {
		book(11+token, one)
		o.decide(&evently.Confirm{User: 7, Token: 11 + token}, at)
	}
	o.MustFlush()
	join(1, waiterBooked, evently.BookOnRelease, one)
	join(2, waiterOffered, evently.HoldOnRelease, one)
	join(3, waiterLeft, evently.BookOnRelease, one)
	join(4, waiterMulti, evently.HoldOnRelease, one, other)
	o.MustFlush()
	o.decide(&evently.Prioritize{Token: waiterOffered, Priority: 5}, at)
	o.decide(&evently.LeaveWaitlist{User: 3}, at)
	o.decide(&evently.Cancel{User: 7, Token: 11}, at)
	o.MustFlush()
	o.decide(&evently.Cancel{User: 7, Token: 12}, at)
	o.decide(&evently.SetPricing{Version: 1, Rule: &evently.PricingRule{Step: evently.PriceStep{EverySeats: 1, AddMinor: 100}}}, at)
	join(5, waiterWaits, evently.HoldOnRelease, one)
	book(15, other)
	o.decide(&evently.Reprice{}, at)
	o.MustFlush()
	if seq := o.Ledger.Seq(); seq != 24 {
		b.Fatalf("the exhibit has %d entries", seq)
	}
	return o.Ledger.Event().ID
}

func TestVerify_ReportsEveryDifferenceOfWaiters(t *testing.T) {
	b := newBench(t, JournalConfig{})
	event := b.waitlistExhibit()
	b.verify()
	waiter := func(token evently.Token) string { return fmt.Sprintf("token = %d", token) }
	entry := func(seq int) string { return fmt.Sprintf("seq = %d", seq) }
	names := []string{"{E}", "event " + event.String()}
	for token := range evently.Token(100) {
		names = append(names, fmt.Sprintf("{%d}", token), reservationName(event, token),
			fmt.Sprintf("{w%d}", token), "waiter "+evently.WaiterID{Event: event, Token: token}.String())
	}
	for name, c := range map[string]struct {
		damage string
		want   []string // as in TestVerify_ReportsEveryDifference; {wn} is the waiter with token n
	}{
		"nothing":      {"select 1", nil},
		"head waiting": {"update event_heads set waiting = 3", []string{"{E}: event_heads.waiting is 3, and 2 by the journal"}},
		"head not due": {"update event_heads set next_due = 'infinity'", []string{"{E}: event_heads.next_due is infinity, something is due at"}},
		"not due at the end of sales": {
			"update event_heads set next_due = null; update reservations set status = 1, confirmed_at = created_at, confirmed_seq = 25, seq = 25 where token in (15, 22)",
			[]string{"{E}: event_heads.next_due is null, something is due at", ""},
		},
		"user":       {"update waitlist set user_id = 8 where " + waiter(waiterWaits), []string{"{w25}: user_id is 8, and 5 by the journal"}},
		"priority":   {"update waitlist set priority = 1 where " + waiter(waiterOffered), []string{"{w22}: priority is 1, and 5 by the journal"}},
		"position":   {"update waitlist set position = 9 where " + waiter(waiterLeft), []string{"{w23}: position is 9, and 3 by the journal"}},
		"on release": {"update waitlist set on_release = 1 where " + waiter(waiterBooked), []string{"{w21}: on_release is 1, and 0 by the journal"}},
		"seqs": {"update waitlist set joined_seq = 100, seq = 101 where " + waiter(waiterBooked), []string{
			"{w21}: joined_seq is 100, and 10 by", "{w21}: seq is 101, and 19 by",
		}},
		"joined at": {"update waitlist set joined_at = 'infinity' where " + waiter(waiterLeft), []string{"{w23}: joined_at is infinity, and 2"}},
		"ended at":  {"update waitlist set ended_at = ended_at + interval '1 microsecond' where " + waiter(waiterLeft), []string{"{w23}: ended_at is 2"}},
		"status":    {"update waitlist set status = 3 where " + waiter(waiterLeft), []string{"{w23}: status is 3, and 2 by the journal"}},
		"waits no more": {"update waitlist set status = 2, ended_at = joined_at where " + waiter(waiterWaits), []string{
			"{w25}: status is 2, and 0 by", "{w25}: ended_at is 2", "{E}: the rows of the waitlist have 1 who wait, the journal 2",
		}},
		"waits again": {"update waitlist set status = 0, ended_at = null where " + waiter(waiterLeft), []string{
			"{w23}: status is 0, and 2 by", "{w23}: ended_at is null", "{E}: the rows of the waitlist have 3 who wait, the journal 2",
		}},
		"items": {"update waitlist set quantity = 2 where " + waiter(waiterWaits), []string{
			"{w25}: has the items [{Tier:0 Quantity:2 UnitPriceMinor:0}], and [{Tier:0 Quantity:1 UnitPriceMinor:0}] by the journal",
		}},
		"more items":       {"update waitlist set more = null where " + waiter(waiterMulti), []string{"{w24}: has the items [{Tier:0 Quantity:1"}},
		"impossible items": {"update waitlist set tier = 99 where " + waiter(waiterWaits), []string{"{w25}: decode items: ", "{w25}: has the items [], and [{"}},
		"key twice": {
			"drop index waitlist_by_key; update waitlist set key = (select key from waitlist where token = 21) where token = 25",
			[]string{"{w25}: has the idempotency key of {w21}"},
		},
		"row lost": {"delete from waitlist where " + waiter(waiterWaits), []string{
			"{E}: the rows of the waitlist have 1 who wait, the journal 2", "{w25} entry 22: joined and has no row",
		}},
		"row of one that ended lost": {"delete from waitlist where " + waiter(waiterLeft), []string{"{w23} entry 12: joined and has no row"}},
		"row invented": {
			"insert into waitlist (event_id, token, user_id, status, tier, quantity, on_release, priority, position, joined_at, joined_seq, seq) " +
				"select event_id, 77, 77, 0, 0, 1, 0, 0, 1, joined_at, 77, 77 from waitlist where token = 21",
			[]string{"{w77}: has a row and no entries", "{E}: the rows of the waitlist have 3 who wait, the journal 2"},
		},
		"waiters of an event that is gone": {
			"delete from reservations; update journal set kind = 9 where seq = 24; delete from events; delete from event_heads",
			[]string{"{E} entry 24: is deleted and has 5 waiters", ""},
		},

		"joined twice": {"update journal set token = 21 where " + entry(11), []string{
			"{w21} entry 11: joins the waitlist twice", "{w22} entry 14: waiter_prioritized: never joined",
			"{22} entry 17: serves a waiter that never joined", "{w22}: has a row and no entries",
			"{w23} entry 12: joins at position 3 behind 1 waiters", "{w24} entry 13: joins at position 4 behind 2 waiters",
		}},
		"token of a reservation": {"update journal set token = 11 where " + entry(22), []string{
			"{w11} entry 22: has the token of a reservation that was held before", "{w25}: has a row and no entries", "{w11} entry 22: joined and has no row",
		}},
		"user waits twice": {"update journal set user_id = 4 where " + entry(22), []string{
			"{w25} entry 22: is of a user who waits as {w24}", "{w25}: user_id is 5, and 4 by", "{E}: event_heads.waiting is 2, and 1 by",
			"{E}: the rows of the waitlist have 2 who wait, the journal 1",
		}},
		"joined a draft": {"update journal set data = jsonb_set(data, '{status}', '0') where " + entry(1), []string{
			"{w21} entry 10: waits for an event that is not published", "",
		}},
		"position too far":    {"update journal set position = 9 where " + entry(12), []string{"{w23} entry 12: joins at position 9 behind 2 waiters", "{w23}: position is 3, and 9 by"}},
		"position missing":    {"update journal set position = null where " + entry(10), []string{"{w21} entry 10: joins at position -1 behind 0 waiters", "{w21}: position is 1, and -1 by"}},
		"on release unknown":  {"update journal set on_release = 2 where " + entry(10), []string{"{w21} entry 10: has the unknown on_release 2", "{w21}: on_release is 0, and 2 by"}},
		"waits without items": {"update journal set quantity = null where " + entry(12), []string{"{w23} entry 12: decode items: ", "{w23}: has the items [{Tier:0 Quantity:1 UnitPriceMinor:0}], and [] by"}},
		"waits in no tier":    {"update journal set tier = 31 where " + entry(12), []string{"{w23} entry 12: waits for seats of tier t32 of 2", "{w23}: has the items"}},
		"waits at a price":    {"update journal set unit_price = 5 where " + entry(12), []string{"{w23} entry 12: has the price 5", "{w23}: has the items"}},
		"joined without token": {"update journal set token = null where " + entry(12), []string{
			"{E} entry 12: waitlisted names no waiter", "{w23} entry 15: waiter_left: never joined", "{w23}: has a row and no entries",
			"{w24} entry 13: joins at position 4 behind 2 waiters",
		}},
		"priority too high":      {"update journal set priority = 2000000 where " + entry(14), []string{"{w22} entry 14: waiter_prioritized: gives the priority 2000000", "{w22}: priority is 5, and 2000000 by"}},
		"priority missing":       {"update journal set priority = null where " + entry(14), []string{"{w22} entry 14: waiter_prioritized: gives the priority 1000001", "{w22}: priority is 5, and 1000001 by"}},
		"left after the end":     {"update journal set token = 23, kind = 12 where " + entry(24), []string{"{w23} entry 24: waiter_left: was left", "{w23}: seq is 15, and 24 by", ""}},
		"prioritized at the end": {"update journal set token = 23, kind = 11, priority = 0 where " + entry(24), []string{"{w23} entry 24: waiter_prioritized: was left", "{w23}: seq is 15, and 24 by", ""}},
		"closed without trace":   {"update journal set kind = 13 where " + entry(15), []string{"{w23}: status is 2, and 3 by the journal"}},
		"held and not for whom it is": {"update journal set waiter = null where " + entry(17), []string{
			"{22} entry 17: has the token of waiter {w22}, and does not serve it", "{w22}: status is 1, and 0 by", "{w22}: seq is 17, and 14 by", "{w22}: ended_at is 2",
			"{E}: event_heads.waiting is 2, and 3 by", "{E}: the rows of the waitlist have 2 who wait, the journal 3",
		}},
		"serves nobody": {"update journal set waiter = true where " + entry(23), []string{"{15} entry 23: serves a waiter that never joined"}},
		"serves one who left": {"update journal set token = 23 where " + entry(23), []string{
			"{23} entry 23: has the token of waiter {w23}, and does not serve it", "{15}: has a row and no entries", "{23} entry 23: is held and has no row",
		}},
		"serves twice": {"update journal set token = 21, waiter = true where " + entry(17), []string{
			"{21} entry 19: holds a reservation that was held before", "",
		}},
		"serves one who waits no more": {"update journal set token = 23, waiter = true where " + entry(23), []string{
			"{23} entry 23: serves a waiter that was left", "{23} entry 23: is of usr_0000000000007 and serves a waiter of usr_0000000000003",
			"{23} entry 23: has the items [{Tier:1 Quantity:1 UnitPriceMinor:1000}] and serves a waiter for [{Tier:0 ", "{w23}: status is 2, and 1 by", "",
		}},
		"serves after the sale": {"update journal set data = jsonb_set(data, '{sales_end_at}', '\"2001-01-01T00:00:00Z\"') where " + entry(1), []string{
			"{22} entry 17: serves a waiter when the event is not on sale", "{21} entry 19: serves a waiter when the event is not on sale", "",
		}},
		"seats are free and somebody waits": {"update journal set data = jsonb_set(data, '{tiers,0,capacity}', '5') where kind in (1, 14, 15)", []string{
			"{E}: events.tiers is", "{E}: event_heads.capacity is", "{E}: event_heads.next_due is",
		}},

		"rule":            {"update events set pricing = null", []string{"{E}: events.pricing is <nil>, and "}},
		"part of rule":    {"update events set pricing = jsonb_set(pricing, '{step,add_minor}', '7')", []string{"{E}: events.pricing is "}},
		"limit of a user": {"update events set max_per_user = 7", []string{"{E}: events.max_per_user is 7, and 0 by the journal"}},
		"rule changes by a revision": {"update journal set kind = 2 where " + entry(21), []string{
			"{E} entry 21: event_revised: changes the pricing rule",
		}},
		"rule changes by new prices": {"update journal set data = jsonb_set(data, '{pricing,step,add_minor}', '7') where " + entry(24), []string{
			"{E} entry 24: event_repriced: changes the pricing rule", "{E}: events.pricing is",
		}},
		"prices without rule": {"update journal set data = data - 'pricing' where seq in (21, 24)", []string{
			"{E} entry 24: event_repriced: there is no pricing rule", "{E}: events.pricing is",
		}},
		"more than prices": {"update journal set data = jsonb_set(data, '{name}', '\"X\"') where seq in (21, 24)", []string{
			"{E} entry 21: event_pricing_set: changes more than prices", "{E}: events.name is",
		}},
		"base prices": {"update journal set data = jsonb_set(data, '{tiers,0,base_price_minor}', '7') where " + entry(24), []string{
			"{E} entry 24: event_repriced: changes more than prices", "{E}: events.tiers is",
		}},
		"price rule changes the status": {"update journal set data = jsonb_set(data, '{status}', '2') where " + entry(24), []string{
			"{E} entry 24: event_repriced: makes a published event cancelled", "{E} entry 24: event_repriced: changes more than prices",
			"{E}: events.status is", "{E}: event_heads.next_due is",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var parts []string
			for _, part := range c.want { // inside of a text a waiter stands with its id alone
				at := strings.LastIndex(part, "{w")
				if at > 0 {
					part = part[:at] + strings.Replace(strings.NewReplacer(names...).Replace(part[at:]), "waiter ", "", 1)
				}
				parts = append(parts, part)
			}
			b.wantDifferences(t, c.damage, parts, strings.NewReplacer(names...))
		})
	}
}

// A cancelled event whose waitlist is not all closed yet is in order, as long as the rest is due.
func TestVerify_CancelledEventWithWaiters(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(1))
	o.book(evently.Item{Quantity: 1})
	for user := range evently.UserID(2 * evently.SweepMax) {
		o.Join(100+user, o.Now, evently.BookOnRelease, evently.Item{Quantity: 1})
	}
	o.decide(&evently.CancelEvent{}, o.Now)
	o.MustFlush()
	b.verify()
	if n := b.count("select waiting from event_heads"); n == 0 {
		t.Fatal("nobody waits any more after the first batch")
	}
	got := b.differencesAfter(t, "update event_heads set next_due = null")
	if len(got) != 1 || !strings.Contains(got[0], "something is due") {
		t.Errorf("got %v, want that a sweep is due", got)
	}
	for o.Ledger.Waiting() > 0 {
		o.decide(&evently.Sweep{}, o.Now)
		o.MustFlush()
	}
	b.verify()
	if n := b.count("select count(*) from waitlist where status = 3"); n != 2*evently.SweepMax {
		t.Errorf("%d are closed, want all %d", n, 2*evently.SweepMax)
	}
}
