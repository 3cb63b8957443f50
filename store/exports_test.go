package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
	"github.com/evently/evently/store/storetest"
)

func TestExport_HasEachReservationOnceWithItsUser(t *testing.T) {
	b := benchOn(t, openPool(t, pgtest.Database(t), 8), JournalConfig{})
	event, other := b.event(200), b.event(200)
	for user := range 3 {
		b.exec(`insert into users (user_id, email, name, role, password_hash, email_verified, created_at)
			values ($1, $2, $3, 0, '', true, now())`, user+1, fmt.Sprintf("user%d@example.com", user+1), fmt.Sprint("=User ", user+1))
	}
	for _, id := range []evently.EventID{event, other} {
		office := storetest.OpenOffice(t, b.journal, id)
		at := office.Now.Truncate(time.Millisecond).Add(time.Second)
		for i := range 25 {
			user := evently.UserID(1 + i%4) // nobody is registered as the fourth
			held := office.Book(user, at, evently.Item{Quantity: 1 + i%3})
			if i%2 == 0 {
				office.Decide(&evently.Confirm{User: user, Token: held.ID.Token}, at)
			}
		}
		office.MustFlush()
	}
	history := NewHistory(b.pool)
	for _, test := range []struct {
		statuses []evently.ReservationStatus
		count    int
	}{{nil, 25}, {[]evently.ReservationStatus{evently.Confirmed}, 13}, {[]evently.ReservationStatus{evently.Expired}, 0}} {
		want, _, err := history.Reservations(t.Context(), evently.ReservationFilter{Event: event, Statuses: test.statuses}, evently.Page{Limit: 100})
		if err != nil || len(want) != test.count {
			t.Fatalf("%d reservations, %v; want %d", len(want), err, test.count)
		}
		for _, limit := range []int{1, 10, test.count, 2 * evently.ExportPageMax} {
			var got []evently.ExportRow
			page := evently.Page{Limit: limit}
			for {
				rows, next, err := history.Export(t.Context(), event, test.statuses, page)
				if err != nil {
					t.Fatal(err)
				}
				if len(rows) > max(limit, 1) || next != nil && len(rows) != limit {
					t.Fatalf("%d rows on a page of %d", len(rows), limit)
				}
				got = append(got, rows...)
				if page.After = next; next == nil {
					break
				}
			}
			if len(got) != test.count {
				t.Fatalf("in pages of %d: %d rows, want %d", limit, len(got), test.count)
			}
			for i := range got {
				row := evently.ExportRow{Reservation: *want[i]}
				if want[i].User < 4 {
					row.Email, row.Name = fmt.Sprintf("user%d@example.com", want[i].User), fmt.Sprint("=User ", uint64(want[i].User))
				}
				if diff := cmp.Diff(row, got[i], cmp.AllowUnexported(evently.Items{})); diff != "" {
					t.Fatalf("row %d (-want +got):\n%s", i, diff)
				}
			}
		}
	}
}
