package http

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// Bounds of exports. An export has a page of rows in memory, whatever the size of the event.
const (
	exportsMax    = 4 // under way at a time, of each user one; more are refused with 503 overloaded
	exportWorkMax = time.Hour
	// exportTakeMax bounds the time in which a client takes a page. Whole exports are bounded by exportWorkMax alone.
	exportTakeMax = writeTimeout
)

var (
	csvMediaType = []string{"text/csv; charset=utf-8"}
	csvHeader    = []string{
		"id", "user_id", "email", "name", "status", "tiers", "quantity", "unit_prices_minor", "total_minor", "currency",
		"created_at", "created_at_local", "confirmed_at", "cancelled_at",
	}
)

// exportBookings is GET /admin/events/{id}/bookings.csv, RFC 4180: the reservations of an event, newest first. When a page cannot be
// read the connection is cut, so that nobody takes the part for the whole.
func (s *Server) exportBookings(c *gin.Context) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	statuses, err := statusesOf(c, evently.ParseReservationStatus)
	if err != nil {
		return err
	}
	zone, err := time.LoadLocation(state.Event.Timezone)
	if err != nil {
		return fmt.Errorf("export bookings of %s: %w", state.Event.ID, err)
	}
	release, err := s.exports.take(principal(c).User)
	if err != nil {
		return err
	}
	defer release()
	page := evently.Page{Limit: evently.ExportPageMax}
	rows, next, err := s.config.Exports.Export(c.Request.Context(), state.Event.ID, statuses, page)
	if err != nil {
		return err
	}
	header := c.Writer.Header()
	header["Content-Type"] = csvMediaType
	header["Content-Disposition"] = []string{`attachment; filename="bookings-` + state.Event.ID.String() + `.csv"`}
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return nil
	}
	exchangeOf(c).conn.move(sending)
	out := csv.NewWriter(c.Writer)
	out.UseCRLF = true
	// A failed write is found again at the Flush: the client has gone or is too slow, and net/http ends its connection.
	_ = out.Write(csvHeader)
	var record []string
	for {
		extendWriting(c, exportTakeMax)
		for i := range rows {
			record = appendCSV(record[:0], &rows[i], state.Event, zone)
			_ = out.Write(record)
		}
		out.Flush()
		if out.Error() != nil || next == nil {
			return nil
		}
		page.After = next
		if rows, next, err = s.config.Exports.Export(c.Request.Context(), state.Event.ID, statuses, page); err != nil {
			return err
		}
	}
}

// extendWriting gives the client another time to take the answer, from now on. Servers that set no deadline need none, and those
// of tests may know none.
func extendWriting(c *gin.Context, d time.Duration) {
	_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(d))
}

// appendCSV appends the cells of a reservation, those of csvHeader.
func appendCSV(cells []string, row *evently.ExportRow, event *evently.Event, zone *time.Location) []string {
	var tiers, prices []string
	for item := range row.Items.All() {
		name := evently.TierID(item.Tier)
		if item.Tier < len(event.Tiers) { // else it was added after the event was read
			name = event.Tiers[item.Tier].Name
		}
		tiers = append(tiers, fmt.Sprintf("%s x %d", name, item.Quantity))
		prices = append(prices, strconv.FormatInt(item.UnitPriceMinor, 10))
	}
	return append(cells,
		row.ID.String(), row.User.String(), inert(row.Email), inert(row.Name), row.Status.String(), inert(strings.Join(tiers, "; ")),
		strconv.Itoa(row.Items.Quantity()), strings.Join(prices, "; "), strconv.FormatInt(row.Items.TotalMinor(), 10), row.Currency,
		csvTime(row.CreatedAt, time.UTC), csvTime(row.CreatedAt, zone), csvTime(row.ConfirmedAt, time.UTC), csvTime(row.CancelledAt(), time.UTC),
	)
}

// inert keeps spreadsheets from taking a text of a user for a formula: behind an apostrophe they take it for a text.
func inert(text string) string {
	if text != "" && strings.IndexByte("=+-@\t\r\n", text[0]) >= 0 {
		return "'" + text
	}
	return text
}

// csvTime is RFC 3339 with milliseconds and the offset of the zone, or nothing for no time.
func csvTime(t time.Time, zone *time.Location) string {
	if t.IsZero() {
		return ""
	}
	return t.In(zone).Format("2006-01-02T15:04:05.000Z07:00")
}
