package bench

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evently/evently"
)

// stub is a server without a network. Its answers take serviceTime, but all that arrive during a stall are answered behind it.
type stub struct {
	began      time.Time
	stall, end time.Duration
	serving    sync.WaitGroup
}

const serviceTime = 4 * time.Millisecond

func (s *stub) dial(context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	s.serving.Go(func() { s.serve(server) })
	return client, nil
}

func (s *stub) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	id := evently.ReservationID{Event: 1, Token: 1}
	for {
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := in.Discard(int(request.ContentLength)); err != nil {
			return
		}
		takes := serviceTime
		if now := time.Since(s.began); s.stall <= now && now < s.end {
			takes = s.end - now
		}
		<-time.After(takes)
		id.Token++
		body := `{"id":"` + id.String() + `"}`
		answer := http.Response{StatusCode: 201, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)), Body: readCloser{strings.NewReader(body)}}
		if answer.Write(conn) != nil {
			return
		}
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// wait is a pause that the time of a test knows of.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// visits runs a load on a stub in time that passes by itself.
func visits(t *testing.T, rate float64, stall, end time.Duration) (round Round) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := &stub{began: time.Now(), stall: stall, end: end}
		defer server.serving.Wait()
		load := &Load{
			Workload: Workload{Counts: CountsBooked}, Events: []evently.EventID{1}, Users: []User{{Token: "x"}}, Connections: 8,
			Warmup: time.Second, Duration: 10 * time.Second, Rate: rate, Seed: 42, dial: server.dial,
			wait: wait,
		}
		var err error
		if round, _, err = load.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return round
}

// A server that stalls for a second keeps all those waiting who come in that second, and an open loop shows it. A closed loop sends
// nothing meanwhile: it shows one slow request for each connection.
func TestLoad_OpenLoopCountsFromTheScheduledMoment(t *testing.T) {
	const rate = 500
	stalled := visits(t, rate, 5*time.Second, 6*time.Second)
	if got := stalled.Latency; got.P50 > 6 || got.P99 < 800 || got.P99 > 1100 || got.Max < 950 || got.Max > 1100 {
		t.Errorf("open loop: %+v, want some ms in the middle, and almost the whole second of the stall for one request of a hundred", got)
	}
	// 500 of 5000 were due in the stall, and those behind them waited until all of them were answered.
	if got := stalled.SentLate; got < 0.09 || got > 0.18 {
		t.Errorf("%.3f of the visits began late, want some more than 0.1", got)
	}
	closed := visits(t, 0, 5*time.Second, 6*time.Second)
	if got := closed.Latency; got.P999 > 5 || got.Max < 950 {
		t.Errorf("closed loop: %+v, want the stall to show in a few requests only", got)
	}
	smooth := visits(t, rate, 0, 0)
	if smooth.Latency.P999 > 10 || smooth.SentLate > 0.01 {
		t.Errorf("without a stall: %+v, %.4f late", smooth.Latency, smooth.SentLate)
	}
	if smooth.Requests["book"] != stalled.Requests["book"] || stalled.Unfinished != 0 {
		t.Errorf("%d requests were due without a stall and %d with one (%d unfinished): the stall moved the schedule",
			smooth.Requests["book"], stalled.Requests["book"], stalled.Unfinished)
	}
	if n := smooth.Requests["book"]; n < 4750 || n > 5250 || smooth.Done < 475 || smooth.Done > 525 {
		t.Errorf("%d requests in 10 s, %.0f done a second, want 500 a second", n, smooth.Done)
	}
}

// Who comes while nothing is answered any more has waited when the load ends, and counts.
func TestLoad_UnfinishedVisitsCount(t *testing.T) {
	stuck := visits(t, 500, 6*time.Second, 20*time.Second)
	if stuck.Unfinished < 2300 || stuck.Unfinished > 2700 {
		t.Errorf("%d unfinished, want those of 5 s: about 2500", stuck.Unfinished)
	}
	if got := stuck.Latency; got.P50 < 1 || got.P90 < 9000 || got.Max < 9900 {
		t.Errorf("%+v, want half of them to have waited for 9 to 14 s", got)
	}
}

// Who finds no room to wait in counts like them.
func TestLoad_VisitsThatNobodyIsToldOfCount(t *testing.T) {
	load := &Load{
		Warmup: time.Second, Duration: time.Second, Rate: 1000, Seed: 1,
		wait: func(context.Context, time.Duration) {},
	}
	untold := newRecorder(CountsBooked, load.Warmup, load.Warmup+load.Duration)
	due := make(chan time.Duration, 1)
	load.schedule(t.Context(), startClock(), load.demand(), due, untold)
	var round Round
	untold.figures(&round)
	if round.Unfinished < 900 || round.Unfinished > 1100 || round.Latency.P50 < 400 || round.Latency.P50 > 600 || round.Latency.Max > 1000 {
		t.Errorf("%d unfinished, %+v, want about 1000 that wait for the end of the second", round.Unfinished, round.Latency)
	}
}

func TestLoad_ClosedLoopKeepsEveryConnectionBusy(t *testing.T) {
	round := visits(t, 0, 0, 0)
	if round.Done < 1995 || round.Done > 2005 || round.Seconds != 10 || round.SentLate != 0 || round.Rate != 0 {
		t.Errorf("%.0f a second for %v s, want 8 connections to do 250 each", round.Done, round.Seconds)
	}
	if round.Latency.P50 < 3.99 || round.Latency.Max > 4.01 {
		t.Errorf("%+v, want 4 ms", round.Latency)
	}
}

func TestLoad_EndsWithTheDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &stub{began: time.Now()}
		defer server.serving.Wait()
		var windows []bool
		var answered atomic.Int64
		load := &Load{
			Workload: Workload{Counts: CountsBooked, Capacity: 100, Demand: 20}, Events: []evently.EventID{1}, Users: []User{{Token: "x"}},
			Connections: 8, Duration: time.Minute, dial: server.dial, Window: func(begins bool) { windows = append(windows, begins) },
			Answered: &answered,
		}
		round, told, err := load.Run(t.Context())
		if err != nil || len(told.Promises) != 2000 || answered.Load() != 2000 || round.Requests["book"] != 2000 {
			t.Errorf("%d promises, %d answers, %v (%v), want 2000", len(told.Promises), answered.Load(), round.Requests, err)
		}
		if round.Seconds < 0.999 || round.Seconds > 1.001 || round.Done < 1990 || round.Done > 2010 {
			t.Errorf("%v s, %.0f a second, want 1 and 2000", round.Seconds, round.Done)
		}
		if len(windows) != 2 || !windows[0] || windows[1] {
			t.Errorf("windows %v", windows)
		}
		load.Rate, load.wait = 1000, wait
		if round, told, err = load.Run(t.Context()); err != nil || len(told.Promises) != 2000 || round.Seconds < 1.8 || round.Seconds > 2.2 {
			t.Errorf("open loop: %d promises within %v s (%v), want 2000 and 2", len(told.Promises), round.Seconds, err)
		}
	})
}

func TestLoad_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		server := &stub{began: time.Now(), end: time.Hour} // answers nobody
		defer server.serving.Wait()
		for _, rate := range []float64{0, 100} {
			load := &Load{
				Workload: Workload{Counts: CountsBooked}, Events: []evently.EventID{1}, Users: []User{{Token: "x"}}, Connections: 3,
				Duration: time.Minute, Rate: rate, dial: server.dial, wait: wait,
			}
			_, told, err := load.Run(ctx)
			if err == nil || rate == 0 && told.Unknown[1] != 3 {
				t.Errorf("rate %v: %v, %+v, want an error and bookings under way to be unknown", rate, err, told)
			}
		}
	})
}
