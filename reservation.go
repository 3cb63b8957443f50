package evently

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"
)

// ReservationStatus is the stage of a reservation's life:
// held -> confirmed | cancelled | expired, and confirmed -> cancelled.
type ReservationStatus uint8

// The values are stored; never renumber them.
const (
	Held ReservationStatus = iota
	Confirmed
	Cancelled
	Expired
)

func (s ReservationStatus) String() string {
	switch s {
	case Held:
		return "held"
	case Confirmed:
		return "confirmed"
	case Cancelled:
		return "cancelled"
	case Expired:
		return "expired"
	}
	return "ReservationStatus(" + strconv.Itoa(int(s)) + ")"
}

// ParseReservationStatus is the inverse of ReservationStatus.String.
func ParseReservationStatus(s string) (ReservationStatus, error) {
	for status := Held; status <= Expired; status++ {
		if status.String() == s {
			return status, nil
		}
	}
	return 0, fmt.Errorf("parse reservation status %.40q: not held, confirmed, cancelled or expired", s)
}

// Live reports whether a reservation in this status occupies seats.
func (s ReservationStatus) Live() bool { return s == Held || s == Confirmed }

// Reservation is a hold or a booking of seats. It keeps its ID when the hold becomes a booking.
type Reservation struct {
	ID          ReservationID
	User        UserID
	Status      ReservationStatus
	Items       Items
	Currency    string
	CreatedAt   time.Time
	ExpiresAt   time.Time // when the hold ends unless it is confirmed
	ConfirmedAt time.Time // zero: never confirmed
	EndedAt     time.Time // when it was cancelled or expired; zero: live
	Seq         uint64    // of the entry that last changed it
}

// CancelledAt is the moment of cancellation, or zero.
func (r *Reservation) CancelledAt() time.Time {
	if r.Status == Cancelled {
		return r.EndedAt
	}
	return time.Time{}
}

// Item is a number of seats of one tier at one price.
type Item struct {
	Tier           int   // index in EventDetails.Tiers
	Quantity       int   // 1 to MaxPerBookingMax
	UnitPriceMinor int64 // minor units of the event's currency; set by the decision
}

// Items are the line items of a reservation, one for each tier, in the order of the tiers.
// Nearly all reservations have one item, which needs no allocation. The zero value has none.
type Items struct {
	first Item
	rest  []Item // never modified once set
}

// OnlyTier stands, as the tier of the one item that a Book asks for, for the only tier that the event offers.
const OnlyTier = -1

// OneItem makes the Items of a reservation of one tier.
func OneItem(item Item) Items { return Items{first: item} }

// NewItems returns the items ordered by tier. It returns an *Error with CodeInvalidRequest when there is no item,
// a tier stands twice, or a quantity is not 1 to MaxPerBookingMax.
func NewItems(items ...Item) (Items, error) {
	var fields FieldErrors
	if len(items) < 1 || len(items) > TiersMax {
		fields.Add("items", fmt.Sprintf("must have 1 to %d items", TiersMax))
		return Items{}, fields.Err()
	}
	seen := [TiersMax]*Item{}
	for i := range items {
		item := &items[i]
		switch {
		case item.Tier < 0 || item.Tier >= TiersMax:
			fields.Add(fmt.Sprintf("items[%d].tier_id", i), "is not a tier of this event")
		case seen[item.Tier] != nil:
			fields.Add(fmt.Sprintf("items[%d].tier_id", i), "stands twice")
		default:
			seen[item.Tier] = item
		}
		if item.Quantity < 1 || item.Quantity > MaxPerBookingMax {
			fields.Add(fmt.Sprintf("items[%d].quantity", i), fmt.Sprintf("must be 1 to %d", MaxPerBookingMax))
		}
	}
	if err := fields.Err(); err != nil {
		return Items{}, err
	}
	if len(items) == 1 {
		return OneItem(items[0]), nil
	}
	ordered := make([]Item, 0, len(items))
	for _, item := range seen {
		if item != nil {
			ordered = append(ordered, *item)
		}
	}
	return Items{ordered[0], ordered[1:]}, nil
}

// Len is the number of items.
func (s *Items) Len() int {
	if s.first.Quantity == 0 {
		return 0
	}
	return 1 + len(s.rest)
}

// At returns the i-th item.
func (s *Items) At(i int) Item {
	if i == 0 {
		return s.first
	}
	return s.rest[i-1]
}

// All iterates over the items.
func (s *Items) All() iter.Seq[Item] {
	return func(yield func(Item) bool) {
		for i := range s.Len() {
			if !yield(s.At(i)) {
				return
			}
		}
	}
}

// Quantity is the number of seats over all items.
func (s *Items) Quantity() int {
	sum := s.first.Quantity
	for i := range s.rest {
		sum += s.rest[i].Quantity
	}
	return sum
}

// priced returns the same seats at the prices of the tiers.
func (s *Items) priced(tiers []Tier) Items {
	return s.withPrices(func(tier int) int64 { return tiers[tier].PriceMinor })
}

// unpriced returns the same seats without prices.
func (s *Items) unpriced() Items { return s.withPrices(func(int) int64 { return 0 }) }

func (s *Items) withPrices(of func(tier int) int64) Items {
	items := *s
	items.first.UnitPriceMinor = of(items.first.Tier)
	if len(s.rest) > 0 {
		items.rest = slices.Clone(s.rest)
		for i := range items.rest {
			items.rest[i].UnitPriceMinor = of(items.rest[i].Tier)
		}
	}
	return items
}

// TotalMinor is the price of all seats, in minor units. The limits on items keep it inside 64 bits.
func (s *Items) TotalMinor() int64 {
	sum := int64(s.first.Quantity) * s.first.UnitPriceMinor
	for i := range s.rest {
		sum += int64(s.rest[i].Quantity) * s.rest[i].UnitPriceMinor
	}
	return sum
}

// SameSeats reports whether these are the quantities of the tiers that a Book asked for, at whatever price.
func (s *Items) SameSeats(asked *Items) bool {
	if s.Len() != asked.Len() {
		return false
	}
	for i := range s.Len() {
		a, b := s.At(i), asked.At(i)
		if a.Tier != b.Tier && b.Tier != OnlyTier || a.Quantity != b.Quantity {
			return false
		}
	}
	return true
}
