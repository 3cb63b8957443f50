package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/evently/evently"
)

// probeUsersMax bounds the users that Probe tries.
const probeUsersMax = 32

// Probe finds out whether workloads of so many requests a second (0: as many as there can be) would be answered: the API is there, Admin
// may publish an event and export its bookings, users may book, and no limit refuses what is to come. It leaves an event with a hold of
// each user that was tried. It returns a *LimitedError for a limit.
func (a *API) Probe(ctx context.Context, rate float64, workloads []Workload) error {
	needs := map[string]float64{"address": rate}
	if slices.ContainsFunc(workloads, func(w Workload) bool { return w.Mix.Reads < 1 }) {
		needs["book"] = rate / float64(len(a.Users))
	}
	if slices.ContainsFunc(workloads, func(w Workload) bool { return w.SoldOut }) { // which are sold out as fast as can be
		needs["address"], needs["book"] = 0, 0
	}
	events, err := PublishEvents(ctx, a.URL, a.Admin, "Probe", 1, probeUsersMax)
	if err != nil {
		return fmt.Errorf("the administrator has to be able to publish events: %w", err)
	}
	if err := a.Reservations(ctx, events, func(Stored) {}); err != nil {
		return fmt.Errorf("the administrator has to be able to export bookings: %w", err)
	}
	run := random64()
	for i := range min(len(a.Users), probeUsersMax) {
		at := i * len(a.Users) / min(len(a.Users), probeUsersMax) // some of all of the list
		if err := a.probeUser(ctx, events[0], &a.Users[at], Key{run, uint64(i)}, needs); err != nil {
			return fmt.Errorf("user %d: %w", at+1, err)
		}
	}
	return nil
}

// probeUser books. The needs are requests a second, by the limit that they count for; 0: as many as there can be.
func (a *API) probeUser(ctx context.Context, event evently.EventID, user *User, key Key, needs map[string]float64) error {
	return booking(ctx, a.URL, event, user, key, func(header http.Header, _ io.Reader) error {
		for name, rate := range needs {
			err := limitedBelow(header, name, func(l limit) float64 {
				if rate == 0 {
					return float64(l.count) + 1 // whatever it is, more will come
				}
				return rate * float64(l.seconds)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// LimitedError says that a node would refuse what is to come.
type LimitedError struct {
	Limit   string // book, auth or address: the setting is rate_limit_ and this
	Count   int    // requests that are answered
	Seconds int    // within that time
}

func (e *LimitedError) Error() string {
	of := "one address"
	if e.Limit == "book" {
		of = "one user"
	}
	return fmt.Sprintf("its limit %q takes %d requests of %s within %d s, and there will be more: set rate_limit_%s to off at its nodes "+
		"for as long as they are measured (EVENTLY_RATE_LIMIT_%s=off)", e.Limit, e.Count, of, e.Seconds, e.Limit, strings.ToUpper(e.Limit))
}

// limit is a policy of RateLimit-Policy.
type limit struct{ count, seconds int }

// limitPattern is a policy as nodes write it: "book";q=10;w=60.
var limitPattern = regexp.MustCompile(`"([a-z]+)";q=(\d+);w=(\d+)`)

// limitedBelow returns a *LimitedError when an answer tells of a limit that is below a need.
func limitedBelow(header http.Header, name string, need func(limit) float64) error {
	for _, text := range header.Values("RateLimit-Policy") {
		for _, found := range limitPattern.FindAllStringSubmatch(text, -1) {
			count, errCount := strconv.Atoi(found[2])
			seconds, errSeconds := strconv.Atoi(found[3])
			if found[1] != name || errCount != nil || errSeconds != nil {
				continue
			}
			if need(limit{count, seconds}) > float64(count) {
				return &LimitedError{name, count, seconds}
			}
		}
	}
	return nil
}
