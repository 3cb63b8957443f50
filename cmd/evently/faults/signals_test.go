package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

const (
	// What one node did is known to all within a second, says the contract. It is tried with each node; one try may fall into a
	// moment when the machine stands still.
	toldMax    = time.Second
	toldAtLast = 20 * time.Second

	// A user may book so many times at once. Nodes tell each other ten times a second, and meanwhile each goes by what it knows.
	limit         = 60
	limitSurplus  = 30                    // for six asked for in a tenth of a second, five times as much
	limitRequests = 70                    // at each node
	limitPace     = 50 * time.Millisecond // between them
)

// told waits until something is so at every member, and returns how long that took.
func told(t *testing.T, cluster *proctest.Cluster, what string, check func(m *proctest.Member) error) time.Duration {
	t.Helper()
	began := time.Now()
	for _, m := range cluster.Members {
		proctest.Eventually(t, toldAtLast, func() error {
			if err := check(m); err != nil {
				return fmt.Errorf("%s, node %d: %w", what, m.Number, err)
			}
			return nil
		})
	}
	took := time.Since(began)
	t.Logf("%s at all nodes after %s", what, took)
	return took
}

// inTime expects most of the times to be what the contract says.
func inTime(t *testing.T, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	if median := took[len(took)/2]; median > toldMax {
		t.Errorf("told after %v, want at most %s", took, toldMax)
	}
}

func TestThreeNodes_TellEachOther(t *testing.T) {
	t.Parallel()
	cluster := proctest.Start(t, proctest.Config{
		Nodes: 3, Profile: "wan", // nobody is to be taken for dead
		Args: []string{fmt.Sprintf("--rate-limit-book=%d/1h", limit)},
	})
	crowd := cluster.Crowd(t, proctest.Sales{Events: 9, Scarce: -1, Users: 4, Limited: true})
	crowd.Reach(t, "begin")
	load := proctest.Plain(t)
	at := func(m *proctest.Member, token string) *proctest.Client {
		return &proctest.Client{HTTP: load, API: m.API, Token: token}
	}
	admin := cluster.Members[0].Login(t)

	t.Run("session ended", func(t *testing.T) {
		var took []time.Duration
		for _, ending := range cluster.Members { // whichever node is told
			token := ending.Login(t)
			for _, m := range cluster.Members {
				at(m, token).Must(t, 200, "GET", "/me", "", "")
			}
			at(ending, token).Must(t, 204, "POST", "/logout", "", "")
			took = append(took, told(t, cluster, "session ended", func(m *proctest.Member) error {
				answer, err := at(m, token).Send(t.Context(), "GET", "/me", "", "")
				if err == nil && answer.Status != http.StatusUnauthorized {
					err = fmt.Errorf("status %d: %s", answer.Status, answer.Body)
				}
				return err
			}))
		}
		inTime(t, took)
	})

	t.Run("event revised", func(t *testing.T) {
		var took []time.Duration
		path := crowd.Events[0]
		for version, revising := range cluster.Members {
			for _, m := range cluster.Members { // it is in every node's cache
				at(m, "").Must(t, 200, "GET", path, "", "")
			}
			name := fmt.Sprint("Revised ", version)
			body := proctest.EventBody(name, 2_000_000+version, time.Hour)
			at(revising, admin).Must(t, 200, "PUT", "/admin"+path, "", body, "If-Match", fmt.Sprintf(`"%d"`, version+1))
			took = append(took, told(t, cluster, "revision known", func(m *proctest.Member) error {
				answer, err := at(m, "").Send(t.Context(), "GET", path, "", "")
				if err != nil {
					return err
				}
				var event struct{ Name string }
				if err := json.Unmarshal(answer.Body, &event); err != nil || event.Name != name {
					return fmt.Errorf("%d %s (%w)", answer.Status, answer.Body, err)
				}
				return nil
			}))
		}
		inTime(t, took)
	})

	t.Run("bookings of one user are limited at all nodes together", func(t *testing.T) {
		user := crowd.Users[0]
		already := booked(t, at(cluster.Members[0], user.Token))
		var accepted, repeated atomic.Int64
		var nodes sync.WaitGroup
		for _, m := range cluster.Members {
			nodes.Go(func() {
				pace := time.NewTicker(limitPace)
				defer pace.Stop()
				for i := range limitRequests {
					p := &proctest.Promise{
						Client: user, Event: crowd.Events[i%len(crowd.Events)], Key: fmt.Sprintf("limit-%d-%d", m.Number, i), Quantity: 1,
					}
					answer, tries := insist(t, at(m, user.Token), p)
					repeated.Add(int64(tries - 1))
					switch answer.Status {
					case http.StatusCreated:
						p.Booked, p.ID = answer.Body, answer.Seats(t).ID
						crowd.Keep(p)
						accepted.Add(1)
					case http.StatusTooManyRequests:
					default:
						t.Errorf("booking: %d %s", answer.Status, answer.Body)
					}
					<-pace.C
				}
			})
		}
		nodes.Wait()
		total := already + int(accepted.Load())
		t.Logf("%d bookings of one user, the limit is %d; %d requests were repeated", total, limit, repeated.Load())
		// A request that was repeated may have been counted more than once.
		if total < limit-int(repeated.Load()) || total > limit+limitSurplus {
			t.Errorf("%d bookings, want %d to %d", total, limit, limit+limitSurplus)
		}
	})

	cluster.Audit(t, crowd)
}

// insist books until there is an answer, which may be a refusal, and returns how often it has asked.
func insist(t *testing.T, at *proctest.Client, p *proctest.Promise) (answer proctest.Answer, tries int) {
	const triesMax = 100
	for tries = 1; ; tries++ {
		answer, err := at.Send(t.Context(), "POST", p.Event+"/book", p.Key, p.Body())
		if err == nil && answer.Status != http.StatusServiceUnavailable || tries == triesMax {
			return answer, tries
		}
		<-time.After(limitPace)
	}
}

// booked is how many bookings a user has made, at most 100.
func booked(t *testing.T, user *proctest.Client) int {
	t.Helper()
	var list struct{ Data []json.RawMessage }
	if err := json.Unmarshal(user.Must(t, 200, "GET", "/bookings?limit=100", "", "").Body, &list); err != nil {
		t.Fatal(err)
	}
	return len(list.Data)
}
