package messages

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	subjectRunesMax = 200
	nameRunesMax    = 60
)

// oneLine makes of any text one line without control characters, and without those that change the direction of what follows.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), r == utf8.RuneError, unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// cut shortens a text to a number of characters.
func cut(text string, runesMax int) string {
	if utf8.RuneCountInString(text) <= runesMax {
		return text
	}
	return string([]rune(text)[:runesMax-1]) + "…"
}

// addressable returns a name to greet somebody by, or "" when it does not look like one: people can be registered by
// others, under names that advertise something.
func addressable(name string) string {
	name = oneLine(name)
	if utf8.RuneCountInString(name) > nameRunesMax {
		return ""
	}
	for i, r := range name {
		switch {
		case unicode.IsLetter(r), unicode.IsMark(r), r == ' ', r == '-', r == '\'', r == '’':
		case r == '.' && (i+1 == len(name) || name[i+1] == ' '): // of an abbreviation, not of an address
		default:
			return ""
		}
	}
	return name
}
