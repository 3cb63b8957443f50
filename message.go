package evently

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// MailKind says what a mail tells its reader.
type MailKind uint8

// The values are stored; never renumber them.
const (
	VerifyEmailMail MailKind = iota + 1
	ResetPasswordMail
	HoldMadeMail
	BookingConfirmedMail
	BookingCancelledMail // by the one who booked
	WaitlistJoinedMail
	WaitlistOfferMail  // a hold for a waiter, to confirm in time
	WaitlistBookedMail // a booking for a waiter
	WaitlistClosedMail
	EventChangedMail   // time, venue, city or name, to the holders of live reservations
	EventCancelledMail // and with it the booking
)

func (k MailKind) String() string {
	switch k {
	case VerifyEmailMail:
		return "verify_email"
	case ResetPasswordMail:
		return "reset_password"
	case HoldMadeMail:
		return "hold_made"
	case BookingConfirmedMail:
		return "booking_confirmed"
	case BookingCancelledMail:
		return "booking_cancelled"
	case WaitlistJoinedMail:
		return "waitlist_joined"
	case WaitlistOfferMail:
		return "waitlist_offer"
	case WaitlistBookedMail:
		return "waitlist_booked"
	case WaitlistClosedMail:
		return "waitlist_closed"
	case EventChangedMail:
		return "event_changed"
	case EventCancelledMail:
		return "event_cancelled"
	}
	return "MailKind(" + strconv.Itoa(int(k)) + ")"
}

// CodePurpose is what a one-time code is good for.
type CodePurpose uint8

// The values are stored; never renumber them.
const (
	VerifyEmailCode   CodePurpose = iota + 1 // proves that the address is the user's
	ResetPasswordCode                        // allows a new password
)

func (p CodePurpose) String() string {
	switch p {
	case VerifyEmailCode:
		return "verify_email"
	case ResetPasswordCode:
		return "reset_password"
	}
	return "CodePurpose(" + strconv.Itoa(int(p)) + ")"
}

// CodeMail asks for a mail with a one-time code. It is sent before ExpiresAt or not at all.
type CodeMail struct {
	To, Name  string
	Purpose   CodePurpose
	Code      string // a secret: never logged, and sealed where it is stored
	ExpiresAt time.Time
}

// Mail is what one mail says, and to whom.
type Mail struct {
	// ID names the mail: 32 hexadecimal digits. The same fact gives the same ID to the same reader, so that a mail that was
	// delivered twice can be recognised by its Message-ID.
	ID       string
	Kind     MailKind
	To, Name string
	At       time.Time // of the fact; of a code: when it was asked for

	// Of the mails with a code:
	Code string

	// ExpiresAt ends what the mail offers: a code, a hold or an offer.
	ExpiresAt time.Time

	// Of the others:
	Event       *Event       // as it is now
	Before      *EventNotice // EventChangedMail: as it was
	Reservation *Reservation // nil for WaitlistJoinedMail and WaitlistClosedMail
	Waiter      *Waiter      // of these two
	Seq         uint64       // of the entry that tells the fact; later mails of a reservation have higher ones
}

// EventNotice is the part of an event whose change its holders are told of.
type EventNotice struct {
	Name, Venue, City, Timezone string
	StartsAt, EndsAt            time.Time
}

// Notice returns the part of the details whose change holders are told of.
func (d *EventDetails) Notice() EventNotice {
	return EventNotice{d.Name, d.Venue, d.City, d.Timezone, d.StartsAt, d.EndsAt}
}

// Message is a rendered mail.
type Message struct {
	ID          string // its Message-ID, without the angle brackets
	Kind        MailKind
	From, To    string // To is a bare address, From may have a name before it
	Subject     string
	Text, HTML  string
	Attachments []Attachment
	At          time.Time // when it was rendered
}

// Attachment is a file that goes with a Message.
type Attachment struct {
	Name, MediaType string
	Content         []byte
}

// Errors of a Mailer and a Courier. Any other error says that the mail may or may not have been sent; trying again may
// send it twice, with the same ID.
var (
	// ErrMailRefused: this mail will never be taken. Trying again is of no use.
	ErrMailRefused = errors.New("mail refused")
	// ErrMailPaused: nothing was tried, because the last attempts have failed. Trying again soon is right, and no failure of
	// the mail.
	ErrMailPaused = errors.New("mail is paused")
)

// Mailer renders mails and has them delivered. It returns ErrMailRefused or ErrMailPaused, wrapped with the cause.
type Mailer interface {
	Send(ctx context.Context, mail *Mail) error
}

// Courier delivers rendered mails, at least once each. It returns ErrMailRefused or ErrMailPaused, wrapped with the cause.
type Courier interface {
	Deliver(ctx context.Context, message *Message) error
}

// Mailbox is where mails lie that have no server to go to, on machines of developers.
type Mailbox interface {
	// Messages lists those to an address, or all when it is empty: newest first, limit at most.
	Messages(ctx context.Context, to string, limit int) ([]StoredMessage, error)
}

// StoredMessage is a Message in a Mailbox.
type StoredMessage struct {
	Number int64 // counts up
	Message
}
