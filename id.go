package evently

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// Identifiers are 64 random bits drawn by the shells (never by the core), so that they reveal neither
// order nor count. Their text form is a prefix and 13 digits of lower-case Crockford base 32; parsing
// accepts only that canonical form, so one object has one URL.
type (
	// EventID identifies an Event. Zero is no event.
	EventID uint64
	// UserID identifies a user. Zero is the system itself.
	UserID uint64
	// Token identifies a reservation within its event. Zero is no reservation.
	Token uint64
)

// ReservationID carries its event, so that any node can route a request for a reservation without a look-up.
type ReservationID struct {
	Event EventID
	Token Token
}

const (
	eventPrefix       = "evt_"
	userPrefix        = "usr_"
	reservationPrefix = "rsv_"
	waiterPrefix      = "wtl_"
	idDigits          = 13 // ceil(64 / 5)
)

const base32Digits = "0123456789abcdefghjkmnpqrstvwxyz"

var base32Values = func() (values [256]int8) {
	for i := range values {
		values[i] = -1
	}
	for i := range len(base32Digits) {
		values[base32Digits[i]] = int8(i)
	}
	return values
}()

func appendID(dst []byte, id uint64) []byte {
	for shift := 5 * (idDigits - 1); shift >= 0; shift -= 5 {
		dst = append(dst, base32Digits[id>>shift&31])
	}
	return dst
}

func parseID(s string) (uint64, bool) {
	if len(s) != idDigits || base32Values[s[0]] > 15 { // 13 digits hold 65 bits
		return 0, false
	}
	var id uint64
	for i := range len(s) {
		value := base32Values[s[i]]
		if value < 0 {
			return 0, false
		}
		id = id<<5 | uint64(value)
	}
	return id, true
}

func parsePrefixed(s, prefix, what string) (uint64, error) {
	digits, found := strings.CutPrefix(s, prefix)
	id, ok := parseID(digits)
	if !found || !ok || id == 0 {
		return 0, fmt.Errorf("parse %s id %.40q: not of the form %s and %d digits", what, s, prefix, idDigits)
	}
	return id, nil
}

// AppendText appends the text form of the id to dst.
func (id EventID) AppendText(dst []byte) []byte {
	return appendID(append(dst, eventPrefix...), uint64(id))
}

func (id EventID) String() string { return string(id.AppendText(nil)) }

// ParseEventID is the inverse of EventID.String; any other text is an error.
func ParseEventID(s string) (EventID, error) {
	id, err := parsePrefixed(s, eventPrefix, "event")
	return EventID(id), err
}

// AppendText appends the text form of the id to dst.
func (id UserID) AppendText(dst []byte) []byte {
	return appendID(append(dst, userPrefix...), uint64(id))
}

func (id UserID) String() string { return string(id.AppendText(nil)) }

// ParseUserID is the inverse of UserID.String; any other text is an error.
func ParseUserID(s string) (UserID, error) {
	id, err := parsePrefixed(s, userPrefix, "user")
	return UserID(id), err
}

// AppendText appends the text form of the id to dst.
func (id ReservationID) AppendText(dst []byte) []byte {
	dst = appendID(append(dst, reservationPrefix...), uint64(id.Event))
	return appendID(dst, uint64(id.Token))
}

func (id ReservationID) String() string { return string(id.AppendText(nil)) }

// ParseReservationID is the inverse of ReservationID.String; any other text is an error.
func ParseReservationID(s string) (ReservationID, error) {
	digits, found := strings.CutPrefix(s, reservationPrefix)
	if found && len(digits) == 2*idDigits {
		event, eventOK := parseID(digits[:idDigits])
		token, tokenOK := parseID(digits[idDigits:])
		if eventOK && tokenOK && event != 0 && token != 0 {
			return ReservationID{EventID(event), Token(token)}, nil
		}
	}
	return ReservationID{}, fmt.Errorf("parse reservation id %.40q: not of the form %s and %d digits", s, reservationPrefix, 2*idDigits)
}

// WaiterID identifies an entry of a waitlist and carries its event. The reservation that serves a waiter has the waiter's token.
type WaiterID ReservationID

func (id WaiterID) String() string {
	return string(appendID(appendID([]byte(waiterPrefix), uint64(id.Event)), uint64(id.Token)))
}

// ParseWaiterID is the inverse of WaiterID.String; any other text is an error.
func ParseWaiterID(s string) (WaiterID, error) {
	digits, found := strings.CutPrefix(s, waiterPrefix)
	id, err := ParseReservationID(reservationPrefix + digits)
	if !found || err != nil {
		return WaiterID{}, fmt.Errorf("parse waiter id %.40q: not of the form %s and %d digits", s, waiterPrefix, 2*idDigits)
	}
	return WaiterID(id), nil
}

// Key is the digest of an idempotency key within its scope. Zero is no key.
type Key struct{ Hi, Lo uint64 }

// BookKey digests the Idempotency-Key of a user's POST /events/{id}/book: SHA-256, truncated to 128 bits.
// The event is not part of it because every ledger holds the keys of one event.
func BookKey(user UserID, key string) Key { return digestKey(user, "", key) }

// WaitKey digests the Idempotency-Key of a user's POST /events/{id}/waitlist. No key of a booking gives the same digest: keys have
// no NUL characters.
func WaitKey(user UserID, key string) Key { return digestKey(user, "waitlist\x00", key) }

func digestKey(user UserID, scope, key string) Key {
	var buf [8 + 16 + 255]byte
	text := binary.BigEndian.AppendUint64(buf[:0], uint64(user))
	text = append(text, scope...)
	sum := sha256.Sum256(append(text, key...))
	return Key{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])}
}
