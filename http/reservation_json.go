package http

import (
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// Reservations are written by hand rather than by reflection: they are the answers of the main path. One function writes
// them all, so that an answer that is given again is the same to the byte.

// appendReservation appends a Reservation of the API.
func appendReservation(dst []byte, r *evently.Reservation) []byte {
	dst = r.ID.AppendText(append(dst, `{"id":"`...))
	dst = r.ID.Event.AppendText(append(dst, `","event_id":"`...))
	dst = r.User.AppendText(append(dst, `","user_id":"`...))
	dst = append(append(dst, `","status":"`...), r.Status.String()...)
	dst = strconv.AppendInt(append(dst, `","quantity":`...), int64(r.Items.Quantity()), 10)
	dst = append(dst, `,"items":[`...)
	for i := range r.Items.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		item := r.Items.At(i)
		dst = append(append(dst, `{"tier_id":"`...), evently.TierID(item.Tier)...)
		dst = strconv.AppendInt(append(dst, `","quantity":`...), int64(item.Quantity), 10)
		dst = strconv.AppendInt(append(dst, `,"unit_price_minor":`...), item.UnitPriceMinor, 10)
		dst = append(dst, '}')
	}
	dst = strconv.AppendInt(append(dst, `],"total_minor":`...), r.Items.TotalMinor(), 10)
	dst = append(append(dst, `,"currency":"`...), r.Currency...) // three capital letters
	dst = appendTime(append(dst, `","created_at":`...), r.CreatedAt)
	dst = appendTime(append(dst, `,"expires_at":`...), r.ExpiresAt)
	dst = appendTime(append(dst, `,"confirmed_at":`...), r.ConfirmedAt)
	dst = appendTime(append(dst, `,"cancelled_at":`...), r.CancelledAt())
	dst = strconv.AppendUint(append(dst, `,"seq":`...), r.Seq, 10)
	return append(dst, '}')
}

// appendTime appends a time as encoding/json writes it, or null for none.
func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(dst, "null"...)
	}
	return append(t.UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano), '"')
}

// answers holds the buffers that answers are put together in.
var answers = sync.Pool{New: func() any { return new([]byte) }}

func writeReservation(c *gin.Context, status int, r *evently.Reservation) {
	buffer := answers.Get().(*[]byte)
	*buffer = appendReservation((*buffer)[:0], r)
	writeBody(c, status, *buffer)
	answers.Put(buffer)
}

func writeReservations(c *gin.Context, list []*evently.Reservation, next *string) {
	buffer := answers.Get().(*[]byte)
	dst := append((*buffer)[:0], `{"data":[`...)
	for i, r := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendReservation(dst, r)
	}
	dst = append(dst, `],"next_cursor":`...)
	if next != nil {
		dst = append(append(append(dst, '"'), *next...), '"')
	} else {
		dst = append(dst, "null"...)
	}
	*buffer = append(dst, '}')
	writeBody(c, 200, *buffer)
	answers.Put(buffer)
}
