package http

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// granularity is a kind of calendar periods.
type granularity string

const (
	daily   granularity = "day"
	weekly  granularity = "week" // from Monday on, ISO 8601
	monthly granularity = "month"
)

// seriesDefault is how many periods a series has unless its beginning is given, with the last one under way.
var seriesDefault = map[granularity]int{daily: 30, weekly: 12, monthly: 12}

// timeZoneMax bounds the text of ?timezone=.
const timeZoneMax = 64

type seriesJSON struct {
	Granularity granularity `json:"granularity"`
	Timezone    string      `json:"timezone"`
	EventID     *string     `json:"event_id"`
	Data        []pointJSON `json:"data"`
	AsOf        time.Time   `json:"as_of"`
}

// pointJSON is a period: a day, a week from its Monday on, or a month from its first day on, in the time zone of the series.
type pointJSON struct {
	Date string    `json:"date"` // of the first day
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	sumsJSON
}

// getTimeseries is GET /admin/analytics/timeseries.
func (s *Server) getTimeseries(c *gin.Context) error {
	scope := evently.AnalyticsScope{Organizer: managedBy(c)}
	told := &seriesJSON{Granularity: granularity(c.DefaultQuery("granularity", string(daily)))}
	if text, found := c.GetQuery("event_id"); found {
		id, err := evently.ParseEventID(text)
		if err != nil {
			return invalid("event_id", "must be the id of an event")
		}
		if _, err := s.managedStateOf(c, id); err != nil {
			return err
		}
		scope.Event, told.EventID = id, &text
	}
	dates, bounds, err := s.periodsOf(c, told)
	if err != nil {
		return err
	}
	series, err := s.config.Analytics.Series(c.Request.Context(), scope, bounds)
	if err != nil {
		return err
	}
	told.AsOf, told.Data = series.AsOf, make([]pointJSON, len(series.Points))
	for i := range series.Points {
		told.Data[i] = pointJSON{dates[i].String(), bounds[i].UTC(), bounds[i+1].UTC(), newSumsJSON(&series.Points[i])}
	}
	writeJSON(c, http.StatusOK, told)
	return nil
}

// periodsOf reads which periods are asked for: those that [from, to) touches. It returns their first days, and their bounds, of
// which there is one more.
func (s *Server) periodsOf(c *gin.Context, told *seriesJSON) (dates []date, bounds []time.Time, err error) {
	before, known := seriesDefault[told.Granularity]
	if !known {
		return nil, nil, invalid("granularity", "must be day, week or month")
	}
	zone, ok := timeZoneOf(c.DefaultQuery("timezone", "UTC"))
	if !ok {
		return nil, nil, invalid("timezone", "must be an IANA time zone name such as Europe/Berlin")
	}
	told.Timezone = zone.String()
	times, err := timeRangeOf(c)
	if err != nil {
		return nil, nil, err
	}
	if times.to.IsZero() {
		times.to = s.config.Now().Add(1)
		if !times.from.Before(times.to) {
			times.to = times.from.Add(1)
		}
	}
	last := told.Granularity.begin(dateOf(times.to.Add(-1), zone))
	first := told.Granularity.begin(dateOf(times.from, zone))
	if times.from.IsZero() {
		first = told.Granularity.add(last, 1-before)
	}
	for day := first; !last.before(day); day = told.Granularity.add(day, 1) {
		if len(dates) == evently.SeriesPointsMax {
			return nil, nil, invalid("from", fmt.Sprintf("is too early: a series has at most %d points", evently.SeriesPointsMax))
		}
		dates, bounds = append(dates, day), append(bounds, day.begin(zone))
	}
	return dates, append(bounds, told.Granularity.add(last, 1).begin(zone)), nil
}

// timeZoneOf returns the time zone of an IANA name.
func timeZoneOf(name string) (*time.Location, bool) {
	if name == "" || name == "Local" || len(name) > timeZoneMax || strings.ContainsRune(name, 0) {
		return nil, false
	}
	zone, err := time.LoadLocation(name)
	return zone, err == nil
}

// date is a day of the calendar, without a time zone.
type date struct {
	year  int
	month time.Month
	day   int
}

func dateOf(t time.Time, zone *time.Location) date {
	year, month, day := t.In(zone).Date()
	return date{year, month, day}
}

func (d date) String() string { return d.noon().Format(time.DateOnly) }

func (d date) noon() time.Time { return time.Date(d.year, d.month, d.day, 12, 0, 0, 0, time.UTC) }

func (d date) before(other date) bool { return d.noon().Before(other.noon()) }

// begin is the first moment of the day in a time zone: midnight, except where clocks are changed at that time. Then midnight may be
// left out, or come twice, of which the first one counts.
func (d date) begin(zone *time.Location) time.Time {
	midnight := time.Date(d.year, d.month, d.day, 0, 0, 0, 0, zone)
	naive := time.Date(d.year, d.month, d.day, 0, 0, 0, 0, time.UTC)
	// Candidates are midnight by the offsets on both sides of any change nearby, and the change itself.
	earliest := time.Time{}
	consider := func(t time.Time) {
		if local := t.In(zone); !dateOf(local, zone).before(d) && dateOf(local.Add(-1), zone).before(d) && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	for _, near := range []time.Time{midnight.Add(-24 * time.Hour), midnight, midnight.Add(24 * time.Hour)} {
		_, offset := near.Zone()
		consider(naive.Add(-time.Duration(offset) * time.Second))
		if start, _ := near.ZoneBounds(); !start.IsZero() {
			consider(start)
		}
	}
	if earliest.IsZero() {
		panic(fmt.Sprintf("http: %v has no beginning in %s", d, zone))
	}
	return earliest
}

// begin is the first day of the period that a day is in.
func (g granularity) begin(d date) date {
	switch g {
	case weekly:
		return dateOf(d.noon().AddDate(0, 0, -int(d.noon().Weekday()+6)%7), time.UTC)
	case monthly:
		d.day = 1
	case daily:
	}
	return d
}

// add is the first day of the period n after the one that begins with d.
func (g granularity) add(d date, n int) date {
	months, days := 0, 0
	switch g {
	case daily:
		days = n
	case weekly:
		days = 7 * n
	case monthly:
		months = n
	}
	return dateOf(d.noon().AddDate(0, months, days), time.UTC)
}
