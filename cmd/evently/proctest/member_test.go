package proctest

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
)

func TestMember_IsStartedAgainUnlessItsEndWasWanted(t *testing.T) {
	cluster := Start(t, Config{Nodes: 1, Relayed: true})
	m := cluster.Members[0]
	begun := func(want int) {
		t.Helper()
		Eventually(t, UpMax, func() error {
			if got := m.Starts(); got != want {
				return fmt.Errorf("%d starts, want %d", got, want)
			}
			return m.Probe(t.Context(), "/readyz")
		})
	}
	gone := func() {
		t.Helper()
		select {
		case <-m.Process().Exited():
		default:
			t.Error("the process runs")
		}
	}
	first := m.Process().PID()
	m.Crash(t)
	begun(2)
	if m.Process().PID() == first {
		t.Errorf("the process is %d still", first)
	}
	m.Kill(t)
	gone()
	m.Start(t)
	begun(3)

	m.Relay.Cut()
	Eventually(t, UpMax, func() error {
		if status, err := m.Status(t.Context(), "/readyz"); err != nil || status != http.StatusServiceUnavailable {
			return errors.Join(err, fmt.Errorf("status %d without Postgres", status))
		}
		return nil
	})
	m.Relay.Heal()
	m.Ready(t)

	m.Stop(t)
	gone()
	if starts := m.Starts(); starts != 3 {
		t.Errorf("%d starts, want 3", starts)
	}
}
