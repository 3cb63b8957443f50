package actors

import (
	"log/slog"

	"github.com/evently/evently"
)

// origin says in log records where a request comes from.
func origin(request *evently.Request) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, 6), slog.String("request_id", request.ID))
	if id := evently.TraceID(request.Trace); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	return attrs
}
