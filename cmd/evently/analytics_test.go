package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/pgtest"
)

// analyticsTold is what the routes of analytics have in common.
type analyticsTold struct {
	TotalBookings      int64            `json:"total_bookings"`
	TotalCancellations int64            `json:"total_cancellations"`
	CancellationRate   float64          `json:"cancellation_rate"`
	TicketsBooked      int64            `json:"tickets_booked"`
	RevenueMinor       map[string]int64 `json:"revenue_minor"`
	HoldsMade          int64            `json:"holds_made"`
	HoldsReleased      int64            `json:"holds_released"`
	Capacity           int64            `json:"capacity"`
	Utilization        float64          `json:"capacity_utilization"`
	AsOf               time.Time        `json:"as_of"`
}

// What users do is in the figures within two seconds; they survive a crash of the node, can be counted again, and stand as
// before.
func TestAnalytics_FollowBookings(t *testing.T) {
	t.Parallel()
	dir, dsn := proctest.DataDir(t), pgtest.Private(t).DSN()
	up := func() *proctest.Node { return proctest.Up(t, dir, "--rate-limit-book=off", "--database-url="+dsn) }
	n := up()
	admin := n.Client(t, n.Login(t))
	ann := n.Client(t, n.Users(t, 1)[0])
	create := func(name string, capacity int) (path string) {
		return "/events/" + admin.Must(t, 201, "POST", "/admin/events", name, proctest.EventBody(name, capacity, time.Hour)).Seats(t).ID
	}
	jazz, opera := create("Jazz", 20), create("Opera", 10)
	id := func(path string) string { return strings.TrimPrefix(path, "/events/") }
	book := func(event, key string, quantity int, then ...string) {
		t.Helper()
		hold := ann.Must(t, 201, "POST", event+"/book", key, fmt.Sprintf(`{"quantity":%d}`, quantity)).Seats(t)
		for _, next := range then {
			switch next {
			case "confirm":
				ann.Must(t, 200, "POST", "/reservations/"+hold.ID+"/confirm", "", "")
			case "cancel":
				ann.Must(t, 200, "POST", "/bookings/"+hold.ID+"/cancel", "", "")
			case "release":
				ann.Must(t, 204, "DELETE", "/reservations/"+hold.ID, "", "")
			}
		}
	}
	read := func(path string, out any) {
		t.Helper()
		if err := json.Unmarshal(admin.Must(t, 200, "GET", path, "", "").Body, out); err != nil {
			t.Fatal(err)
		}
	}
	var event struct {
		Tiers []struct {
			PriceMinor int64 `json:"price_minor"`
		}
	}
	read(jazz, &event)
	price := event.Tiers[0].PriceMinor

	book(jazz, "1", 4, "confirm")
	book(jazz, "2", 2, "confirm", "cancel")
	book(jazz, "3", 1, "release")
	book(jazz, "4", 1)
	book(opera, "5", 3, "confirm")
	acknowledged := time.Now()
	want := analyticsTold{
		TotalBookings: 3, TotalCancellations: 1, CancellationRate: 1. / 3, TicketsBooked: 9, RevenueMinor: map[string]int64{"EUR": 7 * price},
		HoldsMade: 5, HoldsReleased: 1, Capacity: 30, Utilization: 7. / 30,
	}
	var got struct {
		analyticsTold
		MostPopular []struct {
			EventID string `json:"event_id"`
			Booked  int64
		} `json:"most_popular"`
	}
	settle := func() {
		t.Helper()
		proctest.Eventually(t, 20*time.Second, func() error {
			got.RevenueMinor = nil
			read("/admin/analytics", &got)
			if got.AsOf.Before(acknowledged) {
				return fmt.Errorf("as of %v, before %v", got.AsOf, acknowledged)
			}
			return nil
		})
		got.AsOf = time.Time{}
		if !reflect.DeepEqual(got.analyticsTold, want) || len(got.MostPopular) != 2 || got.MostPopular[0].EventID != id(jazz) || got.MostPopular[0].Booked != 4 {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
	settle()

	var one analyticsTold
	read("/admin"+opera+"/analytics", &one)
	if one.TotalBookings != 1 || one.TicketsBooked != 3 || one.Capacity != 10 || one.RevenueMinor["EUR"] != 3*price {
		t.Errorf("opera: %+v", one)
	}
	var series struct{ Data []analyticsTold }
	read("/admin/analytics/timeseries?granularity=month&timezone=Asia/Tokyo&event_id="+id(jazz), &series)
	if last := series.Data[len(series.Data)-1]; len(series.Data) != 12 || last.TotalBookings+series.Data[len(series.Data)-2].TotalBookings != 2 {
		t.Errorf("series: %+v", series)
	}
	var boards struct {
		ByRevenue map[string][]struct {
			EventID string `json:"event_id"`
		} `json:"by_revenue"`
	}
	read("/admin/analytics/leaderboards", &boards)
	if eur := boards.ByRevenue["EUR"]; len(eur) != 2 || eur[0].EventID != id(jazz) {
		t.Errorf("leaderboards: %+v", boards)
	}
	read("/admin/analytics?to=2020-01-01T00:00:00Z", &one)
	if one.TotalBookings != 0 {
		t.Errorf("before 2020: %+v", one)
	}
	ann.Must(t, 403, "GET", "/admin/analytics", "", "")

	// A crash, and the event's end.
	n.Signal(t, syscall.SIGKILL)
	n.Exit(t, proctest.StopMax)
	n = up()
	admin = n.Client(t, n.Login(t))
	settle()
	admin.Must(t, 200, "POST", "/admin"+opera+"/cancel", "", "")
	acknowledged = time.Now()
	want.TotalCancellations, want.CancellationRate, want.RevenueMinor = 2, 2./3, map[string]int64{"EUR": 4 * price}
	want.Capacity, want.Utilization = 20, 4./20
	proctest.Eventually(t, 20*time.Second, func() error {
		got.RevenueMinor = nil
		read("/admin/analytics", &got)
		if got.AsOf.Before(acknowledged) {
			return errors.New("not counted yet")
		}
		return nil
	})
	got.AsOf = time.Time{}
	if !reflect.DeepEqual(got.analyticsTold, want) || len(got.MostPopular) != 1 {
		t.Errorf("after a cancelled event\ngot  %+v\nwant %+v", got, want)
	}

	// The tools, while the node serves.
	tool := func(wantExit int, args ...string) string {
		t.Helper()
		p := proctest.Launch(t, dir, append(args, "--database-url="+dsn)...)
		if exit := p.Exit(t, proctest.StopMax); exit != wantExit {
			t.Fatalf("%q: exit %d, want %d: %s", args, exit, wantExit, p.Output())
		}
		return p.Output()
	}
	if out := tool(exitOK, "analytics", "rebuild"); !strings.Contains(out, ": 0 differences; shown now") {
		t.Errorf("rebuild: %s", out)
	}
	execute(t, dsn, "update analytics_sums set bookings = bookings + 1 where scope = 0 and bucket = '-infinity'")
	if out := tool(exitFailed, "analytics", "verify"); !strings.Contains(out, "everybody, all times, EUR: shown {") || !strings.Contains(out, "not shown") {
		t.Errorf("verify: %s", out)
	}
	var rebuilt struct {
		Shown       bool
		Differences []struct{ Shown, Journal map[string]any }
	}
	if err := json.Unmarshal([]byte(jsonOf(tool(exitOK, "analytics", "rebuild", "--json"))), &rebuilt); err != nil || !rebuilt.Shown ||
		len(rebuilt.Differences) != 1 || rebuilt.Differences[0].Shown["bookings"] != 4. || rebuilt.Differences[0].Journal["bookings"] != 3. {
		t.Errorf("%+v %v", rebuilt, err)
	}
	if out := tool(exitOK, "analytics", "verify"); !strings.Contains(out, ": 0 differences") {
		t.Errorf("verify: %s", out)
	}
	execute(t, dsn, "insert into parked_entries (consumer, event_id, seq, error, at) values ('analytics', 7, 1, 'it broke', now())")
	if out := tool(exitOK, "feed", "status"); !strings.Contains(out, "analytics") || !strings.Contains(out, "entry 1, ") || !strings.Contains(out, "it broke") {
		t.Errorf("status: %s", out)
	}
	var status feedStatus
	if err := json.Unmarshal([]byte(jsonOf(tool(exitOK, "feed", "status", "--json"))), &status); err != nil || len(status.Parked) != 1 || status.Parked[0].Seq != 1 ||
		status.Consumers[0].Name != "analytics" || status.Consumers[0].Behind != 0 || status.Consumers[0].AsOf == nil {
		t.Errorf("%+v %v", status, err)
	}
	if out := tool(exitOK, "feed", "retry", "--consumer=nobody"); !strings.Contains(out, "0 entries") {
		t.Errorf("retry: %s", out)
	}
	tool(exitUsage, "feed", "retry")
	tool(exitUsage, "feed", "retry", "--consumer=analytics", "--event=x")
	tool(exitUsage, "feed", "retry", "--consumer=analytics", "--seq=1")
	tool(exitUsage, "feed", "discard", "--consumer=analytics")
	tool(exitOK, "feed", "discard", "--consumer=analytics", "--event="+status.Parked[0].Event, "--seq=1")
	tool(exitFailed, "feed", "discard", "--consumer=analytics", "--event="+status.Parked[0].Event, "--seq=1")

	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	proctest.Verified(t, dir, "--database-url="+dsn)
}

// jsonOf cuts what is logged from the output of a tool.
func jsonOf(output string) string {
	return output[max(strings.Index(output, "{"), 0) : strings.LastIndex(output, "}")+1]
}

// A node without consumers leaves them to others.
func TestAnalytics_ConsumersAreOff(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--consumers=off")
	admin := n.Client(t, n.Login(t))
	n.CreateEvent(t, 20, time.Hour)
	if refused := admin.Must(t, 503, "GET", "/admin/analytics", "", ""); refused.Code(t) != "unavailable" {
		t.Errorf("%s", refused.Body)
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	n = proctest.Up(t, dir)
	admin = n.Client(t, n.Login(t))
	proctest.Eventually(t, 20*time.Second, func() error {
		a, err := admin.Send(t.Context(), "GET", "/admin/analytics", "", "")
		if err == nil && a.Status != 200 {
			err = errors.New(string(a.Body))
		}
		return err
	})
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
}

// execute carries out a statement.
func execute(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}
