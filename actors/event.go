package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/cluster"
	"golang.org/x/time/rate"

	"github.com/evently/evently"
)

// Kind is the name of the event actors' kind in the cluster.
const Kind = "event"

// Config says how event actors work.
type Config struct {
	Journal  evently.Journal
	Observer evently.Observer // is told every committed state
	Logger   *slog.Logger
	Metrics  *Metrics

	// MailboxMax bounds the requests queued at one actor; beyond, they are answered ErrOverloaded. Default 4096. A
	// raise costs memory and lets requests grow old in the queue.
	MailboxMax int

	// AcquireMax bounds the events being loaded at one time, each on a database connection. Default 8.
	AcquireMax int

	// AcquireTimeout bounds one load. Default 30 s.
	AcquireTimeout time.Duration

	// IdleAfter is how long an actor without requests, and for which nothing is due within a day, stays in memory. Default 5 min.
	IdleAfter time.Duration

	// Now is the local clock. Actors keep the journal's time; this clock only measures from one answer of the journal to
	// the next. It is called concurrently. Default time.Now.
	Now func() time.Time
}

// DrainMessage asks an event actor to finish its commits, answer all others "try again", and stop.
type DrainMessage struct{}

// NewKind returns the props of an event's actor, by the text of its id. The actors of one process share its bounds. A
// failing actor should be stopped by its supervisor; restarted in place it loads anew all the same.
func NewKind(config Config) func(identity string) *actor.Props {
	if config.MailboxMax == 0 {
		config.MailboxMax = 4096
	}
	if config.AcquireMax == 0 {
		config.AcquireMax = 8
	}
	if config.AcquireTimeout == 0 {
		config.AcquireTimeout = 30 * time.Second
	}
	if config.IdleAfter == 0 {
		config.IdleAfter = 5 * time.Minute
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	shared := &shared{
		acquiring:  make(chan struct{}, config.AcquireMax),
		complaints: &rate.Sometimes{First: 3, Interval: 5 * time.Second},
	}
	return func(identity string) *actor.Props {
		return actor.PropsFromProducer(func() actor.Actor {
			return &eventActor{config: &config, shared: shared, identity: identity}
		}, actor.WithMailbox(newCallMailbox(&config, identity)))
	}
}

// Messages of an event actor to itself.
type (
	acquired struct {
		tenure *evently.Tenure
		ahead  time.Duration // the journal's clock minus the local one
		took   time.Duration
		err    error
	}
	appended struct {
		now time.Time
		err error
	}
	standby  struct{} // a step of the pause before the event may be acquired is over
	due      struct{} // something in the ledger is due
	idle     struct{} // time to see whether the actor is still used
	lastCall struct{} // all that was queued before the retirement has been answered
)

// shared is what the event actors of a process have in common.
type shared struct {
	acquiring  chan struct{}   // holds one element for each load under way
	complaints *rate.Sometimes // while Postgres is away every event has the same to say

	mu      sync.Mutex // guards backoff
	backoff backoff
}

// eventActor is the shell of one BoxOffice: it brings messages, time and the journal to it. Its states are loading
// (office nil, see loading.go), serving, draining and retired.
type eventActor struct {
	config   *Config
	shared   *shared
	identity string
	event    evently.EventID
	cancel   context.CancelFunc // ends the load
	pause    time.Duration      // left before the event may be acquired

	office    *BoxOffice[*call]
	early     []*call // came while loading
	draining  bool
	retired   error         // what callers are told since the actor serves no more; nil: it serves
	used      bool          // a request came since the last idle message
	ahead     time.Duration // the journal's clock minus the local one
	flushedAt time.Time     // when the batch under way was given to the journal
	nextDue   time.Time
	dueTimer  *time.Timer
	idleTick  *time.Timer
	loadTimer *time.Timer
}

// Receive handles one message.
func (a *eventActor) Receive(ctx actor.Context) {
	switch message := ctx.Message().(type) {
	case *call:
		a.request(ctx, message)
	case *appended:
		a.appended(ctx, message)
	case *actor.Started:
		a.start(ctx)
	case *acquired:
		a.acquired(ctx, message)
	case standby:
		a.standby(ctx)
	case due:
		a.nextDue = time.Time{} // the timer is spent, whatever the clocks did meanwhile
		a.tick(ctx)
	case idle:
		a.idle(ctx)
	case *DrainMessage:
		a.draining = true
		a.finishDrain(ctx)
	case lastCall:
		ctx.Stop(ctx.Self())
	case *actor.Stopping, *actor.Restarting:
		a.close()
	}
}

// log is made when there is something to say: of many actors few ever have.
func (a *eventActor) log() *slog.Logger { return a.config.Logger.With("event", a.identity) }

func (a *eventActor) start(ctx actor.Context) {
	event, err := evently.ParseEventID(a.identity)
	if err != nil {
		a.fail(ctx, "not_an_event", evently.ErrEventNotFound)
		return
	}
	a.event = event
	a.load(ctx)
}

func (a *eventActor) request(ctx actor.Context, c *call) {
	switch {
	case a.retired != nil:
		c.finish(evently.Reply{}, a.retired)
		return
	case a.draining:
		c.finish(evently.Reply{}, errMoved)
		return
	case c.abandoned(a.config.Now):
		a.config.Metrics.abandoned.Inc()
		c.finish(evently.Reply{}, errMoved)
		return
	case a.office == nil:
		if len(a.early) >= a.config.MailboxMax {
			a.refuse(c)
			return
		}
		a.config.Metrics.waiting.Inc()
		a.early = append(a.early, c)
		return
	}
	a.used = true
	if a.office.Step(c, c.request, a.now()) {
		a.config.Metrics.waiting.Inc()
	} else {
		a.refuse(c)
	}
	a.flush(ctx) // what was due may have to be written even when nothing was decided
}

func (a *eventActor) refuse(c *call) {
	a.config.Metrics.overloaded.Inc()
	c.finish(evently.Reply{}, evently.ErrOverloaded)
}

// flush gives the journal the next batch, if it is time for one.
func (a *eventActor) flush(ctx actor.Context) {
	batch := a.office.Flush()
	if batch == nil {
		return
	}
	a.flushedAt = a.now()
	root, self := ctx.ActorSystem().Root, ctx.Self()
	batch.Done = func(now time.Time, err error) { root.Send(self, &appended{now, err}) }
	if err := a.config.Journal.Append(batch); err != nil {
		a.appended(ctx, &appended{err: err})
	}
}

func (a *eventActor) appended(ctx actor.Context, result *appended) {
	if a.retired != nil {
		return
	}
	if result.err != nil {
		a.appendFailed(ctx, result.err)
		return
	}
	a.setClock(result.now)
	answers, state := a.office.Committed(result.now)
	a.config.Observer.Committed(state)
	a.config.Metrics.waiting.Sub(float64(len(answers)))
	a.logAnswers(answers)
	for i := range answers {
		answers[i].Caller.finish(answers[i].Reply, answers[i].Err)
	}
	clear(answers)
	a.tick(ctx)
	if a.draining {
		a.finishDrain(ctx)
	}
}

// logAnswers follows requests through the actor, at debug level.
func (a *eventActor) logAnswers(answers []Answer[*call]) {
	if !a.config.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	log := a.log()
	for i := range answers {
		request := answers[i].Caller.request
		log.LogAttrs(context.Background(), slog.LevelDebug, "answer", append(origin(request),
			slog.String("command", fmt.Sprintf("%T", request.Command)), slog.String("who", request.Who.String()),
			slog.Uint64("seq", answers[i].Reply.Reservation.Seq), slog.Any("error", answers[i].Err))...)
	}
}

func (a *eventActor) appendFailed(ctx actor.Context, err error) {
	switch {
	case errors.Is(err, evently.ErrOverloaded):
		a.fail(ctx, "overloaded", evently.ErrOverloaded)
	case errors.Is(err, evently.ErrFenced):
		a.lost()
		a.fail(ctx, "fenced", errMoved)
	case errors.Is(err, evently.ErrNotWritten):
		a.complain("batch not written", err)
		a.fail(ctx, "not_written", errMoved)
	default:
		a.complain("outcome of a batch unknown", err)
		a.fail(ctx, "outcome_unknown", errUnresolved)
	}
}

// complain logs a failure that has the same cause at many events, and so not each time.
func (a *eventActor) complain(what string, err error) {
	a.shared.complaints.Do(func() { a.log().Warn(what+"; further ones like it are logged now and then", "error", err) })
}

// tick ends what is due, flushes, and sets the timer for what is due next.
func (a *eventActor) tick(ctx actor.Context) {
	if a.office == nil || a.retired != nil {
		return
	}
	now := a.now()
	if !a.draining { // a cancelled event with many reservations would not come to an end in time
		a.office.Tick(now)
	}
	a.flush(ctx)
	if a.retired != nil {
		return
	}
	next := a.office.NextDue()
	if next.Equal(a.nextDue) && next.After(now) {
		return
	}
	a.nextDue = next
	if a.dueTimer != nil {
		a.dueTimer.Stop()
		a.dueTimer = nil
	}
	// What is due already goes on with the commit that is under way.
	if next.After(now) {
		a.dueTimer = a.after(ctx, next.Sub(now), due{})
	}
}

// farOff is how far off what is due must be for an actor not to stay in memory for it. The Sweeper wakes the event then.
const farOff = 24 * time.Hour

// idle passivates the actor when it was not used for a while and nothing is due soon.
func (a *eventActor) idle(ctx actor.Context) {
	if a.retired != nil || a.office == nil {
		return
	}
	if due := a.office.NextDue(); !a.used && a.office.Idle() && (due.IsZero() || due.Sub(a.now()) > farOff) {
		a.fail(ctx, "idle", errMoved)
		return
	}
	a.used = false
	a.idleTick = a.after(ctx, a.config.IdleAfter, idle{})
}

func (a *eventActor) finishDrain(ctx actor.Context) {
	if a.retired == nil && (a.office == nil || a.office.Idle()) {
		a.fail(ctx, "drained", errMoved)
	}
}

// fail retires the actor: every caller that waits gets err, and the actor stops after it has told the same to those
// whose calls are queued. Messages behind a Stop would vanish without an answer.
func (a *eventActor) fail(ctx actor.Context, reason string, err error) {
	a.config.Metrics.retirements.WithLabelValues(reason).Inc()
	a.retire(err)
	// Placement hands this actor out no more, so that what comes now waits for the next activation.
	ctx.ActorSystem().EventStream.Publish(&cluster.ActivationTerminating{
		Pid: ctx.Self(), ClusterIdentity: cluster.NewClusterIdentity(a.identity, Kind),
	})
	ctx.Send(ctx.Self(), lastCall{})
}

func (a *eventActor) retire(err error) {
	if a.retired != nil {
		return
	}
	a.retired = err
	if errors.Is(err, errUnresolved) {
		a.retired = errMoved // what comes now is not decided
	}
	if a.cancel != nil {
		a.cancel()
	}
	a.dismissEarly(err)
	if a.office != nil {
		a.config.Metrics.active.Dec()
		a.dismiss(a.office.Retire(), err)
	}
	a.office = nil
	for _, timer := range []*time.Timer{a.dueTimer, a.idleTick, a.loadTimer} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// dismiss answers callers that waited in vain.
func (a *eventActor) dismiss(callers []*call, err error) {
	a.config.Metrics.waiting.Sub(float64(len(callers)))
	for _, c := range callers {
		c.finish(evently.Reply{}, err)
	}
}

// close runs when the actor stops or is replaced, also after a panic.
func (a *eventActor) close() {
	if a.retired == nil {
		a.config.Metrics.retirements.WithLabelValues("stopped").Inc()
		a.retire(errUnresolved)
	}
}

// now is the journal's time. The local clock measures from the journal's last word to now.
func (a *eventActor) now() time.Time { return a.config.Now().Add(a.ahead) }

// clockSlack is the difference of the clocks that is not worth following.
const clockSlack = 250 * time.Millisecond

// setClock follows a step of either clock. The journal looked at its clock at some moment between flushedAt and now, so only a
// time outside of those tells that the clocks have drifted apart.
func (a *eventActor) setClock(journal time.Time) {
	step := min(journal.Sub(a.flushedAt), 0) + max(journal.Sub(a.now()), 0)
	if step.Abs() > clockSlack {
		a.log().Warn("the local clock or the database's has made a step", "by", step.String())
		a.ahead += step
		a.nextDue = time.Time{} // its timer is wrong now
	}
}

func (a *eventActor) after(ctx actor.Context, d time.Duration, message any) *time.Timer {
	root, self := ctx.ActorSystem().Root, ctx.Self()
	return time.AfterFunc(d, func() { root.Send(self, message) })
}
