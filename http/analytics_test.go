package http

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evently/evently"
)

// figures are what a fakeBox answers as evently.Analytics, and what it was asked.
type figures struct {
	summary evently.Summary
	leaders []evently.Leader

	scopes []evently.AnalyticsScope
	times  [][2]time.Time
	boards []evently.Leaders
	bounds []time.Time
}

var _ evently.Analytics = (*fakeBox)(nil)

func (f *fakeBox) Summary(_ context.Context, scope evently.AnalyticsScope, from, to time.Time) (*evently.Summary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.figures.scopes = append(f.figures.scopes, scope)
	f.figures.times = append(f.figures.times, [2]time.Time{from, to})
	return &f.figures.summary, f.fail
}

func (f *fakeBox) Series(_ context.Context, scope evently.AnalyticsScope, bounds []time.Time) (*evently.Series, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.figures.scopes, f.figures.bounds = append(f.figures.scopes, scope), bounds
	series := &evently.Series{Points: make([]evently.Sums, len(bounds)-1), AsOf: f.figures.summary.AsOf}
	series.Points[0] = f.figures.summary.Sums
	return series, f.fail
}

func (f *fakeBox) Leaders(_ context.Context, leaders evently.Leaders) ([]evently.Leader, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.figures.boards = append(f.figures.boards, leaders)
	return f.figures.leaders, f.figures.summary.AsOf, f.fail
}

// someFigures are a morning's.
func someFigures() figures {
	sums := evently.Sums{
		Bookings: 8, Cancellations: 2, TicketsBooked: 20, TicketsCancelled: 5, Holds: 12, HoldsExpired: 3, HoldsReleased: 1,
		WaitlistJoined: 4, WaitlistLeft: 1, WaitlistServed: 2,
		Revenue: []evently.Revenue{{Currency: "EUR", GrossMinor: 90_000, CancelledMinor: 22_500}, {Currency: "JPY", GrossMinor: 700}},
	}
	return figures{
		summary: evently.Summary{Sums: sums, Capacity: 60, Booked: 15, AsOf: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)},
		leaders: []evently.Leader{{Event: 9, Name: "Jazz", Currency: "EUR", Status: evently.EventPublished, Sums: sums, Capacity: 20, Booked: 15}},
	}
}

func TestAnalytics_TellSumsAndTheMostPopular(t *testing.T) {
	w, box := newBoxSite(t)
	box.figures = someFigures()
	bearer, who := w.token(t, evently.RoleOrganizer)
	admin, _ := w.token(t, evently.RoleAdmin)
	got := w.do(t, http.MethodGet, "/admin/analytics?from=2027-03-01T08:00:00%2B01:00&to=2027-03-01T12:00:00Z", "", "Authorization", bearer)
	const sums = `"total_bookings":8,"total_cancellations":2,"cancellation_rate":0.25,"tickets_booked":20,"tickets_cancelled":5,` +
		`"revenue_minor":{"EUR":67500,"JPY":700},"gross_revenue_minor":{"EUR":90000,"JPY":700},"holds_made":12,"holds_expired":3,` +
		`"holds_released":1,"waitlist_joined":4,"waitlist_left":1,"waitlist_served":2`
	want := `{"from":"2027-03-01T07:00:00Z","to":"2027-03-01T12:00:00Z",` + sums + `,"capacity":60,"booked":15,"capacity_utilization":0.25,` +
		`"as_of":"2027-03-01T12:00:00Z","most_popular":[{"event_id":"` + evently.EventID(9).String() +
		`","name":"Jazz","status":"published","currency":"EUR",` + sums + `,"capacity":20,"booked":15,"capacity_utilization":0.75}]}`
	if got.status != http.StatusOK || strings.TrimSpace(string(got.body)) != want {
		t.Errorf("status %d\ngot  %s\nwant %s", got.status, got.body, want)
	}
	w.do(t, http.MethodGet, "/admin/analytics", "", "Authorization", admin)
	wantScopes := []evently.AnalyticsScope{{Organizer: who.User}, {}}
	if !slices.Equal(box.figures.scopes, wantScopes) || box.figures.boards[0].Organizer != who.User || box.figures.boards[1].Organizer != 0 ||
		box.figures.boards[0].Limit != 5 || !box.figures.boards[0].From.Equal(box.figures.times[0][0]) {
		t.Errorf("asked for %+v and %+v", box.figures.scopes, box.figures.boards)
	}
}

func TestAnalytics_OfAnEvent(t *testing.T) {
	w, box := newBoxSite(t)
	box.figures = someFigures()
	bearer, who := w.token(t, evently.RoleOrganizer)
	box.add(box.event(9, who.User, seats("All", 20, 100)), nil)
	box.add(box.event(10, who.User+1, seats("All", 20, 100)), nil)
	got := w.do(t, http.MethodGet, "/admin/events/"+evently.EventID(9).String()+"/analytics", "", "Authorization", bearer)
	if body := string(got.body); got.status != http.StatusOK || !strings.HasPrefix(body, `{"event_id":"`+evently.EventID(9).String()+
		`","name":"Night of the Proms","status":"published","currency":"EUR","from":null,"to":null,"total_bookings":8,`) {
		t.Errorf("status %d, %s", got.status, body)
	}
	if !slices.Equal(box.figures.scopes, []evently.AnalyticsScope{{Event: 9}}) {
		t.Errorf("asked for %+v", box.figures.scopes)
	}
	w.do(t, http.MethodGet, "/admin/events/"+evently.EventID(10).String()+"/analytics", "", "Authorization", bearer).problem(t, evently.CodeEventNotFound)
	w.do(t, http.MethodGet, "/admin/analytics/timeseries?event_id="+evently.EventID(10).String(), "", "Authorization", bearer).
		problem(t, evently.CodeEventNotFound)
}

func TestAnalytics_Leaderboards(t *testing.T) {
	w, box := newBoxSite(t)
	box.figures = someFigures()
	bearer, _ := w.token(t, evently.RoleAdmin)
	var told struct {
		ByTickets     []struct{ Name string }            `json:"by_tickets"`
		ByRevenue     map[string][]struct{ Name string } `json:"by_revenue"`
		ByUtilization []struct{ Name string }            `json:"by_utilization"`
		AsOf          time.Time                          `json:"as_of"`
	}
	w.do(t, http.MethodGet, "/admin/analytics/leaderboards?limit=3&from=2027-03-01T00:00:00Z", "", "Authorization", bearer).decode(t, &told)
	if len(told.ByTickets) != 1 || len(told.ByUtilization) != 1 || len(told.ByRevenue) != 2 || told.ByRevenue["JPY"][0].Name != "Jazz" || told.AsOf.IsZero() {
		t.Errorf("%+v", told)
	}
	from := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	want := []evently.Leaders{
		{Order: evently.ByTickets, From: from, Limit: 3},
		{Order: evently.ByUtilization, From: from, Limit: 3},
		{Order: evently.ByRevenue, Currency: "EUR", From: from, Limit: 3},
		{Order: evently.ByRevenue, Currency: "JPY", From: from, Limit: 3},
	}
	if diff := cmp.Diff(want, box.figures.boards); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
}

func TestAnalytics_RefuseWhatMakesNoSense(t *testing.T) {
	w, box := newBoxSite(t)
	box.figures = someFigures()
	bearer, _ := w.token(t, evently.RoleAdmin)
	for path, field := range map[string]string{
		"/admin/analytics?from=yesterday":                                                                 "from",
		"/admin/analytics?to=1999-12-31T23:59:59Z":                                                        "to",
		"/admin/analytics?from=2027-03-01T00:00:00Z&to=2027-03-01T00:00:00Z":                              "to",
		"/admin/analytics/leaderboards?limit=101":                                                         "limit",
		"/admin/analytics/leaderboards?limit=x":                                                           "limit",
		"/admin/analytics/timeseries?granularity=hour":                                                    "granularity",
		"/admin/analytics/timeseries?timezone=Mars/Phobos":                                                "timezone",
		"/admin/analytics/timeseries?timezone=Local":                                                      "timezone",
		"/admin/analytics/timeseries?timezone=..%2F..%2Fetc%2Fpasswd":                                     "timezone",
		"/admin/analytics/timeseries?event_id=7":                                                          "event_id",
		"/admin/analytics/timeseries?from=2000-01-01T00:00:00Z&to=2199-12-31T00:00:00Z":                   "from",
		"/admin/analytics/timeseries?from=2025-01-01T00:00:00Z&to=2026-02-05T00:00:01Z":                   "from",
		"/admin/analytics/timeseries?granularity=month&from=2100-01-01T00:00:00Z&to=2200-01-01T00:00:00Z": "to",
	} {
		problem := w.do(t, http.MethodGet, path, "", "Authorization", bearer).problem(t, evently.CodeInvalidRequest)
		if len(problem.Errors) != 1 || problem.Errors[0].Field != field {
			t.Errorf("%s: %+v, want field %s", path, problem.Errors, field)
		}
	}
	if len(box.figures.scopes) > 0 {
		t.Errorf("asked for %+v", box.figures.scopes)
	}
	user, _ := w.token(t, evently.RoleUser)
	w.do(t, http.MethodGet, "/admin/analytics", "", "Authorization", user).problem(t, evently.CodeForbidden)
}

func TestTimeseries_PeriodsOfTheCalendar(t *testing.T) {
	w, box := newBoxSite(t)
	box.figures = someFigures()
	bearer, _ := w.token(t, evently.RoleAdmin)
	now := w.clock.Now()
	ask := func(query string) (told seriesJSON) {
		t.Helper()
		w.do(t, http.MethodGet, "/admin/analytics/timeseries?"+query, "", "Authorization", bearer).decode(t, &told)
		return told
	}
	for query, want := range map[string][]string{ // dates and the hours from each to the next
		"timezone=Europe/Berlin&from=2026-03-28T12:00:00Z&to=2026-03-30T12:00:00Z":                   {"2026-03-28 24h0m0s", "2026-03-29 23h0m0s", "2026-03-30 24h0m0s"},
		"timezone=Europe/Berlin&from=2026-10-24T12:00:00Z&to=2026-10-26T12:00:00Z":                   {"2026-10-24 24h0m0s", "2026-10-25 25h0m0s", "2026-10-26 24h0m0s"},
		"timezone=Europe/Berlin&granularity=week&from=2026-03-29T21:59:59Z&to=2026-03-29T22:00:01Z":  {"2026-03-23 167h0m0s", "2026-03-30 168h0m0s"},
		"timezone=Europe/Berlin&granularity=month&from=2026-10-31T22:59:59Z&to=2026-10-31T23:00:00Z": {"2026-10-01 745h0m0s"},
		"timezone=Asia/Kathmandu&from=2026-01-01T18:14:59Z&to=2026-01-01T18:15:01Z":                  {"2026-01-01 24h0m0s", "2026-01-02 24h0m0s"},
		"timezone=Australia/Lord_Howe&from=2026-04-04T13:00:00Z&to=2026-04-04T13:00:01Z":             {"2026-04-05 24h30m0s"},
		"timezone=Africa/Cairo&from=2026-04-24T06:00:00Z&to=2026-04-24T06:00:01Z":                    {"2026-04-24 23h0m0s"}, // no midnight
		"timezone=America/Havana&from=2026-11-01T06:00:00Z&to=2026-11-01T06:00:01Z":                  {"2026-11-01 25h0m0s"}, // midnight twice
		"timezone=America/Asuncion&from=2023-03-25T12:00:00Z&to=2023-03-26T12:00:00Z":                {"2023-03-25 25h0m0s", "2023-03-26 24h0m0s"},
		"timezone=Pacific/Apia&from=2011-12-29T20:00:00Z&to=2011-12-30T20:00:00Z":                    {"2011-12-29 24h0m0s", "2011-12-30 0s", "2011-12-31 24h0m0s"},
		"granularity=week&from=2026-12-31T00:00:00Z&to=2027-01-04T00:00:01Z":                         {"2026-12-28 168h0m0s", "2027-01-04 168h0m0s"},
		"granularity=month&from=2027-12-31T00:00:00Z&to=2028-03-01T00:00:00Z":                        {"2027-12-01 744h0m0s", "2028-01-01 744h0m0s", "2028-02-01 696h0m0s"},
	} {
		var got []string
		told := ask(query)
		for i, point := range told.Data {
			got = append(got, point.Date+" "+point.To.Sub(point.From).String())
			if i > 0 && !told.Data[i-1].To.Equal(point.From) || point.From.Unix()%900 != 0 || !box.figures.bounds[i].Equal(point.From) {
				t.Errorf("%s: %+v follows %+v", query, point, told.Data[max(i, 1)-1])
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	today := ask("")
	if last := today.Data[29]; len(today.Data) != 30 || last.From.After(now) || !last.To.After(now) || today.Timezone != "UTC" || today.Granularity != "day" ||
		today.Data[0].TotalBookings != 8 || today.Data[1].RevenueMinor == nil {
		t.Errorf("%d points, the last one %+v at %v", len(today.Data), last, now)
	}
	if future := ask("from=2150-01-01T00:00:00Z"); len(future.Data) != 1 {
		t.Errorf("%+v", future)
	}
	if most := ask(fmt.Sprintf("from=2025-01-01T00:00:00Z&to=%s", time.Date(2025, 1, 1+evently.SeriesPointsMax, 0, 0, 0, 0, time.UTC).Format(time.RFC3339))); len(most.Data) !=
		evently.SeriesPointsMax {
		t.Errorf("%d points", len(most.Data))
	}
	if weeks := ask("granularity=week"); len(weeks.Data) != 12 {
		t.Errorf("%d weeks", len(weeks.Data))
	}
}

// Every day of every zone begins where the one before ends, and in it.
func TestDate_DaysFollowEachOtherInEveryZone(t *testing.T) {
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Africa/Cairo", "Asia/Beirut", "America/Havana", "America/Santiago",
		"Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham", "Pacific/Apia", "America/Sao_Paulo", "America/Asuncion", "Asia/Gaza", "Africa/Casablanca",
	} {
		zone, ok := timeZoneOf(name)
		if !ok {
			t.Fatalf("no zone %s", name)
		}
		day := date{2005, time.January, 1}
		begin := day.begin(zone)
		for day.year < 2035 {
			next := daily.add(day, 1)
			end := next.begin(zone)
			if length := end.Sub(begin); length < 0 || length > 26*time.Hour || length > 0 && dateOf(begin, zone) != day {
				t.Fatalf("%s: %v is from %v to %v", name, day, begin, end)
			}
			day, begin = next, end
		}
	}
}
