package http

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// lexer splits a JSON text into tokens, exactly as RFC 8259 has them. Nothing it returns is copied.
type lexer struct {
	data []byte
	at   int
}

// peek returns the first byte of the next token, or 0 at the end.
func (l *lexer) peek() byte {
	for ; l.at < len(l.data); l.at++ {
		switch b := l.data[l.at]; b {
		case ' ', '\t', '\n', '\r':
		default:
			return b
		}
	}
	return 0
}

// take consumes the next token if it is the punctuation b.
func (l *lexer) take(b byte) bool {
	if l.peek() != b {
		return false
	}
	l.at++
	return true
}

// ended reports whether only white space is left.
func (l *lexer) ended() bool { return l.peek() == 0 && l.at == len(l.data) }

// syntax is the fault of a text that is not JSON from here on.
func (l *lexer) syntax() string { return fmt.Sprintf("is not valid JSON at byte %d", l.at+1) }

// text consumes a string and returns what stands between its quotes, whether it has escapes, and what is wrong with it
// or "".
func (l *lexer) text() (raw []byte, escaped bool, fault string) {
	if !l.take('"') {
		return nil, false, l.syntax()
	}
	begin, ascii := l.at, true
	for l.at < len(l.data) {
		switch b := l.data[l.at]; {
		case b == '"':
			raw = l.data[begin:l.at]
			l.at++
			if !ascii && !utf8.Valid(raw) {
				return nil, false, "is not valid UTF-8"
			}
			return raw, escaped, ""
		case b == '\\':
			escaped = true
			if fault := l.escape(); fault != "" {
				return nil, false, fault
			}
		case b < ' ':
			return nil, false, l.syntax()
		default:
			ascii = ascii && b < utf8.RuneSelf
			l.at++
		}
	}
	return nil, false, l.syntax()
}

// escape consumes a backslash and what belongs to it. Half a surrogate pair is refused: it stands for no character, and
// encoding/json would quietly put another in its place.
func (l *lexer) escape() (fault string) {
	rest := l.data[l.at+1:]
	switch {
	case len(rest) == 0:
		return l.syntax()
	case rest[0] != 'u':
		switch rest[0] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			l.at += 2
			return ""
		}
		return l.syntax()
	}
	unit, ok := hex4(rest[1:])
	if !ok {
		return l.syntax()
	}
	l.at += 6
	switch {
	case unit < 0xD800 || unit > 0xDFFF:
		return ""
	case unit < 0xDC00 && len(rest) >= 11 && rest[5] == '\\' && rest[6] == 'u':
		if low, ok := hex4(rest[7:]); ok && low >= 0xDC00 && low <= 0xDFFF {
			l.at += 6
			return ""
		}
	}
	return "has half a surrogate pair"
}

func hex4(digits []byte) (unit uint32, ok bool) {
	if len(digits) < 4 {
		return 0, false
	}
	for _, b := range digits[:4] {
		switch {
		case '0' <= b && b <= '9':
			b -= '0'
		case 'a' <= b && b <= 'f':
			b -= 'a' - 10
		case 'A' <= b && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		unit = unit<<4 | uint32(b)
	}
	return unit, true
}

// unquote returns the characters of a string that text returned.
func unquote(raw []byte, escaped bool) string {
	if !escaped {
		return string(raw)
	}
	var s string
	if err := json.Unmarshal(append(append([]byte{'"'}, raw...), '"'), &s); err != nil {
		panic("http: unquote a string that was checked: " + err.Error())
	}
	return s
}

// number consumes a number.
func (l *lexer) number() (raw []byte, fault string) {
	l.peek()
	begin := l.at
	l.accept('-')
	if !l.accept('0') && l.digits() == 0 {
		return nil, l.syntax()
	}
	if l.accept('.') && l.digits() == 0 {
		return nil, l.syntax()
	}
	if l.accept('e') || l.accept('E') {
		_ = l.accept('+') || l.accept('-')
		if l.digits() == 0 {
			return nil, l.syntax()
		}
	}
	return l.data[begin:l.at], ""
}

func (l *lexer) accept(b byte) bool {
	if l.at < len(l.data) && l.data[l.at] == b {
		l.at++
		return true
	}
	return false
}

func (l *lexer) digits() (n int) {
	for ; l.at < len(l.data) && l.data[l.at]-'0' <= 9; l.at++ {
		n++
	}
	return n
}

// word consumes true, false or null.
func (l *lexer) word() (fault string) {
	l.peek()
	for _, word := range [...]string{"true", "false", "null"} {
		if rest := l.data[l.at:]; len(rest) >= len(word) && string(rest[:len(word)]) == word {
			l.at += len(word)
			return ""
		}
	}
	return l.syntax()
}
