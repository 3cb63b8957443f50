package bench

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

// Host starts the systems that are measured. It is called by one goroutine.
type Host interface {
	// Start starts a design for one block: some workloads one after the other. Of blocks before there is nothing left: neither
	// processes nor rows.
	Start(ctx context.Context, design string) (*Target, error)
}

// Target is a system under test, as a Host has started it.
type Target struct {
	URL   string // base of the API
	Users []User // who book; at least one

	// Database is where events are made, before the first request for them. Nil: they are made through the API.
	Database *pgxpool.Pool
	// Admin is the access token of whom the API makes events for, and the audit reads bookings as. Needed without a Database.
	Admin string
	// Organizer is whose the events are that are made in the Database. Zero: the oldest administrator's.
	Organizer evently.UserID
	// Prepare is called when events were made in the Database, for a design that keeps more than its tables. Nil: nothing to do.
	Prepare func(ctx context.Context, events []evently.EventID, capacity int) error
	// Storage is where the audit reads. Nil: the tables of the Database, or else the API.
	Storage Storage
	// Processes says which processes work for the target.
	Processes Processes
	// Stop ends the target and waits for its end.
	Stop func(ctx context.Context) error
}

// User is somebody who books.
type User struct {
	ID    evently.UserID // zero: not known, and not audited
	Token string         // access token
}

// Storage is what a design keeps of reservations.
type Storage interface {
	// Reservations calls row with every reservation of some events, in any order.
	Reservations(ctx context.Context, events []evently.EventID, row func(Stored)) error
	// Counts returns the seats that are held and booked by the design's own counters; nil: it has none.
	Counts(ctx context.Context, events []evently.EventID) (map[evently.EventID]Count, error)
}

// Stored is a reservation as it is stored.
type Stored struct {
	ID       evently.ReservationID
	User     evently.UserID // zero: not known
	Status   evently.ReservationStatus
	Quantity int
	Key      evently.Key // zero: not known
}

// Count is seats of an event.
type Count struct{ Held, Booked int }

// Processes are ids of processes on this machine. Zero: not known, or none.
type Processes struct {
	Server   int
	Postgres int // the postmaster; zero: the one that Target.Database is connected to, if that is on this machine
	Redis    int
}
