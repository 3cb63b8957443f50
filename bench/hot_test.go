package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/cmd/evently/proctest"
)

// BenchmarkHotEvent books seats of one event over HTTP, in rounds of roundTime, at a node of `evently up`, whose Postgres flushes
// every commit to disk. Run it on an idle machine:
//
//	go test -run - -bench HotEvent -benchtime 3x ./bench
func BenchmarkHotEvent(b *testing.B) {
	const roundTime = 5 * time.Second
	dir := proctest.DataDir(b)
	node := proctest.Up(b, dir, quiet...)
	admin, users := node.Login(b), registered(b, &node.Server, 32)
	acknowledged := 0
	for _, connections := range []int{64, 256} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) {
			rate := 0.0
			for range b.N {
				result := bookHot(b, &node.Server, &node.Server, plentiful(b, &node.Server, admin), users, connections, roundTime)
				acknowledged += result.Outcomes["booked"]
				rate += result.Done / float64(b.N)
			}
			b.ReportMetric(rate, "bookings/s")
			b.ReportMetric(0, "ns/op")
		})
	}
	proctest.Verified(b, dir)
	b.Logf("%d bookings acknowledged, verified against the journal", acknowledged)
}

// quiet are settings of nodes under load.
var quiet = []string{"--log-level=warn", "--access-ttl=12h", "--rate-limit-book=off"}

// bookHot has users book an event at a node for a while, and expects its owner to have what was acknowledged.
func bookHot(b *testing.B, at, owner *proctest.Server, event evently.EventID, users []User, connections int, during time.Duration) Round {
	b.Helper()
	hot, _ := WorkloadNamed("hot")
	load := &Load{
		Endpoint: endpoint(b, at), Workload: hot, Events: []evently.EventID{event}, Users: users, Connections: connections, Duration: during,
	}
	round, told, err := load.Run(b.Context())
	if err != nil || round.Failure != "" || round.Outcomes["refused"] > 0 {
		b.Fatalf("%v: %s; %v", round.Outcomes, round.Failure, err)
	}
	held := owner.Client(b, "").Must(b, 200, "GET", "/events/"+event.String()+"/availability", "", "").Seats(b).Held
	if held != len(told.Promises) {
		b.Fatalf("%d held of %d acknowledged", held, len(told.Promises))
	}
	return round
}

func endpoint(b *testing.B, s *proctest.Server) Endpoint {
	b.Helper()
	e, err := ParseEndpoint(s.API)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// registered registers users at a node.
func registered(b *testing.B, s *proctest.Server, count int) []User {
	b.Helper()
	users, err := RegisterUsers(b.Context(), s.API, count)
	if err != nil {
		b.Fatal(err)
	}
	return users
}

// plentiful makes an event that no round of a benchmark sells out.
func plentiful(b *testing.B, at *proctest.Server, admin string) evently.EventID {
	b.Helper()
	events, err := PublishEvents(b.Context(), at.API, admin, "Plenty", 1, evently.CapacityMax)
	if err != nil {
		b.Fatal(err)
	}
	return events[0]
}
