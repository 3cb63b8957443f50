package evently

import (
	"fmt"
	"strings"
	"time"
)

// Code names a refusal for programs. Codes are part of the HTTP contract and never change their meaning.
type Code string

// The codes that the domain and its ports use. The http package maps each to a status.
const (
	CodeInvalidRequest         Code = "invalid_request"
	CodeUnauthenticated        Code = "unauthenticated"
	CodeInvalidCredentials     Code = "invalid_credentials"
	CodeForbidden              Code = "forbidden"
	CodeEmailUnverified        Code = "email_unverified"
	CodeInvalidCode            Code = "invalid_code"
	CodeLastAdmin              Code = "last_admin"
	CodeNotFound               Code = "not_found"
	CodeEventNotFound          Code = "event_not_found"
	CodeReservationNotFound    Code = "reservation_not_found"
	CodeSoldOut                Code = "sold_out"
	CodeEventNotOnSale         Code = "event_not_on_sale"
	CodeEventCancelled         Code = "event_cancelled"
	CodeEventNotDraft          Code = "event_not_draft"
	CodeQuantityExceedsLimit   Code = "quantity_exceeds_limit"
	CodeUnknownTier            Code = "unknown_tier"
	CodeUserLimitExceeded      Code = "user_limit_exceeded"
	CodeSeatsAvailable         Code = "seats_available"
	CodeAlreadyWaiting         Code = "already_waiting"
	CodeNotWaiting             Code = "not_waiting"
	CodeWaiterNotFound         Code = "waiter_not_found"
	CodeWaitlistFull           Code = "waitlist_full"
	CodeWebhookLimitReached    Code = "webhook_limit_reached"
	CodeWebhookDisabled        Code = "webhook_disabled"
	CodeIdempotencyKeyReused   Code = "idempotency_key_reused"
	CodeIdempotencyKeyRequired Code = "idempotency_key_required"
	CodeReservationExpired     Code = "reservation_expired"
	CodeReservationCancelled   Code = "reservation_cancelled"
	CodeReservationConfirmed   Code = "reservation_confirmed"
	CodeCapacityBelowSold      Code = "capacity_below_sold"
	CodeVersionRequired        Code = "version_required"
	CodeVersionStale           Code = "version_stale"
	CodeRateLimited            Code = "rate_limited"
	CodeOverloaded             Code = "overloaded"
	CodeUnavailable            Code = "unavailable"
	CodeInternal               Code = "internal"
)

// Error is a refusal that a client is told. Two Errors match under errors.Is when their codes are equal.
type Error struct {
	Code       Code
	Detail     string
	Available  int           // with CodeSoldOut: seats still free in the tier that ran out
	Fields     FieldErrors   // with CodeInvalidRequest: what is wrong where
	RetryAfter time.Duration // with CodeRateLimited, CodeOverloaded, CodeUnavailable: when to come again
}

func (e *Error) Error() string {
	if len(e.Fields) > 0 {
		return string(e.Code) + ": " + e.Fields.String()
	}
	return string(e.Code) + ": " + e.Detail
}

// Is reports whether target is an *Error of the same code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// FieldError says what is wrong with one field of a request.
type FieldError struct{ Field, Message string }

// FieldErrors collects field errors, at most 100 of them.
type FieldErrors []FieldError

const fieldErrorsMax = 100

// Add records that a field is wrong.
func (f *FieldErrors) Add(field, message string) {
	if len(*f) < fieldErrorsMax {
		*f = append(*f, FieldError{field, message})
	}
}

// Err returns an *Error with CodeInvalidRequest, or nil when nothing was added.
func (f FieldErrors) Err() error {
	if len(f) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalidRequest, Detail: "The request has fields with invalid values.", Fields: f}
}

func (f FieldErrors) String() string {
	parts := make([]string, len(f))
	for i, field := range f {
		parts[i] = fmt.Sprintf("%s %s", field.Field, field.Message)
	}
	return strings.Join(parts, "; ")
}

// Refusals without variable parts. They are shared values: compare with errors.Is, never modify.
var (
	ErrEventNotFound        = &Error{Code: CodeEventNotFound, Detail: "There is no such event."}
	ErrReservationNotFound  = &Error{Code: CodeReservationNotFound, Detail: "There is no such reservation."}
	ErrNotFound             = &Error{Code: CodeNotFound, Detail: "There is no such object."}
	ErrSoldOut              = &Error{Code: CodeSoldOut, Detail: "Not enough seats are free."}
	ErrEventNotOnSale       = &Error{Code: CodeEventNotOnSale, Detail: "The event cannot be booked now."}
	ErrEventCancelled       = &Error{Code: CodeEventCancelled, Detail: "The event is cancelled."}
	ErrEventNotDraft        = &Error{Code: CodeEventNotDraft, Detail: "Only a draft can be deleted."}
	ErrQuantityExceedsLimit = &Error{Code: CodeQuantityExceedsLimit, Detail: "The reservation has more seats than the event allows in one."}
	ErrUnknownTier          = &Error{Code: CodeUnknownTier, Detail: "The event has no such tier."}
	ErrUserLimitExceeded    = &Error{Code: CodeUserLimitExceeded, Detail: "You would have more seats than the event allows to one user."}
	ErrSeatsAvailable       = &Error{Code: CodeSeatsAvailable, Detail: "Seats are free: book them."}
	ErrAlreadyWaiting       = &Error{Code: CodeAlreadyWaiting, Detail: "You are on the waitlist of this event."}
	ErrNotWaiting           = &Error{Code: CodeNotWaiting, Detail: "The waiter waits no more."}
	ErrWaiterNotFound       = &Error{Code: CodeWaiterNotFound, Detail: "There is no such entry on the waitlist."}
	ErrWaitlistFull         = &Error{Code: CodeWaitlistFull, Detail: "The waitlist of this event is full."}
	ErrKeyReused            = &Error{Code: CodeIdempotencyKeyReused, Detail: "The Idempotency-Key was used with another request."}
	ErrReservationExpired   = &Error{Code: CodeReservationExpired, Detail: "The hold has expired."}
	ErrReservationCancelled = &Error{Code: CodeReservationCancelled, Detail: "The reservation is cancelled."}
	ErrReservationConfirmed = &Error{Code: CodeReservationConfirmed, Detail: "The reservation is confirmed; cancel the booking instead."}
	ErrVersionStale         = &Error{Code: CodeVersionStale, Detail: "The event has changed since that version."}
	ErrInvalidCredentials   = &Error{Code: CodeInvalidCredentials, Detail: "The e-mail address or the password is wrong."}
	ErrUnauthenticated      = &Error{Code: CodeUnauthenticated, Detail: "A valid access token is needed."}
	ErrForbidden            = &Error{Code: CodeForbidden, Detail: "Your role does not allow this."}
	ErrEmailUnverified      = &Error{Code: CodeEmailUnverified, Detail: "Verify your e-mail address first: POST /verify."}
	ErrInvalidCode          = &Error{Code: CodeInvalidCode, Detail: "The code is wrong, used, expired, or tried too often; ask for a new one."}
	ErrLastAdmin            = &Error{Code: CodeLastAdmin, Detail: "There must be another administrator first."}

	// ErrOverloaded: a bounded queue was full; nothing was done.
	ErrOverloaded = &Error{Code: CodeOverloaded, Detail: "Too many requests are waiting; try again.", RetryAfter: time.Second}
	// ErrUnavailable: a dependency is away. The request may or may not have taken effect; repeat it with the same key.
	ErrUnavailable = &Error{Code: CodeUnavailable, Detail: "The service cannot answer now; try again.", RetryAfter: 2 * time.Second}
)
