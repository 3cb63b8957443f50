package messages

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

var update = flag.Bool("update", false, "write the rendered mails as those that are wanted")

// taken is a courier that keeps what it is given.
type taken struct{ messages []*evently.Message }

func (t *taken) Deliver(_ context.Context, message *evently.Message) error {
	t.messages = append(t.messages, message)
	return nil
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment.UTC()
}

func concert(t testing.TB) *evently.Event {
	return &evently.Event{
		ID: 7, Status: evently.EventPublished,
		EventDetails: evently.EventDetails{
			Name: "Kammermusik & more", Venue: "Großer Saal", City: "Berlin", Timezone: "Europe/Berlin", Currency: "EUR",
			StartsAt: at(t, "2026-06-01T18:00:00Z"), EndsAt: at(t, "2026-06-01T20:30:00Z"),
			Tiers: []evently.Tier{{Name: "Parkett"}, {Name: "Rang <links>"}},
		},
	}
}

func reservation(t testing.TB, status evently.ReservationStatus) *evently.Reservation {
	t.Helper()
	items, err := evently.NewItems(
		evently.Item{Tier: 0, Quantity: 2, UnitPriceMinor: 4550}, evently.Item{Tier: 1, Quantity: 1, UnitPriceMinor: 123_456_700})
	if err != nil {
		t.Fatal(err)
	}
	return &evently.Reservation{
		ID: evently.ReservationID{Event: 7, Token: 9}, User: 3, Status: status, Items: items, Currency: "EUR",
		ExpiresAt: at(t, "2026-05-01T10:10:00Z"),
	}
}

// mails is one of each kind.
func mails(t testing.TB) map[evently.MailKind]*evently.Mail {
	list := make(map[evently.MailKind]*evently.Mail)
	for kind := evently.VerifyEmailMail; kind <= evently.EventCancelledMail; kind++ {
		mail := &evently.Mail{
			ID: strings.Repeat("0f", 16), Kind: kind, To: "ann@example.org", Name: "Ann O'Neill-Maier Jr.", Seq: 41,
			At: at(t, "2026-05-01T10:00:00Z"),
		}
		list[kind] = mail
		switch kind {
		case evently.VerifyEmailMail, evently.ResetPasswordMail:
			mail.Code, mail.ExpiresAt = "012345", at(t, "2026-05-01T10:10:00Z")
			continue
		case evently.WaitlistJoinedMail, evently.WaitlistClosedMail:
			mail.Waiter = &evently.Waiter{
				Items: evently.OneItem(evently.Item{Tier: 0, Quantity: 2}), Position: 3, OnRelease: evently.HoldOnRelease,
			}
		case evently.HoldMadeMail, evently.WaitlistOfferMail:
			mail.Reservation = reservation(t, evently.Held)
			mail.ExpiresAt = mail.Reservation.ExpiresAt
		case evently.BookingCancelledMail, evently.EventCancelledMail:
			mail.Reservation = reservation(t, evently.Cancelled)
		default:
			mail.Reservation = reservation(t, evently.Confirmed)
		}
		mail.Event = concert(t)
		if kind == evently.EventCancelledMail {
			mail.Event.Status = evently.EventCancelled
		}
		if kind == evently.EventChangedMail {
			before := mail.Event.Notice()
			before.Venue, before.StartsAt = "Kleiner Saal", at(t, "2026-06-01T17:00:00Z")
			mail.Before = &before
		}
	}
	return list
}

func newMailer(t testing.TB, courier evently.Courier) *Mailer {
	t.Helper()
	m, err := NewMailer(MailerConfig{
		From: "Evently <tickets@tickets.example>", PublicURL: "https://tickets.example", Courier: courier,
		Now: func() time.Time { return at(t, "2026-05-01T10:00:01Z") },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func render(t testing.TB, mail *evently.Mail) *evently.Message {
	t.Helper()
	var courier taken
	if err := newMailer(t, &courier).Send(t.Context(), mail); err != nil {
		t.Fatal(err)
	}
	return courier.messages[0]
}

// The wanted mails are in testdata/mails, as people read them.
func TestMailer_SaysWhatIsWanted(t *testing.T) {
	for kind, mail := range mails(t) {
		t.Run(kind.String(), func(t *testing.T) {
			message := render(t, mail)
			if message.ID != mail.ID+"@tickets.example" || message.To != mail.To || message.Kind != kind ||
				message.From != `"Evently" <tickets@tickets.example>` {
				t.Errorf("envelope %q %q %q %s", message.ID, message.To, message.From, message.Kind)
			}
			got := fmt.Sprintf("Subject: %s\n\n%s\n%s", message.Subject, message.Text, message.HTML)
			for _, file := range message.Attachments {
				got += fmt.Sprintf("\n%s: %s\n%s", file.Name, file.MediaType, file.Content)
			}
			path := filepath.Join("testdata", "mails", kind.String()+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("rendered otherwise (-want +got):\n%s", diff)
			}
		})
	}
}

// Texts of users change neither the headers nor the HTML nor the calendar.
func TestMailer_TextsOfUsersAreText(t *testing.T) {
	const nasty = "Gala\r\nBcc: all@example.org\r\n\r\n<script>alert(1)</script>\u202e{{.Code}} BEGIN:VEVENT\u2028x"
	for kind, mail := range mails(t) {
		mail.Name = nasty
		if mail.Event != nil {
			mail.Event.Name, mail.Event.Venue, mail.Event.City, mail.Event.Tiers[0].Name = nasty, nasty, nasty, nasty
		}
		if mail.Before != nil {
			mail.Before.Name = nasty + "!"
		}
		message := render(t, mail)
		if strings.ContainsAny(message.Subject, "\r\n\u202e\u2028") {
			t.Errorf("%s: subject %q", kind, message.Subject)
		}
		if strings.Contains(message.HTML, "<script") || strings.ContainsRune(message.HTML, '\u202e') {
			t.Errorf("%s: HTML has markup of a user:\n%s", kind, message.HTML)
		}
		for line := range strings.SplitSeq(message.Text, "\n") {
			if strings.HasPrefix(line, "Bcc:") || strings.HasPrefix(line, "BEGIN:") {
				t.Errorf("%s: a user began the line %q", kind, line)
			}
		}
		for _, file := range message.Attachments {
			if n := strings.Count(string(file.Content), "\r\nBEGIN:VEVENT"); n != 1 {
				t.Errorf("%s: %d events in the calendar:\n%s", kind, n, file.Content)
			}
		}
	}
}

func TestAddressable(t *testing.T) {
	for name, want := range map[string]string{
		"Ann": "Ann", " Ann \t Lee ": "Ann Lee", "Dr. Özlem Çelik-O’Neil Jr.": "Dr. Özlem Çelik-O’Neil Jr.", "李小龍": "李小龍", "": "",
		"You won! visit evil.example": "", "http://evil": "", "evil.example": "", "a@b": "", "R2D2": "", strings.Repeat("a", 61): "",
	} {
		if got := addressable(name); got != want {
			t.Errorf("%q is greeted as %q, want %q", name, got, want)
		}
	}
}

// Nobody is greeted by name at an address that may be somebody else's.
func TestMailer_CodesNameNobody(t *testing.T) {
	for _, kind := range []evently.MailKind{evently.VerifyEmailMail, evently.ResetPasswordMail} {
		if message := render(t, mails(t)[kind]); strings.Contains(message.Text+message.HTML+message.Subject, "Ann") {
			t.Errorf("%s names the user:\n%s", kind, message.Text)
		}
	}
}

// The clocks of Berlin: on 29 March 2026 they go from 02:00 CET to 03:00 CEST, on 25 October 2026 from 03:00 CEST back to 02:00 CET.
func TestMailer_TimesOverChangesOfTheClock(t *testing.T) {
	for _, c := range []struct{ zone, from, to, want string }{
		{
			"Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:15:00Z",
			"Sunday, 29 March 2026, 01:30 CET to 03:15 CEST",
		},
		{"Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z", "Sunday, 29 March 2026, 03:00 CEST to 05:00 CEST"},
		{ // the hour that comes twice
			"Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z",
			"Sunday, 25 October 2026, 02:30 CEST to 02:30 CET",
		},
		{"Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z", "Sunday, 25 October 2026, 02:30 CET to 03:30 CET"},
		{
			"Europe/Berlin", "2026-10-24T20:00:00Z", "2026-10-25T01:30:00Z",
			"Saturday, 24 October 2026, 22:00 CEST to Sunday, 25 October 2026, 02:30 CET",
		},
		{"America/Sao_Paulo", "2026-07-01T22:00:00Z", "2026-07-01T23:00:00Z", "Wednesday, 1 July 2026, 19:00 UTC-03 to 20:00 UTC-03"},
		{"Asia/Kathmandu", "2026-07-01T22:00:00Z", "2026-07-01T23:00:00Z", "Thursday, 2 July 2026, 03:45 UTC+0545 to 04:45 UTC+0545"},
		{"Nowhere/Atlantis", "2026-07-01T22:00:00Z", "2026-07-01T23:00:00Z", "Wednesday, 1 July 2026, 22:00 UTC to 23:00 UTC"},
	} {
		mail := mails(t)[evently.BookingConfirmedMail]
		mail.Event.Timezone, mail.Event.StartsAt, mail.Event.EndsAt = c.zone, at(t, c.from), at(t, c.to)
		message := render(t, mail)
		if !strings.Contains(message.Text, "\n"+c.want+"\n") {
			t.Errorf("%s %s: want %q in\n%s", c.zone, c.from, c.want, message.Text)
		}
		// The calendar tells the moment, which no change of the clock can shift.
		calendar := string(message.Attachments[0].Content)
		for _, want := range []string{"DTSTART:" + icsMoment(c.from), "DTEND:" + icsMoment(c.to)} {
			if !strings.Contains(calendar, "\r\n"+want+"\r\n") {
				t.Errorf("%s %s: want %q in\n%s", c.zone, c.from, want, calendar)
			}
		}
	}
}

// icsMoment is 20260329T003000Z for 2026-03-29T00:30:00Z.
func icsMoment(rfc3339 string) string { return strings.NewReplacer("-", "", ":", "").Replace(rfc3339) }

// A change that leaves the moment as it is and moves the place is told as both readers know it.
func TestMailer_ChangeOfZoneShowsBothTimes(t *testing.T) {
	mail := mails(t)[evently.EventChangedMail]
	before := mail.Event.Notice()
	mail.Before = &before
	mail.Event.Timezone, mail.Event.City = "Europe/London", "London"
	text := render(t, mail).Text
	for _, want := range []string{
		"Time: Monday, 1 June 2026, 19:00 BST to 21:30 BST\n  before: Monday, 1 June 2026, 20:00 CEST to 22:30 CEST",
		"Time zone: Europe/London\n  before: Europe/Berlin", "City: London\n  before: Berlin",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Venue:") {
		t.Errorf("tells of a venue that has not changed:\n%s", text)
	}
}

func TestFormatMoney(t *testing.T) {
	for _, c := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{0, "EUR", "EUR 0.00"},
		{5, "EUR", "EUR 0.05"},
		{123_450, "EUR", "EUR 1,234.50"},
		{100_000_000, "USD", "USD 1,000,000.00"},
		{0, "JPY", "JPY 0"},
		{999, "JPY", "JPY 999"},
		{1_234_567, "JPY", "JPY 1,234,567"},
		{1, "KWD", "KWD 0.001"},
		{1_234_567, "KWD", "KWD 1,234.567"},
		{12_345, "CLF", "CLF 1.2345"},
		{100, "XXX", "XXX 1.00"},
		{-5, "EUR", "EUR -0.05"},
		{-123_456, "EUR", "EUR -1,234.56"},
		{-1 << 63, "EUR", "EUR -92,233,720,368,547,758.08"},
		{1<<63 - 1, "JPY", "JPY 9,223,372,036,854,775,807"},
	} {
		if got := formatMoney(c.minor, c.currency); got != c.want {
			t.Errorf("%d %s is %q, want %q", c.minor, c.currency, got, c.want)
		}
	}
}

func TestMailer_RefusesWhatItCannotTell(t *testing.T) {
	mail := mails(t)[evently.BookingConfirmedMail]
	mail.Reservation = nil
	if err := newMailer(t, new(taken)).Send(t.Context(), mail); !errors.Is(err, evently.ErrMailRefused) {
		t.Errorf("got %v, want %v", err, evently.ErrMailRefused)
	}
}

func TestNewMailer_RefusesWrongSettings(t *testing.T) {
	for _, config := range []MailerConfig{
		{From: ""},
		{From: "nobody"},
		{From: "a@b.example, c@d.example"},
		{From: "a@b.example\r\nBcc: c@d.example"},
		{From: "a@b.example", PublicURL: "tickets.example"},
		{From: "a@b.example", PublicURL: "javascript:alert(1)"},
	} {
		if _, err := NewMailer(config); err == nil {
			t.Errorf("%+v is accepted", config)
		}
	}
}
