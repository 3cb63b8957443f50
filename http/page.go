package http

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

const pageLimitDefault = 50

// cursorVersion starts every cursor, so that a later form can be told from this one.
const (
	cursorVersion = 1
	cursorBytes   = 1 + 3*8
)

// pageOf reads ?limit= and ?cursor=.
func pageOf(c *gin.Context) (evently.Page, error) {
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
		cursor, ok := parseCursor(text)
		if !ok {
			fields.Add("cursor", "is not a cursor of this list")
		}
		page.After = cursor
	}
	return page, fields.Err()
}

// nextCursor is the text form of a cursor, or nil at the end of a list.
func nextCursor(cursor *evently.Cursor) *string {
	if cursor == nil {
		return nil
	}
	raw := make([]byte, 0, cursorBytes)
	raw = append(raw, cursorVersion)
	raw = binary.BigEndian.AppendUint64(raw, uint64(cursor.Order))
	raw = binary.BigEndian.AppendUint64(raw, uint64(cursor.Event))
	raw = binary.BigEndian.AppendUint64(raw, uint64(cursor.Token))
	text := base64.RawURLEncoding.EncodeToString(raw)
	return &text
}

func parseCursor(text string) (*evently.Cursor, bool) {
	var raw [cursorBytes]byte
	if len(text) != base64.RawURLEncoding.EncodedLen(cursorBytes) {
		return nil, false
	}
	// Less than all bytes come of a text with line breaks, which base64 skips.
	if n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(text)); err != nil || n != cursorBytes || raw[0] != cursorVersion {
		return nil, false
	}
	return &evently.Cursor{
		Order: int64(binary.BigEndian.Uint64(raw[1:])),
		Event: evently.EventID(binary.BigEndian.Uint64(raw[9:])),
		Token: evently.Token(binary.BigEndian.Uint64(raw[17:])),
	}, true
}
