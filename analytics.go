package evently

import (
	"context"
	"time"
)

// AnalyticsBucket is the precision of analytics: of a time that begins or ends within a bucket the whole bucket counts. Days of every
// time zone are made of whole buckets.
const AnalyticsBucket = 15 * time.Minute

// Bounds of the answers of Analytics.
const (
	SeriesPointsMax = 400
	LeadersMax      = 100
)

// Sums count what the journal tells of a time.
//
// A booking counts when it is confirmed, a cancellation when a booking that was confirmed is cancelled: by its holder, or
// together with its event. A hold counts when it is made, whether a person or the waitlist made it; a hold that never
// became a booking ends expired or released (which is also how it ends with its event).
type Sums struct {
	Bookings, Cancellations         int64
	TicketsBooked, TicketsCancelled int64 // seats of these bookings and cancellations
	Holds, HoldsExpired             int64
	HoldsReleased                   int64
	WaitlistJoined, WaitlistLeft    int64     // left: by own wish
	WaitlistServed                  int64     // by a hold or a booking
	Revenue                         []Revenue // by currency, in the order of the codes; none where nothing was booked or cancelled
}

// Revenue is money of one currency, in its minor units. Sums beyond 64 bits are shown as the largest number of 64 bits.
type Revenue struct {
	Currency       string
	GrossMinor     int64 // of bookings confirmed
	CancelledMinor int64 // of bookings cancelled
}

// NetMinor is the gross revenue without what was cancelled, in minor units.
func (r Revenue) NetMinor() int64 { return r.GrossMinor - r.CancelledMinor }

// Tickets are the seats booked less those cancelled. It is negative for a time in which more were cancelled.
func (s *Sums) Tickets() int64 { return s.TicketsBooked - s.TicketsCancelled }

// CancellationRate is cancellations / bookings, 0 without bookings. It is above 1 for a time in which more bookings were
// cancelled than made.
func (s *Sums) CancellationRate() float64 { return ratio(s.Cancellations, s.Bookings) }

func ratio(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// AnalyticsScope selects events: one, those of an organizer, or all when both are zero.
type AnalyticsScope struct {
	Event     EventID
	Organizer UserID
}

// Summary is the whole of a scope.
type Summary struct {
	Sums
	Capacity int64     // seats of the published events, those that are over too
	Booked   int64     // tickets of all times
	AsOf     time.Time // all that was committed before is counted
}

// Utilization is the part of the capacity that is booked, 0 to 1, over all times.
func (s *Summary) Utilization() float64 { return min(ratio(s.Booked, s.Capacity), 1) }

// Series are sums by time.
type Series struct {
	Points []Sums
	AsOf   time.Time
}

// Leader is an event on a leaderboard.
type Leader struct {
	Event    EventID
	Name     string
	Currency string
	Status   EventStatus
	Sums           // of the time that was asked for
	Capacity int64 // seats, 0 unless published
	Booked   int64 // tickets of all times
}

// Utilization is the part of the event's capacity that is booked, 0 to 1.
func (l *Leader) Utilization() float64 { return min(ratio(l.Booked, l.Capacity), 1) }

// LeaderOrder is what a leaderboard is ordered by, the most first; then by the event's id.
type LeaderOrder uint8

// The orders.
const (
	ByTickets     LeaderOrder = iota // Sums.Tickets
	ByRevenue                        // net, in one currency
	ByUtilization                    // over all times
)

// Leaders asks for a leaderboard. From and To are the bounds [From, To) of a time; zero is open.
type Leaders struct {
	Order     LeaderOrder
	Currency  string // only events that sell in it; needed for ByRevenue
	Organizer UserID // zero: all events
	From, To  time.Time
	Limit     int // 1 to LeadersMax
}

// Analytics reads sums that are kept up to date from the journal. All methods return ErrUnavailable also when nothing was ever summed up.
type Analytics interface {
	// Summary sums up [from, to) of a scope; zero times are open.
	Summary(ctx context.Context, scope AnalyticsScope, from, to time.Time) (*Summary, error)
	// Series sums up the times between consecutive bounds: 2 to SeriesPointsMax+1 of them, ascending.
	Series(ctx context.Context, scope AnalyticsScope, bounds []time.Time) (*Series, error)
	// Leaders lists the events of a leaderboard, those without any tickets left out.
	Leaders(ctx context.Context, leaders Leaders) ([]Leader, time.Time, error)
}
