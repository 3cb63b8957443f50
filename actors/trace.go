package actors

import (
	"log/slog"

	"github.com/evently/evently"
)

// traceparentBytes is the length of a W3C traceparent: version, trace id, parent id and flags, in hex with dashes between.
const traceparentBytes = 2 + 1 + 32 + 1 + 16 + 1 + 2

// traceparent returns text if it has the form of a W3C traceparent, or else nothing.
func traceparent(text string) string {
	if len(text) != traceparentBytes {
		return ""
	}
	for i := range len(text) {
		c := text[i]
		dash := i == 2 || i == 35 || i == 52
		if dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return text
}

// traceID returns the 32 digits in a traceparent that the spans of one trace have in common, or nothing.
func traceID(text string) string {
	if traceparent(text) == "" {
		return ""
	}
	return text[3:35]
}

// origin says in log records where a request comes from.
func origin(request *evently.Request) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, 6), slog.String("request_id", request.ID))
	if id := traceID(request.Trace); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	return attrs
}
