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

// Rows are restored some at a time: all of them are, the live ones and those that have ended, wherever they stand.
func TestAcquire_LoadsEveryReservation(t *testing.T) {
	const cancelSQL = `
update reservations r set status = 2, ended_at = h.last_at + interval '2 minutes', seq = h.seq + r.user_id
from event_heads h where h.event_id = r.event_id and r.event_id = $1 and r.user_id % $3 = 0 and r.status = 1;
update event_heads h set seq = h.seq + $2, last_at = h.last_at + interval '2 minutes',
    booked[1] = (select count(*) from reservations r where r.event_id = h.event_id and r.status = 1) where h.event_id = $1`
	pool := openWire(t, pgtest.Database(t), new(wire))
	journal := OpenJournal(pool, JournalConfig{})
	defer journal.Close()
	for _, count := range []int{0, 1, restoredTogether - 1, restoredTogether, restoredTogether + 1, 5 * restoredTogether, 1000} {
		for _, every := range []int{1, 2, 7} {
			event := newEvent(1000)
			if _, err := NewCatalogue(pool).CreateEvent(t.Context(), event, 1, "create"); err != nil {
				t.Fatal(err)
			}
			statement := strings.NewReplacer("$1", strconv.FormatInt(int64(event.ID), 10), "$2", fmt.Sprint(count), "$3", fmt.Sprint(every)).
				Replace(fillReservationsSQL + ";" + cancelSQL)
			if _, err := pool.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			tenure, err := journal.Acquire(t.Context(), event.ID)
			if err != nil {
				t.Fatalf("%d reservations, one of %d cancelled: %v", count, every, err)
			}
			rows, err := pool.Query(t.Context(), "select token, status, user_id from reservations where event_id = $1", int64(event.ID))
			if err != nil {
				t.Fatal(err)
			}
			var token, user int64
			var status evently.ReservationStatus
			known, live := 0, 0
			if _, err := pgx.ForEachRow(rows, []any{&token, &status, &user}, func() error {
				known++
				if status.Live() {
					live++
				}
				got, found := tenure.Ledger.Reservation(evently.Token(token))
				if !found || got.Status != status || got.User != evently.UserID(user) {
					return fmt.Errorf("%d of %d, one of %d cancelled: got %+v, %v; the row is of user %d and %s", user, count, every, got, found, user, status)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if known != count || tenure.Ledger.Live() != live {
				t.Errorf("%d rows of %d, %d live of %d", known, count, tenure.Ledger.Live(), live)
			}
		}
	}
}
