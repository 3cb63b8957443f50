package bench

import (
	"context"
	"math"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evently/evently"
)

// Load is users who visit events of an API.
//
// In a closed loop (Rate 0) each connection begins its next visit when the last one is over: it shows what a target can do.
//
// In an open loop visits begin at moments of a Poisson process, which goes on whatever the target does, as people come whether a
// server is slow or not. A visit goes to a connection that is free, or waits for one. Latency counts from the moment that the
// visit was to begin: a target that stalls is charged with all who waited meanwhile, and not only with those few whose requests
// were under way ("coordinated omission"). Further requests of the same visit are due when the one before is answered.
type Load struct {
	Endpoint    Endpoint
	Workload    Workload
	Events      []evently.EventID // the most popular first
	Users       []User            // each visit is one of any of them
	Connections int
	Warmup      time.Duration // before the window that the figures are of
	Duration    time.Duration // of the window. With a Demand: what the load may take at most
	Rate        float64       // requests a second that are due; 0: closed loop
	Seed        uint64        // of the arrivals and of what the visits are
	Keys        uint64        // begins all keys: no other load on the same events has it
	// Unchecked takes every 2xx for what was asked for, and promises nothing: the answers of a ceiling are constant.
	Unchecked bool

	// Window is called when the window of the figures begins, and when it ends. Nil: nobody wants to know.
	Window func(begins bool)
	// Answered counts answers as they come, for a progress line. Nil: nobody looks.
	Answered *atomic.Int64

	dial func(context.Context) (net.Conn, error)    // nil: that of Endpoint
	wait func(ctx context.Context, d time.Duration) // nil: pause
}

const (
	// visitsMax bounds the visits of an open loop that are due and wait for a connection. Those beyond it are unfinished at once.
	visitsMax = 1 << 18
	// drainMax is how long an open loop goes on with visits that were due when its window ended.
	drainMax = 5 * time.Second
)

// Run connects, goes on until its time is over or the demand is met, and waits for the last answers. The Round says nothing of the
// target's side. The error is that of ctx, or that the target cannot be reached: then there are no figures, but what was told holds.
func (l *Load) Run(ctx context.Context) (Round, *Told, error) {
	from, to := l.Warmup, l.Warmup+l.Duration
	var group errgroup.Group
	visitors := make([]*visitor, l.Connections)
	popularity := newZipf(len(l.Events), l.Workload.Zipf)
	for n := range visitors {
		visitors[n] = newVisitor(l, n, popularity, newRecorder(l.Workload.Counts, from, to))
		group.Go(func() error { return visitors[n].client.Connect(ctx) })
	}
	err := group.Wait()
	all, told, last := newRecorder(l.Workload.Counts, from, to), new(Told), time.Duration(0)
	if err == nil {
		err = l.run(ctx, visitors, all)
	}
	if err == nil {
		err = ctx.Err() // it may have ended between two visits
	}
	for _, v := range visitors {
		v.client.Close() //nolint:errcheck // nothing is under way
		all.merge(v.recorder)
		told.merge(&v.told)
		last = max(last, v.last)
	}
	if l.Workload.Demand > 0 {
		all.to = min(to, max(last, from))
	}
	round := Round{Workload: l.Workload.Name, Connections: l.Connections, Rate: l.Rate}
	all.figures(&round)
	return round, told, err
}

// run has visitors visit. Visits that none of them is told of go to a recorder of their own.
func (l *Load) run(ctx context.Context, visitors []*visitor, untold *recorder) error {
	if l.Window != nil && l.Warmup == 0 {
		l.Window(true) // before anybody visits: a small demand is met at once
	}
	group, visiting := errgroup.WithContext(ctx)
	clock := startClock()
	windowEnd := make(chan struct{})
	var window errgroup.Group
	window.Go(func() error { l.window(clock, windowEnd); return nil })
	left := l.demand()
	var due chan time.Duration
	if l.Rate > 0 {
		due = make(chan time.Duration, visitsMax)
		group.Go(func() error {
			l.schedule(visiting, clock, left, due, untold)
			return nil
		})
	}
	for _, v := range visitors {
		group.Go(func() error {
			v.clock = clock
			if due != nil {
				return v.open(visiting, due)
			}
			return v.closed(visiting, left)
		})
	}
	err := group.Wait()
	close(windowEnd)
	_ = window.Wait() // it has no error
	return err
}

// demand is how many visits there may be.
func (l *Load) demand() *atomic.Int64 {
	left := new(atomic.Int64)
	left.Store(math.MaxInt64)
	if w := l.Workload; w.Demand > 0 {
		left.Store(int64(w.Demand * float64(w.Capacity*len(l.Events))))
	}
	return left
}

// window tells of the window until all visits are over.
func (l *Load) window(clock clock, over <-chan struct{}) {
	if l.Window == nil {
		<-over
		return
	}
	for i, at := range []time.Duration{l.Warmup, l.Warmup + l.Duration} {
		if ahead := at - clock.now(); ahead > 0 {
			timer := time.NewTimer(ahead)
			select {
			case <-timer.C:
			case <-over: // with all of the demand
				timer.Stop()
			}
		}
		if begins := i == 0; !begins || l.Warmup > 0 {
			l.Window(begins)
		}
	}
	<-over
}

// schedule sends the moments at which visits are due, each when it has come. Those that there is no room for would have waited
// until the window ends at least.
func (l *Load) schedule(ctx context.Context, clock clock, left *atomic.Int64, due chan<- time.Duration, untold *recorder) {
	defer close(due)
	wait := l.wait
	if wait == nil {
		wait = pause
	}
	process := newArrivals(rand.New(rand.NewPCG(l.Seed, 0)), l.Rate/l.Workload.Mix.requests())
	end := l.Warmup + l.Duration
	for at := process.next(); at < end && left.Add(-1) >= 0 && ctx.Err() == nil; at = process.next() {
		if ahead := at - clock.now(); ahead > 0 {
			wait(ctx, ahead)
		}
		select {
		case due <- at:
		default:
			untold.unfinished(at, end)
		}
	}
}

// clock tells the time since it was started.
type clock struct{ started time.Time }

func startClock() clock { return clock{time.Now()} }

func (c clock) now() time.Duration { return time.Since(c.started) }

// requests is how many requests a visit has on average, if none is refused.
func (m Mix) requests() float64 { return 1 + m.Retries + m.Confirms + 2*m.Cancels }
