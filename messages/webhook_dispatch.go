package messages

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/evently/evently"
)

// DispatcherConfig is what a Dispatcher needs.
type DispatcherConfig struct {
	Queue   evently.WebhookQueue
	Targets *Targets

	// RootCAs are the authorities whose certificates are believed. Default: those of the system.
	RootCAs *x509.CertPool
	// Poll is the time between two looks for what is due: a message leaves that much later at the most. Default: 500 ms.
	Poll time.Duration
	// BreakerPause is how long a webhook is left alone after breakerFailures failures in a row, before one message is tried.
	// Raising it spares dead receivers and has those that recover wait. Default: 30 s.
	BreakerPause time.Duration

	// Logger is told of webhooks that are disabled. Default: slog.Default().
	Logger *slog.Logger
	// Metrics counts. Default: counts for nobody.
	Metrics *WebhookMetrics
	// Now is the clock. It is needed.
	Now func() time.Time
}

// Bounds of a Dispatcher.
const (
	pollDefault         = 500 * time.Millisecond
	breakerPauseDefault = 30 * time.Second
	breakerFailures     = 5

	slotsMax     = 128             // messages on their way at a time, from one node
	workersMax   = 4               // of them to one webhook
	probesMax    = 16              // of them to webhooks whose breaker is not closed
	turnMax      = 16              // messages that a worker sends in its turn; one when others wait for a slot
	slowAfter    = 2 * time.Second // a webhook whose last answer took longer has one worker
	lanesMax     = 1000            // webhooks that one look finds; the next one goes on after them
	lanesKeptFor = time.Minute     // without a message
	failsKeptFor = time.Hour       // the same where the last one failed

	claimFor    = 30 * time.Second // more than attemptMax and responseWaitMax and a commit
	stopGrace   = 2 * time.Second  // for the attempts under way when Run ends
	databaseMax = 5 * time.Second  // one question to the queue
	loadPeriod  = 15 * time.Second // of the metrics
)

// The time from one attempt to the next, as Standard Webhooks recommends it. After the last of these there is one more, at the end of
// evently.WebhookGiveUp: ten attempts in three days.
var retryDelays = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour,
}

const (
	// retryJitter is by how much of itself a delay may be longer or shorter.
	retryJitter = 0.1
	// retryAfterMax bounds what a receiver can ask for with Retry-After for one message, laneHoldMax for all that are due.
	retryAfterMax = 24 * time.Hour
	laneHoldMax   = time.Hour
)

// Dispatcher sends what waits in the queue of webhooks. Every node may run one.
//
// Problem: receivers are slow, hang, fail for days and come back, and none of that may hold up the messages to others, the
// bookings, or the end of the program.
//
//   - A message is claimed, sent, and its outcome recorded. A node that dies in between leaves the claim to run out: the message is sent
//     again, with the same webhook-id. So each is sent at least once.
//   - Workers belong to one webhook at a time: workersMax for each, one for a slow one, none while its breaker is open. Of the slots of a node
//     only probesMax can be with webhooks that fail. When all slots are taken, those wait the shortest whose turn was the longest ago.
//   - No order is promised: what fails is tried again later than what comes after it. The seq in each message orders.
type Dispatcher struct {
	config DispatcherConfig
	client *webhookClient
	wake   chan struct{}
	sends  sync.WaitGroup

	mu      sync.Mutex
	lanes   map[evently.WebhookID]*lane
	slots   int  // taken
	probes  int  // of them
	starved bool // the last look found no slot for something
}

// lane is what a node remembers of a webhook.
type lane struct {
	breaker   *gobreaker.CircuitBreaker[outcome]
	workers   int
	probing   bool // with its one worker, which takes one of the probes
	slow      bool
	holdUntil time.Time // as the receiver asked
	usedAt    time.Time
}

// NewDispatcher returns a dispatcher. Nothing happens before Run.
func NewDispatcher(config DispatcherConfig) *Dispatcher {
	if config.Poll <= 0 {
		config.Poll = pollDefault
	}
	if config.BreakerPause <= 0 {
		config.BreakerPause = breakerPauseDefault
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Metrics == nil {
		config.Metrics = NewWebhookMetrics(prometheus.NewRegistry())
	}
	return &Dispatcher{
		config: config, client: newWebhookClient(config.Targets, config.RootCAs, config.Now),
		wake: make(chan struct{}, 1), lanes: make(map[evently.WebhookID]*lane),
	}
}

// Run sends until ctx ends; attempts under way have stopGrace then, and are abandoned after that: they are made again later. It is
// called once.
func (d *Dispatcher) Run(ctx context.Context) {
	defer d.client.transport.CloseIdleConnections()
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	defer d.sends.Wait()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, abandon) })()

	var measuring sync.WaitGroup
	defer measuring.Wait()
	measuring.Go(func() { d.measure(ctx) })
	poll := time.NewTicker(d.config.Poll)
	defer poll.Stop()
	var after evently.WebhookID
	failing := false
	for {
		next, err := d.look(ctx, work, after)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			d.config.Logger.WarnContext(ctx, "webhooks cannot be read; trying again", "error", err)
		}
		after, failing = next, err != nil
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		case <-d.wake:
		}
	}
}

// look starts workers for what is due. It returns after which webhook the next look goes on.
func (d *Dispatcher) look(ctx, work context.Context, after evently.WebhookID) (next evently.WebhookID, err error) {
	now := d.config.Now()
	asking, cancel := context.WithTimeout(ctx, databaseMax)
	defer cancel()
	due, err := d.config.Queue.Lanes(asking, after, lanesMax, now)
	if err != nil {
		return after, err
	}
	if len(due) == lanesMax {
		next = due[lanesMax-1].Webhook
	}
	d.forget(now)
	slices.SortStableFunc(due, func(a, b evently.WebhookLane) int { return d.lastUse(a.Webhook).Compare(d.lastUse(b.Webhook)) })
	served := 0
	for served < len(due) && d.start(ctx, work, &due[served]) { // a slot that is freed now is for the one that comes first
		served++
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starved = served < len(due)
	return next, nil
}

func (d *Dispatcher) lastUse(id evently.WebhookID) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[id]; l != nil {
		return l.usedAt
	}
	return time.Time{}
}

// forget drops lanes that nobody needs: new ones are as good.
func (d *Dispatcher) forget(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, l := range d.lanes {
		if l.workers > 0 || now.Before(l.holdUntil) {
			continue
		}
		closed := l.breaker.State() == gobreaker.StateClosed
		kept := failsKeptFor
		if closed && l.breaker.Counts().ConsecutiveFailures == 0 {
			kept = lanesKeptFor
		}
		if now.Sub(l.usedAt) > kept {
			if !closed {
				d.config.Metrics.breakers.Dec()
			}
			delete(d.lanes, id)
		}
	}
}

func (d *Dispatcher) newLane() *lane {
	return &lane{breaker: gobreaker.NewCircuitBreaker[outcome](gobreaker.Settings{
		Timeout:     d.config.BreakerPause,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= breakerFailures },
		IsExcluded:  func(err error) bool { return errors.Is(err, errAbandoned) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case from == gobreaker.StateClosed:
				d.config.Metrics.breakers.Inc()
			case to == gobreaker.StateClosed:
				d.config.Metrics.breakers.Dec()
			}
		},
	})}
}

// start adds a worker to a lane, if it may have one more. It returns false when there is no slot for it.
func (d *Dispatcher) start(ctx, work context.Context, due *evently.WebhookLane) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[due.Webhook]
	if l == nil {
		l = d.newLane()
		d.lanes[due.Webhook] = l
	}
	state, allowed := l.breaker.State(), workersMax
	switch {
	case ctx.Err() != nil || state == gobreaker.StateOpen || d.config.Now().Before(l.holdUntil):
		return true
	case state == gobreaker.StateHalfOpen || l.slow:
		allowed = 1
	}
	if l.workers >= allowed {
		return true
	}
	probing := state == gobreaker.StateHalfOpen
	switch {
	case probing && d.probes == probesMax: // the next look tries again
		return true
	case d.slots == slotsMax:
		return false
	}
	l.probing = probing
	if probing {
		d.probes++
	}
	l.usedAt = d.config.Now()
	l.workers++
	d.slots++
	d.config.Metrics.inFlight.Inc()
	d.sends.Go(func() {
		more := d.serve(ctx, work, due, l)
		d.end(l, more)
	})
	return true
}

func (d *Dispatcher) end(l *lane, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.probing {
		l.probing = false
		d.probes--
	}
	l.workers--
	d.slots--
	d.config.Metrics.inFlight.Dec()
	l.usedAt = d.config.Now()
	if more || d.starved {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// serve is the turn of a worker. more: it ended although there may be more to send.
func (d *Dispatcher) serve(ctx, work context.Context, due *evently.WebhookLane, l *lane) (more bool) {
	if due.Backlog {
		if err := d.ask(work, func(ctx context.Context) error {
			return d.config.Queue.Refill(ctx, due.Webhook, d.config.Now())
		}); err != nil {
			d.config.Logger.WarnContext(ctx, "webhook's backlog cannot be read; trying again", "webhook", due.Webhook, "error", err)
		}
	}
	for sent := 0; ctx.Err() == nil; sent++ {
		if sent > 0 && d.mustStop(l, sent) {
			return true
		}
		var delivery *evently.Delivery
		if err := d.ask(work, func(ctx context.Context) (err error) {
			now := d.config.Now()
			delivery, err = d.config.Queue.Claim(ctx, due.Webhook, now, now.Add(claimFor))
			return err
		}); err != nil {
			d.config.Logger.WarnContext(ctx, "webhook's deliveries cannot be read; trying again", "webhook", due.Webhook, "error", err)
			return false
		}
		if delivery == nil {
			return false
		}
		if !d.crowded() {
			d.start(ctx, work, due) // there may be more
		}
		if !d.attempt(work, due, l, delivery) {
			return false
		}
	}
	return false
}

// crowded reports whether other webhooks wait for a slot.
func (d *Dispatcher) crowded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.starved
}

// mustStop reports whether a worker's turn is over.
func (d *Dispatcher) mustStop(l *lane, sent int) bool {
	state := l.breaker.State()
	d.mu.Lock()
	defer d.mu.Unlock()
	return sent >= turnMax || d.starved || state != gobreaker.StateClosed || l.slow || d.config.Now().Before(l.holdUntil)
}

// ask bounds one question to the queue.
func (d *Dispatcher) ask(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, databaseMax)
	defer cancel()
	return question(ctx)
}

var (
	errAttemptFailed = errors.New("attempt failed")
	errAbandoned     = errors.New("attempt abandoned")
)

// attempt sends a delivery and records what came of it. It returns false when the worker cannot go on.
func (d *Dispatcher) attempt(work context.Context, due *evently.WebhookLane, l *lane, delivery *evently.Delivery) (goOn bool) {
	o, err := l.breaker.Execute(func() (outcome, error) {
		o := d.client.send(work, due, delivery)
		switch {
		case o.abandoned:
			return o, errAbandoned
		case o.Fault != "":
			return o, errAttemptFailed
		}
		return o, nil
	})
	if err != nil && !errors.Is(err, errAttemptFailed) {
		// Abandoned, or another worker has opened the breaker meanwhile.
		if err := d.ask(context.WithoutCancel(work), func(ctx context.Context) error {
			return d.config.Queue.Unclaim(ctx, delivery, d.config.Now())
		}); err != nil {
			d.config.Logger.WarnContext(work, "delivery cannot be given back; it is sent later", "webhook", due.Webhook, "error", err)
		}
		return false
	}
	now := d.config.Now()
	d.mu.Lock()
	l.slow = o.LatencyMS > slowAfter.Milliseconds()
	if o.retryAfter > 0 {
		l.holdUntil = now.Add(min(o.retryAfter, laneHoldMax))
	}
	d.mu.Unlock()
	if err := d.record(work, delivery, &o, now); err != nil {
		d.config.Logger.WarnContext(work, "outcome of a delivery cannot be recorded; it is sent again", "webhook", due.Webhook,
			"delivery", delivery.ID, "error", err)
		return false
	}
	return true
}

func (d *Dispatcher) record(work context.Context, delivery *evently.Delivery, o *outcome, now time.Time) error {
	result, ended := o.Fault, evently.WebhookActive
	delivery.Tried++
	delivery.Attempts = []evently.DeliveryAttempt{o.DeliveryAttempt}
	delivery.DueAt, delivery.EndedAt = time.Time{}, now
	switch {
	case o.Fault == "":
		result, delivery.Status = delivered, evently.DeliveryDone
	case o.Fault == faultGone:
		ended, delivery.Status = evently.WebhookGone, evently.DeliveryFailed
	case !now.Before(delivery.GiveUpAt):
		delivery.Status = evently.DeliveryFailed
	default:
		delivery.Status, delivery.EndedAt = evently.DeliveryPending, time.Time{}
		delivery.DueAt = nextAttempt(delivery, now, o.retryAfter, rand.Float64()) //nolint:gosec // no secret
	}
	d.config.Metrics.attempts.WithLabelValues(result).Inc()
	d.config.Metrics.latency.Observe(float64(o.LatencyMS) / 1000)
	return d.ask(context.WithoutCancel(work), func(ctx context.Context) error {
		ended, err := d.config.Queue.Record(ctx, delivery, ended, now)
		if err == nil && ended != evently.WebhookActive {
			d.config.Metrics.disabled.WithLabelValues(ended.String()).Inc()
			d.config.Logger.WarnContext(ctx, "webhook is disabled; its owner can enable it again", "webhook", delivery.Webhook,
				"reason", ended.String(), "fault", o.Fault)
		}
		return err
	})
}

// nextAttempt is when a delivery that has failed is tried again. chance is from 0 to 1.
func nextAttempt(delivery *evently.Delivery, now time.Time, retryAfter time.Duration, chance float64) time.Time {
	if delivery.Tried > len(retryDelays) {
		return delivery.GiveUpAt
	}
	delay := retryDelays[max(delivery.Tried, 1)-1]
	delay += time.Duration((2*chance - 1) * retryJitter * float64(delay))
	delay = max(delay, min(retryAfter, retryAfterMax))
	if next := now.Add(delay); next.Before(delivery.GiveUpAt) {
		return next
	}
	return delivery.GiveUpAt
}

// measure keeps the metrics of what waits until ctx ends.
func (d *Dispatcher) measure(ctx context.Context) {
	ticker := time.NewTicker(loadPeriod)
	defer ticker.Stop()
	for {
		if err := d.ask(ctx, func(ctx context.Context) error {
			load, err := d.config.Queue.Load(ctx)
			if err == nil {
				d.config.Metrics.load(load)
			}
			return err
		}); err != nil && ctx.Err() == nil {
			d.config.Logger.DebugContext(ctx, "deliveries cannot be counted", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
