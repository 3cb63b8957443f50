package messages

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"net/mail"
	"net/url"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/evently/evently"
)

//go:embed templates/*.tmpl
var templateFiles embed.FS

// Both read the same wording; html/template escapes what is put into it.
var (
	textMail = texttemplate.Must(texttemplate.ParseFS(templateFiles, "templates/wording.tmpl", "templates/mail.txt.tmpl"))
	htmlMail = htmltemplate.Must(htmltemplate.ParseFS(templateFiles, "templates/wording.tmpl", "templates/mail.html.tmpl"))
)

// MailerConfig says how mails look.
type MailerConfig struct {
	// From is the sender: an address, or a name and an address such as Evently <tickets@example.org>.
	From string
	// PublicURL is where readers find the service; empty: mails have no link.
	PublicURL string
	// Courier takes the rendered mails.
	Courier evently.Courier
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Mailer renders mails. The same mail gives the same Message but for its time.
type Mailer struct {
	config MailerConfig
	from   *mail.Address
	domain string // of Message-IDs
}

var _ evently.Mailer = (*Mailer)(nil)

// NewMailer returns an error that names the setting which is wrong.
func NewMailer(config MailerConfig) (*Mailer, error) {
	from, err := mail.ParseAddress(config.From)
	if err != nil {
		return nil, fmt.Errorf("mail_from: %q is no mail address: %w", config.From, err)
	}
	if config.PublicURL != "" {
		link, err := url.Parse(config.PublicURL)
		if err != nil || link.Scheme != "http" && link.Scheme != "https" || link.Host == "" {
			return nil, fmt.Errorf("public_url: %q is no URL such as https://tickets.example", config.PublicURL)
		}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Mailer{config: config, from: from, domain: from.Address[strings.LastIndexByte(from.Address, '@')+1:]}, nil
}

// Send implements evently.Mailer. A mail that cannot be rendered is refused.
func (m *Mailer) Send(ctx context.Context, mail *evently.Mail) error {
	message, err := m.render(mail)
	if err != nil {
		return fmt.Errorf("render mail %s (%s): %w: %w", mail.ID, mail.Kind, evently.ErrMailRefused, err)
	}
	if err := m.config.Courier.Deliver(ctx, message); err != nil {
		return fmt.Errorf("send mail %s (%s): %w", mail.ID, mail.Kind, err)
	}
	return nil
}

// view is what the templates see: texts, ready but for escaping.
type view struct {
	Kind, Name string
	Code       string
	Until      string // when the code, the hold or the offer ends
	Event      string
	When, Zone string
	Where      string
	Changes    []change
	Items      []itemView
	Total      string
	Reference  string
	Position   int
	Offer      bool // a waiter who wants an offer, not a booking
	Cancelled  bool // the event is
	Attached   bool
	Link       string
}

type change struct{ What, Before, Now string }

type itemView struct {
	Quantity    int
	Tier, Price string
}

func (m *Mailer) render(mail *evently.Mail) (*evently.Message, error) {
	v, err := m.view(mail)
	if err != nil {
		return nil, err
	}
	message := &evently.Message{
		ID: mail.ID + "@" + m.domain, Kind: mail.Kind, From: m.from.String(), To: mail.To, At: m.config.Now().UTC(),
	}
	if entry := m.calendarEntry(mail); entry != nil {
		message.Attachments = []evently.Attachment{entry.attachment()}
		v.Attached = true
	}
	var subject, text, html bytes.Buffer
	if err := errors.Join(
		textMail.ExecuteTemplate(&subject, "subject", v),
		textMail.ExecuteTemplate(&text, "mail", v),
		htmlMail.ExecuteTemplate(&html, "mail", v),
	); err != nil {
		return nil, err
	}
	message.Subject = cut(oneLine(subject.String()), subjectRunesMax)
	message.Text, message.HTML = strings.TrimSpace(text.String())+"\n", html.String()
	return message, nil
}

func (m *Mailer) view(mail *evently.Mail) (*view, error) {
	v := &view{Kind: mail.Kind.String(), Code: mail.Code, Link: m.config.PublicURL}
	if mail.Code != "" {
		v.Until = formatTime(mail.ExpiresAt, time.UTC)
		return v, nil // without the name: the address may be somebody else's
	}
	if mail.Event == nil || mail.Reservation == nil && mail.Waiter == nil {
		return nil, errors.New("it lacks the event or the reservation that it tells of")
	}
	zone := zoneOf(mail.Event.Timezone)
	v.Name = addressable(mail.Name)
	v.Event, v.Zone = oneLine(mail.Event.Name), zone.String()
	v.When = formatSpan(mail.Event.StartsAt, mail.Event.EndsAt, zone)
	v.Where = placeOf(mail.Event.Venue, mail.Event.City)
	v.Cancelled = mail.Event.Status == evently.EventCancelled
	if !mail.ExpiresAt.IsZero() {
		v.Until = formatTime(mail.ExpiresAt, zone)
	}
	if mail.Before != nil {
		v.Changes = changesOf(mail.Before, mail.Event)
	}
	if mail.Reservation != nil {
		v.Reference = mail.Reservation.ID.String()
		v.Items = itemsOf(&mail.Reservation.Items, mail.Event, true)
		v.Total = formatMoney(mail.Reservation.Items.TotalMinor(), mail.Event.Currency)
	} else {
		v.Position, v.Offer = mail.Waiter.Position, mail.Waiter.OnRelease == evently.HoldOnRelease
		v.Items = itemsOf(&mail.Waiter.Items, mail.Event, false)
	}
	return v, nil
}

func placeOf(venue, city string) string {
	venue, city = oneLine(venue), oneLine(city)
	if venue == "" || city == "" {
		return venue + city
	}
	return venue + ", " + city
}

// changesOf lists what differs, each time in the zone that it was told in.
func changesOf(before *evently.EventNotice, event *evently.Event) []change {
	var list []change
	add := func(what, before, now string) {
		if before, now = oneLine(before), oneLine(now); before != now {
			list = append(list, change{what, before, now})
		}
	}
	add("Name", before.Name, event.Name)
	add("Time", formatSpan(before.StartsAt, before.EndsAt, zoneOf(before.Timezone)),
		formatSpan(event.StartsAt, event.EndsAt, zoneOf(event.Timezone)))
	add("Time zone", before.Timezone, event.Timezone)
	add("Venue", before.Venue, event.Venue)
	add("City", before.City, event.City)
	return list
}

func itemsOf(items *evently.Items, event *evently.Event, priced bool) []itemView {
	var list []itemView
	for item := range items.All() {
		line := itemView{Quantity: item.Quantity, Tier: evently.TierID(item.Tier)}
		if item.Tier < len(event.Tiers) {
			line.Tier = oneLine(event.Tiers[item.Tier].Name)
		}
		if priced {
			line.Price = formatMoney(item.UnitPriceMinor, event.Currency)
		}
		list = append(list, line)
	}
	return list
}

// calendarEntry returns what belongs into, or out of, the calendar of the reader; nil: nothing.
func (m *Mailer) calendarEntry(mail *evently.Mail) *calendarEntry {
	cancelled := false
	switch mail.Kind {
	case evently.BookingConfirmedMail, evently.WaitlistBookedMail:
	case evently.EventChangedMail:
		if mail.Reservation.Status != evently.Confirmed {
			return nil
		}
	case evently.BookingCancelledMail, evently.EventCancelledMail:
		cancelled = true
	default:
		return nil
	}
	details := "Reference: " + mail.Reservation.ID.String()
	for _, item := range itemsOf(&mail.Reservation.Items, mail.Event, false) {
		details += fmt.Sprintf("\n%d x %s", item.Quantity, item.Tier)
	}
	return &calendarEntry{
		reservation: mail.Reservation.ID, sequence: mail.Seq, at: mail.At, cancelled: cancelled, event: mail.Event,
		organizer: m.from.Address, details: details, url: m.config.PublicURL,
	}
}
