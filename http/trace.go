package http

import (
	"log/slog"
	"net/http"

	"github.com/evently/evently"
)

// traceOf returns the traceparent that a request brings, or "" when it brings none that is valid.
func traceOf(request *http.Request) string {
	sent := request.Header["Traceparent"]
	if len(sent) != 1 {
		return ""
	}
	return evently.Traceparent(sent[0])
}

// traceAttr is the id of the trace that a request is part of, for a log record. It is empty, and so left out, for none.
func (x *exchange) traceAttr() slog.Attr {
	if x.trace == "" {
		return slog.Attr{}
	}
	return slog.String("trace_id", evently.TraceID(x.trace))
}
