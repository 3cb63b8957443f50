package evently

// traceparentLen is the length of a traceparent of version 00: 00-<32 digits: trace>-<16 digits: span>-<2 digits: flags>.
const traceparentLen = 55

// Traceparent returns text if it is a valid traceparent of W3C Trace Context level 1, or "". Of a later version it returns the part
// that version 00 has too.
func Traceparent(text string) string {
	if len(text) < traceparentLen || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return ""
	}
	version, trace, span, flags := text[:2], text[3:35], text[36:52], text[53:traceparentLen]
	if len(text) > traceparentLen && (version == "00" || text[traceparentLen] != '-') {
		return ""
	}
	if version == "ff" || !lowerHex(version) || !lowerHex(trace) || !lowerHex(span) || !lowerHex(flags) || zeros(trace) || zeros(span) {
		return ""
	}
	return text[:traceparentLen]
}

// TraceID returns the 32 digits that the spans of one trace have in common, or "" if the text is no traceparent.
func TraceID(traceparent string) string {
	if valid := Traceparent(traceparent); valid != "" {
		return valid[3:35]
	}
	return ""
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
