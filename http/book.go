package http

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// book is POST /events/{id}/book. The outcome of every request that comes this far is counted.
func (s *Server) book(c *gin.Context) error {
	reply, err := s.hold(c)
	if err != nil {
		s.metrics.bookings.of(string(refusalOf(err).Code)).Inc()
		return err
	}
	x := exchangeOf(c)
	var location [64]byte
	x.set("Location", reply.Reservation.ID.AppendText(append(location[:0], "/reservations/"...)))
	outcome := "held"
	if reply.Replayed {
		outcome = "replayed"
		x.Header()["Idempotency-Replayed"] = replayedTrue
	}
	s.metrics.bookings.of(outcome).Inc()
	writeReservation(c, http.StatusCreated, &reply.Reservation)
	return nil
}

func (s *Server) hold(c *gin.Context) (evently.Reply, error) {
	asked, err := s.asked(c, bookFields)
	if err != nil {
		return evently.Reply{}, err
	}
	who := principal(c).User
	// Not pooled: when the request's context ends first, the event's owner may still be reading them.
	call := &struct {
		request evently.Request
		book    evently.Book
	}{
		evently.Request{Event: asked.event, Who: who, ID: requestID(c), Trace: requestTrace(c)},
		evently.Book{User: who, Key: evently.BookKey(who, asked.key), Items: asked.items, Token: asked.token},
	}
	call.request.Command = &call.book
	return s.config.Engine.Do(c.Request.Context(), &call.request)
}

// asked is a request for seats: now, or as soon as they are freed.
type asked struct {
	event     evently.EventID
	key       string // the Idempotency-Key
	items     evently.Items
	onRelease evently.OnRelease
	token     evently.Token // a fresh one
}

// asked reads a request whose body has some fields of a bookBody.
func (s *Server) asked(c *gin.Context, fields []string) (asked, error) {
	event, err := eventParam(c)
	if err != nil {
		return asked{}, err
	}
	key, err := idempotencyKey(c)
	if err != nil {
		return asked{}, err
	}
	text, err := jsonBody(c)
	if err != nil {
		return asked{}, err
	}
	var body bookBody
	if err := body.scan(text, fields); err != nil {
		return asked{}, err
	}
	items, err := body.seats()
	if err != nil {
		return asked{}, err
	}
	token, err := s.random64()
	return asked{event, key, items, body.onRelease, evently.Token(token)}, err
}

// bookBody is the body of POST /events/{id}/book, {"quantity":2} or {"items":[{"tier_id":"t1","quantity":2}]}, and of
// POST /events/{id}/waitlist, which knows on_release besides.
type bookBody struct {
	quantity  int
	items     [evently.TiersMax + 1]evently.Item // the one too many tells that there are too many
	count     int
	hasItems  bool
	onRelease evently.OnRelease
}

// The fields of the bodies, in the order that scan knows them in.
var (
	bookFields = []string{"quantity", "items"}
	waitFields = []string{"quantity", "items", "on_release"}
	itemFields = []string{"tier_id", "quantity"}
)

// seats turns what was asked into items. A bare quantity is of the event's only tier.
func (b *bookBody) seats() (evently.Items, error) {
	if !b.hasItems {
		switch {
		case b.quantity < 1:
			return evently.Items{}, invalid("quantity", "must be at least 1")
		case b.quantity > evently.MaxPerBookingMax: // and so more than any event allows
			return evently.Items{}, evently.ErrQuantityExceedsLimit
		}
		return evently.OneItem(evently.Item{Tier: evently.OnlyTier, Quantity: b.quantity}), nil
	}
	items := b.items[:min(b.count, len(b.items))]
	for i := range items {
		switch {
		case items[i].Tier == tierUnknown:
			return evently.Items{}, evently.ErrUnknownTier
		case items[i].Quantity > evently.MaxPerBookingMax:
			return evently.Items{}, evently.ErrQuantityExceedsLimit
		}
	}
	return evently.NewItems(items...)
}

// tierUnknown stands for a tier id that no event has.
const tierUnknown = -1

// scan fills b. It refuses what decode refuses, without reflection.
func (b *bookBody) scan(text []byte, fields []string) error {
	s := bookScanner{lexer: lexer{data: text}, item: -1}
	seen, err := s.object(fields, func(field int) (err error) {
		switch field {
		case 0:
			b.quantity, err = s.integer("quantity")
		case 1:
			b.hasItems = true
			err = b.scanItems(&s)
		default:
			b.onRelease, err = s.onRelease()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !s.ended():
		return s.refuse("", "has data after its end")
	case seen.has(0) && seen.has(1):
		return s.refuse("items", "must not be given together with quantity")
	case !seen.has(0) && !seen.has(1):
		return s.refuse("quantity", "is required, or items")
	}
	return nil
}

func (b *bookBody) scanItems(s *bookScanner) error {
	if !s.take('[') {
		return s.refuse("items", "must be a list")
	}
	for more := !s.take(']'); more; b.count++ {
		item := &b.items[min(b.count, evently.TiersMax)]
		s.item = b.count
		seen, err := s.object(itemFields, func(field int) (err error) {
			if field == 0 {
				item.Tier, err = s.tier()
			} else {
				item.Quantity, err = s.integer("quantity")
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case !seen.has(0):
			return s.refuse("tier_id", "is required")
		case !seen.has(1):
			return s.refuse("quantity", "is required")
		}
		s.item = -1
		if more = s.take(','); !more && !s.take(']') {
			return s.refuse("", s.syntax())
		}
	}
	return nil
}

// bookScanner reads a bookBody.
type bookScanner struct {
	lexer
	item int // index of the item that is being read, or -1
}

// fieldSet is a set of indices of fields.
type fieldSet uint8

func (f fieldSet) has(field int) bool { return f&(1<<field) != 0 }

// object reads an object that knows some fields and returns which of them it has. read is called at the value of a field.
func (s *bookScanner) object(fields []string, read func(field int) error) (seen fieldSet, err error) {
	if !s.take('{') {
		return seen, s.refuse("", "must be an object")
	}
	for more := !s.take('}'); more; {
		raw, escaped, fault := s.text()
		if fault != "" {
			return seen, s.refuse("", fault)
		}
		if escaped {
			raw = []byte(unquote(raw, true))
		}
		field := 0
		for field < len(fields) && string(raw) != fields[field] {
			field++
		}
		switch {
		case field == len(fields):
			return seen, s.refuse(fmt.Sprintf("%.100s", string(raw)), "is not a field of this request")
		case seen.has(field):
			return seen, s.refuse(fields[field], "stands twice")
		case !s.take(':'):
			return seen, s.refuse("", s.syntax())
		}
		seen |= 1 << field
		if err := read(field); err != nil {
			return seen, err
		}
		if more = s.take(','); !more && !s.take('}') {
			return seen, s.refuse("", s.syntax())
		}
	}
	return seen, nil
}

func (s *bookScanner) integer(field string) (int, error) {
	if first := s.peek(); first != '-' && (first < '0' || first > '9') {
		return 0, s.refuse(field, "must be a whole number")
	}
	raw, fault := s.number()
	if fault != "" {
		return 0, s.refuse("", fault)
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil { // a fraction, an exponent, or too large
		return 0, s.refuse(field, "must be a whole number")
	}
	return n, nil
}

func (s *bookScanner) tier() (int, error) {
	if s.peek() != '"' {
		return 0, s.refuse("tier_id", "must be a string")
	}
	raw, escaped, fault := s.text()
	if fault != "" {
		return 0, s.refuse("", fault)
	}
	tier, err := evently.ParseTierID(unquote(raw, escaped))
	if err != nil {
		return tierUnknown, nil
	}
	return tier, nil
}

func (s *bookScanner) onRelease() (evently.OnRelease, error) {
	if s.peek() != '"' {
		return 0, s.refuse("on_release", "must be a string")
	}
	raw, escaped, fault := s.text()
	if fault != "" {
		return 0, s.refuse("", fault)
	}
	onRelease, err := evently.ParseOnRelease(unquote(raw, escaped))
	if err != nil {
		return 0, s.refuse("on_release", "must be book or hold")
	}
	return onRelease, nil
}

// refuse names a field of the item that is being read, or of the body; "" is the item or the body itself.
func (s *bookScanner) refuse(field, message string) error {
	switch {
	case s.item >= 0 && field == "":
		field = fmt.Sprintf("items[%d]", s.item)
	case s.item >= 0:
		field = fmt.Sprintf("items[%d].%s", s.item, field)
	case field == "":
		field = "body"
	}
	return invalid(field, message)
}
