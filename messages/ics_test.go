package messages

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/evently/evently"
)

// unfold takes a calendar apart into its properties, as RFC 5545, section 3.1 says.
func unfold(t testing.TB, calendar string) map[string]string {
	t.Helper()
	if !strings.HasSuffix(calendar, "\r\n") {
		t.Errorf("does not end with CRLF: %q", calendar)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(calendar, "\r\n"), "\r\n") {
		if len(line) > icsLineBytesMax || strings.ContainsAny(line, "\r\n") || !utf8.ValidString(line) {
			t.Errorf("line of %d bytes: %q", len(line), line)
		}
	}
	properties := make(map[string]string)
	for line := range strings.SplitSeq(strings.TrimSuffix(strings.ReplaceAll(calendar, "\r\n ", ""), "\r\n"), "\r\n") {
		name, value, found := strings.Cut(line, ":")
		if !found {
			t.Errorf("line without a value: %q", line)
		}
		properties[name] = value
	}
	return properties
}

// unescape is the inverse of icsText for texts that have no control characters but newlines.
var unescape = strings.NewReplacer(`\\`, `\`, `\;`, `;`, `\,`, `,`, `\n`, "\n")

func TestCalendar_TextsComeBackWhole(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringOf(rapid.OneOf(
			rapid.Rune(), rapid.SampledFrom([]rune(`\;,:"`+"\n\r\t\x00é漢🎻")),
		)).Draw(rt, "text")
		var c calendar
		c.line("SUMMARY", icsText(text))
		want := strings.Map(func(r rune) rune {
			if r != '\n' && (r < ' ' || r == 0x7f) {
				return -1
			}
			return r
		}, text)
		if got := unescape.Replace(unfold(t, c.text.String())["SUMMARY"]); got != want {
			rt.Fatalf("%q comes back as %q", want, got)
		}
	})
}

// All mails about one booking tell of the same entry of the calendar, in an order that no mail on the way can confuse.
func TestCalendar_LaterMailsReplaceEarlierOnes(t *testing.T) {
	confirmed, changed, cancelled := mails(t)[evently.BookingConfirmedMail], mails(t)[evently.EventChangedMail],
		mails(t)[evently.EventCancelledMail]
	changed.Seq, cancelled.Seq = confirmed.Seq+1, 1<<40
	for _, c := range []struct {
		mail                     *evently.Mail
		method, status, sequence string
	}{
		{confirmed, "PUBLISH", "CONFIRMED", "41"}, {changed, "PUBLISH", "CONFIRMED", "42"}, {cancelled, "CANCEL", "CANCELLED", "2147483647"},
	} {
		message := render(t, c.mail)
		if len(message.Attachments) != 1 {
			t.Fatalf("%s: %d attachments", c.mail.Kind, len(message.Attachments))
		}
		file := message.Attachments[0]
		got := unfold(t, string(file.Content))
		if got["UID"] != c.mail.Reservation.ID.String()+"@evently" || got["METHOD"] != c.method || got["STATUS"] != c.status ||
			got["SEQUENCE"] != c.sequence || got["DTSTAMP"] != "20260501T100000Z" || got["ORGANIZER"] != "mailto:tickets@tickets.example" {
			t.Errorf("%s: %v", c.mail.Kind, got)
		}
		if want := "text/calendar; charset=utf-8; method=" + c.method; file.MediaType != want {
			t.Errorf("%s: media type %q, want %q", c.mail.Kind, file.MediaType, want)
		}
		if again := render(t, c.mail); string(again.Attachments[0].Content) != string(file.Content) || again.ID != message.ID {
			t.Errorf("%s: rendered again it differs", c.mail.Kind)
		}
	}
}

func TestCalendar_OnlyForBookings(t *testing.T) {
	want := map[evently.MailKind]bool{
		evently.BookingConfirmedMail: true, evently.WaitlistBookedMail: true, evently.BookingCancelledMail: true,
		evently.EventCancelledMail: true, evently.EventChangedMail: true,
	}
	for kind, mail := range mails(t) {
		if got := len(render(t, mail).Attachments) == 1; got != want[kind] {
			t.Errorf("%s has a calendar: %v, want %v", kind, got, want[kind])
		}
	}
	held := mails(t)[evently.EventChangedMail]
	held.Reservation.Status = evently.Held
	if message := render(t, held); len(message.Attachments) != 0 || strings.Contains(message.Text, "attached") {
		t.Errorf("a hold has a calendar: %s", message.Text)
	}
}
