package bench

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently"
	"github.com/evently/evently/actors"
	"github.com/evently/evently/cluster"
	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/embedded"
)

// cluster starts nodes over a Postgres that flushes every commit to disk.
func nodes(b *testing.B, count int, profile string) *proctest.Cluster {
	b.Helper()
	dir := filepath.Join(proctest.DataDir(b), "postgres") // on the disk: the directories of pgtest may be in memory
	return proctest.Start(b, proctest.Config{
		Nodes: count, Profile: profile, Args: quiet,
		Postgres: proctest.StartPostgres(b, func(config *embedded.Config) { config.DataDir, config.UnsafeNoFsync = dir, false }),
	})
}

// placed is the node that an event belongs to.
func placed(b *testing.B, c *proctest.Cluster, admin string, event evently.EventID) *proctest.Member {
	b.Helper()
	var system struct{ Placement struct{ Node string } }
	answer := c.Members[0].Client(b, admin).Must(b, http.StatusOK, "GET", "/admin/analytics/system?event_id="+event.String(), "", "")
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

// BenchmarkHop books seats of one event over HTTP, in turns at the node that owns it and at the other node of two, which
// forwards every request. Both nodes, Postgres and the clients share the machine. Run it on an idle one:
//
//	go test -run - -bench Hop -benchtime 4x ./bench
func BenchmarkHop(b *testing.B) {
	const roundTime = 4 * time.Second
	c := nodes(b, 2, "lan")
	admin := c.Members[0].Login(b)
	users := registered(b, &c.Members[0].Server, 32)
	for _, connections := range []int{64, 256} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) {
			var rates [2]float64 // at the owner, at the other node
			for range b.N {
				for way := range rates {
					event := plentiful(b, &c.Members[0].Server, admin)
					owner := placed(b, c, admin, event)
					node := owner
					if way == 1 {
						node = c.Members[1-owner.Number]
					}
					result := bookHot(b, &node.Server, &owner.Server, event, users, connections, roundTime)
					rates[way] += result.Done / float64(b.N)
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

// BenchmarkMove has 10,000 events active on three nodes, stops one of them in order, and books each event that was there at the
// others from then on. The time is from the signal to the last answer; beside it stands how long as many bookings of the same
// events took before:
//
//	go test -run - -bench Move -benchtime 3x ./bench
func BenchmarkMove(b *testing.B) {
	const events, clients = 10_000, 64
	c := nodes(b, 3, "lan")
	admin := c.Members[0].Login(b)
	user := registered(b, &c.Members[0].Server, 1)[0]
	leaving, staying := c.Members[2], c.Members[:2]
	made, err := PublishEvents(b.Context(), c.Members[0].API, admin, "Event", events, 1000)
	if err != nil {
		b.Fatal(err)
	}
	book := func(key uint64, events []evently.EventID) time.Duration {
		began := time.Now()
		each(b, clients, len(events), func(client *Client, event int) error {
			request := (&Endpoint{host: "cluster"}).AppendBook(nil, events[event], user.Token, Key{Number: key})
			for {
				answer, err := client.Do(b.Context(), request)
				if err != nil || answer.Status == http.StatusCreated {
					return err
				}
				if answer.Status != http.StatusServiceUnavailable {
					return fmt.Errorf("%d %s", answer.Status, answer.Body)
				}
			}
		}, staying...)
		return time.Since(began)
	}
	var before, took time.Duration
	for n := range b.N {
		key := uint64(3 * n)
		book(key, made)
		active := 0.0
		for _, m := range c.Members {
			active += m.Metric(b, "evently_event_actors")
		}
		if active != events {
			b.Fatalf("%v events active of %d", active, events)
		}
		there := owned(b, c, leaving, made)
		before += book(key+1, there)
		leaving.Process().Signal(b, syscall.SIGTERM)
		took += book(key+2, there)
		leaving.Stop(b)
		b.Logf("%d of %d events have moved", len(there), events)
		leaving.Start(b)
		c.Whole(b, proctest.UpMax)
	}
	b.ReportMetric(before.Seconds()/float64(b.N), "s/unmoved")
	b.ReportMetric(took.Seconds()/float64(b.N), "s/moved")
	b.ReportMetric(0, "ns/op")
	proctest.Verified(b, b.TempDir(), "--database-url="+c.Postgres.DSN())
}

// owned returns the events that a member owns, as a member without events finds them that joins for this question.
func owned(b *testing.B, c *proctest.Cluster, owner *proctest.Member, events []evently.EventID) (found []evently.EventID) {
	b.Helper()
	pool, err := store.Open(b.Context(), c.Postgres.DSN(), store.PoolOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	installation, err := store.Installation(b.Context(), pool)
	if err != nil {
		b.Fatal(err)
	}
	observer, err := cluster.Start(b.Context(), cluster.Config{
		Name: "evently-" + installation, KeyFile: c.GossipKey, Join: []string{c.Members[0].Gossip}, Quorum: 2, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	proctest.Eventually(b, proctest.UpMax, func() error {
		if got := observer.Membership().Members; got != len(c.Members)+1 {
			return fmt.Errorf("sees %d members", got)
		}
		return nil
	})
	id := owner.ID(b)
	for _, event := range events {
		if member, _ := observer.Owner(actors.Kind, event.String()); member == id {
			found = append(found, event)
		}
	}
	if err := observer.Stop(b.Context()); err != nil {
		b.Fatal(err)
	}
	c.Whole(b, proctest.UpMax)
	return found
}

// each calls do for the numbers below count, from clients that are connected to the members in turn.
func each(b *testing.B, clients, count int, do func(client *Client, number int) error, members ...*proctest.Member) {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			client := endpoint(b, &members[n%len(members)].Server).Client()
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

// BenchmarkRecovery kills the node with the most events of three without a word, and books each event until the last one has
// answered, with each profile of failure detection:
//
//	go test -run - -bench Recovery -benchtime 3x ./bench
func BenchmarkRecovery(b *testing.B) {
	for _, profile := range []string{"fast", "lan"} {
		b.Run(profile, func(b *testing.B) {
			c := nodes(b, 3, profile)
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
