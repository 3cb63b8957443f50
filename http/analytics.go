package http

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

const (
	// mostPopularEvents is the number of events in GET /admin/analytics.
	mostPopularEvents = 5
	// leadersDefault is the length of a leaderboard.
	leadersDefault = 10
	// currencyBoardsMax bounds the leaderboards by revenue, one for each currency.
	currencyBoardsMax = 10
)

// The times that analytics are asked for are within these years.
const (
	analyticsYearMin = 2000
	analyticsYearMax = 2199
)

var (
	analyticsQuery   = []string{"from", "to"}
	timeseriesQuery  = []string{"granularity", "event_id", "timezone", "from", "to"}
	leaderboardQuery = []string{"from", "to", "limit"}
)

func (s *Server) analyticsRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/admin/analytics", handle: s.getAnalytics, access: analyticsRead, query: analyticsQuery},
		{method: http.MethodGet, path: "/admin/analytics/timeseries", handle: s.getTimeseries, access: analyticsRead, query: timeseriesQuery},
		{method: http.MethodGet, path: "/admin/analytics/leaderboards", handle: s.getLeaderboards, access: analyticsRead, query: leaderboardQuery},
		{method: http.MethodGet, path: "/admin/events/:id/analytics", handle: s.getEventAnalytics, access: analyticsRead, query: analyticsQuery},
	}
}

// sumsJSON is what happened in a time.
type sumsJSON struct {
	TotalBookings      int64            `json:"total_bookings"`
	TotalCancellations int64            `json:"total_cancellations"`
	CancellationRate   float64          `json:"cancellation_rate"`
	TicketsBooked      int64            `json:"tickets_booked"`
	TicketsCancelled   int64            `json:"tickets_cancelled"`
	RevenueMinor       map[string]int64 `json:"revenue_minor"`
	GrossRevenueMinor  map[string]int64 `json:"gross_revenue_minor"`
	HoldsMade          int64            `json:"holds_made"`
	HoldsExpired       int64            `json:"holds_expired"`
	HoldsReleased      int64            `json:"holds_released"`
	WaitlistJoined     int64            `json:"waitlist_joined"`
	WaitlistLeft       int64            `json:"waitlist_left"`
	WaitlistServed     int64            `json:"waitlist_served"`
}

func newSumsJSON(s *evently.Sums) sumsJSON {
	told := sumsJSON{
		TotalBookings: s.Bookings, TotalCancellations: s.Cancellations, CancellationRate: s.CancellationRate(),
		TicketsBooked: s.TicketsBooked, TicketsCancelled: s.TicketsCancelled,
		RevenueMinor: make(map[string]int64), GrossRevenueMinor: make(map[string]int64),
		HoldsMade: s.Holds, HoldsExpired: s.HoldsExpired, HoldsReleased: s.HoldsReleased,
		WaitlistJoined: s.WaitlistJoined, WaitlistLeft: s.WaitlistLeft, WaitlistServed: s.WaitlistServed,
	}
	for _, revenue := range s.Revenue {
		told.RevenueMinor[revenue.Currency] = revenue.NetMinor()
		told.GrossRevenueMinor[revenue.Currency] = revenue.GrossMinor
	}
	return told
}

// leaderJSON is an event on a leaderboard.
type leaderJSON struct {
	EventID  string `json:"event_id"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Currency string `json:"currency"`
	sumsJSON
	Capacity    int64   `json:"capacity"`
	Booked      int64   `json:"booked"`
	Utilization float64 `json:"capacity_utilization"`
}

func newLeadersJSON(leaders []evently.Leader) []leaderJSON {
	list := make([]leaderJSON, len(leaders))
	for i := range leaders {
		l := &leaders[i]
		list[i] = leaderJSON{
			l.Event.String(), l.Name, l.Status.String(), l.Currency, newSumsJSON(&l.Sums), l.Capacity, l.Booked, l.Utilization(),
		}
	}
	return list
}

// summaryJSON is a whole. From and To are those that were asked for.
type summaryJSON struct {
	From *time.Time `json:"from"`
	To   *time.Time `json:"to"`
	sumsJSON
	Capacity    int64     `json:"capacity"`
	Booked      int64     `json:"booked"`
	Utilization float64   `json:"capacity_utilization"`
	AsOf        time.Time `json:"as_of"`
}

func newSummaryJSON(s *evently.Summary, times timeRange) summaryJSON {
	return summaryJSON{optionalTime(times.from), optionalTime(times.to), newSumsJSON(&s.Sums), s.Capacity, s.Booked, s.Utilization(), s.AsOf}
}

type analyticsJSON struct {
	summaryJSON
	MostPopular []leaderJSON `json:"most_popular"`
}

// getAnalytics is GET /admin/analytics.
func (s *Server) getAnalytics(c *gin.Context) error {
	times, err := timeRangeOf(c)
	if err != nil {
		return err
	}
	organizer := managedBy(c)
	summary, err := s.config.Analytics.Summary(c.Request.Context(), evently.AnalyticsScope{Organizer: organizer}, times.from, times.to)
	if err != nil {
		return err
	}
	popular, _, err := s.config.Analytics.Leaders(c.Request.Context(), evently.Leaders{
		Order: evently.ByTickets, Organizer: organizer, From: times.from, To: times.to, Limit: mostPopularEvents,
	})
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, &analyticsJSON{newSummaryJSON(summary, times), newLeadersJSON(popular)})
	return nil
}

type eventAnalyticsJSON struct {
	EventID  string `json:"event_id"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Currency string `json:"currency"`
	summaryJSON
}

// getEventAnalytics is GET /admin/events/{id}/analytics.
func (s *Server) getEventAnalytics(c *gin.Context) error {
	state, err := s.managedState(c)
	if err != nil {
		return err
	}
	times, err := timeRangeOf(c)
	if err != nil {
		return err
	}
	event := state.Event
	summary, err := s.config.Analytics.Summary(c.Request.Context(), evently.AnalyticsScope{Event: event.ID}, times.from, times.to)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, &eventAnalyticsJSON{
		event.ID.String(), event.Name, event.Status.String(), event.Currency, newSummaryJSON(summary, times),
	})
	return nil
}

type leaderboardsJSON struct {
	From          *time.Time              `json:"from"`
	To            *time.Time              `json:"to"`
	ByTickets     []leaderJSON            `json:"by_tickets"`
	ByRevenue     map[string][]leaderJSON `json:"by_revenue"`
	ByUtilization []leaderJSON            `json:"by_utilization"`
	AsOf          time.Time               `json:"as_of"`
}

// getLeaderboards is GET /admin/analytics/leaderboards. Its as_of is that of the first answer: the others are not older.
func (s *Server) getLeaderboards(c *gin.Context) error {
	times, err := timeRangeOf(c)
	if err != nil {
		return err
	}
	ask := evently.Leaders{Organizer: managedBy(c), From: times.from, To: times.to, Limit: leadersDefault}
	if text, found := c.GetQuery("limit"); found {
		if ask.Limit, err = strconv.Atoi(text); err != nil || ask.Limit < 1 || ask.Limit > evently.LeadersMax {
			return invalid("limit", fmt.Sprintf("must be a number from 1 to %d", evently.LeadersMax))
		}
	}
	ctx := c.Request.Context()
	summary, err := s.config.Analytics.Summary(ctx, evently.AnalyticsScope{Organizer: ask.Organizer}, times.from, times.to)
	if err != nil {
		return err
	}
	told := &leaderboardsJSON{From: optionalTime(times.from), To: optionalTime(times.to), ByRevenue: make(map[string][]leaderJSON), AsOf: summary.AsOf}
	board := func(order evently.LeaderOrder, currency string) ([]leaderJSON, error) {
		ask.Order, ask.Currency = order, currency
		leaders, _, err := s.config.Analytics.Leaders(ctx, ask)
		return newLeadersJSON(leaders), err
	}
	if told.ByTickets, err = board(evently.ByTickets, ""); err != nil {
		return err
	}
	if told.ByUtilization, err = board(evently.ByUtilization, ""); err != nil {
		return err
	}
	for _, revenue := range summary.Revenue[:min(len(summary.Revenue), currencyBoardsMax)] {
		if told.ByRevenue[revenue.Currency], err = board(evently.ByRevenue, revenue.Currency); err != nil {
			return err
		}
	}
	writeJSON(c, http.StatusOK, told)
	return nil
}

// timeRange is [from, to); zero is open.
type timeRange struct{ from, to time.Time }

// timeRangeOf reads ?from= and ?to=.
func timeRangeOf(c *gin.Context) (timeRange, error) {
	var fields evently.FieldErrors
	moment := func(name string) time.Time {
		text, found := c.GetQuery(name)
		if !found || text == "" {
			return time.Time{}
		}
		t, ok := parseTime(text)
		if t = t.UTC(); !ok || t.Year() < analyticsYearMin || t.Year() > analyticsYearMax {
			fields.Add(name, fmt.Sprintf("must be a time such as 2027-05-01T18:00:00Z in the years %d to %d", analyticsYearMin, analyticsYearMax))
		}
		return t
	}
	times := timeRange{moment("from"), moment("to")}
	if len(fields) == 0 && !times.to.IsZero() && !times.from.Before(times.to) {
		fields.Add("to", "must be after from")
	}
	return times, fields.Err()
}
