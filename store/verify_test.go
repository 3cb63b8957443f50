package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

// exhibit fills a database with one event of everything, whose reservations have these tokens, and a deleted draft.
const (
	tokenHeld evently.Token = iota + 1
	tokenBooked
	tokenCancelled
	tokenReleased
	tokenExpired
	tokenMulti
)

func (b *bench) exhibit() (event evently.EventID, at time.Time) {
	b.Helper()
	o := b.acquire(b.event(50, 20))
	at = o.Now.Truncate(time.Millisecond)
	items := func(items ...evently.Item) evently.Items {
		made, err := evently.NewItems(items...)
		if err != nil {
			b.Fatal(err)
		}
		return made
	}
	two := items(evently.Item{Tier: 0, Quantity: 2})
	book := func(token evently.Token, at time.Time, items evently.Items) {
		o.decide(&evently.Book{User: 7, Key: evently.Key{Hi: uint64(token)}, Items: items, Token: token}, at)
	}
	book(tokenExpired, at, two)
	o.MustFlush()
	at = at.Add(2 * time.Minute)
	o.decide(&evently.Expire{}, at)
	for _, token := range []evently.Token{tokenHeld, tokenBooked, tokenCancelled, tokenReleased} {
		book(token, at, two)
	}
	book(tokenMulti, at, items(evently.Item{Tier: 0, Quantity: 1}, evently.Item{Tier: 1, Quantity: 3}))
	o.decide(&evently.Confirm{User: 7, Token: tokenBooked}, at)
	o.decide(&evently.Confirm{User: 7, Token: tokenCancelled}, at)
	o.decide(&evently.Cancel{User: 7, Token: tokenCancelled}, at)
	o.decide(&evently.Release{User: 7, Token: tokenReleased}, at)
	details := o.Ledger.Event().EventDetails
	details.Name = "Concert, again"
	o.decide(&evently.Revise{Version: 1, Details: details}, at)
	o.MustFlush()

	draft := *o.Ledger.Event()
	draft.ID, draft.Status = o.Ledger.Event().ID+2, evently.EventDraft
	if _, err := b.events.CreateEvent(b.Context(), &draft, 1, ""); err != nil {
		b.Fatal(err)
	}
	if err := b.events.DeleteDraft(b.Context(), draft.ID, 1, "delete"); err != nil {
		b.Fatal(err)
	}
	return o.Ledger.Event().ID, at
}

// The entries of the exhibit by seq: 1 created, 2 held(expired), 3 expired, 4 held(held), 5 held(booked), 6 held(cancelled),
// 7 held(released), 8 held(multi), 9 confirmed(booked), 10 confirmed(cancelled), 11 cancelled(cancelled),
// 12 cancelled(released), 13 revised.
func TestVerify_ReportsEveryDifference(t *testing.T) {
	b := newBench(t, JournalConfig{})
	event, _ := b.exhibit()
	b.verify()
	e := fmt.Sprintf("event_id = %d", int64(event))
	reservation := func(token evently.Token) string { return fmt.Sprintf("%s and token = %d", e, token) }
	for name, c := range map[string]struct {
		damage string
		want   []string // parts of the differences, "" for more that follow from them; {E} is the event, {n} the reservation with token n
	}{
		"nothing":         {"select 1", nil},
		"head seq":        {"update event_heads set seq = seq + 1", []string{"{E}: event_heads.seq is 14, the last entry is 13"}},
		"head epoch":      {"update event_heads set epoch = 0", []string{"{E}: event_heads.epoch is 0, the last entry has 1"}},
		"head time":       {"update event_heads set last_at = '2001-01-01Z'", []string{"{E}: event_heads.last_at is 2001-01-01T00:00:00Z, the last entry"}},
		"head time away":  {"update event_heads set last_at = '-infinity'", []string{"{E}: event_heads.last_at is -infinity"}},
		"head held":       {"update event_heads set held[1] = 4", []string{"{E}: event_heads.held is {4,3}, and {3,3} by the journal"}},
		"head booked":     {"update event_heads set booked[1] = 1", []string{"{E}: event_heads.booked is {1,0}, and {2,0} by the journal"}},
		"head capacity":   {"update event_heads set capacity[2] = 21", []string{"{E}: event_heads.capacity is {50,21}, and {50,20} by the journal"}},
		"head null count": {"update event_heads set booked[2] = null", []string{"{E}: event_heads.booked is {2,NULL}, and {2,0} by the journal"}},
		"head not due":    {"update event_heads set next_due = null", []string{"{E}: event_heads.next_due is null, something is due at"}},
		"head due late":   {"update event_heads set next_due = 'infinity'", []string{"{E}: event_heads.next_due is infinity, something is due at"}},
		"no head":         {"delete from event_heads where " + e, []string{"{E}: has no row in event_heads"}},
		"no event":        {"delete from events where " + e, []string{"{E} entry 13: has no rows in events and event_heads"}},
		"event name":      {"update events set name = 'X'", []string{"{E}: events.name is X, and Concert, again by the journal"}},
		"event version":   {"update events set version = 9", []string{"{E}: events.version is 9, and 2 by the journal"}},
		"event status":    {"update events set status = 2", []string{"{E}: events.status is 2, and 1 by the journal"}},
		"event tiers":     {"update events set tiers = '[{}]'", []string{"{E}: events.tiers is [{ 0 0 0 false}], and [{tier 0 50"}},
		"event damaged":   {"update events set tiers = '7'", []string{"{E}: events: decode event: "}},
		"event without entries": {
			"insert into events select (e).* from (select jsonb_populate_record(e, '{\"event_id\": 5}') as e from events e) x", []string{
				"evt_0000000000005: has rows and no entries", "evt_0000000000005: has no row in event_heads",
			},
		},

		"user":         {"update reservations set user_id = 8 where " + reservation(tokenHeld), []string{"{1}: user_id is 8, and 7 by the journal"}},
		"created at":   {"update reservations set created_at = 'infinity' where " + reservation(tokenHeld), []string{"{1}: created_at is infinity, and 2"}},
		"expires at":   {"update reservations set expires_at = '2001-01-01Z' where " + reservation(tokenHeld), []string{"{1}: expires_at is 2001-01-01T00:00:00Z, and 2"}},
		"confirmed at": {"update reservations set confirmed_at = null where " + reservation(tokenBooked), []string{"{2}: confirmed_at is null, and 2"}},
		"microsecond":  {"update reservations set confirmed_at = confirmed_at + interval '1 microsecond' where " + reservation(tokenBooked), []string{"{2}: confirmed_at is 2"}},
		"ended at":     {"update reservations set ended_at = now() where " + reservation(tokenBooked), []string{"{2}: ended_at is 2"}},
		"seqs": {"update reservations set created_seq = 100, confirmed_seq = null, seq = 101 where " + reservation(tokenBooked), []string{
			"{2}: created_seq is 100, and 5 by", "{2}: confirmed_seq is 0, and 9 by", "{2}: seq is 101, and 9 by",
		}},
		"status": {"update reservations set status = 1 where " + reservation(tokenHeld), []string{
			"{1}: status is 1, and 0 by the journal", "{E}: the rows of tier t1 have 1 held and 4 booked, the journal 3 and 2",
		}},
		"price": {"update reservations set unit_price = 1 where " + reservation(tokenHeld), []string{
			"{1}: has the items [{Tier:0 Quantity:2 UnitPriceMinor:1}], and [{Tier:0 Quantity:2 UnitPriceMinor:1200}] by the journal",
		}},
		"more items": {"update reservations set more = null where " + reservation(tokenMulti), []string{
			"{6}: has the items [{Tier:0 Quantity:1 UnitPriceMinor:1200}], and [{", "{E}: the rows of tier t2 have 0 held and 0 booked, the journal 3 and 0",
		}},
		"oversold rows": {"update reservations set quantity = 60 where " + reservation(tokenBooked), []string{
			"{2}: has the items [{Tier:0 Quantity:60 ", "{E}: the rows of tier t1 have 3 held and 60 booked, the journal 3 and 2",
			"{E}: tier t1 is oversold: the rows have 3 held and 60 booked of 50",
		}},
		"impossible items": {"update reservations set tier = 99 where " + reservation(tokenReleased), []string{
			"{4}: decode items: ", "{4}: has the items [], and [{",
		}},
		"key twice": {
			"drop index reservations_by_key; update reservations set key = (select key from reservations where " + reservation(tokenHeld) +
				") where " + reservation(tokenBooked),
			[]string{"{2}: has the idempotency key of {1}"},
		},
		"row lost": {"delete from reservations where " + reservation(tokenHeld), []string{
			"{E}: the rows of tier t1 have 1 held and 2 booked, the journal 3 and 2", "{1} entry 4: is held and has no row",
		}},
		"row invented": {
			"insert into reservations select event_id, 77, user_id, status, tier, quantity, unit_price, more, created_at, expires_at, null, null, " +
				"77, null, 77, null from reservations where " + reservation(tokenHeld),
			[]string{"{77}: has a row and no entries", "{E}: the rows of tier t1 have 5 held and 2 booked, the journal 3 and 2"},
		},
		"rows of a deleted draft": {
			fmt.Sprintf("insert into reservations select %d, 77, user_id, status, tier, quantity, unit_price, more, created_at, expires_at, null, "+
				"null, 77, null, 77, null from reservations where %s", int64(event+2), reservation(tokenHeld)),
			[]string{"{77'}: has a row and no entries", "{D} entry 2: is deleted and has 1 reservations"},
		},

		"entry lost": {"delete from journal where seq = 4 and " + e, []string{
			"{E} entry 5: follows entry 3", "{1}: has a row and no entries", "{E}: event_heads.held is {3,3}, and {1,3} by the journal",
			"{E}: the rows of tier t1 have 3 held and 2 booked, the journal 1 and 2",
		}},
		"last entry lost": {"delete from journal where seq = 13 and " + e, []string{
			"{E}: events.version is 2, and 1 by the journal", "{E}: events.name is Concert, again, and Concert by", "{E}: event_heads.seq is 13, the last entry is 12",
		}},
		"first entry lost": {"delete from journal where seq = 1 and " + e, []string{
			"{E} entry 2: follows entry 0", "{5} entry 2: holds seats of an event that is not published", "{5} entry 2: holds seats of tier t1 of 0", "",
		}},
		"all entries lost": {"delete from journal where " + e, []string{"has a row and no entries", "{E}: has rows and no entries", ""}},
		"entry twice": {
			"insert into journal select event_id, 14, epoch, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at, data " +
				"from journal where seq = 4 and " + e,
			[]string{"{1} entry 14: holds a reservation that was held before", "{E}: event_heads.seq is 13, the last entry is 14"},
		},
		"epoch goes back": {"update journal set epoch = 0 where seq = 9 and " + e, []string{"{E} entry 9: has epoch 0 after epoch 1"}},
		"time goes back": {"update journal set at = '2001-01-01Z' where seq = 13 and " + e, []string{
			"{E} entry 13: is of 2001-01-01T00:00:00Z, before the entry before it",
		}},
		"microseconds": {"update journal set at = at + interval '1 microsecond' where seq = 13 and " + e, []string{
			"{E} entry 13: is of 2", "{E}: event_heads.last_at is 2",
		}},
		"unknown kind": {"update journal set kind = 77 where seq = 13 and " + e, []string{
			"{E} entry 13: is of the unknown kind 77", "{E}: events.version is 2, and 1", "{E}: events.name is",
		}},
		"no token": {"update journal set token = null where seq = 9 and " + e, []string{
			"{E} entry 9: confirmed names no reservation", "{2}: status is 1, and 0 by", "{2}: confirmed_seq is 9, and 0 by",
			"{2}: seq is 9, and 5 by", "{2}: confirmed_at is 2", "",
		}},
		"unknown reservation": {"update journal set token = 55 where seq = 12 and " + e, []string{
			"{55} entry 12: cancelled: was never held", "{4}: status is 2, and 0 by", "",
		}},
		"held without items": {"update journal set quantity = null where seq = 7 and " + e, []string{
			"{4} entry 7: decode items: ", "{4}: has the items [{Tier:0 Quantity:2 UnitPriceMinor:1200}], and [] by the journal",
		}},
		"held oversold": {"update journal set quantity = 50 where seq = 4 and " + e, []string{
			"{2} entry 5: oversells tier t1: 52 held and 0 booked of 50", "{3} entry 6: oversells tier t1", "{4} entry 7: oversells tier t1",
			"{6} entry 8: oversells tier t1", "{1}: has the items", "",
		}},
		"held in no tier": {"update journal set tier = 31 where seq = 7 and " + e, []string{
			"{4} entry 7: holds seats of tier t32 of 2", "{4}: has the items",
		}},
		"held for no time": {"update journal set expires_at = null where seq = 4 and " + e, []string{
			"{1} entry 4: holds until null, from 2", "{1}: expires_at is 2", "{E}: event_heads.next_due is",
		}},
		"expired early": {"update journal set expires_at = 'infinity' where seq = 2 and " + e, []string{
			"{5} entry 3: expired: at 2", "{5}: expires_at is 2",
		}},
		"confirmed late": {"update journal set expires_at = at + interval '1 microsecond', at = at where seq = 5 and " + e + ";" +
			"update journal set at = at + interval '1 second' where seq >= 9 and " + e, []string{
			"{2} entry 9: confirmed: at 2", "",
		}},
		"ended twice": {"update journal set token = 4 where seq = 11 and " + e, []string{
			"{4} entry 12: cancelled: was cancelled", "{3}: status is 2, and 1 by", "",
		}},
		"booking expires": {"update journal set kind = 8 where seq = 11 and " + e, []string{
			"{3} entry 11: expired: was confirmed", "{3}: status is 2, and 3 by",
		}},
		"event damaged in the journal": {"update journal set data = '[]' where seq = 13 and " + e, []string{
			"{E} entry 13: event_revised: decode event: ", "{E}: events.version is 2, and 1", "{E}: events.name is",
		}},
		"event missing in the journal": {"update journal set data = null where seq = 13 and " + e, []string{
			"{E} entry 13: event_revised: decode event: ", "{E}: events.version is 2, and 1", "{E}: events.name is",
		}},
		"version jumps": {"update journal set data = jsonb_set(data, '{version}', '5') where seq = 13 and " + e, []string{
			"{E} entry 13: event_revised: has version 5 after 1", "{E}: events.version is 2, and 5 by the journal",
		}},
		"status changes by itself": {"update journal set data = jsonb_set(data, '{status}', '2') where seq = 13 and " + e, []string{
			"{E} entry 13: event_revised: makes a published event cancelled", "{E}: events.status is 1, and 2 by", "{E}: event_heads.next_due is",
		}},
		"published twice": {"update journal set kind = 3 where seq = 13 and " + e, []string{
			"{E} entry 13: event_published: makes a published event published",
		}},
		"tier vanishes": {"update journal set data = data #- '{tiers,1}' where seq = 13 and " + e, []string{
			"{E} entry 13: event_revised: has 1 tiers after 2", "{E} entry 13: oversells tier t2: 3 held and 0 booked of 0",
			"{E}: events.tiers is", "{E}: event_heads.capacity is {50,20}, and {50,0} by", "{E}: tier t2 is oversold",
		}},
		"capacity below sold": {"update journal set data = jsonb_set(data, '{tiers,0,capacity}', '4') where seq = 13 and " + e, []string{
			"{E} entry 13: oversells tier t1: 3 held and 2 booked of 4", "{E}: events.tiers is", "{E}: event_heads.capacity is",
			"{E}: tier t1 is oversold: the rows have 3 held and 2 booked of 4",
		}},
		"currency changes": {"update journal set data = jsonb_set(data, '{currency}', '\"USD\"') where seq = 13 and " + e, []string{
			"{E} entry 13: event_revised: changes the currency from EUR to USD", "{E}: events.currency is EUR, and USD by",
		}},
		"another event": {"update journal set data = jsonb_set(data, '{event_id}', '3') where seq = 13 and " + e, []string{
			"{E} entry 13: event_revised: carries event evt_0000000000003", "{E}: events.event_id is",
		}},
		"created twice": {"update journal set kind = 1 where seq = 13 and " + e, []string{"{E} entry 13: event_created stands in the wrong place"}},
		"deleted when published": {"update journal set kind = 9 where seq = 13 and " + e, []string{
			"{E} entry 13: deletes an event that is not a draft", "{E} entry 13: is deleted and still has rows", "{E}: events.version is", "{E}: events.name",
		}},
		"entry after deletion": {
			fmt.Sprintf("insert into journal select event_id, 3, epoch, kind, at, who, request_id from journal where seq = 2 and event_id = %d", int64(event+2)),
			[]string{"{D} entry 3: comes after the event's deletion"},
		},
		"journal of nobody": {
			"insert into journal select 5, seq, epoch, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at, data " +
				"from journal where seq < 3 and " + e,
			[]string{
				"evt_0000000000005 entry 1: event_created: carries event", "evt_0000000000005 entry 2: has no rows in events and event_heads",
				"entry 2: is held and has no row",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.wantDifferences(t, c.damage, c.want, strings.NewReplacer(
				"{E}", "event "+event.String(), "{D}", "event "+(event+2).String(), "{77'}", reservationName(event+2, 77),
				"{1}", reservationName(event, 1), "{2}", reservationName(event, 2), "{3}", reservationName(event, 3),
				"{4}", reservationName(event, 4), "{5}", reservationName(event, 5), "{6}", reservationName(event, 6),
				"{55}", reservationName(event, 55), "{77}", reservationName(event, 77),
			))
		})
	}
}

// wantDifferences verifies a damaged database and expects differences with these parts, and no others unless the last part is empty.
func (b *bench) wantDifferences(t *testing.T, damage string, want []string, names *strings.Replacer) {
	t.Helper()
	got := b.differencesAfter(t, damage)
	for _, part := range want {
		part = names.Replace(part)
		if strings.Contains(part, "has the idempotency key of reservation ") {
			part = strings.Replace(part, "key of reservation ", "key of ", 1)
		}
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, part) }) {
			t.Errorf("%s\nis not among\n%s", part, strings.Join(got, "\n"))
		}
	}
	if n := len(want); len(got) != n && (n == 0 || want[n-1] != "") {
		t.Errorf("got %d differences, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
}

func reservationName(event evently.EventID, token evently.Token) string {
	return "reservation " + evently.ReservationID{Event: event, Token: token}.String()
}

// differencesAfter verifies a damaged database inside a transaction that it rolls back.
func (b *bench) differencesAfter(t *testing.T, damage string) (got []string) {
	t.Helper()
	conn, err := b.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	const unprotectSQL = `
		alter table journal disable trigger append_only;
		alter table event_heads drop constraint never_oversold;
		alter table event_heads drop constraint event_heads_event_id_fkey;
		set constraints all immediate`
	if _, err := tx.Exec(t.Context(), unprotectSQL); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(damage, "delete from events") {
		damage += ";" + strings.Replace(damage, "events", "event_heads", 1)
	}
	if _, err := tx.Exec(t.Context(), damage); err != nil {
		t.Fatalf("%s: %v", damage, err)
	}
	var summary Summary
	if err := verify(t.Context(), tx, &summary, func(d Difference) { got = append(got, d.String()) }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestVerify_CountsWhatItReads(t *testing.T) {
	b := newBench(t, JournalConfig{})
	if summary, err := Verify(t.Context(), b.pool, nil); err != nil || summary != (Summary{}) {
		t.Errorf("empty: %+v %v", summary, err)
	}
	b.exhibit()
	want := Summary{Events: 2, Entries: 15, Reservations: 6}
	if summary, err := Verify(t.Context(), b.pool, nil); err != nil || summary != want {
		t.Errorf("got %+v %v, want %+v", summary, err, want)
	}
}

func TestVerify_PagesEndAnywhere(t *testing.T) {
	b := newBench(t, JournalConfig{})
	for _, n := range []int{4095, 1, 4096} { // with the creations: entries end on both sides of a page
		o := b.acquire(b.event(5000))
		for range n {
			o.book(evently.Item{Quantity: 1})
		}
		o.MustFlush()
	}
	summary, err := Verify(t.Context(), b.pool, func(d Difference) { t.Error(d) })
	if want := (Summary{Events: 3, Entries: 4095 + 1 + 4096 + 3, Reservations: 4095 + 1 + 4096}); err != nil || summary != want {
		t.Errorf("got %+v %v, want %+v", summary, err, want)
	}
}

// A system that sells, confirms, cancels, creates and deletes is never found to differ.
func TestVerify_RaisesNoFalseAlarmOnALiveSystem(t *testing.T) {
	b := newBench(t, JournalConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 4 {
		o := b.acquire(b.event(1_000_000))
		group.Go(func() {
			for ctx.Err() == nil {
				var tokens []evently.Token
				for range 5 {
					tokens = append(tokens, o.book(evently.Item{Quantity: 1}).ID.Token)
				}
				o.decide(&evently.Confirm{User: 7, Token: tokens[1]}, o.Now)
				o.decide(&evently.Release{User: 7, Token: tokens[2]}, o.Now)
				o.decide(&evently.Confirm{User: 7, Token: tokens[3]}, o.Now)
				if err := o.Flush(); err != nil {
					t.Error(err)
					return
				}
				o.decide(&evently.Cancel{User: 7, Token: tokens[3]}, o.Now)
				if err := o.Flush(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Go(func() {
		one := evently.Item{Quantity: 1}
		o := b.acquire(b.event(1))
		holder, holds := evently.UserID(7), o.book(one).ID.Token
		for user := evently.UserID(100); ctx.Err() == nil; user++ {
			next := o.Join(user, o.Now, evently.BookOnRelease, one)
			o.Join(1_000_000+user, o.Now, evently.HoldOnRelease, one)
			if err := o.Flush(); err != nil {
				t.Error(err)
				return
			}
			o.decide(&evently.LeaveWaitlist{User: 1_000_000 + user}, o.Now)
			o.decide(&evently.Cancel{User: holder, Token: holds}, o.Now) // serves next
			holder, holds = next.User, next.ID.Token
		}
	})
	base := b.acquire(b.event(10)).Ledger.Event()
	group.Go(func() {
		retention := NewRetention(b.pool, discard)
		for i := 0; ctx.Err() == nil; i++ {
			draft := *base
			draft.ID, draft.Status = evently.EventID(1000+i), evently.EventDraft
			if _, err := b.events.CreateEvent(t.Context(), &draft, 1, ""); err != nil {
				t.Error(err)
			}
			if err := b.events.DeleteDraft(t.Context(), draft.ID, 1, "delete"); err != nil {
				t.Error(err)
			}
			if _, err := retention.Sweep(t.Context(), time.Now().Add(48*time.Hour)); err != nil {
				t.Error(err)
			}
		}
	})
	var last Summary
	for range 20 {
		summary, err := Verify(t.Context(), b.pool, func(d Difference) { t.Error(d) })
		if err != nil {
			t.Error(err)
		}
		if summary.Entries < last.Entries {
			t.Errorf("%+v after %+v", summary, last)
		}
		last = summary
	}
	cancel()
	group.Wait()
	if last.Entries == 0 {
		t.Error("nothing happened meanwhile")
	}
}

// A cancelled event whose bookings are not all swept yet is in order, as long as the sweep is due.
func TestVerify_CancelledEventInTheMiddleOfItsSweep(t *testing.T) {
	b := newBench(t, JournalConfig{})
	o := b.acquire(b.event(1000))
	for range evently.SweepMax + 10 {
		held := o.book(evently.Item{Quantity: 1})
		o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, o.Now)
	}
	o.decide(&evently.CancelEvent{}, o.Now)
	o.MustFlush()
	b.verify()
	got := b.differencesAfter(t, "update event_heads set next_due = null")
	if len(got) != 1 || !strings.Contains(got[0], "something is due") {
		t.Errorf("got %v, want that a sweep is due", got)
	}
	o.decide(&evently.Sweep{}, o.Now)
	o.MustFlush()
	b.verify()
}

// Whatever stands in the tables, the replay comes to its end.
func TestReplay_NeverPanics(t *testing.T) {
	data := rapid.SampledFrom([]string{
		"", "null", "[]", "{}", "7", `[{"tier":1,"quantity":1}]`, `{"event_id":1,"status":1,"version":1,"tiers":[{"capacity":3}]}`,
		`{"event_id":1,"status":2,"version":2,"tiers":[]}`, `{"event_id":1,"status":200,"tiers":[{},{"capacity":-5},{}]}`,
	})
	small := rapid.Int64Range(-2, 5)
	moment := rapid.Map(rapid.SampledFrom([]int64{int64(never), int64(never) + 1, 0, 1, 2, int64(infinity)}), func(v int64) instant { return instant(v) })
	bytes := func(s string) []byte {
		if s == "" {
			return nil
		}
		return []byte(s)
	}
	rapid.Check(t, func(t *rapid.T) {
		differences := 0
		r := newReplay(1, func(d Difference) {
			differences++
			if d.String() == "" {
				t.Fatal("a difference says nothing")
			}
		})
		for range rapid.IntRange(0, 12).Draw(t, "entries") {
			r.post(&entryRow{
				event: 1, seq: small.Draw(t, "seq"), epoch: small.Draw(t, "epoch"), kind: rapid.Int16Range(-1, 17).Draw(t, "kind"),
				at: moment.Draw(t, "at"), token: small.Draw(t, "token"), user: small.Draw(t, "user"), tier: int16(small.Draw(t, "tier")),
				quantity: int32(small.Draw(t, "quantity")), unitPrice: small.Draw(t, "price"), expiresAt: moment.Draw(t, "expires"),
				data: bytes(data.Draw(t, "data")), onRelease: int16(small.Draw(t, "on_release")), position: int32(small.Draw(t, "position")),
				priority: int32(small.Draw(t, "priority")), waiter: rapid.Bool().Draw(t, "waiter"),
			})
		}
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			r.compareReservation(&reservationRow{
				event: 1, token: small.Draw(t, "token"), status: int16(small.Draw(t, "status")), tier: int16(small.Draw(t, "tier")),
				quantity: int32(small.Draw(t, "quantity")), more: bytes(data.Draw(t, "more")), createdAt: moment.Draw(t, "created"),
				expiresAt: moment.Draw(t, "expires"), confirmedAt: moment.Draw(t, "confirmed"), endedAt: moment.Draw(t, "ended"),
			})
		}
		for range rapid.IntRange(0, 3).Draw(t, "waiters") {
			r.compareWaiter(&waitlistRow{
				event: 1, token: small.Draw(t, "token"), user: small.Draw(t, "user"), status: int16(small.Draw(t, "status")),
				tier: int16(small.Draw(t, "tier")), quantity: int32(small.Draw(t, "quantity")), more: bytes(data.Draw(t, "more")),
				joinedAt: moment.Draw(t, "joined"), endedAt: moment.Draw(t, "ended"),
			})
		}
		if rapid.Bool().Draw(t, "event") {
			r.compareEvent(&eventRow{
				event: 1, data: bytes(data.Draw(t, "data")), head: rapid.Bool().Draw(t, "head"), seq: small.Draw(t, "seq"),
				lastAt: moment.Draw(t, "last"), nextDue: moment.Draw(t, "due"), capacity: "{1}",
			})
		} else {
			r.compareNoEvent()
		}
		r.compareRest()
		if differences == 0 {
			t.Fatal("nonsense was found in order")
		}
	})
}

// fillSQL gives event $1 reservations with the numbers 1 to $2, of which the first three quarters are confirmed.
const fillSQL = `
insert into journal (event_id, seq, epoch, kind, at, who, request_id, token, user_id, tier, quantity, unit_price, expires_at)
select event_id, 1 + i, 1, 5, last_at + i * interval '1 ms', i, 'request', i * 7919, i, 0, 1, 1200, last_at + interval '1 day'
from event_heads, generate_series(1, $2::int8) i where event_id = $1
union all
select event_id, 1 + $2 + i, 1, 6, last_at + ($2 + 1) * interval '1 ms', i, 'request', i * 7919, null, null, null, null, null
from event_heads, generate_series(1, $2::int8 * 3 / 4) i where event_id = $1;

insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, confirmed_at,
    created_seq, confirmed_seq, seq, key)
select event_id, i * 7919, i, done::int, 0, 1, 1200, last_at + i * interval '1 ms', last_at + interval '1 day',
    case when done then last_at + ($2 + 1) * interval '1 ms' end, 1 + i, case when done then 1 + $2 + i end,
    case when done then 1 + $2 + i else 1 + i end, md5(i::text)::uuid
from event_heads, generate_series(1, $2::int8) i, lateral (select i <= $2 * 3 / 4 as done) b where event_id = $1;

update event_heads set epoch = 1, seq = 1 + $2 + $2 * 3 / 4, last_at = last_at + ($2 + 1) * interval '1 ms',
    held[1] = $2 - $2 * 3 / 4, booked[1] = $2 * 3 / 4, next_due = last_at + interval '1 day'
where event_id = $1`

// BenchmarkVerify reads one event with many reservations; the memory is what is in use at the end of its entries.
func BenchmarkVerify(b *testing.B) {
	for _, reservations := range []int{10_000, 200_000} {
		b.Run(strconv.Itoa(reservations), func(b *testing.B) {
			pool, err := Open(b.Context(), pgtest.Database(b), PoolOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer pool.Close()
			event := &evently.Event{
				ID: 1, Status: evently.EventPublished, Version: 1, CreatedAt: time.Now(),
				EventDetails: evently.EventDetails{Currency: "EUR", Tiers: []evently.Tier{{Capacity: reservations}}},
			}
			if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, ""); err != nil {
				b.Fatal(err)
			}
			fill := strings.NewReplacer("$1", "1", "$2", strconv.Itoa(reservations)).Replace(fillSQL)
			if _, err := pool.Exec(b.Context(), fill+"; analyze", pgx.QueryExecModeSimpleProtocol); err != nil {
				b.Fatal(err)
			}
			var rows int
			for b.Loop() {
				summary, err := Verify(b.Context(), pool, func(d Difference) { b.Fatal(d) })
				if err != nil || summary.Reservations != reservations {
					b.Fatalf("%+v %v", summary, err)
				}
				rows += summary.Entries + summary.Reservations
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
