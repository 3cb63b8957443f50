package http

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/evently/evently"
)

// auditJSON is a record of the journal or of the security log.
type auditJSON struct {
	ID            string          `json:"id"`
	At            time.Time       `json:"at"`
	Kind          string          `json:"kind"`
	ActorID       *string         `json:"actor_id"`
	UserID        *string         `json:"user_id"`
	EventID       *string         `json:"event_id"`
	ReservationID *string         `json:"reservation_id"`
	WaiterID      *string         `json:"waiter_id"`
	RequestID     string          `json:"request_id"`
	Epoch         *uint64         `json:"epoch"`
	Seq           *uint64         `json:"seq"`
	Detail        auditDetailJSON `json:"detail"`
}

// auditDetailJSON is what was changed. Which fields there are depends on the kind.
type auditDetailJSON struct {
	Changes    []auditChangeJSON `json:"changes,omitempty"`
	Items      []auditItemJSON   `json:"items,omitempty"`
	TotalMinor *int64            `json:"total_minor,omitempty"`
	Was        string            `json:"was,omitempty"` // of what was cancelled
	ExpiresAt  *time.Time        `json:"expires_at,omitempty"`
	OnRelease  string            `json:"on_release,omitempty"`
	Position   int               `json:"position,omitempty"`

	SessionID string            `json:"session_id,omitempty"`
	IP        string            `json:"ip,omitempty"`
	UserAgent string            `json:"user_agent,omitempty"`
	Facts     map[string]string `json:"facts,omitempty"`
}

// auditChangeJSON is a field with its values before and after: null where there was none.
type auditChangeJSON struct {
	Field string `json:"field"`
	Old   any    `json:"old"`
	New   any    `json:"new"`
}

type auditItemJSON struct {
	TierID         string `json:"tier_id"`
	Quantity       int    `json:"quantity"`
	UnitPriceMinor *int64 `json:"unit_price_minor,omitempty"` // waiters have none
}

func newAuditJSON(record *evently.AuditRecord) *auditJSON {
	body := &auditJSON{At: record.At.UTC(), Kind: record.Kind, RequestID: record.RequestID}
	if record.Actor != 0 {
		body.ActorID = new(record.Actor.String())
	}
	if record.User != 0 {
		body.UserID = new(record.User.String())
	}
	if record.Entry != nil {
		body.fillEntry(record.Entry)
	} else {
		body.fillSecurity(record.Security)
	}
	return body
}

func (b *auditJSON) fillEntry(e *evently.AuditEntry) {
	b.ID = fmt.Sprintf("%s.%d", e.EventID, e.Seq)
	b.EventID, b.Epoch, b.Seq = new(e.EventID.String()), new(e.Epoch), new(e.Seq)
	d := &b.Detail
	if e.Token == 0 {
		d.Changes = auditChanges(e.Before, e.Event)
		return
	}
	waits := e.Kind >= evently.WaitlistedEntry && e.Kind <= evently.WaiterClosedEntry
	if waits || e.Waiter {
		b.WaiterID = new(evently.WaiterID{Event: e.EventID, Token: e.Token}.String())
	}
	if !waits {
		b.ReservationID = new(evently.ReservationID{Event: e.EventID, Token: e.Token}.String())
		d.TotalMinor = new(e.Items.TotalMinor())
	}
	for item := range e.Items.All() {
		line := auditItemJSON{TierID: evently.TierID(item.Tier), Quantity: item.Quantity}
		if !waits {
			line.UnitPriceMinor = &item.UnitPriceMinor
		}
		d.Items = append(d.Items, line)
	}
	switch e.Kind { //nolint:exhaustive // the kinds that there is more to say of
	case evently.HeldEntry:
		d.ExpiresAt = optionalTime(e.ExpiresAt)
	case evently.CancelledEntry:
		d.Was = evently.Held.String()
		if e.WasConfirmed {
			d.Was = evently.Confirmed.String()
		}
	case evently.WaitlistedEntry:
		d.OnRelease, d.Position = e.OnRelease.String(), e.Position
	case evently.WaiterPrioritizedEntry:
		d.Changes = []auditChangeJSON{{"priority", e.PriorityWas, e.Priority}}
	}
}

func (b *auditJSON) fillSecurity(e *evently.SecurityEntry) {
	b.ID = fmt.Sprintf("security.%d", e.ID)
	d := &b.Detail
	d.IP, d.UserAgent, d.Facts = e.IP, e.UserAgent, e.Detail
	if e.Session != (evently.SessionID{}) {
		d.SessionID = sessionText(e.Session)
	}
	if e.Kind == evently.SecurityRoleChanged {
		d.Changes = []auditChangeJSON{{"role", e.Detail["from"], e.Detail["to"]}}
	}
}

// auditEventJSON is an event as its organizer writes it, with what else can change.
type auditEventJSON struct {
	Status        string           `json:"status"`
	Version       uint64           `json:"version"`
	OrganizerID   string           `json:"organizer_id"`
	Name          string           `json:"name"`
	Description   string           `json:"description"`
	Category      string           `json:"category"`
	Venue         string           `json:"venue"`
	City          string           `json:"city"`
	Timezone      string           `json:"timezone"`
	Currency      string           `json:"currency"`
	StartsAt      time.Time        `json:"starts_at"`
	EndsAt        time.Time        `json:"ends_at"`
	SalesStartAt  *time.Time       `json:"sales_start_at"`
	SalesEndAt    *time.Time       `json:"sales_end_at"`
	HoldTTL       int64            `json:"hold_ttl_seconds"`
	MaxPerBooking int              `json:"max_per_booking"`
	MaxPerUser    *int             `json:"max_per_user"`
	Pricing       *pricingRuleJSON `json:"pricing"`
	Tiers         []auditTierJSON  `json:"-"` // tiers.t1.name and so on
}

type auditTierJSON struct {
	Name           string `json:"name"`
	Capacity       int    `json:"capacity"`
	BasePriceMinor int64  `json:"base_price_minor"`
	PriceMinor     int64  `json:"price_minor"`
	Retired        bool   `json:"retired"`
}

func newAuditEventJSON(event *evently.Event) *auditEventJSON {
	body := &auditEventJSON{
		Status: event.Status.String(), Version: event.Version, OrganizerID: event.Organizer.String(), Name: event.Name,
		Description: event.Description, Category: event.Category, Venue: event.Venue, City: event.City, Timezone: event.Timezone,
		Currency: event.Currency, StartsAt: event.StartsAt.UTC(), EndsAt: event.EndsAt.UTC(),
		SalesStartAt: optionalTime(event.SalesStartAt), SalesEndAt: optionalTime(event.SalesEndAt),
		HoldTTL: int64(event.HoldTTL / time.Second), MaxPerBooking: event.MaxPerBooking, Pricing: newPricingRuleJSON(event.Pricing),
	}
	if event.MaxPerUser != 0 {
		body.MaxPerUser = &event.MaxPerUser
	}
	for _, tier := range event.Tiers {
		body.Tiers = append(body.Tiers, auditTierJSON(tier))
	}
	return body
}

// auditChanges compares an event before and after an entry, field by field. Before is nil for a new one, and after for a deleted one.
func auditChanges(before, after *evently.Event) (changes []auditChangeJSON) {
	var was, is *auditEventJSON
	tiers := 0
	if before != nil {
		was = newAuditEventJSON(before)
		tiers = len(was.Tiers)
	}
	if after != nil {
		is = newAuditEventJSON(after)
		tiers = max(tiers, len(is.Tiers))
	}
	changes = appendChanges(changes, "", was, is)
	for i := range tiers {
		var tierWas, tierIs *auditTierJSON
		if was != nil && i < len(was.Tiers) {
			tierWas = &was.Tiers[i]
		}
		if is != nil && i < len(is.Tiers) {
			tierIs = &is.Tiers[i]
		}
		changes = appendChanges(changes, "tiers."+evently.TierID(i)+".", tierWas, tierIs)
	}
	return changes
}

// fieldOf is a field's value, or nil where there is none.
func fieldOf[T any](of *T, i int) any {
	if of == nil {
		return nil
	}
	field := reflect.ValueOf(of).Elem().Field(i)
	if field.Kind() == reflect.Pointer && field.IsNil() {
		return nil
	}
	return field.Interface()
}

// appendChanges appends the fields in which two structs differ, one of which may be nil.
func appendChanges[T any](changes []auditChangeJSON, prefix string, was, is *T) []auditChangeJSON {
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		change := auditChangeJSON{prefix + name, fieldOf(was, i), fieldOf(is, i)}
		if !reflect.DeepEqual(change.Old, change.New) {
			changes = append(changes, change)
		}
	}
	return changes
}
