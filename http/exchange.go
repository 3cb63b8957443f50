package http

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// exchange is one request and its answer on the way through the chain. It is the context's Writer, which costs nothing to
// look up and spares the map that gin's own Set allocates. Exchanges are pooled: nothing may keep one after its request.
type exchange struct {
	gin.ResponseWriter
	begun     time.Time
	conn      *connection // nil: not one of ours
	id        string
	trace     string // the traceparent of the caller; empty: none
	who       evently.Principal
	ended     bool        // the session is revoked: a stored answer may be given again, and nothing else
	scope     evently.Key // of the Idempotency-Key under keyOptional; zero: none was sent
	body      []byte      // the request's, as far as it was received
	large     int64       // the memory of a large body, in bytes
	bodyState int         // such as bodyReceived
	recording bool        // the answer is held back in record until it is stored
	recorded  bool
	record    []byte

	values []string        // of the answer's header; with texts the only memory that all values of it take
	texts  strings.Builder // what values are parts of
}

// What the header of an answer needs in nearly all cases. More costs another allocation.
const (
	headerValues = 4
	headerBytes  = 112
)

// set sets a field of the answer's header, whose name is in canonical form.
func (x *exchange) set(name string, value []byte) {
	if x.texts.Cap()-x.texts.Len() < len(value) {
		x.texts = strings.Builder{}
		x.texts.Grow(max(headerBytes, len(value)))
	}
	begin := x.texts.Len()
	x.texts.Write(value)
	x.setText(name, x.texts.String()[begin:])
}

// setText is set for a value that is a string already.
func (x *exchange) setText(name, value string) {
	if len(x.values) == cap(x.values) {
		x.values = make([]string, 0, headerValues)
	}
	n := len(x.values)
	x.values = append(x.values, value)
	x.Header()[name] = x.values[n : n+1 : n+1]
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func exchangeOf(c *gin.Context) *exchange { return c.Writer.(*exchange) }

// requestID is the request's X-Request-Id, sent or made.
func requestID(c *gin.Context) string { return exchangeOf(c).id }

// requestTrace is the traceparent of the request's caller, or "".
func requestTrace(c *gin.Context) string { return exchangeOf(c).trace }

// principal is who makes the request. It is zero on public routes.
func principal(c *gin.Context) evently.Principal { return exchangeOf(c).who }

// answerKey is the digest of the request's Idempotency-Key in its scope of user, method and path, on routes with keyOptional.
// It is zero when the request has none.
func answerKey(c *gin.Context) evently.Key { return exchangeOf(c).scope }

// invalid is the refusal of a request for one field.
func invalid(field, message string) error {
	return evently.FieldErrors{{Field: field, Message: message}}.Err()
}

// writeJSON answers with a value of which encoding/json knows the form.
func writeJSON(c *gin.Context, status int, value any) { writeBody(c, status, encoded(value)) }

// encoded is a value of an answer in JSON.
func encoded(value any) []byte {
	body, err := json.Marshal(value)
	if err != nil {
		panic("http: answer cannot be encoded: " + err.Error())
	}
	return body
}

// countedBytesMax is the longest body whose length net/http finds out itself, and with less work: it sends bodies of less than 2 KiB
// when the handler has returned. Else it would send them in chunks.
const countedBytesMax = 2000

// writeBody answers with a body, which is JSON unless the header says otherwise.
func writeBody(c *gin.Context, status int, body []byte) {
	header := c.Writer.Header()
	if header["Content-Type"] == nil {
		header["Content-Type"] = jsonMediaType
	}
	x := exchangeOf(c)
	if len(body) > countedBytesMax {
		x.setText("Content-Length", strconv.Itoa(len(body)))
	}
	c.Writer.WriteHeader(status)
	if !x.recording {
		x.conn.move(sending)
	}
	// A client that went away is no failure of the server, and net/http ends its connection.
	_, _ = c.Writer.Write(body)
}

// writeNothing answers 204.
func writeNothing(c *gin.Context) {
	c.Writer.WriteHeader(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
}

// Unwrap serves http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) Write(data []byte) (int, error) {
	if !x.recording {
		return x.ResponseWriter.Write(data)
	}
	x.recorded = true
	x.record = append(x.record, data...)
	return len(data), nil
}

func (x *exchange) WriteString(s string) (int, error) {
	if !x.recording {
		return x.ResponseWriter.WriteString(s)
	}
	x.recorded = true
	x.record = append(x.record, s...)
	return len(s), nil
}

func (x *exchange) WriteHeaderNow() {
	if x.recording {
		x.recorded = true
		return
	}
	x.ResponseWriter.WriteHeaderNow()
}

func (x *exchange) Written() bool { return x.recording && x.recorded || x.ResponseWriter.Written() }

func (x *exchange) Flush() {
	if !x.recording {
		x.ResponseWriter.Flush()
	}
}
