package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

// eventJSON is an event as the journal keeps it. Its keys are the columns of table events, so that SQL can turn one
// into the other with jsonb_to_record. Identifiers are bit for bit the int8 of the tables.
type eventJSON struct {
	ID            int64        `json:"event_id"`
	Organizer     int64        `json:"organizer"`
	Status        uint8        `json:"status"`
	Version       uint64       `json:"version"`
	CreatedAt     time.Time    `json:"created_at"`
	Name          string       `json:"name"`
	Description   string       `json:"description"`
	Category      string       `json:"category"`
	Venue         string       `json:"venue"`
	City          string       `json:"city"`
	Timezone      string       `json:"timezone"`
	Currency      string       `json:"currency"`
	StartsAt      time.Time    `json:"starts_at"`
	EndsAt        time.Time    `json:"ends_at"`
	SalesStartAt  time.Time    `json:"sales_start_at,omitzero"` // absent becomes null
	SalesEndAt    time.Time    `json:"sales_end_at,omitzero"`
	HoldTTL       int64        `json:"hold_ttl_ms"`
	MaxPerBooking int          `json:"max_per_booking"`
	MaxPerUser    int          `json:"max_per_user"`
	Tiers         tiersJSON    `json:"tiers"`
	Pricing       *pricingJSON `json:"pricing,omitzero"`
}

// tiersJSON is the column tiers.
type tiersJSON []tierJSON

type tierJSON struct {
	Name           string `json:"name"`
	Capacity       int    `json:"capacity"`
	BasePriceMinor int64  `json:"base_price_minor"`
	PriceMinor     int64  `json:"price_minor"`
	Retired        bool   `json:"retired,omitzero"`
}

func newTiersJSON(tiers []evently.Tier) tiersJSON {
	list := make(tiersJSON, len(tiers))
	for i, tier := range tiers {
		list[i] = tierJSON(tier)
	}
	return list
}

func (t tiersJSON) tiers() []evently.Tier {
	list := make([]evently.Tier, len(t))
	for i, tier := range t {
		list[i] = evently.Tier(tier)
	}
	return list
}

// pricingJSON is the column pricing.
type pricingJSON struct {
	Curve      []pricePointJSON `json:"curve,omitempty"`
	Time       []pricePointJSON `json:"time,omitempty"`
	Step       priceStepJSON    `json:"step,omitzero"`
	FloorBps   int              `json:"floor_bps,omitzero"`
	CeilingBps int              `json:"ceiling_bps,omitzero"`
	RoundMinor int64            `json:"round_minor,omitzero"`
	Rounding   uint8            `json:"rounding,omitzero"`
}

type pricePointJSON struct {
	At        int `json:"at"`
	FactorBps int `json:"factor_bps"`
}

type priceStepJSON struct {
	EverySeats int   `json:"every_seats"`
	AddMinor   int64 `json:"add_minor"`
}

func newPricingJSON(rule *evently.PricingRule) *pricingJSON {
	if rule == nil {
		return nil
	}
	return &pricingJSON{
		Curve: convert(rule.Curve, func(p evently.PricePoint) pricePointJSON { return pricePointJSON(p) }),
		Time:  convert(rule.Time, func(p evently.PricePoint) pricePointJSON { return pricePointJSON(p) }),
		Step:  priceStepJSON(rule.Step), FloorBps: rule.FloorBps, CeilingBps: rule.CeilingBps,
		RoundMinor: rule.RoundMinor, Rounding: uint8(rule.Rounding),
	}
}

func (p *pricingJSON) rule() *evently.PricingRule {
	if p == nil {
		return nil
	}
	return &evently.PricingRule{
		Curve: convert(p.Curve, func(p pricePointJSON) evently.PricePoint { return evently.PricePoint(p) }),
		Time:  convert(p.Time, func(p pricePointJSON) evently.PricePoint { return evently.PricePoint(p) }),
		Step:  evently.PriceStep(p.Step), FloorBps: p.FloorBps, CeilingBps: p.CeilingBps,
		RoundMinor: p.RoundMinor, Rounding: evently.Rounding(p.Rounding),
	}
}

// convert returns nil for an empty list.
func convert[A, B any](list []A, one func(A) B) []B {
	var converted []B
	for _, a := range list {
		converted = append(converted, one(a))
	}
	return converted
}

// newEventJSON cuts times to the millisecond.
func newEventJSON(event *evently.Event) *eventJSON {
	return &eventJSON{
		ID: int64(event.ID), Organizer: int64(event.Organizer), Status: uint8(event.Status), Version: event.Version,
		CreatedAt: milliseconds(event.CreatedAt), Name: event.Name, Description: event.Description, Category: event.Category,
		Venue: event.Venue, City: event.City, Timezone: event.Timezone, Currency: event.Currency,
		StartsAt: milliseconds(event.StartsAt), EndsAt: milliseconds(event.EndsAt),
		SalesStartAt: milliseconds(event.SalesStartAt), SalesEndAt: milliseconds(event.SalesEndAt),
		HoldTTL: event.HoldTTL.Milliseconds(), MaxPerBooking: event.MaxPerBooking, MaxPerUser: event.MaxPerUser,
		Tiers: newTiersJSON(event.Tiers), Pricing: newPricingJSON(event.Pricing),
	}
}

// encodeEvent returns the JSON form of an event.
func encodeEvent(event *evently.Event) ([]byte, error) {
	data, err := json.Marshal(newEventJSON(event))
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", event.ID, err)
	}
	return data, nil
}

// decodeEvent is the inverse of encodeEvent.
func decodeEvent(data []byte) (*evently.Event, error) {
	var e eventJSON
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	return &evently.Event{
		ID: evently.EventID(e.ID), Organizer: evently.UserID(e.Organizer), Status: evently.EventStatus(e.Status),
		Version: e.Version, CreatedAt: milliseconds(e.CreatedAt), Pricing: e.Pricing.rule(),
		EventDetails: evently.EventDetails{
			Name: e.Name, Description: e.Description, Category: e.Category, Venue: e.Venue, City: e.City,
			Timezone: e.Timezone, Currency: e.Currency, StartsAt: milliseconds(e.StartsAt), EndsAt: milliseconds(e.EndsAt),
			SalesStartAt: milliseconds(e.SalesStartAt), SalesEndAt: milliseconds(e.SalesEndAt),
			HoldTTL: time.Duration(e.HoldTTL) * time.Millisecond, MaxPerBooking: e.MaxPerBooking, MaxPerUser: e.MaxPerUser,
			Tiers: e.Tiers.tiers(),
		},
	}, nil
}

// itemJSON is a line item in reservations.more, waitlist.more and in the data of a HeldEntry or a WaitlistedEntry.
type itemJSON struct {
	Tier           int   `json:"tier"`
	Quantity       int   `json:"quantity"`
	UnitPriceMinor int64 `json:"unit_price"`
}

// encodeItems returns the JSON form of the items after the first one, which stands in columns, or nil when there are none.
func encodeItems(items *evently.Items) ([]byte, error) {
	if items.Len() < 2 {
		return nil, nil
	}
	list := make([]itemJSON, 0, items.Len()-1)
	for i := 1; i < items.Len(); i++ {
		list = append(list, itemJSON(items.At(i)))
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode items: %w", err)
	}
	return data, nil
}

// decodeItems joins the item of the columns with what encodeItems gave. It returns an error when they are not valid items.
func decodeItems(first evently.Item, more []byte) (evently.Items, error) {
	list := []evently.Item{first}
	if len(more) > 0 {
		var rest []itemJSON
		if err := json.Unmarshal(more, &rest); err != nil {
			return evently.Items{}, fmt.Errorf("decode items: %w", err)
		}
		for _, item := range rest {
			list = append(list, evently.Item(item))
		}
	}
	items, err := evently.NewItems(list...)
	if err != nil {
		// The fault is the storage's: nobody must take it for a request's.
		return evently.Items{}, fmt.Errorf("decode items: %v", err) //nolint:errorlint // hides the *evently.Error
	}
	return items, nil
}

// keyUUID is the column form of an idempotency key; null for no key.
func keyUUID(key evently.Key) pgtype.UUID {
	uuid := pgtype.UUID{Valid: key != evently.Key{}}
	binary.BigEndian.PutUint64(uuid.Bytes[:8], key.Hi)
	binary.BigEndian.PutUint64(uuid.Bytes[8:], key.Lo)
	return uuid
}

// uuidKey is the inverse of keyUUID.
func uuidKey(uuid pgtype.UUID) evently.Key {
	if !uuid.Valid {
		return evently.Key{}
	}
	return evently.Key{Hi: binary.BigEndian.Uint64(uuid.Bytes[:8]), Lo: binary.BigEndian.Uint64(uuid.Bytes[8:])}
}

// timeOf reads a column whose null is the zero time.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return milliseconds(*t)
}

// milliseconds cuts a time to the precision of the journal, in UTC.
func milliseconds(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
