package bench

import (
	"sync"
	"sync/atomic"
	"time"
)

// Progress is how far a Plan is.
type Progress struct {
	Done, Of    int // measurements; Of grows by those at half the rate, which are known when the others are done
	Design      string
	Workload    string // empty between the workloads of a block
	Round       int
	Connections int
	Rate        float64 // 0: closed loop
	Phase       Phase
	Elapsed     time.Duration // of the phase
	PerSecond   float64       // answers in the last moments
}

// Phase is what is being done.
type Phase string

// The phases of a block, and of each of its measurements.
const (
	PhaseStart   Phase = "start"
	PhaseSeed    Phase = "seed"   // events are made
	PhaseSettle  Phase = "settle" // until the target has done what it had left to do
	PhaseWarmup  Phase = "warm up"
	PhaseMeasure Phase = "measure"
	PhaseAudit   Phase = "audit"
	PhaseStop    Phase = "stop"
)

const progressPeriod = 250 * time.Millisecond

// progress tells how far a plan is. A nil show is told nothing.
type progress struct {
	answered atomic.Int64 // by the target

	mu    sync.Mutex
	state Progress
	began time.Time // the phase

	ended chan struct{}
	shown sync.WaitGroup
}

func startProgress(show func(Progress)) *progress {
	p := &progress{began: time.Now(), ended: make(chan struct{})}
	if show != nil {
		p.shown.Go(func() { p.show(show) })
	}
	return p
}

func (p *progress) show(show func(Progress)) {
	ticker := time.NewTicker(progressPeriod)
	defer ticker.Stop()
	at, answered := time.Now(), p.answered.Load()
	for {
		select {
		case <-ticker.C:
		case <-p.ended:
			return
		}
		now, total := time.Now(), p.answered.Load()
		p.mu.Lock()
		state := p.state
		state.Elapsed = now.Sub(p.began)
		p.mu.Unlock()
		state.PerSecond = float64(total-answered) / now.Sub(at).Seconds()
		at, answered = now, total
		show(state)
	}
}

func (p *progress) set(change func(*Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.state)
}

func (p *progress) phase(phase Phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Phase, p.began = phase, time.Now()
}

// stop returns when nobody is told any more.
func (p *progress) stop() {
	close(p.ended)
	p.shown.Wait()
}
