package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

func TestMain(m *testing.M) {
	os.Exit(proctest.Wrap(pgtest.Wrap(m, nil)).Run())
}

// cluster starts nodes over a Postgres that flushes every commit to disk.
func cluster(b *testing.B, nodes int, profile string) *proctest.Cluster {
	b.Helper()
	dir := filepath.Join(proctest.DataDir(b), "postgres") // on the disk: the directories of pgtest may be in memory
	return proctest.Start(b, proctest.Config{
		Nodes: nodes, Profile: profile, Args: []string{"--log-level=warn", "--access-ttl=12h"},
		Postgres: proctest.StartPostgres(b, func(config *embedded.Config) { config.DataDir, config.UnsafeNoFsync = dir, false }),
	})
}

// placed is the node that an event belongs to.
func placed(b *testing.B, c *proctest.Cluster, admin, event string) *proctest.Member {
	b.Helper()
	var system struct{ Placement struct{ Node string } }
	answer := c.Members[0].Client(b, admin).Must(b, http.StatusOK, "GET", "/admin/analytics/system?event_id="+event, "", "")
	if err := json.Unmarshal(answer.Body, &system); err != nil {
		b.Fatal(err)
	}
	for _, m := range c.Members {
		if m.ID(b) == system.Placement.Node {
			return m
		}
	}
	b.Fatalf("no node %s", system.Placement.Node)
	return nil
}

func address(m *proctest.Member) string { return strings.TrimPrefix(m.API, "http://") }

// BenchmarkHop books seats of one event over HTTP, in turns at the node that owns it and at the other node of two, which
// forwards every request. Both nodes, Postgres and the clients share the machine. Run it on an idle one:
//
//	go test -run - -bench Hop -benchtime 4x ./bench
func BenchmarkHop(b *testing.B) {
	const roundTime = 4 * time.Second
	c := cluster(b, 2, "lan")
	admin := c.Members[0].Login(b)
	tokens := c.Members[0].Users(b, 32)
	for _, connections := range []int{64, 256} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) {
			var rates [2]float64 // at the owner, at the other node
			for range b.N {
				for way := range rates {
					event := plentiful(b, c.Members[0], admin)
					owner := placed(b, c, admin, event)
					node := owner
					if way == 1 {
						node = c.Members[1-owner.Number]
					}
					load := &Load{Addr: address(node), Event: event, Tokens: tokens, Connections: connections, Duration: roundTime}
					result, err := load.Run()
					if err != nil || result.Failed > 0 || result.Refused > 0 {
						b.Fatalf("%+v %v", result, err)
					}
					held := owner.Client(b, "").Must(b, http.StatusOK, "GET", "/events/"+event+"/availability", "", "").Seats(b).Held
					if held != result.Booked {
						b.Fatalf("%d held of %d acknowledged", held, result.Booked)
					}
					rates[way] += result.PerSecond() / float64(b.N)
				}
			}
			b.ReportMetric(rates[0], "local-bookings/s")
			b.ReportMetric(rates[1], "hop-bookings/s")
			b.ReportMetric(100*(1-rates[1]/rates[0]), "hop-cost-%")
			b.ReportMetric(0, "ns/op")
		})
	}
	proctest.Verified(b, b.TempDir(), "--database-url="+c.Postgres.DSN())
}

// BenchmarkMove has 10,000 events active on three nodes, stops one of them in order, and books each event at the others from
// then on. The time is from the signal to the last answer; beside it stands how long the same bookings take when nothing moves:
//
//	go test -run - -bench Move -benchtime 1x ./bench
func BenchmarkMove(b *testing.B) {
	const events, clients = 10_000, 64
	c := cluster(b, 3, "lan")
	admin := c.Members[0].Login(b)
	token := c.Members[0].Users(b, 1)[0]
	made := make([]string, events)
	each(b, clients, events, func(client *Client, event int) error {
		var err error
		made[event], err = publish(client, address(c.Members[event%2]), admin, 1000)
		return err
	}, c.Members[0], c.Members[1])
	active := func() (total int) {
		for _, m := range c.Members {
			total += int(m.Metric(b, "evently_event_actors"))
		}
		return total
	}
	book := func(round int, members ...*proctest.Member) {
		each(b, clients, events, func(client *Client, event int) error {
			for {
				status, body, err := client.Do(NewBook("cluster", made[event], token).With(uint64(round)))
				if err != nil || status == http.StatusCreated {
					return err
				}
				if status != http.StatusServiceUnavailable {
					return fmt.Errorf("%d %s", status, body)
				}
			}
		}, members...)
	}
	var still, took time.Duration
	for n := range b.N {
		book(3*n, c.Members...)
		began := time.Now()
		book(3*n+1, c.Members[:2]...)
		still += time.Since(began)
		if got := active(); got != events {
			b.Fatalf("%d events active of %d", got, events)
		}
		leaving := c.Members[2]
		moved := int(leaving.Metric(b, "evently_event_actors"))
		began = time.Now()
		leaving.Process().Signal(b, syscall.SIGTERM)
		book(3*n+2, c.Members[:2]...)
		took += time.Since(began)
		leaving.Stop(b)
		b.Logf("%d of %d events have moved", moved, events)
		leaving.Start(b)
		c.Whole(b, proctest.UpMax)
	}
	b.ReportMetric(still.Seconds()/float64(b.N), "s/unmoved")
	b.ReportMetric(took.Seconds()/float64(b.N), "s/moved")
	b.ReportMetric(0, "ns/op")
	proctest.Verified(b, b.TempDir(), "--database-url="+c.Postgres.DSN())
}

// each calls do for the numbers below count, from clients that are connected to the members in turn.
func each(b *testing.B, clients, count int, do func(client *Client, number int) error, members ...*proctest.Member) {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			client, err := Dial(address(members[n%len(members)]))
			if err != nil {
				b.Error(err)
				return
			}
			defer client.Close()
			for number := int(next.Add(1)) - 1; number < count && !b.Failed(); number = int(next.Add(1)) - 1 {
				if err := do(client, number); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// plentiful makes an event that no round of a benchmark sells out.
func plentiful(b *testing.B, at *proctest.Member, admin string) (id string) {
	b.Helper()
	client, err := Dial(address(at))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	if id, err = publish(client, address(at), admin, evently.CapacityMax); err != nil {
		b.Fatal(err)
	}
	return id
}

// publish makes an event and returns its id.
func publish(client *Client, host, admin string, capacity int) (id string, err error) {
	body := proctest.EventBody("Event", capacity, 24*time.Hour)
	status, answer, err := client.Do(fmt.Appendf(nil, "POST /admin/events HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", host, admin, len(body), body))
	if err != nil || status != http.StatusCreated {
		return "", fmt.Errorf("%d %s: %w", status, answer, err)
	}
	var event struct{ ID string }
	return event.ID, json.Unmarshal(answer, &event)
}

// BenchmarkRecovery kills the node with the most events of three without a word, and books each event until the last one has
// answered, with each profile of failure detection:
//
//	go test -run - -bench Recovery -benchtime 3x ./bench
func BenchmarkRecovery(b *testing.B) {
	for _, profile := range []string{"fast", "lan"} {
		b.Run(profile, func(b *testing.B) {
			c := cluster(b, 3, profile)
			crowd := c.Crowd(b, proctest.Sales{})
			var took, longest time.Duration
			for n := range b.N {
				crowd.Open(b, 8)
				crowd.More(b, 300)
				owner, _ := c.Owner(b)
				began := time.Now()
				owner.Kill(b)
				crowd.Reach(b, fmt.Sprint("killed-", n))
				took += time.Since(began)
				longest = max(longest, time.Since(began))
				crowd.More(b, 100)
				owner.Start(b)
				c.Whole(b, proctest.UpMax)
				c.Audit(b, crowd)
			}
			b.ReportMetric(took.Seconds()/float64(b.N), "s/recovery")
			b.ReportMetric(longest.Seconds(), "s/longest")
			b.ReportMetric(0, "ns/op")
		})
	}
}
