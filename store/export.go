package store

import (
	"context"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

var _ evently.Exports = (*History)(nil)

// exportSQL is served by reservations_by_event and by the primary key of users.
const exportSQL = `
select coalesce(u.email, ''), coalesce(u.name, ''), ` + reservationColumns + `
from reservations r join events e using (event_id) left join users u on u.user_id = r.user_id
where r.event_id = $1 and r.created_seq < $2 and (cardinality($3::int2[]) = 0 or r.status = any ($3))
order by r.created_seq desc
limit $4`

// Export implements evently.Exports.
func (h *History) Export(
	ctx context.Context, event evently.EventID, statuses []evently.ReservationStatus, page evently.Page,
) ([]evently.ExportRow, *evently.Cursor, error) {
	before, limit := int64(math.MaxInt64), min(max(page.Limit, 1), evently.ExportPageMax)
	if page.After != nil {
		before = page.After.Order
	}
	rows, err := h.pool.Query(ctx, exportSQL, int64(event), before, numbers(statuses), limit+1)
	if err != nil {
		return nil, nil, failed(err, "export reservations of %s", event)
	}
	defer rows.Close()
	var list []evently.ExportRow
	var last int64
	for rows.Next() {
		if len(list) == limit {
			return list, &evently.Cursor{Order: last, Event: event}, nil
		}
		var row evently.ExportRow
		listed, err := scanReservation(prefixed{rows, []any{&row.Email, &row.Name}})
		if err != nil {
			return nil, nil, failed(err, "export reservations of %s", event)
		}
		row.Reservation, last = listed.Reservation, listed.createdSeq
		list = append(list, row)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, failed(err, "export reservations of %s", event)
	}
	return list, nil, nil
}

// prefixed is a row with further columns before those that are scanned.
type prefixed struct {
	pgx.Row
	first []any
}

func (p prefixed) Scan(dest ...any) error { return p.Row.Scan(append(p.first, dest...)...) }
