package evently

import "context"

// Exports reads reservations together with whose they are.
type Exports interface {
	// Export lists reservations of an event, newest first, with Page.Limit up to ExportPageMax. What is reserved while pages are
	// read is not in them. next is nil at the end.
	Export(ctx context.Context, event EventID, statuses []ReservationStatus, page Page) (rows []ExportRow, next *Cursor, err error)
}

// ExportPageMax bounds the rows of one page of an export.
const ExportPageMax = 1000

// ExportRow is a reservation and its user, whose Email and Name are empty when there is no such user any more.
type ExportRow struct {
	Reservation
	Email, Name string
}
