package store

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

// fillReservationsSQL gives the event $1, of one tier, $2 live reservations: four of five are confirmed, as after a sale.
const fillReservationsSQL = `
insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, confirmed_at, created_seq,
    confirmed_seq, seq, key)
select event_id, hashint8extended(i, 1), i, (i % 5 > 0)::int, 0, 1, 1200, last_at, last_at + interval '1 day',
    case when i % 5 > 0 then last_at + interval '1 minute' end, 1 + i, case when i % 5 > 0 then 1 + $2 + i end,
    case when i % 5 > 0 then 1 + $2 + i else 1 + i end, md5(i::text)::uuid
from event_heads, generate_series(1, $2::int8) i where event_id = $1;

update event_heads set seq = 1 + 2 * $2, held[1] = $2 / 5, booked[1] = $2 - $2 / 5 where event_id = $1`

// One operation is the acquisition of an event with many live reservations.
func BenchmarkJournal_AcquireLive(b *testing.B) {
	for _, live := range []int{100_000, 1_000_000} {
		b.Run(strconv.Itoa(live), func(b *testing.B) {
			pool := openWire(b, pgtest.Database(b), new(wire))
			journal := OpenJournal(pool, JournalConfig{})
			defer journal.Close()
			event := newEvent(evently.CapacityMax)
			if _, err := NewCatalogue(pool).CreateEvent(b.Context(), event, 1, "create"); err != nil {
				b.Fatal(err)
			}
			fill := strings.NewReplacer("$1", strconv.FormatInt(int64(event.ID), 10), "$2", fmt.Sprint(live)).Replace(fillReservationsSQL)
			if _, err := pool.Exec(b.Context(), fill, pgx.QueryExecModeSimpleProtocol); err != nil {
				b.Fatal(err)
			}
			if _, err := pool.Exec(b.Context(), "vacuum analyze reservations"); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				tenure, err := journal.Acquire(b.Context(), event.ID)
				if err != nil || tenure.Ledger.Live() != live {
					b.Fatalf("%+v %v", tenure, err)
				}
			}
		})
	}
}
