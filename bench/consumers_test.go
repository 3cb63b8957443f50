package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// BenchmarkConsumers books seats of one event over HTTP, in turns at a node whose consumers follow the bookings - analytics, mails,
// webhooks - and at one without. Every round has a node of `evently up` and a database of its own, so that nothing is left to do
// for the next. lag-s is how old as_of was at most when clients asked for the figures during the load. Run it on an idle machine:
//
//	go test -run - -bench Consumers -benchtime 5x ./bench
func BenchmarkConsumers(b *testing.B) {
	const roundTime, connections = 6 * time.Second, 64
	var rates [2]float64 // without consumers, with
	var oldest, caughtUp time.Duration
	for n := range b.N {
		for turn := range 2 {
			with := (n + turn) % 2 // who goes first changes
			rate, lag, later := consumersRound(b, with == 1, connections, roundTime)
			rates[with] += rate / float64(b.N)
			oldest, caughtUp = max(oldest, lag), max(caughtUp, later)
			b.Logf("round %d, consumers %v: %.0f bookings/s, as_of at most %v old, all counted %v after the load", n, with == 1, rate,
				lag.Round(time.Millisecond), later.Round(time.Millisecond))
		}
	}
	b.ReportMetric(rates[0], "off-bookings/s")
	b.ReportMetric(rates[1], "on-bookings/s")
	b.ReportMetric(rates[1]/rates[0], "ratio")
	b.ReportMetric(oldest.Seconds(), "lag-s")
	b.ReportMetric(caughtUp.Seconds(), "counted-after-s")
	b.ReportMetric(0, "ns/op")
}

// consumersRound returns the rate of bookings and, with consumers, how old as_of was at most during the load, and how long after it all
// was counted.
func consumersRound(b *testing.B, with bool, connections int, during time.Duration) (rate float64, lag, later time.Duration) {
	b.Helper()
	dir := proctest.DataDir(b)
	setting := "--consumers=off"
	if with {
		setting = "--consumers=on"
	}
	node := proctest.Up(b, dir, append([]string{setting}, quiet...)...)
	admin, users := node.Login(b), registered(b, &node.Server, 32)
	event := plentiful(b, &node.Server, admin)
	client := node.Client(b, admin)
	if with {
		await(b, client, 0)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var watching sync.WaitGroup
	if with {
		watching.Go(func() { lag = watch(ctx, b, client) })
	}
	result := bookHot(b, &node.Server, &node.Server, event, users, connections, during)
	ended := time.Now()
	cancel()
	watching.Wait()
	if with {
		await(b, client, result.Outcomes["booked"])
		later = time.Since(ended)
	}
	node.Signal(b, syscall.SIGTERM)
	if exit := node.Exit(b, proctest.StopMax); exit != 0 {
		b.Fatalf("exit %d", exit)
	}
	proctest.Verified(b, dir)
	return result.Done, lag, later
}

// figures is what the benchmark looks at of GET /admin/analytics.
type figures struct {
	HoldsMade int       `json:"holds_made"`
	AsOf      time.Time `json:"as_of"`
}

func ask(ctx context.Context, client *proctest.Client) (f figures, err error) {
	answer, err := client.Send(ctx, "GET", "/admin/analytics", "", "")
	if err == nil && answer.Status != 200 {
		err = fmt.Errorf("%d %s", answer.Status, answer.Body)
	}
	if err == nil {
		err = json.Unmarshal(answer.Body, &f)
	}
	return f, err
}

// await waits until so many holds are counted.
func await(b *testing.B, client *proctest.Client, holds int) {
	b.Helper()
	proctest.Eventually(b, proctest.UpMax, func() error {
		f, err := ask(b.Context(), client)
		if err == nil && f.HoldsMade != holds {
			err = fmt.Errorf("%d holds are counted, want %d", f.HoldsMade, holds)
		}
		return err
	})
}

// watch asks for the figures four times a second and returns how old as_of was at most.
func watch(ctx context.Context, b *testing.B, client *proctest.Client) (oldest time.Duration) {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return oldest
		case <-ticker.C:
		}
		asked := time.Now()
		f, err := ask(ctx, client)
		switch {
		case ctx.Err() != nil:
			return oldest
		case err != nil:
			b.Error(err)
			return oldest
		}
		oldest = max(oldest, asked.Sub(f.AsOf))
	}
}
