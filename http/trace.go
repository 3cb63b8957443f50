package http

import (
	"log/slog"
	"net/http"
)

// traceparentLen is the length of a traceparent of version 00: 00-<32 digits: trace>-<16 digits: span>-<2 digits: flags>.
const traceparentLen = 55

// traceOf returns the traceparent that a request brings, W3C Trace Context level 1, or "" when it brings none that is valid. Of a
// later version it is the part that version 00 has too.
func traceOf(request *http.Request) string {
	sent := request.Header["Traceparent"]
	if len(sent) != 1 || !validTraceparent(sent[0]) {
		return ""
	}
	return sent[0][:traceparentLen]
}

func validTraceparent(text string) bool {
	if len(text) < traceparentLen || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return false
	}
	version, trace, span, flags := text[:2], text[3:35], text[36:52], text[53:traceparentLen]
	if len(text) > traceparentLen && (version == "00" || text[traceparentLen] != '-') {
		return false
	}
	return version != "ff" && lowerHex(version) && lowerHex(trace) && lowerHex(span) && lowerHex(flags) && !zeros(trace) && !zeros(span)
}

func lowerHex(digits string) bool {
	for i := range len(digits) {
		if digits[i]-'0' > 9 && digits[i]-'a' > 5 {
			return false
		}
	}
	return true
}

func zeros(digits string) bool {
	for i := range len(digits) {
		if digits[i] != '0' {
			return false
		}
	}
	return true
}

// traceAttr is the id of the trace that a request is part of, for a log record. It is empty, and so left out, for none.
func (x *exchange) traceAttr() slog.Attr {
	if x.trace == "" {
		return slog.Attr{}
	}
	return slog.String("trace_id", x.trace[3:35])
}
