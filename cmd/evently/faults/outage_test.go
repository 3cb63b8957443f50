package faults

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// outageMax bounds the time until others serve the events of a node that has lost Postgres. It gives them up after 3 s, or after
// some seconds more if its connections do not break but stall.
const outageMax = 20 * time.Second

// One node of three loses its way to Postgres. It stays a member, so that nothing else moves, but is not ready, and others serve
// its events. When Postgres is back the node is, too, by itself.
func TestNodeWithoutPostgres_StaysMemberWhileOthersServeItsEvents(t *testing.T) {
	t.Parallel()
	cluster := proctest.Start(t, proctest.Config{Nodes: 3, Profile: "wan", Relayed: true}) // nobody is to be taken for dead
	crowd := cluster.Crowd(t, proctest.Sales{})
	for _, outage := range []struct {
		name  string
		begin func(*proctest.Relay)
	}{
		{"cut", (*proctest.Relay).Cut},
		{"stalled", (*proctest.Relay).Stall},
	} {
		t.Run(outage.name, func(t *testing.T) {
			harmed(t, cluster, crowd, func(t *testing.T) {
				lonely, events := cluster.Owner(t)
				id := lonely.ID(t)
				outage.begin(lonely.Relay)
				began := time.Now()
				proctest.Eventually(t, outageMax, func() error {
					switch status, err := lonely.Status(t.Context(), "/readyz"); {
					case err != nil:
						return err
					case status != http.StatusServiceUnavailable:
						return fmt.Errorf("/readyz: status %d, want 503", status)
					}
					return nil
				})
				t.Logf("not ready after %s", time.Since(began))
				took := crowd.Reach(t, outage.name)
				t.Logf("a node with %d of %d events has lost Postgres, all events answered after %s", events, len(crowd.Events), time.Since(began))
				if took > outageMax {
					t.Errorf("all events answered after %s, want at most %s", took, outageMax)
				}
				crowd.More(t, enough)
				for _, m := range cluster.Members {
					if m != lonely {
						m.Ready(t)
					}
					if members := m.Metric(t, "evently_cluster_members"); members != 3 {
						t.Errorf("node %d sees %v members, want 3: the node without Postgres is one still", m.Number, members)
					}
				}

				lonely.Relay.Heal()
				began = time.Now()
				cluster.Whole(t, wholeMax)
				proctest.Eventually(t, wholeMax, func() error {
					if serves, err := lonely.ReadMetric(t.Context(), "evently_event_actors"); err != nil || serves == 0 {
						return errors.Join(err, errors.New("the node serves no events"))
					}
					return nil
				})
				t.Logf("serves again after %s", time.Since(began))
				if after := lonely.ID(t); after != id || lonely.Starts() != 1 {
					t.Errorf("the node was %s and is %s after %d starts: it restarted", id, after, lonely.Starts())
				}
			})
		})
	}
}
