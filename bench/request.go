package bench

import (
	"strconv"

	"github.com/evently/evently"
)

// Key is an Idempotency-Key: a run of some load and a number within it.
type Key struct{ Run, Number uint64 }

// Text is the key as it is sent.
func (k Key) Text() string { return string(k.append(nil)) }

// append writes 32 hexadecimal digits.
func (k Key) append(dst []byte) []byte {
	for _, part := range [...]uint64{k.Run, k.Number} {
		for shift := 60; shift >= 0; shift -= 4 {
			dst = append(dst, "0123456789abcdef"[part>>shift&15])
		}
	}
	return dst
}

const bookBody = `{"quantity":1}`

// AppendBook appends the request for one seat of an event.
func (e *Endpoint) AppendBook(dst []byte, event evently.EventID, token string, key Key) []byte {
	dst = append(append(append(dst, "POST "...), e.prefix...), "/events/"...)
	dst = append(event.AppendText(dst), "/book"...)
	dst = append(e.appendFields(dst, token), "Content-Type: application/json\r\nContent-Length: "...)
	dst = append(strconv.AppendInt(dst, int64(len(bookBody)), 10), "\r\nIdempotency-Key: "...)
	return append(key.append(dst), "\r\n\r\n"+bookBody...)
}

// AppendRead appends the request for an event.
func (e *Endpoint) AppendRead(dst []byte, event evently.EventID, token string) []byte {
	dst = append(append(append(dst, "GET "...), e.prefix...), "/events/"...)
	return append(e.appendFields(event.AppendText(dst), token), "\r\n"...)
}

// AppendConfirm appends the request that makes a hold a booking.
func (e *Endpoint) AppendConfirm(dst []byte, id evently.ReservationID, token string) []byte {
	dst = append(append(append(dst, "POST "...), e.prefix...), "/reservations/"...)
	dst = append(id.AppendText(dst), "/confirm"...)
	return append(e.appendFields(dst, token), "Content-Length: 0\r\n\r\n"...)
}

// AppendCancel appends the request that ends a booking.
func (e *Endpoint) AppendCancel(dst []byte, id evently.ReservationID, token string) []byte {
	dst = append(append(append(dst, "POST "...), e.prefix...), "/bookings/"...)
	dst = append(id.AppendText(dst), "/cancel"...)
	return append(e.appendFields(dst, token), "Content-Length: 0\r\n\r\n"...)
}

// appendFields ends the request line and appends the fields that all requests have.
func (e *Endpoint) appendFields(dst []byte, token string) []byte {
	dst = append(append(dst, " HTTP/1.1\r\nHost: "...), e.host...)
	if token != "" {
		dst = append(append(dst, "\r\nAuthorization: Bearer "...), token...)
	}
	return append(dst, "\r\n"...)
}
