package http

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// Codes that belong to HTTP itself.
const (
	codeMethodNotAllowed     evently.Code = "method_not_allowed"
	codeBodyTooLarge         evently.Code = "body_too_large"
	codeUnsupportedMediaType evently.Code = "unsupported_media_type"
)

var (
	errRouteNotFound        = &evently.Error{Code: evently.CodeNotFound, Detail: "There is nothing at this path."}
	errMethodNotAllowed     = &evently.Error{Code: codeMethodNotAllowed, Detail: "The method is not one of those in Allow."}
	errBodyTooLarge         = &evently.Error{Code: codeBodyTooLarge, Detail: "The body is larger than 64 KiB."}
	errUnsupportedMediaType = &evently.Error{Code: codeUnsupportedMediaType, Detail: "The body must be application/json."}
	errKeyRequired          = &evently.Error{Code: evently.CodeIdempotencyKeyRequired, Detail: "The Idempotency-Key header is needed."}
	errInternal             = &evently.Error{Code: evently.CodeInternal, Detail: "Something went wrong; the request id finds it in the logs."}
)

// problemKind is what all problems of a code have in common.
type problemKind struct {
	status int
	title  string
}

// problemKinds is the one table from codes to statuses.
var problemKinds = map[evently.Code]problemKind{
	evently.CodeInvalidRequest:         {http.StatusBadRequest, "Invalid request"},
	evently.CodeIdempotencyKeyRequired: {http.StatusBadRequest, "Idempotency-Key required"},
	evently.CodeUnauthenticated:        {http.StatusUnauthorized, "Not signed in"},
	evently.CodeInvalidCredentials:     {http.StatusUnauthorized, "Invalid credentials"},
	evently.CodeForbidden:              {http.StatusForbidden, "Forbidden"},
	evently.CodeEmailUnverified:        {http.StatusForbidden, "E-mail address not verified"},
	evently.CodeInvalidCode:            {http.StatusBadRequest, "Invalid code"},
	evently.CodeLastAdmin:              {http.StatusConflict, "Last administrator"},
	evently.CodeNotFound:               {http.StatusNotFound, "Not found"},
	evently.CodeEventNotFound:          {http.StatusNotFound, "Event not found"},
	evently.CodeReservationNotFound:    {http.StatusNotFound, "Reservation not found"},
	codeMethodNotAllowed:               {http.StatusMethodNotAllowed, "Method not allowed"},
	evently.CodeSoldOut:                {http.StatusConflict, "Sold out"},
	evently.CodeEventNotOnSale:         {http.StatusConflict, "Event not on sale"},
	evently.CodeEventCancelled:         {http.StatusConflict, "Event cancelled"},
	evently.CodeEventNotDraft:          {http.StatusConflict, "Event is no draft"},
	evently.CodeReservationCancelled:   {http.StatusConflict, "Reservation cancelled"},
	evently.CodeReservationConfirmed:   {http.StatusConflict, "Reservation confirmed"},
	evently.CodeCapacityBelowSold:      {http.StatusConflict, "Capacity below sold"},
	evently.CodeReservationExpired:     {http.StatusGone, "Reservation expired"},
	evently.CodeVersionStale:           {http.StatusPreconditionFailed, "Version stale"},
	evently.CodeWaiterNotFound:         {http.StatusNotFound, "Waiter not found"},
	evently.CodeSeatsAvailable:         {http.StatusConflict, "Seats available"},
	evently.CodeAlreadyWaiting:         {http.StatusConflict, "Already waiting"},
	evently.CodeNotWaiting:             {http.StatusConflict, "Not waiting"},
	evently.CodeWaitlistFull:           {http.StatusConflict, "Waitlist full"},
	evently.CodeWebhookLimitReached:    {http.StatusConflict, "Webhook limit reached"},
	evently.CodeWebhookDisabled:        {http.StatusConflict, "Webhook disabled"},
	evently.CodeUserLimitExceeded:      {http.StatusUnprocessableEntity, "User limit exceeded"},
	codeBodyTooLarge:                   {http.StatusRequestEntityTooLarge, "Body too large"},
	codeUnsupportedMediaType:           {http.StatusUnsupportedMediaType, "Unsupported media type"},
	evently.CodeQuantityExceedsLimit:   {http.StatusUnprocessableEntity, "Quantity exceeds limit"},
	evently.CodeUnknownTier:            {http.StatusUnprocessableEntity, "Unknown tier"},
	evently.CodeIdempotencyKeyReused:   {http.StatusUnprocessableEntity, "Idempotency-Key reused"},
	evently.CodeVersionRequired:        {http.StatusPreconditionRequired, "Version required"},
	evently.CodeRateLimited:            {http.StatusTooManyRequests, "Rate limited"},
	evently.CodeInternal:               {http.StatusInternalServerError, "Internal error"},
	evently.CodeOverloaded:             {http.StatusServiceUnavailable, "Overloaded"},
	evently.CodeUnavailable:            {http.StatusServiceUnavailable, "Unavailable"},
}

// problemTypePrefix and a code are the URI that names the code. It names and does not locate, so that it stays true wherever a node is
// served.
const problemTypePrefix = "urn:evently:problem:"

// refusalOf returns what a client is told about an error. Errors that are no refusals are internal, except that a request
// whose time is up or whose client has gone away is answered as unavailable: its outcome is unknown.
func refusalOf(err error) *evently.Error {
	refusal, plain := err.(*evently.Error) //nolint:errorlint // which errors.As takes ten times as long for
	if plain || errors.As(err, &refusal) {
		if _, known := problemKinds[refusal.Code]; known {
			return refusal
		}
		return errInternal
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return evently.ErrUnavailable
	}
	return errInternal
}

// writeProblem answers with an error. When the answer has begun all it can do is to cut the connection, so that nobody takes
// the part for the whole.
func (s *Server) writeProblem(c *gin.Context, err error) {
	refusal := refusalOf(err)
	switch {
	case refusal == errInternal:
		s.logFailure(c, slog.LevelError, err)
	case refusal.Code == evently.CodeUnavailable && err.Error() != refusal.Error() && c.Request.Context().Err() == nil:
		// There is a cause, and it is not that the client has gone.
		s.logFailure(c, slog.LevelWarn, err)
	}
	if c.Writer.Written() {
		panic(http.ErrAbortHandler)
	}
	s.forgo(c)
	kind := problemKinds[refusal.Code]
	s.metrics.refusals.of(string(refusal.Code)).Inc()
	header := c.Writer.Header()
	delete(header, "Etag") // of the answer that the handler meant to give
	delete(header, "Location")
	if refusal.RetryAfter > 0 {
		header["Retry-After"] = []string{strconv.FormatInt(ceilSeconds(refusal.RetryAfter), 10)}
	}
	if kind.status == http.StatusUnauthorized && header["Www-Authenticate"] == nil {
		header["Www-Authenticate"] = challengePlain
	}
	header["Content-Type"] = problemMediaType
	header["Cache-Control"] = noStore
	buffer := answers.Get().(*[]byte)
	*buffer = appendProblem((*buffer)[:0], refusal, kind, requestID(c))
	writeBody(c, kind.status, *buffer)
	answers.Put(buffer)
}

// appendProblem appends a problem, the body of an error by RFC 9457, as encoding/json does. Refusals are by far the most answers of
// an event that is sold out.
func appendProblem(dst []byte, refusal *evently.Error, kind problemKind, requestID string) []byte {
	dst = append(append(append(dst, `{"type":"`...), problemTypePrefix...), refusal.Code...)
	dst = appendText(append(dst, `","title":`...), kind.title)
	dst = strconv.AppendInt(append(dst, `,"status":`...), int64(kind.status), 10)
	dst = appendText(append(dst, `,"detail":`...), refusal.Detail)
	dst = append(append(append(dst, `,"code":"`...), refusal.Code...), '"')
	dst = append(append(append(dst, `,"request_id":"`...), requestID...), '"')
	for i, field := range refusal.Fields {
		if i == 0 {
			dst = append(dst, `,"errors":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendText(append(dst, `{"field":`...), field.Field)
		dst = append(appendText(append(dst, `,"message":`...), field.Message), '}')
	}
	if len(refusal.Fields) > 0 {
		dst = append(dst, ']')
	}
	if refusal.Code == evently.CodeSoldOut {
		dst = strconv.AppendInt(append(dst, `,"available":`...), int64(refusal.Available), 10)
	}
	return append(dst, '}')
}

// appendText appends a string as encoding/json does.
func appendText(dst []byte, text string) []byte {
	for i := range len(text) {
		if b := text[i]; b < ' ' || b >= utf8.RuneSelf || b == '"' || b == '\\' || b == '<' || b == '>' || b == '&' {
			quoted, err := json.Marshal(text)
			if err != nil {
				panic("http: a text cannot be encoded: " + err.Error())
			}
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), text...), '"')
}

func (s *Server) logFailure(c *gin.Context, level slog.Level, err error) {
	s.config.Logger.LogAttrs(c.Request.Context(), level, "request failed",
		slog.String("request_id", requestID(c)), exchangeOf(c).traceAttr(), slog.String("route", c.FullPath()), slog.Any("error", err))
}

func ceilSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func notFound(*gin.Context) error { return errRouteNotFound }

func methodNotAllowed(*gin.Context) error { return errMethodNotAllowed }
