package messages

import (
	"fmt"
	"strings"
	"time"
)

const (
	dayFormat  = "Monday, 2 January 2006"
	hourFormat = "15:04"
)

// zoneOf returns the time zone of an event. A name that this machine does not know, which an event cannot have unless its zones are
// older than those of the machine that took it, gives UTC.
func zoneOf(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		return time.UTC
	}
	return zone
}

// formatTime writes a moment as Sunday, 25 October 2026, 02:30 CEST.
func formatTime(at time.Time, zone *time.Location) string {
	local := at.In(zone)
	return local.Format(dayFormat) + ", " + formatHour(local)
}

// formatHour writes a local time as 02:30 CEST. Zones without an abbreviation have a number, which becomes UTC-03.
func formatHour(local time.Time) string {
	zone, _ := local.Zone()
	if strings.HasPrefix(zone, "+") || strings.HasPrefix(zone, "-") {
		zone = "UTC" + zone
	}
	return local.Format(hourFormat) + " " + zone
}

// formatSpan writes a span of time, with the day of its end only when it is another one.
func formatSpan(from, to time.Time, zone *time.Location) string {
	end := formatTime(to, zone)
	if from.In(zone).Format(time.DateOnly) == to.In(zone).Format(time.DateOnly) {
		end = formatHour(to.In(zone))
	}
	return fmt.Sprintf("%s to %s", formatTime(from, zone), end)
}
