package evently

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"
)

// spread is the splitmix64 finalizer: a cheap bijection that makes counters look like random ids.
func spread(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// turnover keeps a ledger at a constant size: every round books one reservation, releases the one that was booked `live`
// rounds before, and lets time go on so far that the ledger forgets the one that was released `live` rounds before that.
type turnover struct {
	ledger  *Ledger
	live    uint64
	round   uint64
	step    time.Duration
	at      time.Time
	asked   []Items // taken in turn
	book    Book
	release Release
	d       Decision
}

// newTurnover makes a turnover of an event of some tiers. A booking is of one tier, or of all.
func newTurnover(live, tiers int, all bool) *turnover {
	event := newTestEvent(tiers, CapacityMax/tiers)
	event.HoldTTL = HoldTTLMax
	step := max(time.Millisecond, (KeyRetention / time.Duration(live)).Truncate(time.Millisecond))
	t := &turnover{ledger: newTestLedger(event), live: uint64(live), step: step, at: epoch}
	for tier := range tiers {
		t.asked = append(t.asked, OneItem(seats(tier, 1)))
	}
	if all {
		var items []Item
		for tier := range tiers {
			items = append(items, seats(tier, 1))
		}
		t.asked = []Items{mustItems(items...)}
	}
	for range 3 * live {
		t.do()
	}
	return t
}

func (t *turnover) do() {
	t.at = t.at.Add(t.step)
	token := spread(t.round)
	t.book = Book{
		User: UserID(token | 1), Key: Key{spread(token), token}, Token: Token(token), Items: t.asked[token%uint64(len(t.asked))],
	}
	t.decide(&t.book)
	if t.round >= t.live {
		token := spread(t.round - t.live)
		t.release = Release{User: UserID(token | 1), Token: Token(token)}
		t.decide(&t.release)
	}
	t.round++
}

func (t *turnover) decide(cmd Command) {
	if err := t.ledger.Decide(cmd, t.at, &t.d); err != nil {
		panic(err)
	}
	if len(t.d.Entries) != 1 {
		panic(fmt.Sprintf("%T: %d entries", cmd, len(t.d.Entries)))
	}
	t.ledger.Post(&t.d.Entries[0])
}

// One operation is a Book and a Release, each decided and posted, and the forgetting of a third reservation.
func BenchmarkLedger_Book(b *testing.B) {
	for _, live := range []int{1_000, 500_000} {
		for _, shape := range []struct {
			name  string
			tiers int
			all   bool
		}{{"tiers=1", 1, false}, {"tiers=4", 4, false}, {"tiers=4,items=4", 4, true}} {
			b.Run(fmt.Sprintf("live=%d/%s", live, shape.name), func(b *testing.B) {
				t := newTurnover(live, shape.tiers, shape.all)
				b.ReportAllocs()
				for b.Loop() {
					t.do()
				}
				b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
			})
		}
	}
}

// day is the life of an event with a constant number of reservations: in each round one is booked, asked for again with its key and
// confirmed ten rounds later, and cancelled `live` rounds after that, another Book finds its tier sold out, and what was cancelled
// so long ago is forgotten.
type day struct {
	turnover
	confirm Confirm
	cancel  Cancel
	refused Book
}

// newDay makes a day that has begun `live` rounds ago and more.
func newDay(live int) *day {
	event := newTestEvent(2, CapacityMax/2)
	event.Tiers[1].Capacity = 1
	event.HoldTTL = HoldTTLMax
	step := max(time.Millisecond, (KeyRetention / time.Duration(live)).Truncate(time.Millisecond))
	d := &day{turnover: turnover{ledger: newTestLedger(event), live: uint64(live), step: step, at: epoch}}
	full := Book{User: 1, Key: Key{1, 1}, Token: 1, Items: OneItem(seats(1, 1))}
	d.decide(&full)
	d.refused = Book{User: 2, Token: 2, Items: OneItem(seats(1, 1))}
	for range 3 * live {
		d.do("mix")
	}
	return d
}

// do does one kind of command of a round, or all.
func (d *day) do(kind string) {
	all := kind == "mix"
	if all || kind == "book" {
		d.at = d.at.Add(d.step)
		token := spread(d.round)
		d.book = Book{User: UserID(token | 1), Key: Key{spread(token), token}, Token: Token(token), Items: OneItem(seats(0, 1))}
		d.decide(&d.book)
		d.round++
	}
	if (all || kind == "replay") && d.round > 10 {
		token := spread(d.round - 10)
		d.book = Book{User: UserID(token | 1), Key: Key{spread(token), token}, Token: 3, Items: OneItem(seats(0, 1))}
		if err := d.ledger.Decide(&d.book, d.at, &d.d); err != nil || !d.d.Replayed {
			panic(fmt.Sprintf("replayed %v, error %v", d.d.Replayed, err))
		}
	}
	if all && d.round > 10 {
		token := spread(d.round - 10)
		d.confirm = Confirm{User: UserID(token | 1), Token: Token(token)}
		d.decide(&d.confirm)
	}
	if all && d.round > d.live+10 {
		token := spread(d.round - d.live - 10)
		d.cancel = Cancel{User: UserID(token | 1), Token: Token(token)}
		d.decide(&d.cancel)
	}
	if all || kind == "refusal" {
		d.refused.Key = Key{spread(d.round), 2}
		if err := d.ledger.Decide(&d.refused, d.at, &d.d); !errors.Is(err, ErrSoldOut) {
			panic(err)
		}
	}
}

// One operation is a command of each kind, decided and posted, and the forgetting of a reservation.
func BenchmarkLedger_Mix(b *testing.B) {
	for _, live := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			d := newDay(live)
			b.ReportAllocs()
			for b.Loop() {
				d.do("mix")
			}
			const decisions = 5
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/decisions, "ns/decision")
			b.ReportMetric(decisions*float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}

// One operation is one command among 10,000 live reservations: batches of a kind follow each other, and only the named one is measured.
func BenchmarkLedger_Kinds(b *testing.B) {
	const live, batch = 10_000, 5_000
	tokens := func(from uint64, n int, do func(user UserID, token Token)) {
		for i := range uint64(n) {
			token := spread(from + i)
			do(UserID(token|1), Token(token))
		}
	}
	for _, measured := range []string{"book", "replay", "refusal", "confirm", "cancel"} {
		b.Run(measured, func(b *testing.B) {
			d := newDay(live)
			oldest := d.round - live - 9
			kinds := map[string]func(n int){
				"book":    func(n int) { repeat(n, d, "book") },
				"replay":  func(n int) { repeat(n, d, "replay") },
				"refusal": func(n int) { repeat(n, d, "refusal") },
				"confirm": func(n int) {
					tokens(d.round-uint64(n), n, func(user UserID, token Token) {
						d.confirm = Confirm{user, token}
						d.decide(&d.confirm)
					})
				},
				"cancel": func(n int) {
					tokens(oldest, n, func(user UserID, token Token) {
						d.cancel = Cancel{user, token}
						d.decide(&d.cancel)
					})
					oldest += uint64(n)
				},
			}
			for n := d.round - 9; n < d.round; n++ { // as if they had been there for long
				token := spread(n)
				d.confirm = Confirm{UserID(token | 1), Token(token)}
				d.decide(&d.confirm)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.StopTimer()
			for left := b.N; left > 0; left -= batch {
				for _, kind := range []string{"book", "replay", "refusal", "confirm", "cancel"} {
					if kind == measured {
						b.StartTimer()
					}
					kinds[kind](min(left, batch))
					b.StopTimer()
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}

func repeat(n int, d *day, kind string) {
	for range n {
		d.do(kind)
	}
}

func TestLedger_DecideAndPostAllocateNothing(t *testing.T) {
	for _, tiers := range []int{1, 4} {
		turnover := newTurnover(1000, tiers, false)
		if allocs := testing.AllocsPerRun(5000, turnover.do); allocs > 0 {
			t.Errorf("%d tiers: Book and Release allocate %v times", tiers, allocs)
		}
	}

	l := newTestLedger(newTestEvent(1, 1))
	mustDo(t, l, book(1, 1, seats(0, 1)), epoch)
	d := Decision{Entries: make([]Entry, 0, 1)}
	for name, cmd := range map[string]Command{
		"sold out":         book(2, 1, seats(0, 1)),
		"replayed":         book(1, 1, seats(0, 1)),
		"confirm":          &Confirm{User: 1, Token: 1},
		"cancel":           &Cancel{User: 1, Token: 1},
		"not found":        &Confirm{User: 1, Token: 2},
		"nothing to end":   &Expire{},
		"nothing to sweep": &Sweep{},
	} {
		if allocs := testing.AllocsPerRun(100, func() { _ = l.Decide(cmd, epoch, &d) }); allocs > 0 {
			t.Errorf("%s: Decide allocates %v times", name, allocs)
		}
	}
}

const million = 1_000_000

// bytesPerReservation is what one of a million holds costs, with everything that the ledger has for finding and ending it.
func bytesPerReservation() float64 {
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	l := newTestLedger(newTestEvent(4, CapacityMax/4))
	before := heap()
	fill(l, million)
	after := heap()
	runtime.KeepAlive(l)
	return (float64(after) - float64(before)) / million
}

func TestLedger_LiveReservationCosts100Bytes(t *testing.T) {
	got := bytesPerReservation()
	for range 2 {
		if got > 100 { // whatever else the process allocates meanwhile can only add to it
			got = bytesPerReservation()
		}
	}
	if got > 100 || got < float64(unsafe.Sizeof(record{})) {
		t.Fatalf("a live reservation costs %.1f bytes, want 100 at most", got)
	}
}

// One operation fills a ledger with 1,000,000 live reservations.
func BenchmarkLedger_Memory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(bytesPerReservation(), "B/reservation")
	}
}

// fill books n reservations of one seat each, 10,000 of them in a millisecond.
func fill(l *Ledger, n int) {
	var d Decision
	var cmd Book
	tiers := len(l.Event().Tiers)
	for i := range n {
		token := spread(uint64(i))
		cmd = Book{User: UserID(token | 1), Key: Key{spread(token), token}, Token: Token(token)}
		cmd.Items = OneItem(Item{Tier: i % tiers, Quantity: 1})
		if err := l.Decide(&cmd, epoch.Add(time.Duration(i)*100*time.Nanosecond), &d); err != nil {
			panic(err)
		}
		l.Post(&d.Entries[0])
	}
}

// One operation is a Book into a ledger that grows from nothing to 1,000,000 live reservations.
func BenchmarkLedger_BookGrowing(b *testing.B) {
	const size = million
	b.ReportAllocs()
	for left := b.N; left > 0; left -= size {
		fill(newTestLedger(newTestEvent(1, CapacityMax)), min(left, size))
	}
}

// One operation is a Confirm of one of 1,000,000 holds: in the order of booking, or in a random one.
func BenchmarkLedger_Confirm(b *testing.B) {
	const size = 1 << 20
	for _, order := range []string{"oldest", "random"} {
		b.Run(order, func(b *testing.B) {
			var d Decision
			var cmd Confirm
			var l *Ledger
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if i%size == 0 {
					b.StopTimer()
					l = newTestLedger(newTestEvent(1, CapacityMax))
					fill(l, size)
					b.StartTimer()
				}
				n := uint64(i % size)
				if order == "random" {
					n = n * 0x9e3779b1 % size
				}
				token := spread(n)
				cmd = Confirm{User: UserID(token | 1), Token: Token(token)}
				if err := l.Decide(&cmd, epoch, &d); err != nil {
					b.Fatal(err)
				}
				l.Post(&d.Entries[0])
			}
		})
	}
}

// One operation is a Book that is refused because no seat is left.
func BenchmarkLedger_SoldOut(b *testing.B) {
	const size = 100_000
	l := newTestLedger(newTestEvent(1, size))
	fill(l, size)
	var d Decision
	cmd := Book{User: 1, Items: OneItem(seats(0, 1))}
	b.ReportAllocs()
	for b.Loop() {
		cmd.Token++
		cmd.Key = Key{spread(uint64(cmd.Token)), 1}
		if err := l.Decide(&cmd, epoch, &d); err == nil {
			b.Fatal("booked beyond capacity")
		}
	}
}

// One operation is a Book whose key is known, among 1,000,000 reservations.
func BenchmarkLedger_BookAgain(b *testing.B) {
	const size = million
	l := newTestLedger(newTestEvent(1, CapacityMax))
	fill(l, size)
	var d Decision
	var cmd Book
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		token := spread(n % size)
		n += 0x9e3779b1
		cmd = Book{User: UserID(token | 1), Key: Key{spread(token), token}, Items: OneItem(seats(0, 1))}
		if err := l.Decide(&cmd, epoch, &d); err != nil || !d.Replayed {
			b.Fatal(err, d.Replayed)
		}
	}
}

// One operation expires 1,000,000 holds, SweepMax at a time.
func BenchmarkLedger_Expire1M(b *testing.B) {
	const size = million
	var d Decision
	for range b.N {
		b.StopTimer()
		l := newTestLedger(newTestEvent(1, CapacityMax))
		fill(l, size)
		b.StartTimer()
		for l.Live() > 0 {
			if err := l.Decide(&Expire{}, l.NextDue(), &d); err != nil {
				b.Fatal(err)
			}
			for i := range d.Entries {
				l.Post(&d.Entries[i])
			}
		}
	}
}

// One operation cancels an event with 1,000,000 reservations, SweepMax at a time, of which the first has already ended.
func BenchmarkLedger_CancelEvent1M(b *testing.B) {
	const size = million
	var d Decision
	for range b.N {
		b.StopTimer()
		l := newTestLedger(newTestEvent(1, CapacityMax))
		fill(l, size)
		token := spread(0)
		var cmd Command = &Release{User: UserID(token | 1), Token: Token(token)}
		b.StartTimer()
		for l.Live() > 0 {
			if err := l.Decide(cmd, epoch, &d); err != nil {
				b.Fatal(err)
			}
			for i := range d.Entries {
				l.Post(&d.Entries[i])
			}
			cmd = &CancelEvent{}
			if l.Event().Status == EventCancelled {
				cmd = &Sweep{}
			}
		}
	}
}

// history returns the entries of n Books, each confirmed, or released, or neither.
func history(n int) []Entry {
	l := newTestLedger(newTestEvent(4, CapacityMax/4))
	entries := make([]Entry, 0, 2*n)
	var d Decision
	decide := func(cmd Command, at time.Time) {
		if err := l.Decide(cmd, at, &d); err != nil {
			panic(err)
		}
		l.Post(&d.Entries[0])
		entries = append(entries, d.Entries[0])
	}
	for i := range n {
		token := spread(uint64(i))
		at := epoch.Add(time.Duration(i) * time.Microsecond)
		decide(&Book{User: 1, Key: Key{token, 1}, Token: Token(token), Items: OneItem(seats(i%4, 1))}, at)
		switch i % 3 {
		case 0:
			decide(&Confirm{User: 1, Token: Token(token)}, at)
		case 1:
			decide(&Release{User: 1, Token: Token(token)}, at)
		}
	}
	return entries
}

// One operation posts the journal of 300,000 reservations to a new ledger.
func BenchmarkLedger_Replay(b *testing.B) {
	entries := history(300_000)
	b.ReportAllocs()
	for b.Loop() {
		l := newTestLedger(newTestEvent(4, CapacityMax/4))
		for i := range entries {
			l.Post(&entries[i])
		}
	}
	b.ReportMetric(float64(len(entries)*b.N)/b.Elapsed().Seconds(), "entries/s")
}

// One operation restores 1,000,000 live reservations from what storage keeps of them.
func BenchmarkLedger_Restore1M(b *testing.B) {
	const size = million
	l := newTestLedger(newTestEvent(4, CapacityMax/4))
	fill(l, size)
	type row struct {
		reservation Reservation
		key         Key
	}
	rows := make([]row, size)
	for i := range rows {
		token := spread(uint64(i))
		rows[i].reservation, _ = l.Reservation(Token(token))
		rows[i].key = Key{spread(token), token}
	}
	b.ReportAllocs()
	for b.Loop() {
		restored := NewLedger(l.Event(), l.Seq(), epoch, 1)
		for i := range rows {
			r := &rows[i].reservation
			if err := restored.Restore(r, r.Seq, 0, rows[i].key); err != nil {
				b.Fatal(err)
			}
		}
	}
}
