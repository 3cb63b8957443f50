package store

import (
	"cmp"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evently/evently"
)

// cell is a row of sums, and sums what it has: bookings, cancellations, their tickets, holds, those that expired and that were released,
// joined, left and served waiters, and the money of bookings and cancellations.
type (
	cell struct {
		scope    int
		id       int64
		bucket   time.Time // zero: of all times
		currency string
	}
	sums [12]int64
)

// counter counts by hand what analytics have to tell, entry by entry.
type counter struct {
	mu    sync.Mutex
	cells map[cell]sums
	done  int // operations
}

func newCounter() *counter { return &counter{cells: map[cell]sums{}} }

// sold is a reservation of which the counter has seen the first entry.
type sold struct {
	seats, price int64
	confirmed    bool
}

func (c *counter) count(event *evently.Event, reservations map[evently.Token]*sold, e *evently.Entry) {
	var s sums
	switch e.Kind {
	case evently.HeldEntry:
		reservations[e.Token] = &sold{seats: int64(e.Items.Quantity()), price: e.Items.TotalMinor()}
		s[4] = 1
		if e.Waiter {
			s[9] = 1
		}
	case evently.ConfirmedEntry:
		r := reservations[e.Token]
		r.confirmed = true
		s[0], s[2], s[10] = 1, r.seats, r.price
	case evently.CancelledEntry:
		if r := reservations[e.Token]; r.confirmed {
			s[1], s[3], s[11] = 1, r.seats, r.price
		} else {
			s[6] = 1
		}
	case evently.ExpiredEntry:
		s[5] = 1
	case evently.WaitlistedEntry:
		s[7] = 1
	case evently.WaiterLeftEntry:
		s[8] = 1
	default:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for scope, id := range []int64{0, int64(event.Organizer), int64(event.ID)} {
		for _, bucket := range []time.Time{{}, e.At.Truncate(evently.AnalyticsBucket)} {
			at := cell{scope, id, bucket, event.Currency}
			total := c.cells[at]
			for i := range s {
				total[i] += s[i]
			}
			c.cells[at] = total
		}
	}
}

func (c *counter) did() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
}

// tally is the rows of a scope by quarters of an hour, in the order of time.
type (
	tally    []tallyRow
	tallyRow struct {
		cell
		sums
	}
)

func (c *counter) tally(scope int, id int64) (rows tally) {
	for at, s := range c.cells {
		if at.scope == scope && at.id == id && !at.bucket.IsZero() {
			rows = append(rows, tallyRow{at, s})
		}
	}
	slices.SortFunc(rows, func(a, b tallyRow) int { return a.bucket.Compare(b.bucket) })
	return rows
}

// within sums up the buckets in [from, to).
func (t tally) within(from, to time.Time) evently.Sums {
	byCurrency := map[string]sums{}
	for i := sort.Search(len(t), func(i int) bool { return !t[i].bucket.Before(from) }); i < len(t) && t[i].bucket.Before(to); i++ {
		total := byCurrency[t[i].currency]
		for n := range total {
			total[n] += t[i].sums[n]
		}
		byCurrency[t[i].currency] = total
	}
	var all evently.Sums
	for _, currency := range slices.Sorted(maps.Keys(byCurrency)) {
		s, revenue := new(evently.Sums), evently.Revenue{Currency: currency}
		for i, field := range sumFields(s, &revenue) {
			*field.(*int64) = byCurrency[currency][i]
		}
		add(&all, s, revenue)
	}
	return all
}

// trade carries out n random operations that take effect on an event, and writes their entries, which it counts.
func (c *counter) trade(b *bench, event *evently.Event, n int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2))
	tenure, err := b.journal.Acquire(b.Context(), event.ID)
	if err != nil {
		b.Error(err)
		return
	}
	reservations := map[evently.Token]*sold{}
	ledger, at := tenure.Ledger, event.CreatedAt
	var decision evently.Decision
	var entries []evently.Entry
	flush := func() bool {
		outcome := make(chan error, 1)
		var counts evently.Availability
		ledger.Availability(&counts)
		err := b.journal.Append(&evently.Batch{
			Event: event.ID, Epoch: tenure.Epoch, Owner: tenure.Owner, PrevSeq: ledger.Seq() - uint64(len(entries)), Entries: entries,
			Tiers: counts.Tiers, Waiting: counts.Waiting, NextDue: ledger.NextDue(), Done: func(_ time.Time, err error) { outcome <- err },
		})
		if err == nil {
			err = <-outcome
		}
		if err != nil {
			b.Errorf("append to %s: %v", event.ID, err)
		}
		entries = nil
		return err == nil
	}
	var tokens []evently.Token
	owner := map[evently.Token]evently.UserID{}
	pick := func() evently.Token { return tokens[random.IntN(len(tokens))] }
	for i := 0; i < n; {
		at = at.Add(time.Duration(random.Int64N(120_000)) * time.Millisecond)
		user := evently.UserID(1 + random.IntN(50))
		token := evently.Token(random.Uint64() | 1)
		items, err := evently.NewItems(evently.Item{Tier: 0, Quantity: 1 + random.IntN(4)})
		if len(event.Tiers) > 1 && random.IntN(3) == 0 {
			items, err = evently.NewItems(evently.Item{Tier: 0, Quantity: 1 + random.IntN(3)}, evently.Item{Tier: 1, Quantity: 1 + random.IntN(3)})
		}
		if err != nil {
			b.Error(err)
			return
		}
		var command evently.Command
		switch p := random.IntN(1000); {
		case p < 340 || len(tokens) == 0:
			command = &evently.Book{User: user, Key: evently.Key{Hi: uint64(token), Lo: 1}, Items: items, Token: token}
		case p < 640:
			picked := pick()
			command = &evently.Confirm{User: owner[picked], Token: picked}
		case p < 780:
			picked := pick()
			command = &evently.Cancel{User: owner[picked], Token: picked}
		case p < 840:
			picked := pick()
			command = &evently.Release{User: owner[picked], Token: picked}
		case p < 900:
			command = &evently.Expire{}
		case p < 970:
			onRelease := evently.OnRelease(random.IntN(2))
			command = &evently.JoinWaitlist{User: user, Key: evently.Key{Hi: uint64(token), Lo: 2}, Items: items, OnRelease: onRelease, Token: token}
		case p < 985:
			command = &evently.LeaveWaitlist{User: user}
		case p < 994:
			details := ledger.Event().EventDetails
			details.Tiers = slices.Clone(details.Tiers)
			details.Tiers[0].Capacity = 60 + random.IntN(150)
			details.Tiers[0].PriceMinor = int64(random.IntN(5000))
			command = &evently.Revise{Version: ledger.Event().Version, Details: details}
		case p < 998:
			rule := &evently.PricingRule{Step: evently.PriceStep{EverySeats: 5, AddMinor: 17}}
			command = &evently.SetPricing{Version: ledger.Event().Version, Rule: rule}
		default:
			command = &evently.Reprice{}
		}
		if i >= n-40 && seed%8 == 0 && ledger.Event().Status == evently.EventPublished {
			command = &evently.CancelEvent{}
		}
		if err := ledger.Decide(command, at, &decision); err != nil || len(decision.Entries) == 0 {
			if ledger.Event().Status == evently.EventCancelled {
				break // that was the last one
			}
			continue
		}
		i++
		c.did()
		for j := range decision.Entries {
			entry := &decision.Entries[j]
			ledger.Post(entry)
			entries = append(entries, *entry)
			c.count(event, reservations, entry)
			if entry.Kind == evently.HeldEntry {
				owner[entry.Token] = entry.User
				if tokens = append(tokens, entry.Token); len(tokens) > 40 { // those who come later choose among the latest
					tokens = tokens[15:]
				}
			}
		}
		if len(entries) > 100 && !flush() {
			return
		}
	}
	flush()
}

// readCells reads the sums that are shown.
func (b *bench) readCells() map[cell]sums {
	b.Helper()
	rows, err := b.pool.Query(b.Context(), `
		select scope, id, nullif(bucket, '-infinity'), currency, bookings, cancellations, tickets_booked, tickets_cancelled, holds, holds_expired,
			holds_released, waitlist_joined, waitlist_left, waitlist_served, gross_minor::int8, cancelled_minor::int8
		from analytics_sums where generation = (select generation from analytics_generation)`)
	if err != nil {
		b.Fatal(err)
	}
	cells := map[cell]sums{}
	for rows.Next() {
		var at cell
		var s sums
		var bucket *time.Time
		fields := []any{&at.scope, &at.id, &bucket, &at.currency}
		for i := range s {
			fields = append(fields, &s[i])
		}
		if err := rows.Scan(fields...); err != nil {
			b.Fatal(err)
		}
		at.bucket = timeOf(bucket)
		if s != (sums{}) { // else only of the capacity
			cells[at] = s
		}
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	return cells
}

// bruteSQL counts the same from the rows of reservations and waiters, by the quarter of an hour of all events together.
const bruteSQL = `
with r as (
    select *, quantity + coalesce((select sum((i ->> 'quantity')::int8) from jsonb_array_elements(more) i), 0) as seats,
        quantity * unit_price + coalesce((select sum((i ->> 'quantity')::int8 * (i ->> 'unit_price')::int8) from jsonb_array_elements(more) i), 0)
            as price
    from reservations
), fact as (
    select confirmed_at as at, event_id, 1 as bookings, 0 as cancellations, seats as booked, 0 as cancelled, price as gross, 0 as back
    from r where confirmed_at is not null
    union all
    select ended_at, event_id, 0, 1, 0, seats, 0, price from r where confirmed_at is not null and status = 2
)
select to_timestamp(floor(extract(epoch from at) / 900) * 900), e.currency, sum(bookings)::int8, sum(cancellations)::int8, sum(booked)::int8,
    sum(cancelled)::int8, sum(gross)::int8, sum(back)::int8
from fact join events e using (event_id)
group by 1, 2`

func (b *bench) bruteForce(cells map[cell]sums) {
	b.Helper()
	rows, err := b.pool.Query(b.Context(), bruteSQL)
	if err != nil {
		b.Fatal(err)
	}
	counted := map[cell][6]int64{}
	for rows.Next() {
		var at cell
		var s [6]int64
		if err := rows.Scan(&at.bucket, &at.currency, &s[0], &s[1], &s[2], &s[3], &s[4], &s[5]); err != nil {
			b.Fatal(err)
		}
		at.bucket = at.bucket.UTC()
		counted[at] = s
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	kept := map[cell][6]int64{}
	for at, s := range cells {
		if row := [6]int64{s[0], s[1], s[2], s[3], s[10], s[11]}; at.scope == 0 && !at.bucket.IsZero() && row != [6]int64{} {
			kept[at] = row
		}
	}
	if !maps.Equal(counted, kept) {
		b.Errorf("the rows and the sums differ (-rows +sums):\n%.4000s", gocmp.Diff(counted, kept, gocmp.AllowUnexported(cell{})))
	}
}

// marketplace is events of several organizers, around both changes of the clocks in Berlin.
func (b *bench) marketplace(events int) (list []*evently.Event) {
	b.Helper()
	for i := range events {
		event := newEvent(150)
		if i%3 == 0 {
			event = newEvent(100, 60)
		}
		event.Organizer = evently.UserID(1 + i%5)
		event.Currency = []string{"EUR", "USD", "JPY"}[i%3]
		event.CreatedAt = time.Date(2026, 3, 27, 20, i, 0, 0, time.UTC)
		if i%2 == 1 {
			event.CreatedAt = time.Date(2026, 10, 23, 19, i, 0, 0, time.UTC)
		}
		event.StartsAt = event.CreatedAt.Add(60 * 24 * time.Hour)
		event.EndsAt, event.HoldTTL = event.StartsAt.Add(time.Hour), 90*time.Minute
		if _, err := b.events.CreateEvent(b.Context(), event, event.Organizer, "create"); err != nil {
			b.Fatal(err)
		}
		list = append(list, event)
	}
	return list
}

// summed waits until analytics have counted all.
func (b *bench) summed() {
	b.Helper()
	b.waitUntil("analytics have counted all", func() bool {
		return b.count(`select coalesce(sum(h.seq - coalesce(c.seq, 0)), 0) from event_heads h
			left join feed_cursors c on c.consumer = 'analytics' and c.event_id = h.event_id`) == 0
	})
}

// 100,000 operations by several events at once, while two nodes and a rebuild compete to count them.
func TestAnalytics_EqualABruteForceCount(t *testing.T) {
	const events, operations = 40, 100_000
	b := newBench(t, JournalConfig{})
	list := b.marketplace(events)
	small := AnalyticsConsumer()
	small.EntriesMax = 3000
	b.feeding(b.pool, small)
	b.feeding(b.pool, small)
	hand := newCounter()
	began := time.Now()
	var trading sync.WaitGroup
	for i, event := range list {
		trading.Go(func() { hand.trade(b, event, operations/events+20, uint64(i)) })
	}
	for range 3 { // whose work is compared below
		if _, err := RebuildAnalytics(t.Context(), b.pool, false); err != nil {
			t.Fatal(err)
		}
	}
	trading.Wait()
	traded := time.Since(began)
	b.summed()
	t.Logf("%d operations gave %d entries in %v, counted %v later", hand.done, b.count("select count(*) from journal"), traded, time.Since(began)-traded)

	cells := b.readCells()
	if !maps.Equal(hand.cells, cells) {
		t.Errorf("counted by hand and by Postgres (-hand +Postgres):\n%.4000s", gocmp.Diff(hand.cells, cells, gocmp.AllowUnexported(cell{})))
	}
	b.bruteForce(cells)
	if s := hand.tally(0, 0).within(time.Time{}.Add(1), time.Now().Add(1e6*time.Hour)); hand.done < operations || s.Bookings < 10_000 || s.Cancellations < 5000 || s.HoldsExpired < 2000 ||
		s.HoldsReleased < 500 || s.WaitlistServed < 500 || s.WaitlistLeft < 50 || len(s.Revenue) != 3 {
		t.Errorf("the operations are not mixed: %+v", s)
	}
	b.answersAre(hand, list)
	rebuilt, err := RebuildAnalytics(t.Context(), b.pool, true)
	if err != nil || len(rebuilt.Differences) > 0 || rebuilt.Swapped || rebuilt.Sums == 0 ||
		int(rebuilt.Entries) != b.count("select count(*) from journal") {
		t.Errorf("%+v %v", rebuilt, err)
	}
	b.verify()
}

// answersAre compares what the port answers with the count by hand.
func (b *bench) answersAre(hand *counter, list []*evently.Event) {
	b.Helper()
	analytics := NewAnalytics(b.pool)
	ctx := b.Context()
	old, late := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	spring := time.Date(2026, 3, 29, 0, 7, 0, 0, time.UTC)
	for _, scope := range []struct {
		asked evently.AnalyticsScope
		kind  int
		id    int64
	}{{evently.AnalyticsScope{}, 0, 0}, {evently.AnalyticsScope{Organizer: 3}, 1, 3}, {evently.AnalyticsScope{Event: list[9].ID}, 2, int64(list[9].ID)}} {
		counted := hand.tally(scope.kind, scope.id)
		for _, part := range []struct{ from, to, countFrom, countTo time.Time }{
			{countFrom: old, countTo: late},
			{from: spring, countFrom: spring.Truncate(15 * time.Minute), countTo: late},
			{to: spring, countFrom: old, countTo: spring.Truncate(15 * time.Minute).Add(15 * time.Minute)},
			{spring, spring.Add(5 * time.Hour), spring.Truncate(15 * time.Minute), spring.Truncate(15 * time.Minute).Add(5*time.Hour + 15*time.Minute)},
		} {
			got, err := analytics.Summary(ctx, scope.asked, part.from, part.to)
			if err != nil {
				b.Fatal(err)
			}
			want := counted.within(part.countFrom, part.countTo)
			if diff := gocmp.Diff(want, got.Sums, cmpopts.EquateEmpty()); diff != "" || got.AsOf.IsZero() {
				b.Errorf("summary of %+v in %+v (-want +got):\n%s", scope, part, diff)
			}
		}
		// The booked seats and the capacity are those of the heads.
		got, err := analytics.Summary(ctx, scope.asked, time.Time{}, time.Time{})
		if err != nil {
			b.Fatal(err)
		}
		booked := b.count(`select coalesce(sum(s), 0) from event_heads join events e using (event_id) cross join unnest(booked) s
			where ($1 = 0::int8 or e.organizer = $1) and ($2 = 0::int8 or e.event_id = $2)`, int64(scope.asked.Organizer), int64(scope.asked.Event))
		capacity := b.count(`select coalesce(sum(s), 0) from event_heads join events e using (event_id) cross join unnest(capacity) s
			where status = 1 and ($1 = 0::int8 or e.organizer = $1) and ($2 = 0::int8 or e.event_id = $2)`, int64(scope.asked.Organizer), int64(scope.asked.Event))
		if int(got.Booked) != booked || int(got.Capacity) != capacity {
			b.Errorf("%+v: booked %d of %d, want %d of %d", scope, got.Booked, got.Capacity, booked, capacity)
		}
		for _, zone := range []string{"Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"} {
			location, err := time.LoadLocation(zone)
			if err != nil {
				b.Fatal(err)
			}
			var bounds []time.Time
			for day := range 260 {
				bounds = append(bounds, time.Date(2026, 3, 1+day, 0, 0, 0, 0, location))
			}
			series, err := analytics.Series(ctx, scope.asked, bounds)
			if err != nil {
				b.Fatal(err)
			}
			for i, point := range series.Points {
				want := counted.within(bounds[i], bounds[i+1])
				if diff := gocmp.Diff(want, point, cmpopts.EquateEmpty()); diff != "" {
					b.Errorf("%+v on the day from %v (-want +got):\n%s", scope, bounds[i], diff)
				}
			}
		}
	}
	b.leadersAre(hand, list)
}

func (b *bench) leadersAre(hand *counter, list []*evently.Event) {
	b.Helper()
	from, to := time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)
	for name, ask := range map[string]evently.Leaders{
		"by tickets":               {Order: evently.ByTickets, Limit: 7},
		"by tickets in a time":     {Order: evently.ByTickets, From: from, To: to, Limit: 100},
		"by revenue":               {Order: evently.ByRevenue, Currency: "USD", Organizer: 2, Limit: 100},
		"by revenue in a time":     {Order: evently.ByRevenue, Currency: "EUR", From: from, To: to, Limit: 3},
		"by utilization":           {Order: evently.ByUtilization, Limit: 100},
		"by utilization in a time": {Order: evently.ByUtilization, From: from, To: to, Limit: 100},
	} {
		got, _, err := NewAnalytics(b.pool).Leaders(b.Context(), ask)
		if err != nil {
			b.Fatal(err)
		}
		type rank struct {
			merit float64
			id    evently.EventID
		}
		var want []rank
		for _, event := range list {
			low, high := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
			if !ask.From.IsZero() {
				low, high = ask.From, ask.To
			}
			s := hand.tally(2, int64(event.ID)).within(low, high)
			merit := float64(s.Tickets())
			switch {
			case ask.Order == evently.ByRevenue && len(s.Revenue) > 0:
				merit = float64(s.Revenue[0].NetMinor())
			case ask.Order == evently.ByUtilization:
				if s.Holds+s.HoldsExpired+s.WaitlistJoined == 0 {
					continue // not in that time
				}
				merit = float64(b.count("select sum(s) from event_heads cross join unnest(booked) s where event_id = $1", int64(event.ID))) /
					float64(b.count("select sum(s) from event_heads cross join unnest(capacity) s where event_id = $1", int64(event.ID)))
			}
			if merit > 0 && (ask.Currency == "" || ask.Currency == event.Currency) && (ask.Organizer == 0 || ask.Organizer == event.Organizer) {
				want = append(want, rank{merit, event.ID})
			}
		}
		slices.SortFunc(want, func(a, b rank) int {
			return cmp.Or(cmp.Compare(b.merit, a.merit), cmp.Compare(int64(a.id), int64(b.id)))
		})
		want = want[:min(len(want), ask.Limit)]
		var gotIDs, wantIDs []evently.EventID
		for i := range got {
			gotIDs = append(gotIDs, got[i].Event)
			if got[i].Name == "" || got[i].Currency == "" {
				b.Errorf("%s: %+v", name, got[i])
			}
		}
		for _, r := range want {
			wantIDs = append(wantIDs, r.id)
		}
		if len(want) == 0 || !slices.Equal(gotIDs, wantIDs) {
			b.Errorf("%s: got %v, want %v", name, gotIDs, want)
		}
	}
}

func TestAnalytics_RebuildFindsAndMendsWhatIsWrong(t *testing.T) {
	b := newBench(t, JournalConfig{})
	list := b.marketplace(4)
	hand := newCounter()
	for i, event := range list {
		hand.trade(b, event, 500, uint64(i))
	}
	_, stop := b.feeding(b.pool, AnalyticsConsumer())
	b.summed()
	b.waitUntil("a round is complete", func() bool { return b.count("select count(*) from consumers where as_of is not null") == 1 })
	stop()
	damaged := int64(list[2].ID)
	b.exec("update analytics_sums set tickets_booked = tickets_booked + 1 where scope = 2 and id = $1 and bucket = '-infinity'", damaged)
	b.exec("delete from analytics_sums where scope = 1 and id = 2 and bucket = (select min(bucket) from analytics_sums where bucket > '-infinity' and scope = 1 and id = 2)")
	b.exec("insert into parked_entries (consumer, event_id, seq, error, at) values ('analytics', 1, 1, 'x', now())")
	b.exec(`insert into feed_cursors (consumer, event_id, seq) values ('analytics.rebuild', $1, 5)`, damaged) // of one that was killed
	b.exec(`insert into analytics_sums select 7, scope, id, bucket, currency, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9 from analytics_sums`)
	before := b.readCells()
	for _, dryRun := range []bool{true, false} {
		rebuilt, err := RebuildAnalytics(t.Context(), b.pool, dryRun)
		if err != nil {
			t.Fatal(err)
		}
		if len(rebuilt.Differences) != 2 || rebuilt.Swapped == dryRun {
			t.Fatalf("%+v", rebuilt)
		}
		missing, changed := rebuilt.Differences[0], rebuilt.Differences[1]
		if missing.Organizer != 2 || missing.Shown != "" || missing.Bucket.IsZero() || !strings.Contains(missing.String(), "shown nothing") {
			t.Errorf("%v", missing)
		}
		if int64(changed.Event) != damaged || !changed.Bucket.IsZero() || !strings.Contains(changed.String(), "all times") {
			t.Errorf("%v", changed)
		}
		after := b.readCells()
		if dryRun && !maps.Equal(before, after) {
			t.Error("a dry run changed what is shown")
		}
		if !dryRun && !maps.Equal(hand.cells, after) {
			t.Error("after the rebuild the sums are still wrong")
		}
		if n := b.count(`select (select count(*) from analytics_sums where generation <> (select generation from analytics_generation))
			+ (select count(*) from feed_cursors where consumer = 'analytics.rebuild')`); n != 0 {
			t.Errorf("%d rows are left over", n)
		}
	}
	if n := b.count("select count(*) from parked_entries"); n != 0 {
		t.Errorf("%d entries are parked", n)
	}
	// What comes later is counted on the new sums.
	hand.trade(b, b.marketplace(1)[0], 300, 77)
	b.feeding(b.pool, AnalyticsConsumer())
	b.summed()
	if !maps.Equal(hand.cells, b.readCells()) {
		t.Error("after the rebuild entries are not counted right")
	}
}

func TestAnalytics_OneRebuildAtATime(t *testing.T) {
	b := newBench(t, JournalConfig{})
	conn, err := b.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), lockRebuildSQL); err != nil {
		t.Fatal(err)
	}
	if _, err := RebuildAnalytics(t.Context(), b.pool, false); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("got %v", err)
	}
	if _, err := conn.Exec(t.Context(), unlockRebuildSQL); err != nil {
		t.Fatal(err)
	}
	if _, err := RebuildAnalytics(t.Context(), b.pool, false); err != nil {
		t.Error(err)
	}
}

// Sums of money may be larger than 64 bits.
func TestAnalytics_MoneyDoesNotOverflow(t *testing.T) {
	b := newBench(t, JournalConfig{})
	event := newEvent(evently.CapacityMax)
	event.MaxPerBooking = 1000
	event.Tiers[0].PriceMinor, event.Tiers[0].BasePriceMinor = evently.PriceMinorMax, evently.PriceMinorMax
	if _, err := b.events.CreateEvent(t.Context(), event, 1, ""); err != nil {
		t.Fatal(err)
	}
	o := b.acquire(event.ID)
	for range 9300 {
		held := o.book(evently.Item{Quantity: 1000})
		o.decide(&evently.Confirm{User: 7, Token: held.ID.Token}, o.Now)
	}
	o.MustFlush()
	b.feeding(b.pool, AnalyticsConsumer())
	b.summed()
	b.waitUntil("a round is complete", func() bool { return b.count("select count(*) from consumers where as_of is not null") == 1 })
	got, err := NewAnalytics(b.pool).Summary(t.Context(), evently.AnalyticsScope{}, time.Time{}, time.Time{})
	if err != nil || got.Bookings != 9300 || got.Revenue[0].GrossMinor != 1<<63-1 {
		t.Errorf("%+v %v", got, err)
	}
	var exact string
	err = b.pool.QueryRow(t.Context(), "select gross_minor::text from analytics_sums where scope = 0 and bucket = '-infinity'").Scan(&exact)
	if err != nil || exact != "9300000"+strings.Repeat("0", 12) {
		t.Errorf("%s %v", exact, err)
	}
}

func TestAnalytics_WithoutAConsumerAreUnavailable(t *testing.T) {
	b := newBench(t, JournalConfig{})
	_, err := NewAnalytics(b.pool).Summary(t.Context(), evently.AnalyticsScope{}, time.Time{}, time.Time{})
	if !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// A row that came to nothing is no difference: how it did depends on the steps.
func TestAnalytics_RebuildPassesOverRowsOfZeros(t *testing.T) {
	b := newBench(t, JournalConfig{})
	stepwise := AnalyticsConsumer()
	stepwise.EntriesMax = 1
	b.feeding(b.pool, stepwise)
	o := b.acquire(b.event(100))
	b.summed()
	o.decide(&evently.CancelEvent{}, o.Now)
	o.MustFlush()
	b.summed()
	if n := b.count("select count(*) from analytics_sums where capacity = 0"); n != 3 {
		t.Fatalf("%d rows came to nothing, want 3", n)
	}
	rebuilt, err := RebuildAnalytics(t.Context(), b.pool, true)
	if err != nil || len(rebuilt.Differences) > 0 {
		t.Errorf("%+v %v", rebuilt, err)
	}
}
