package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

// auditName names a record.
func auditName(r *evently.AuditRecord) string {
	if r.Entry != nil {
		return fmt.Sprintf("%s.%d", r.Entry.EventID, r.Entry.Seq)
	}
	return fmt.Sprintf("security.%d", r.Security.ID)
}

// audited reads all pages of a filter.
func (b *bench) audited(filter evently.AuditFilter, limit int) (all []*evently.AuditRecord) {
	b.Helper()
	audit := NewAudit(b.pool)
	page := evently.Page{Limit: limit}
	for pages := 0; ; pages++ {
		records, next, err := audit.Records(b.Context(), filter, page)
		if err != nil {
			b.Fatal(err)
		}
		if len(records) > limit || pages > 10_000 {
			b.Fatalf("page %d has %d records of %d", pages, len(records), limit)
		}
		all = append(all, records...)
		if next == nil {
			return all
		}
		page.After = next
	}
}

const allAuditSQL = `
select j.at, j.event_id, j.seq, j.kind, j.who, coalesce(j.user_id, r.user_id, w.user_id, 0), coalesce(j.token, 0), ''
from journal j
left join reservations r on r.event_id = j.event_id and r.token = j.token
left join waitlist w on w.event_id = j.event_id and w.token = j.token
union all
select at, 0, id, 0, coalesce(actor, 0), coalesce(user_id, 0), 0, kind from security_log`

// auditedByHand is the list by its meaning, out of everything.
func (b *bench) auditedByHand(filter evently.AuditFilter) (names []string) {
	b.Helper()
	rows, err := b.pool.Query(b.Context(), allAuditSQL)
	if err != nil {
		b.Fatal(err)
	}
	type line struct {
		auditKey
		name string
	}
	var lines []line
	for rows.Next() {
		var l line
		var at time.Time
		var kind evently.EntryKind
		var who, user, token int64
		var security string
		if err := rows.Scan(&at, &l.event, &l.seq, &kind, &who, &user, &token, &security); err != nil {
			b.Fatal(err)
		}
		l.at = at.UnixMilli()
		name := kind.String()
		if l.name = fmt.Sprintf("%s.%d", evently.EventID(l.event), l.seq); l.event == 0 {
			name, l.name = security, fmt.Sprintf("security.%d", l.seq)
		}
		managed := l.event == 0 || slices.Contains(append(slices.Clone(detailKinds), evently.EventDeletedEntry, evently.WaiterPrioritizedEntry), kind)
		asked := int64(filter.User)
		if filter.Event != 0 && l.event != int64(filter.Event) || filter.Token != 0 && token != int64(filter.Token) ||
			filter.Kind != "" && name != filter.Kind || !filter.From.IsZero() && at.Before(filter.From) || !filter.To.IsZero() && !at.Before(filter.To) ||
			asked != 0 && user != asked && (who != asked || filter.Token == 0 && !managed) {
			continue
		}
		lines = append(lines, l)
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(lines, func(x, y line) int { return y.compare(x.auditKey) })
	for _, l := range lines {
		names = append(names, l.name)
	}
	return names
}

// history makes some events with everything that can happen, and a security log beside it.
func (b *bench) history() (events []evently.EventID, tokens map[evently.EventID][]evently.Token) {
	b.Helper()
	tokens = make(map[evently.EventID][]evently.Token)
	for seed := range uint64(3) {
		x := b.busy(20+seed, 5, 3)
		at := x.Now.Add(time.Duration(seed) * 10 * time.Minute)
		for range 120 {
			at = at.Add(time.Duration(x.random.IntN(3)) * time.Second) // many at the same time
			x.expire(at)
			x.step(at)
			x.expire(at)
		}
		for w := range 3 { // whoever waits
			if waiter, err := NewWaitlists(b.pool).WaiterOf(b.Context(), x.Ledger.Event().ID, evently.UserID(w+1)); err == nil {
				x.do(&evently.Prioritize{Token: waiter.ID.Token, Priority: w + 1}, at)
			}
		}
		x.MustFlush()
		id := x.Ledger.Event().ID
		events, tokens[id] = append(events, id), x.holds
		for i := range 40 {
			user := evently.UserID(1 + x.random.IntN(20))
			origin := &evently.Origin{At: at.Add(-time.Duration(i*7) * time.Second), Actor: evently.UserID(x.random.IntN(20)), IP: "192.0.2.1", RequestID: "r"}
			kind := []evently.SecurityKind{evently.SecuritySignedIn, evently.SecurityRoleChanged}[i%2]
			if _, err := b.pool.Exec(b.Context(), logSecuritySQL, securityArgs(user, kind, origin, map[string]string{"from": "user"})...); err != nil {
				b.Fatal(err)
			}
		}
	}
	return events, tokens
}

func TestAudit_ListsWhatTheFilterSelects(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	events, tokens := b.history()
	now := time.Now()
	everything := evently.AuditFilter{From: now.Add(-24 * time.Hour), To: now.Add(24 * time.Hour)}
	middle := now.Add(12 * time.Minute)
	filters := []evently.AuditFilter{
		everything,
		{From: middle, To: now.Add(24 * time.Hour)},
		{From: now.Add(-time.Hour), To: middle},
		{From: now.Add(-48 * time.Hour), To: now.Add(-47 * time.Hour)},
	}
	for _, kind := range []string{"held", "confirmed", "event_revised", "waiter_prioritized", "signed_in", "role_changed", "never_heard_of"} {
		with := everything
		with.Kind = kind
		filters = append(filters, with, evently.AuditFilter{Event: events[0], Kind: kind}, evently.AuditFilter{User: 3, Kind: kind})
	}
	for _, event := range events {
		filters = append(filters, evently.AuditFilter{Event: event}, evently.AuditFilter{Event: event, From: middle},
			evently.AuditFilter{Event: event, To: middle}, evently.AuditFilter{Event: event, User: 5},
			evently.AuditFilter{Event: event, From: middle.Add(-time.Minute), To: middle.Add(time.Minute)})
		for _, token := range tokens[event][:10] {
			filters = append(filters, evently.AuditFilter{Event: event, Token: token}, evently.AuditFilter{Event: event, Token: token, User: 5},
				evently.AuditFilter{Event: event, Token: token, Kind: "cancelled"})
		}
	}
	for user := range evently.UserID(21) {
		filters = append(filters, evently.AuditFilter{User: user + 1}, evently.AuditFilter{User: user + 1, From: middle})
	}
	total := 0
	for _, filter := range filters {
		want := b.auditedByHand(filter)
		total += len(want)
		for _, limit := range []int{1, 7, 100} {
			if limit == 1 && len(want) > 60 {
				continue
			}
			var got []string
			for _, record := range b.audited(filter, limit) {
				got = append(got, auditName(record))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%+v, %d a page:\ngot  %v\nwant %v", filter, limit, got, want)
			}
		}
	}
	if total < 1000 {
		t.Errorf("%d records are listed in all: the test shows little", total)
	}
}

func TestAudit_RecordsSayWhatWasBefore(t *testing.T) {
	b := newBench(t, JournalConfig{})
	b.history()
	now := time.Now()
	all := b.audited(evently.AuditFilter{From: now.Add(-24 * time.Hour), To: now.Add(24 * time.Hour)}, 100)
	slices.Reverse(all)
	before := make(map[evently.EventID]*evently.Event)
	priorities := make(map[evently.Token]int)
	changed, ranked := 0, 0
	slices.SortStableFunc(all, func(x, y *evently.AuditRecord) int {
		if x.Entry == nil || y.Entry == nil || x.Entry.EventID != y.Entry.EventID {
			return 0
		}
		return cmp.Compare(x.Entry.Seq, y.Entry.Seq)
	})
	for _, record := range all {
		switch e := record.Entry; {
		case e == nil:
			if record.Security.Detail["from"] != "user" || record.RequestID != "r" || record.Security.IP == "" {
				t.Errorf("%s is %+v", auditName(record), record.Security)
			}
		case e.Event != nil:
			was := before[e.EventID]
			if (was == nil) != (e.Before == nil) || was != nil && (e.Before.Version != was.Version || e.Before.Name != was.Name) {
				t.Errorf("%s: before was %+v, want %+v", auditName(record), e.Before, was)
			}
			before[e.EventID] = e.Event
			changed++
		case e.Kind == evently.WaiterPrioritizedEntry:
			if e.PriorityWas != priorities[e.Token] {
				t.Errorf("%s: the priority was %d, want %d", auditName(record), e.PriorityWas, priorities[e.Token])
			}
			priorities[e.Token] = e.Priority
			ranked++
		case e.User == 0 || e.Items.Len() == 0 || record.User != e.User:
			t.Errorf("%s has the user %s and items %+v", auditName(record), e.User, e.Items)
		}
	}
	if changed < 10 {
		t.Errorf("%d changes of events, %d of priorities: the test shows little", changed, ranked)
	}
}

// Whoever goes from page to page while others write sees each record that was there at the beginning once, and none twice.
func TestAudit_PagesAreExactWhileOthersWrite(t *testing.T) {
	t.Parallel()
	b := newBench(t, JournalConfig{})
	b.history()
	now := time.Now()
	filter := evently.AuditFilter{From: now.Add(-24 * time.Hour), To: now.Add(24 * time.Hour)}
	want := b.auditedByHand(filter)
	o := b.acquire(b.event(100_000))
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for range 500 { // they stand in the list, too
			if ctx.Err() != nil {
				return
			}
			o.book(evently.Item{Quantity: 1})
			if err := o.Flush(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 5 {
		seen := make(map[string]int)
		for _, record := range b.audited(filter, 9) {
			seen[auditName(record)]++
		}
		for name, n := range seen {
			if n != 1 {
				t.Errorf("%s is listed %d times", name, n)
			}
		}
		for _, name := range want {
			if seen[name] != 1 {
				t.Errorf("%s is missing", name)
			}
		}
	}
	stop()
	writing.Wait()
}

func TestAudit_TimeIsBoundedUnlessAnEventOrAUserIsGiven(t *testing.T) {
	b := newBench(t, JournalConfig{})
	now := time.Now()
	for _, filter := range []evently.AuditFilter{
		{}, {Kind: "held"}, {From: now}, {To: now}, {From: now.Add(-evently.AuditRangeMax - time.Second), To: now},
	} {
		var refusal *evently.Error
		_, _, err := NewAudit(b.pool).Records(t.Context(), filter, evently.Page{Limit: 10})
		if !errors.As(err, &refusal) || refusal.Code != evently.CodeInvalidRequest {
			t.Errorf("%+v: got %v, want %s", filter, err, evently.CodeInvalidRequest)
		}
	}
}

// Behind a pooler that lends out connections for single transactions.
func TestAudit_StreamsAndReplaysWithoutPreparedStatements(t *testing.T) {
	url := pgtest.Database(t)
	b := benchOn(t, openPool(t, url, 8), JournalConfig{})
	events, tokens := b.history()
	b.pool = openPool(t, with(url, "default_query_exec_mode=exec"), 8)
	now := time.Now()
	for _, filter := range []evently.AuditFilter{
		{From: now.Add(-24 * time.Hour), To: now.Add(24 * time.Hour)},
		{Event: events[0]},
		{Event: events[0], Kind: "event_revised"},
		{User: 3},
		{Event: events[1], Token: tokens[events[1]][0]},
	} {
		want := b.auditedByHand(filter)
		if got := b.audited(filter, 20); len(got) != len(want) || len(want) == 0 {
			t.Errorf("%+v: %d records, want %d", filter, len(got), len(want))
		}
	}
	states, err := NewStreams(b.pool).Recent(t.Context(), events[0], 10)
	if err != nil || len(states) != 10 {
		t.Errorf("%d states (%v), want 10", len(states), err)
	}
	if states, err := NewStreams(b.pool).Newer(t.Context(), []evently.Mark{{Event: events[0], Seq: 1}}); err != nil || len(states) != 1 {
		t.Errorf("%d states (%v), want 1", len(states), err)
	}
	if past, err := ReplayEvent(t.Context(), b.pool, events[0], Moment{At: now.Add(time.Hour)}, nil); err != nil || past.Entry.Seq != states[9].Seq {
		t.Errorf("got %+v (%v), want the state after entry %d", past, err, states[9].Seq)
	}
	b.exec(oldSecuritySQL, now, 500*24)
	if swept, err := NewRetention(b.pool, discard).Sweep(t.Context(), now); err != nil || swept.SecurityLog == 0 {
		t.Errorf("swept %+v (%v)", swept, err)
	}
}
