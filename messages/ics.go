package messages

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/evently/evently"
)

// calendarEntry is a booking for the calendar of the one who booked, by RFC 5545 and, for the methods, RFC 5546. Later entries of
// one booking replace earlier ones: they have its UID and a higher SEQUENCE.
type calendarEntry struct {
	reservation evently.ReservationID
	sequence    uint64 // of the journal's entry that is told of: it rises from mail to mail
	at          time.Time
	cancelled   bool
	event       *evently.Event
	organizer   string // address
	details     string
	url         string
}

const (
	calendarName    = "booking.ics"
	icsTimeFormat   = "20060102T150405Z"
	icsLineBytesMax = 75 // RFC 5545, section 3.1
	icsIntegerMax   = 1<<31 - 1
)

// attachment renders the entry. The same entry gives the same bytes.
func (e *calendarEntry) attachment() evently.Attachment {
	method, status := "PUBLISH", "CONFIRMED"
	if e.cancelled {
		method, status = "CANCEL", "CANCELLED"
	}
	var c calendar
	c.line("BEGIN", "VCALENDAR")
	c.line("PRODID", "-//Evently//Evently//EN")
	c.line("VERSION", "2.0")
	c.line("CALSCALE", "GREGORIAN")
	c.line("METHOD", method)
	c.line("BEGIN", "VEVENT")
	c.line("UID", e.reservation.String()+"@evently")
	c.line("SEQUENCE", strconv.FormatUint(min(e.sequence, icsIntegerMax), 10))
	c.line("DTSTAMP", e.at.UTC().Format(icsTimeFormat))
	c.line("DTSTART", e.event.StartsAt.UTC().Format(icsTimeFormat))
	c.line("DTEND", e.event.EndsAt.UTC().Format(icsTimeFormat))
	c.line("SUMMARY", icsText(oneLine(e.event.Name)))
	if where := placeOf(e.event.Venue, e.event.City); where != "" {
		c.line("LOCATION", icsText(where))
	}
	c.line("DESCRIPTION", icsText(e.details))
	if e.url != "" {
		c.line("URL", e.url)
	}
	c.line("ORGANIZER", "mailto:"+e.organizer)
	c.line("STATUS", status)
	c.line("END", "VEVENT")
	c.line("END", "VCALENDAR")
	return evently.Attachment{
		Name: calendarName, MediaType: "text/calendar; charset=utf-8; method=" + method, Content: []byte(c.text.String()),
	}
}

// calendar is the content lines of RFC 5545.
type calendar struct{ text strings.Builder }

// line writes a content line and folds it: no part has more than 75 octets, and none ends inside of a character.
func (c *calendar) line(name, value string) {
	rest := name + ":" + value
	for room := icsLineBytesMax; len(rest) > room; room = icsLineBytesMax - 1 {
		end := room
		for !utf8.RuneStart(rest[end]) {
			end--
		}
		c.text.WriteString(rest[:end] + "\r\n ")
		rest = rest[end:]
	}
	c.text.WriteString(rest + "\r\n")
}

var icsEscapes = strings.NewReplacer(`\`, `\\`, `;`, `\;`, `,`, `\,`, "\n", `\n`)

// icsText escapes a value of the type TEXT; of control characters only newlines are left.
func icsText(text string) string {
	return icsEscapes.Replace(strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r == 0x7f) {
			return -1
		}
		return r
	}, text))
}
