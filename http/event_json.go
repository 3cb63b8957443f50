package http

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/evently/evently"
)

// eventJSON is an event as everyone may see it.
type eventJSON struct {
	ID            string     `json:"id"`
	Name          string     `json:"name"`
	Description   string     `json:"description"`
	Category      string     `json:"category"`
	Venue         string     `json:"venue"`
	City          string     `json:"city"`
	Timezone      string     `json:"timezone"`
	StartsAt      time.Time  `json:"starts_at"`
	EndsAt        time.Time  `json:"ends_at"`
	SalesStartAt  *time.Time `json:"sales_start_at"`
	SalesEndAt    *time.Time `json:"sales_end_at"`
	Status        string     `json:"status"`
	Capacity      int        `json:"capacity"`
	Available     int        `json:"available"`
	Tiers         []tierJSON `json:"tiers"`
	Currency      string     `json:"currency"`
	HoldTTL       int64      `json:"hold_ttl_seconds"`
	MaxPerBooking int        `json:"max_per_booking"`
	MaxPerUser    *int       `json:"max_per_user"` // null: no limit
	Version       uint64     `json:"version"`
	Seq           uint64     `json:"seq"`
}

// tierJSON is a tier with its price.
type tierJSON struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Capacity       int    `json:"capacity"`
	Available      int    `json:"available"`
	BasePriceMinor int64  `json:"base_price_minor"`
	PriceMinor     int64  `json:"price_minor"`
}

func newEventJSON(state *evently.State) *eventJSON {
	event, totals := state.Event, state.Totals()
	body := &eventJSON{
		ID: event.ID.String(), Name: event.Name, Description: event.Description, Category: event.Category,
		Venue: event.Venue, City: event.City, Timezone: event.Timezone,
		StartsAt: event.StartsAt.UTC(), EndsAt: event.EndsAt.UTC(),
		SalesStartAt: optionalTime(event.SalesStartAt), SalesEndAt: optionalTime(event.SalesEndAt),
		Status: event.Status.String(), Capacity: totals.Capacity, Available: totals.Available(),
		Tiers: make([]tierJSON, 0, len(event.Tiers)), Currency: event.Currency,
		HoldTTL: int64(event.HoldTTL / time.Second), MaxPerBooking: event.MaxPerBooking,
		Version: event.Version, Seq: state.Seq,
	}
	if event.MaxPerUser != 0 {
		body.MaxPerUser = &event.MaxPerUser
	}
	for i, tier := range event.Tiers {
		if !tier.Retired {
			body.Tiers = append(body.Tiers, tierJSON{
				ID: evently.TierID(i), Name: tier.Name, Capacity: tier.Capacity, Available: state.Tiers[i].Available(),
				BasePriceMinor: tier.BasePriceMinor, PriceMinor: tier.PriceMinor,
			})
		}
	}
	return body
}

// optionalTime is nil, and so null in JSON, for no time.
func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// availabilityJSON is the seat counts of an event.
type availabilityJSON struct {
	EventID    string                 `json:"event_id"`
	Seq        uint64                 `json:"seq"`
	Capacity   int                    `json:"capacity"`
	Available  int                    `json:"available"`
	Held       int                    `json:"held"`
	Booked     int                    `json:"booked"`
	Waitlisted int                    `json:"waitlisted"` // entries of the waitlist that wait
	Tiers      []tierAvailabilityJSON `json:"tiers"`
	AsOf       time.Time              `json:"as_of"`
}

type tierAvailabilityJSON struct {
	ID        string `json:"id"`
	Capacity  int    `json:"capacity"`
	Available int    `json:"available"`
	Held      int    `json:"held"`
	Booked    int    `json:"booked"`
}

func newAvailabilityJSON(state *evently.State) *availabilityJSON {
	totals := state.Totals()
	body := &availabilityJSON{
		EventID: state.Event.ID.String(), Seq: state.Seq, Capacity: totals.Capacity, Available: totals.Available(),
		Held: totals.Held, Booked: totals.Booked, Waitlisted: state.Waiting, Tiers: make([]tierAvailabilityJSON, 0, len(state.Tiers)),
		AsOf: state.AsOf.UTC().Truncate(time.Millisecond),
	}
	for i, tier := range state.Tiers {
		if !state.Event.Tiers[i].Retired {
			body.Tiers = append(body.Tiers, tierAvailabilityJSON{
				evently.TierID(i), tier.Capacity, tier.Available(), tier.Held, tier.Booked,
			})
		}
	}
	return body
}

// utilizationJSON is how full an event is.
type utilizationJSON struct {
	EventID     string  `json:"event_id"`
	Name        string  `json:"name"`
	Capacity    int     `json:"capacity"`
	Booked      int     `json:"booked"`
	Held        int     `json:"held"`
	Utilization float64 `json:"utilization"` // booked seats of capacity, 0 to 1
}

func newUtilizationJSON(state *evently.State) *utilizationJSON {
	totals := state.Totals()
	return &utilizationJSON{
		EventID: state.Event.ID.String(), Name: state.Event.Name, Capacity: totals.Capacity, Booked: totals.Booked, Held: totals.Held,
		Utilization: float64(totals.Booked) / float64(max(totals.Capacity, 1)),
	}
}

// eventBody is what an organizer writes of an event. The seats are given as capacity and base_price_minor, for an event of one
// tier, or as tiers, whose price may be left to base_price_minor.
type eventBody struct {
	Name           string     `json:"name"`
	Description    string     `json:"description"`
	Category       string     `json:"category"`
	Venue          string     `json:"venue"`
	City           string     `json:"city"`
	Timezone       string     `json:"timezone"`
	Currency       string     `json:"currency"`
	StartsAt       time.Time  `json:"starts_at"`
	EndsAt         time.Time  `json:"ends_at"`
	SalesStartAt   *time.Time `json:"sales_start_at"`
	SalesEndAt     *time.Time `json:"sales_end_at"`
	HoldTTL        *int64     `json:"hold_ttl_seconds"`
	MaxPerBooking  *int       `json:"max_per_booking"`
	MaxPerUser     *int       `json:"max_per_user"` // null or 0: no limit
	Capacity       *int       `json:"capacity"`
	BasePriceMinor *int64     `json:"base_price_minor"`
	Tiers          []tierBody `json:"tiers"`
	Status         *string    `json:"status"`
}

// tierBody is what an organizer writes of a tier. The id, of a tier the event has, is left out for a new one.
type tierBody struct {
	ID             *string `json:"id"`
	Name           string  `json:"name"`
	Capacity       *int    `json:"capacity"`
	BasePriceMinor *int64  `json:"base_price_minor"`
}

// tierNameDefault is the name of the tier of an event that was given a capacity and no tiers.
const tierNameDefault = "General admission"

// details returns the details the body describes, of a new event or as the revision of a current one. It returns an
// *evently.Error with CodeInvalidRequest that names every field that is wrong. The tierFields tell where in
// the body each tier stands.
func (b *eventBody) details(current *evently.Event, holdTTL time.Duration, now time.Time) (evently.EventDetails, tierFields, error) {
	d := evently.EventDetails{
		Name: strings.TrimSpace(b.Name), Description: b.Description, Category: strings.TrimSpace(b.Category),
		Venue: strings.TrimSpace(b.Venue), City: strings.TrimSpace(b.City), Timezone: b.Timezone, Currency: b.Currency,
		StartsAt: b.StartsAt, EndsAt: b.EndsAt, HoldTTL: holdTTL,
	}
	if b.SalesStartAt != nil {
		d.SalesStartAt = *b.SalesStartAt
	}
	if b.SalesEndAt != nil {
		d.SalesEndAt = *b.SalesEndAt
	}
	// A value that is given and out of bounds must stay so, where Normalize and the unit would make something else of it.
	if b.HoldTTL != nil {
		d.HoldTTL = time.Duration(outOfZero(min(*b.HoldTTL, int64(evently.HoldTTLMax/time.Second)+1))) * time.Second
	}
	if b.MaxPerBooking != nil {
		d.MaxPerBooking = outOfZero(*b.MaxPerBooking)
	}
	if b.MaxPerUser != nil {
		d.MaxPerUser = *b.MaxPerUser
	}
	var known []evently.Tier
	if current != nil {
		known = current.Tiers
	}
	var wrong evently.FieldErrors
	var places tierFields
	d.Tiers, places = b.tiers(known, &wrong)
	tiersWrong := len(wrong) > 0
	b.checkStatus(current, &wrong)
	d.Normalize()
	if d.StartsAt.Year() >= 2000 && !d.StartsAt.After(now) && (current == nil || !d.StartsAt.Equal(current.StartsAt)) {
		wrong.Add("starts_at", "must be in the future")
	}
	var invalid *evently.Error
	if errors.As(d.Validate(), &invalid) {
		for _, field := range places.translate(invalid.Fields) {
			if ofTiers := field.Field == "capacity" || strings.HasPrefix(field.Field, "tiers"); !ofTiers || !tiersWrong {
				wrong.Add(field.Field, field.Message)
			}
		}
	}
	return d, places, wrong.Err()
}

// status is the one a new event gets.
func (b *eventBody) status() evently.EventStatus {
	if b.Status != nil && *b.Status == evently.EventDraft.String() {
		return evently.EventDraft
	}
	return evently.EventPublished
}

func (b *eventBody) checkStatus(current *evently.Event, wrong *evently.FieldErrors) {
	switch {
	case b.Status == nil:
	case current == nil && *b.Status != b.status().String():
		wrong.Add("status", "must be draft or published")
	case current != nil && *b.Status != current.Status.String():
		wrong.Add("status", "cannot be changed here; publish or cancel the event")
	}
}

// tiers returns the tiers of the details: those known, each at its index, then new ones. A known tier that the body does not
// have is retired.
func (b *eventBody) tiers(known []evently.Tier, wrong *evently.FieldErrors) ([]evently.Tier, tierFields) {
	switch {
	case b.Tiers == nil && b.Capacity == nil:
		wrong.Add("capacity", "is required, or tiers")
		return nil, nil
	case b.Tiers == nil:
		return b.oneTier(known, wrong)
	case b.Capacity != nil:
		wrong.Add("capacity", "must not be given together with tiers")
	}
	tiers, places := slices.Clone(known), tierFields{}
	for i := range tiers {
		tiers[i].Capacity, tiers[i].Retired = 0, true
	}
	for i := range b.Tiers {
		body, place := &b.Tiers[i], fmt.Sprintf("tiers[%d].", i)
		index := len(tiers)
		if body.ID == nil {
			tiers = append(tiers, evently.Tier{})
		} else if index = tierIndex(*body.ID, known); index < 0 {
			wrong.Add(place+"id", "is not a tier of this event; leave it out for a new one")
			continue
		} else if _, twice := places[index]; twice {
			wrong.Add(place+"id", "stands twice")
			continue
		}
		places[index] = place
		offer(&tiers[index], place, body.Name, body.Capacity, cmp.Or(body.BasePriceMinor, b.BasePriceMinor), wrong)
	}
	return tiers, places
}

// oneTier is tiers for a body without them.
func (b *eventBody) oneTier(known []evently.Tier, wrong *evently.FieldErrors) ([]evently.Tier, tierFields) {
	tiers, index := slices.Clone(known), 0
	if len(tiers) == 0 {
		tiers = []evently.Tier{{Name: tierNameDefault}}
	} else if only, found := evently.SoleTier(tiers); found {
		index = only
	} else {
		wrong.Add("tiers", "is required instead of capacity: the event has more than one tier")
		return nil, nil
	}
	offer(&tiers[index], "", tiers[index].Name, b.Capacity, b.BasePriceMinor, wrong)
	return tiers, tierFields{index: ""}
}

// offer sets what an organizer writes of a tier. The price follows the base price when that changes.
func offer(tier *evently.Tier, place, name string, capacity *int, price *int64, wrong *evently.FieldErrors) {
	if capacity == nil {
		wrong.Add(place+"capacity", "is required")
		capacity = new(int)
	}
	if price == nil {
		wrong.Add(place+"base_price_minor", "is required")
		price = new(int64)
	}
	tier.Name, tier.Capacity, tier.Retired = strings.TrimSpace(name), *capacity, false
	if tier.BasePriceMinor != *price {
		tier.BasePriceMinor, tier.PriceMinor = *price, *price
	}
}

// tierIndex returns the index of a tier by its id, or -1.
func tierIndex(id string, tiers []evently.Tier) int {
	if index, err := evently.ParseTierID(id); err == nil && index < len(tiers) {
		return index
	}
	return -1
}

// tierFields tells by its index where a tier stands in the body: what comes before the names of its fields. A tier that is not
// there was left out.
type tierFields map[int]string

// translate turns the names of an event's fields into those of the body, and keeps one error for each.
func (f tierFields) translate(fields evently.FieldErrors) evently.FieldErrors {
	var translated evently.FieldErrors
	for _, field := range fields {
		var index int
		var name string
		if n, _ := fmt.Sscanf(field.Field, "tiers[%d].%s", &index, &name); n == 2 {
			if place, found := f[index]; found {
				field.Field = place + name
			} else {
				field.Field = "tiers"
				field.Message = fmt.Sprintf("must not leave out %s: its %s %s", evently.TierID(index), name, field.Message)
			}
		}
		if !slices.ContainsFunc(translated, func(other evently.FieldError) bool { return other.Field == field.Field }) {
			translated = append(translated, field)
		}
	}
	return translated
}

// translateError translates the fields of a refusal.
func (f tierFields) translateError(err error) error {
	if refusal := (*evently.Error)(nil); errors.As(err, &refusal) && len(refusal.Fields) > 0 {
		translated := *refusal
		translated.Fields = f.translate(refusal.Fields)
		return &translated
	}
	return err
}

// outOfZero keeps a number below 1 from being taken for one that was not given.
func outOfZero[N int | int64](n N) N {
	if n < 1 {
		return -1
	}
	return n
}
