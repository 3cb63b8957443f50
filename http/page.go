package http

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

const pageLimitDefault = 50

// listOrder is an order that a list is read in. It starts every cursor, for a cursor means nothing in another order.
type listOrder byte

const (
	eventsByStart listOrder = 1 + iota
	eventsByPopularity
	reservationsOfUser  // by time
	reservationsOfEvent // by number
	waitersOfUser       // by time
	waitersOfEvent      // in the order of service
	usersByTime
	securityByNumber
	webhooksByTime
	deliveriesByTime
	auditByTime
)

const cursorBytes = 1 + 3*8

// timeMin and timeMax bound what a list orders by time: the years 1 to 9999, in Unix milliseconds.
var (
	timeMin = time.Date(1, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	timeMax = time.Date(10_000, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli() - 1
)

// holds reports whether a row of such a list may have this Cursor.Order. Only a forged cursor has another.
func (o listOrder) holds(order int64) bool {
	switch o {
	case eventsByStart, reservationsOfUser, waitersOfUser, usersByTime, webhooksByTime, deliveriesByTime, auditByTime:
		return timeMin <= order && order <= timeMax
	case eventsByPopularity: // seats, negated
		return math.MinInt32 <= order && order <= 0
	case reservationsOfEvent, securityByNumber:
		return order >= 0
	case waitersOfEvent: // the status, above 32 bits of rank
		return 0 <= order && order>>32 <= int64(evently.Closed)
	}
	return false
}

// pageOf reads ?limit= and ?cursor= of a list in an order.
func pageOf(c *gin.Context, order listOrder) (evently.Page, error) {
	page := evently.Page{Limit: pageLimitDefault}
	var fields evently.FieldErrors
	if text, found := c.GetQuery("limit"); found {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > evently.PageLimitMax {
			fields.Add("limit", fmt.Sprintf("must be a number from 1 to %d", evently.PageLimitMax))
		}
		page.Limit = n
	}
	if text, found := c.GetQuery("cursor"); found {
		cursor, ok := parseCursor(text, order)
		if !ok {
			fields.Add("cursor", "is not a cursor of this list in this order")
		}
		page.After = cursor
	}
	return page, fields.Err()
}

// nextCursor is the text form of a cursor, or nil at the end of a list.
func nextCursor(cursor *evently.Cursor, order listOrder) *string {
	if cursor == nil {
		return nil
	}
	raw := make([]byte, 0, cursorBytes)
	raw = append(raw, byte(order))
	raw = binary.BigEndian.AppendUint64(raw, uint64(cursor.Order))
	raw = binary.BigEndian.AppendUint64(raw, uint64(cursor.Event))
	raw = binary.BigEndian.AppendUint64(raw, uint64(cursor.Token))
	text := base64.RawURLEncoding.EncodeToString(raw)
	return &text
}

func parseCursor(text string, order listOrder) (*evently.Cursor, bool) {
	var raw [cursorBytes]byte
	if len(text) != base64.RawURLEncoding.EncodedLen(cursorBytes) {
		return nil, false
	}
	// Less than all bytes come of a text with line breaks, which base64 skips.
	if n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(text)); err != nil || n != cursorBytes || raw[0] != byte(order) {
		return nil, false
	}
	cursor := &evently.Cursor{
		Order: int64(binary.BigEndian.Uint64(raw[1:])),
		Event: evently.EventID(binary.BigEndian.Uint64(raw[9:])),
		Token: evently.Token(binary.BigEndian.Uint64(raw[17:])),
	}
	return cursor, order.holds(cursor.Order)
}

// listJSON is a page of a list.
type listJSON[T any] struct {
	Data       []T     `json:"data"`
	NextCursor *string `json:"next_cursor"`
}

// writeList answers with a page of a list; next leads to the one after it.
func writeList[S, T any](c *gin.Context, page []S, newJSON func(S) T, next *string) {
	writeJSON(c, http.StatusOK, &listJSON[T]{mapped(page, newJSON), next})
}

// mapped returns what newJSON makes of each; it is never nil, as an empty list is [] in JSON.
func mapped[S, T any](list []S, newJSON func(S) T) []T {
	made := make([]T, len(list))
	for i, of := range list {
		made[i] = newJSON(of)
	}
	return made
}
