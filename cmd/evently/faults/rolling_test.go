package faults

import (
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// Each node in turn leaves and starts again. Clients that try once more notice nothing.
func TestRollingRestart_ClientsNoticeNothing(t *testing.T) {
	t.Parallel()
	const errorsMax = 0.001
	cluster := proctest.Start(t, proctest.Config{Nodes: 3, Profile: "lan", Args: []string{"--drain-delay=1s"}})
	crowd := cluster.Crowd(t, proctest.Sales{})
	crowd.Open(t, clients)
	crowd.More(t, enough)
	before := crowd.Count()
	for _, m := range cluster.Members {
		began := time.Now()
		m.Stop(t)
		stopped := time.Since(began)
		crowd.More(t, enough)
		m.Start(t)
		cluster.Whole(t, proctest.UpMax)
		t.Logf("node %d stopped within %s, back after %s", m.Number, stopped, time.Since(began))
		crowd.More(t, enough)
	}
	during := crowd.Count().Since(before)
	t.Log(during)
	if float64(during.Errors) > errorsMax*float64(during.Requests) {
		t.Errorf("%d of %d requests failed after one retry, want at most %.1f %%", during.Errors, during.Requests, 100*errorsMax)
	}
	cluster.Audit(t, crowd)
}
