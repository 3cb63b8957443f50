package http

import (
	"time"

	"github.com/evently/evently"
)

// waiterJSON is an entry of a waitlist.
type waiterJSON struct {
	ID            string           `json:"id"`
	EventID       string           `json:"event_id"`
	UserID        string           `json:"user_id"`
	Position      *int             `json:"position"` // null: it waits no more
	Status        string           `json:"status"`
	Quantity      int              `json:"quantity"`
	Items         []waiterItemJSON `json:"items"`
	OnRelease     string           `json:"on_release"`
	Priority      int              `json:"priority"`
	JoinedAt      time.Time        `json:"joined_at"`
	ExpiresAt     *time.Time       `json:"expires_at"`     // of an offer
	ReservationID *string          `json:"reservation_id"` // of the reservation that serves it
}

type waiterItemJSON struct {
	TierID   string `json:"tier_id"`
	Quantity int    `json:"quantity"`
}

func newWaiterJSON(w *evently.WaiterState) *waiterJSON {
	body := &waiterJSON{
		ID: w.ID.String(), EventID: w.ID.Event.String(), UserID: w.User.String(), Status: waiterStatus(w),
		Quantity: w.Items.Quantity(), Items: make([]waiterItemJSON, 0, w.Items.Len()), OnRelease: w.OnRelease.String(),
		Priority: w.Priority, JoinedAt: w.JoinedAt.UTC(),
	}
	for item := range w.Items.All() {
		body.Items = append(body.Items, waiterItemJSON{evently.TierID(item.Tier), item.Quantity})
	}
	if w.Status == evently.Waiting {
		body.Position = &w.Position
	}
	if w.Status == evently.Served {
		reservation := evently.ReservationID(w.ID).String()
		body.ReservationID = &reservation
		if w.OnRelease == evently.HoldOnRelease {
			body.ExpiresAt = optionalTime(w.ExpiresAt)
		}
	}
	return body
}

// waiterStatus tells of a waiter that was served what has become of its reservation.
func waiterStatus(w *evently.WaiterState) string {
	switch {
	case w.Status != evently.Served:
		return w.Status.String()
	case w.Reservation == evently.Held:
		return "offered"
	case w.Reservation == evently.Confirmed:
		return "booked"
	}
	return w.Reservation.String()
}
