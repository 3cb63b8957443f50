package bench

import (
	"fmt"
	"testing"
	"time"

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
	admin, tokens := node.Login(b), node.Users(b, 32)
	acknowledged := 0
	for _, connections := range []int{64, 256} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) {
			rate := 0.0
			for range b.N {
				result := bookHot(b, &node.Server, &node.Server, plentiful(b, &node.Server, admin), tokens, connections, roundTime)
				acknowledged += result.Booked
				rate += result.PerSecond() / float64(b.N)
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
func bookHot(b *testing.B, at, owner *proctest.Server, event string, tokens []string, connections int, during time.Duration) Result {
	b.Helper()
	load := &Load{Addr: address(at), Event: event, Tokens: tokens, Connections: connections, Duration: during}
	result, err := load.Run()
	if err != nil || result.Failed > 0 || result.Refused > 0 {
		b.Fatalf("%+v %v", result, err)
	}
	held := owner.Client(b, "").Must(b, 200, "GET", "/events/"+event+"/availability", "", "").Seats(b).Held
	if held != result.Booked {
		b.Fatalf("%d held of %d acknowledged", held, result.Booked)
	}
	return result
}
