package evently

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of an event. They bound the memory of a ledger and keep every sum inside 64 bits.
const (
	TiersMax         = 32
	CapacityMax      = 10_000_000 // seats of one event
	PriceMinorMax    = 1_000_000_000_000
	HoldTTLMin       = time.Second
	HoldTTLMax       = 7 * 24 * time.Hour
	HoldTTLDefault   = 10 * time.Minute
	MaxPerBookingMax = 1000
	MaxPerBookingDef = 10
	MaxPerUserMax    = 1_000_000
	textMax          = 200
	descriptionMax   = 10_000
)

// EventStatus is the stage of an event's life: draft -> published -> cancelled, or draft -> cancelled.
type EventStatus uint8

// The values are stored; never renumber them.
const (
	EventDraft EventStatus = iota
	EventPublished
	EventCancelled
)

func (s EventStatus) String() string {
	switch s {
	case EventDraft:
		return "draft"
	case EventPublished:
		return "published"
	case EventCancelled:
		return "cancelled"
	}
	return "EventStatus(" + strconv.Itoa(int(s)) + ")"
}

// ParseEventStatus is the inverse of EventStatus.String.
func ParseEventStatus(s string) (EventStatus, error) {
	for status := EventDraft; status <= EventCancelled; status++ {
		if status.String() == s {
			return status, nil
		}
	}
	return 0, fmt.Errorf("parse event status %.40q: not draft, published or cancelled", s)
}

// Event is what is sold. A value reached through a *Event is shared and never modified.
type Event struct {
	ID        EventID
	Organizer UserID
	Status    EventStatus
	Version   uint64 // of these details; counts up with each change by a person, and is the ETag
	CreatedAt time.Time
	Pricing   *PricingRule // nil: prices are those that the organizer set
	EventDetails
}

// EventDetails is the part of an event that its organizer writes.
type EventDetails struct {
	Name, Description, Category, Venue, City string

	Timezone     string // IANA name
	Currency     string // ISO 4217, three capital letters
	StartsAt     time.Time
	EndsAt       time.Time
	SalesStartAt time.Time // zero: on sale as soon as published
	SalesEndAt   time.Time // zero: on sale until StartsAt

	HoldTTL       time.Duration // how long a hold lives unless it is confirmed; HoldTTLMin to HoldTTLMax
	MaxPerBooking int           // seats in one reservation, over all tiers; 1 to MaxPerBookingMax
	MaxPerUser    int           // seats of one user that are held, booked or waited for; 0: no limit; up to MaxPerUserMax
	Tiers         []Tier        // 1 to TiersMax; a tier keeps its index for ever
}

// Tier is a class of seats with a price of its own.
type Tier struct {
	Name           string
	Capacity       int
	BasePriceMinor int64 // set by the organizer
	PriceMinor     int64 // what a reservation made now pays a seat
	Retired        bool  // no longer offered: capacity 0, nothing held or booked
}

// TierID is the text form of the tier at an index of EventDetails.Tiers.
func TierID(index int) string { return "t" + strconv.Itoa(index+1) }

// ParseTierID is the inverse of TierID.
func ParseTierID(s string) (index int, err error) {
	digits, found := strings.CutPrefix(s, "t")
	n, err := strconv.Atoi(digits)
	if !found || err != nil || n < 1 || n > TiersMax || TierID(n-1) != s {
		return 0, fmt.Errorf("parse tier id %.40q: not of the form t1 to t%d", s, TiersMax)
	}
	return n - 1, nil
}

// Capacity is the sum of the tiers' capacities, in seats.
func (d *EventDetails) Capacity() int {
	sum := 0
	for i := range d.Tiers {
		sum += d.Tiers[i].Capacity
	}
	return sum
}

// SalesEnd is the moment from which the event cannot be booked any more.
func (d *EventDetails) SalesEnd() time.Time {
	if d.SalesEndAt.IsZero() || d.SalesEndAt.After(d.StartsAt) {
		return d.StartsAt
	}
	return d.SalesEndAt
}

// SoleTier returns the index of the tier on offer when there is no other.
func SoleTier(tiers []Tier) (index int, sole bool) {
	index = -1
	for i := range tiers {
		switch {
		case tiers[i].Retired:
		case index >= 0:
			return -1, false
		default:
			index = i
		}
	}
	return index, index >= 0
}

// OnSale reports whether the event can be booked at a moment.
func (e *Event) OnSale(at time.Time) bool {
	return e.Status == EventPublished && !at.Before(e.SalesStartAt) && at.Before(e.SalesEnd())
}

// Normalize truncates times to the millisecond in UTC, the precision of the journal, and fills defaults.
func (d *EventDetails) Normalize() {
	for _, t := range []*time.Time{&d.StartsAt, &d.EndsAt, &d.SalesStartAt, &d.SalesEndAt} {
		if !t.IsZero() {
			*t = t.UTC().Truncate(time.Millisecond)
		}
	}
	if d.HoldTTL == 0 {
		d.HoldTTL = HoldTTLDefault
	}
	if d.MaxPerBooking == 0 {
		d.MaxPerBooking = MaxPerBookingDef
	}
}

// Validate returns an *Error with CodeInvalidRequest that names every field out of its bounds, or nil.
// Field names are those of the HTTP API.
func (d *EventDetails) Validate() error {
	var fields FieldErrors
	fields.checkText("name", d.Name, 1, textMax)
	fields.checkText("description", d.Description, 0, descriptionMax)
	fields.checkText("category", d.Category, 0, textMax)
	fields.checkText("venue", d.Venue, 0, textMax)
	fields.checkText("city", d.City, 0, textMax)
	if _, err := time.LoadLocation(d.Timezone); err != nil || d.Timezone == "" || d.Timezone == "Local" {
		fields.Add("timezone", "must be an IANA time zone name such as Europe/Berlin")
	}
	if len(d.Currency) != 3 || strings.Trim(d.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		fields.Add("currency", "must be an ISO 4217 code such as EUR")
	}
	d.validateTimes(&fields)
	if d.HoldTTL < HoldTTLMin || d.HoldTTL > HoldTTLMax || d.HoldTTL%time.Second != 0 {
		fields.Add("hold_ttl_seconds", fmt.Sprintf("must be %d to %d whole seconds", int(HoldTTLMin.Seconds()), int(HoldTTLMax.Seconds())))
	}
	if d.MaxPerBooking < 1 || d.MaxPerBooking > MaxPerBookingMax {
		fields.Add("max_per_booking", fmt.Sprintf("must be 1 to %d", MaxPerBookingMax))
	}
	if d.MaxPerUser < 0 || d.MaxPerUser > MaxPerUserMax {
		fields.Add("max_per_user", fmt.Sprintf("must be 0 to %d; 0 is no limit", MaxPerUserMax))
	}
	d.validateTiers(&fields)
	return fields.Err()
}

// checkText adds a field whose text is not of runesMin to runesMax characters, is only blanks where there must be some, or is
// none that storage can hold.
func (f *FieldErrors) checkText(field, value string, runesMin, runesMax int) {
	switch n := utf8.RuneCountInString(value); {
	case n > runesMax || n < runesMin || runesMin > 0 && strings.TrimSpace(value) == "":
		f.Add(field, fmt.Sprintf("must have %d to %d characters", runesMin, runesMax))
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		f.Add(field, "must be valid UTF-8 without NUL characters")
	case runesMax <= textMax && strings.ContainsFunc(value, unicode.IsControl):
		f.Add(field, "must be one line, without control characters")
	}
}

func (d *EventDetails) validateTimes(fields *FieldErrors) {
	// The year bounds keep every time inside RFC 3339 and Postgres' timestamptz.
	bounded := func(field string, t time.Time) {
		if year := t.Year(); year < 2000 || year > 9999 {
			fields.Add(field, "must be a time in the years 2000 to 9999")
		}
	}
	bounded("starts_at", d.StartsAt)
	bounded("ends_at", d.EndsAt)
	if !d.EndsAt.After(d.StartsAt) {
		fields.Add("ends_at", "must be after starts_at")
	}
	if !d.SalesStartAt.IsZero() {
		bounded("sales_start_at", d.SalesStartAt)
		if !d.SalesStartAt.Before(d.StartsAt) {
			fields.Add("sales_start_at", "must be before starts_at")
		}
	}
	if !d.SalesEndAt.IsZero() {
		bounded("sales_end_at", d.SalesEndAt)
		if !d.SalesEndAt.After(d.SalesStartAt) {
			fields.Add("sales_end_at", "must be after sales_start_at")
		}
	}
}

func (d *EventDetails) validateTiers(fields *FieldErrors) {
	if len(d.Tiers) < 1 || len(d.Tiers) > TiersMax {
		fields.Add("tiers", fmt.Sprintf("must have 1 to %d tiers", TiersMax))
	}
	for i := range d.Tiers {
		tier := &d.Tiers[i]
		at := fmt.Sprintf("tiers[%d].", i)
		fields.checkText(at+"name", tier.Name, 1, textMax)
		if tier.Capacity < 0 || tier.Capacity > CapacityMax || (tier.Retired && tier.Capacity != 0) {
			fields.Add(at+"capacity", fmt.Sprintf("must be 0 to %d", CapacityMax))
		}
		if tier.BasePriceMinor < 0 || tier.BasePriceMinor > PriceMinorMax || tier.PriceMinor < 0 || tier.PriceMinor > PriceMinorMax {
			fields.Add(at+"base_price_minor", fmt.Sprintf("must be 0 to %d", int64(PriceMinorMax)))
		}
	}
	if sum := d.Capacity(); sum < 1 || sum > CapacityMax {
		fields.Add("capacity", fmt.Sprintf("must be 1 to %d seats in all", CapacityMax))
	}
}
