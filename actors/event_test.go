package actors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// memory is a journal of one event in memory, with the rules of the real one and failures on demand. The real one is tested
// in store, and both together by the end-to-end tests.
type memory struct {
	mu      sync.Mutex
	event   *evently.Event
	epoch   uint64
	entries []evently.Entry
	fail    []error       // outcomes of the next appends; nil: it succeeds
	hold    chan struct{} // when set, appends wait for it
	takes   time.Duration // of each append
	missing bool
	damaged error
	refuse  []error       // outcomes of the next loads
	loading chan struct{} // when set, loads wait for it
}

func (m *memory) Acquire(context.Context, evently.EventID) (*evently.Tenure, error) {
	if m.loading != nil {
		<-m.loading
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.missing {
		return nil, evently.ErrEventNotFound
	}
	if m.damaged != nil {
		return nil, m.damaged
	}
	if len(m.refuse) > 0 {
		err := m.refuse[0]
		m.refuse = m.refuse[1:]
		return nil, err
	}
	m.epoch++
	tenure := newTenure(m.event)
	tenure.Epoch, tenure.Now = m.epoch, opening
	for i := range m.entries {
		tenure.Ledger.Post(&m.entries[i])
	}
	return tenure, nil
}

func (m *memory) Append(batch *evently.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	go m.write(batch, m.hold)
	return nil
}

func (m *memory) write(batch *evently.Batch, hold chan struct{}) {
	if hold != nil {
		<-hold
	}
	if m.takes > 0 {
		<-time.After(m.takes)
	}
	m.mu.Lock()
	var err error
	if len(m.fail) > 0 {
		err, m.fail = m.fail[0], m.fail[1:]
	}
	switch {
	case batch.Epoch != m.epoch:
		err = evently.ErrFenced
	case err == nil || errors.Is(err, errCommitted):
		m.entries = append(m.entries, batch.Entries...)
	}
	m.mu.Unlock()
	batch.Done(opening, err)
}

// errCommitted is an unknown outcome of a batch that was written.
var errCommitted = fmt.Errorf("committed: %w", evently.ErrOutcomeUnknown)

// hall is one event actor with its engine.
type hall struct {
	*testing.T
	journal *memory
	engine  *Engine
	metrics *Metrics
	states  chan *evently.State
	locator *spawner
}

func (h *hall) Committed(state *evently.State) {
	select {
	case h.states <- state:
	default:
	}
}

// Reservation is the history of a hall: nothing has ended for good.
func (h *hall) Reservation(context.Context, evently.ReservationID) (*evently.Reservation, error) {
	return nil, evently.ErrReservationNotFound
}

func (h *hall) Reservations(context.Context, evently.ReservationFilter, evently.Page) ([]*evently.Reservation, *evently.Cursor, error) {
	return nil, nil, nil
}

// spawner locates by spawning, and again when the actor has ended.
type spawner struct {
	mu     sync.Mutex
	system *actor.ActorSystem
	props  func(string) *actor.Props
	pid    *actor.PID
	spawns int
}

func (s *spawner) Locate(_ context.Context, _, identity string) (*actor.PID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid != nil {
		if _, alive := s.system.ProcessRegistry.GetLocal(s.pid.Id); alive {
			return s.pid, nil
		}
	}
	s.spawns++
	s.pid = s.system.Root.Spawn(s.props(identity))
	return s.pid, nil
}

func (s *spawner) Forget(string, string, *actor.PID) {}

func newSystem() *actor.ActorSystem {
	return actor.NewActorSystemWithConfig(actor.Configure(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }),
		// A goroutine of Proto.Actor's outlives the system by this time after a dead letter.
		actor.WithDeadLetterThrottleInterval(time.Millisecond),
	))
}

func newHall(t *testing.T, capacity int, options ...func(*Config)) *hall {
	t.Helper()
	h := &hall{T: t, journal: &memory{event: newEvent(capacity)}, metrics: NewMetrics(prometheus.NewRegistry()), states: make(chan *evently.State, 1000)}
	config := Config{
		Journal: h.journal, Observer: h, Logger: slog.New(slog.DiscardHandler), Metrics: h.metrics,
		Now: func() time.Time { return opening },
	}
	for _, option := range options {
		option(&config)
	}
	system := newSystem()
	t.Cleanup(system.Shutdown)
	h.locator = &spawner{system: system, props: NewKind(config)}
	h.engine = NewEngine(system, h.locator, h, h.metrics)
	return h
}

func (h *hall) do(request *evently.Request) (evently.Reply, error) {
	ctx, cancel := context.WithTimeout(h.Context(), 5*time.Second)
	defer cancel()
	return h.engine.Do(ctx, request)
}

func TestEventActor_AnswersAndPublishesWhatIsCommitted(t *testing.T) {
	h := newHall(t, 3)
	reply, err := h.do(book(1, 2))
	if err != nil || reply.Reservation.ID != (evently.ReservationID{Event: 77, Token: 1}) || reply.Replayed {
		t.Fatalf("got %+v %v", reply, err)
	}
	if state := <-h.states; state.Totals().Held != 2 || state.Seq != 2 {
		t.Errorf("published %+v", state)
	}
	if replay, err := h.do(again(1, 2)); err != nil || !replay.Replayed {
		t.Errorf("replay: got %+v %v", replay, err)
	}
	if _, err := h.do(book(2, 2)); !errors.Is(err, evently.ErrSoldOut) {
		t.Errorf("got %v, want %v", err, evently.ErrSoldOut)
	}
}

func TestEventActor_UnknownEvent(t *testing.T) {
	h := newHall(t, 3)
	h.journal.missing = true
	if _, err := h.do(book(1, 1)); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("got %v, want %v", err, evently.ErrEventNotFound)
	}
	request := book(1, 1)
	request.Event = 0 // has no valid text form
	if _, err := h.do(request); !errors.Is(err, evently.ErrEventNotFound) {
		t.Errorf("got %v, want %v", err, evently.ErrEventNotFound)
	}
}

// Whatever happens to a batch, the client gets one answer and the seat is sold once.
func TestEventActor_FailedAppendIsRepeatedOnceSettled(t *testing.T) {
	for _, failure := range []error{errCommitted, evently.ErrOutcomeUnknown, evently.ErrNotWritten} {
		t.Run(failure.Error(), func(t *testing.T) {
			h := newHall(t, 5)
			if _, err := h.do(book(1, 1)); err != nil {
				t.Fatal(err)
			}
			h.journal.mu.Lock()
			h.journal.fail = []error{failure}
			h.journal.mu.Unlock()
			reply, err := h.do(book(2, 1))
			if err != nil || reply.Replayed { // the client has sent it once

				t.Errorf("got %+v %v", reply, err)
			}
			if len(h.journal.entries) != 2 || h.journal.epoch != 2 {
				t.Errorf("%d entries in epoch %d, want 2 in epoch 2", len(h.journal.entries), h.journal.epoch)
			}
			if got := testutil.ToFloat64(h.metrics.backoffs); got != 0 {
				t.Errorf("%v activations waited, though no other owner has come", got)
			}
		})
	}
}

func TestEventActor_SupersededOwnerMakesRoom(t *testing.T) {
	h := newHall(t, 5)
	if _, err := h.do(book(1, 1)); err != nil {
		t.Fatal(err)
	}
	h.journal.mu.Lock()
	h.journal.epoch++ // somebody else has acquired the event
	h.journal.mu.Unlock()
	if _, err := h.do(book(2, 1)); err != nil {
		t.Errorf("got %v, want an answer of the next owner", err)
	}
	if got := testutil.ToFloat64(h.metrics.retirements.WithLabelValues("fenced")); got != 1 {
		t.Errorf("%v fenced retirements, want 1", got)
	}
}

// A revision must not find its own first decision and call it a conflict.
func TestEngine_RevisionWithUnknownOutcomeIsNotRepeated(t *testing.T) {
	h := newHall(t, 5)
	h.journal.fail = []error{errCommitted}
	details := h.journal.event.EventDetails
	details.Name = "Revised"
	_, err := h.do(&evently.Request{Event: 77, Command: &evently.Revise{Version: 1, Details: details}})
	if !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
	}
}

func TestEngine_GivesUpAtTheDeadline(t *testing.T) {
	h := newHall(t, 5)
	h.journal.hold = make(chan struct{})
	defer close(h.journal.hold)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.engine.Do(ctx, book(1, 1)); !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
	}
}

func TestEventActor_FullMailboxIsOverloaded(t *testing.T) {
	h := newHall(t, 5)
	full := func() *callMailbox {
		m := newCallMailbox(&Config{MailboxMax: 1, Metrics: h.metrics, Now: time.Now}, evently.EventID(77).String())().(*callMailbox)
		m.system = h.locator.system
		m.Mailbox.RegisterHandlers(nil, stopped{})
		m.PostUserMessage(lastCall{}) // other messages are not bounded
		m.PostUserMessage(lastCall{})
		return m
	}
	local := &call{request: book(1, 1), answer: make(chan outcome, 1)}
	full().PostUserMessage(local)
	if out := <-local.answer; !errors.Is(out.err, evently.ErrOverloaded) {
		t.Errorf("a local caller got %v, want %v", out.err, evently.ErrOverloaded)
	}
	remote := &slot{answer: make(chan any, 1)}
	sender := h.engine.answers.expect(remote, ownerAddr)
	full().PostUserMessage(&actor.MessageEnvelope{Message: encodeRequest(book(1, 1)), Sender: sender})
	_, err := decodeAnswer(<-remote.answer, book(1, 1))
	var refusal *evently.Error
	if !errors.As(err, &refusal) || !reflect.DeepEqual(refusal, evently.ErrOverloaded) {
		t.Errorf("a remote caller got %v, want %v", err, evently.ErrOverloaded)
	}
	if got := testutil.ToFloat64(h.metrics.overloaded); got != 2 {
		t.Errorf("metric shows %v, want 2", got)
	}
}

// stopped is a dispatcher that runs nothing.
type stopped struct{}

func (stopped) Schedule(func()) {}
func (stopped) Throughput() int { return 1 }

func TestEventActor_DrainCommitsWhatIsDecidedAndMovesTheRest(t *testing.T) {
	h := newHall(t, 5)
	if _, err := h.do(book(1, 1)); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	h.journal.mu.Lock()
	h.journal.hold = hold
	h.journal.mu.Unlock()
	pid := h.locator.pid
	decided, late := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := sendLocal(t.Context(), time.Minute, h.locator.system, pid, book(2, 1))
		decided <- err
	}()
	h.await("a request that waits", func() bool { return testutil.ToFloat64(h.metrics.waiting) == 1 })
	h.locator.system.Root.Send(pid, &DrainMessage{})
	go func() {
		_, err := sendLocal(t.Context(), time.Minute, h.locator.system, pid, book(3, 1))
		late <- err
	}()
	if err := <-late; !errors.Is(err, errMoved) {
		t.Errorf("request behind the drain: got %v, want %v", err, errMoved)
	}
	close(hold)
	if err := <-decided; err != nil {
		t.Errorf("request before the drain: %v", err)
	}
	h.await("the end of the actor", func() bool {
		_, alive := h.locator.system.ProcessRegistry.GetLocal(pid.Id)
		return !alive
	})
}

func TestEventActor_PassivatesWhenIdleAndWithoutHolds(t *testing.T) {
	h := newHall(t, 5, func(c *Config) { c.IdleAfter = 5 * time.Millisecond })
	if _, err := h.do(book(1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.do(&evently.Request{Event: 77, Who: 7, Command: &evently.Confirm{User: 7, Token: 1}}); err != nil {
		t.Fatal(err)
	}
	h.await("passivation", func() bool { return testutil.ToFloat64(h.metrics.retirements.WithLabelValues("idle")) == 1 })
	if reply, err := h.do(again(1, 1)); err != nil || !reply.Replayed || h.locator.spawns < 2 {
		t.Errorf("after passivation: got %+v %v with %d spawns", reply, err, h.locator.spawns)
	}
}

func TestEventActor_TimerExpiresHolds(t *testing.T) {
	began := time.Now()
	h := newHall(t, 1, func(c *Config) {
		c.Now = func() time.Time { return opening.Add(time.Since(began)) }
	})
	h.journal.event.HoldTTL = 30 * time.Millisecond
	if _, err := h.do(book(1, 1)); err != nil {
		t.Fatal(err)
	}
	for state := range h.states {
		if state.Totals().Held == 0 {
			break
		}
	}
	if last := h.journal.entries[len(h.journal.entries)-1]; last.Kind != evently.ExpiredEntry || last.Token != 1 {
		t.Errorf("last entry %+v", last)
	}
}

// A broken invariant ends the actor; its callers are told, and the next activation serves.
func TestEventActor_PanicRetiresTheActor(t *testing.T) {
	h := newHall(t, 5)
	panics := 1
	h.locator.props = func(inner func(string) *actor.Props) func(string) *actor.Props {
		return func(identity string) *actor.Props {
			props := inner(identity)
			props.Configure(actor.WithReceiverMiddleware(func(next actor.ReceiverFunc) actor.ReceiverFunc {
				return func(c actor.ReceiverContext, envelope *actor.MessageEnvelope) {
					if _, ok := envelope.Message.(*appended); ok && panics > 0 {
						panics--
						panic("broken invariant")
					}
					next(c, envelope)
				}
			}))
			return props
		}
	}(h.locator.props)
	if _, err := h.do(book(1, 1)); err != nil {
		t.Errorf("got %v, want the answer of the next activation", err)
	}
	if h.journal.epoch != 2 || len(h.journal.entries) != 1 {
		t.Errorf("epoch %d, %d entries; want 2 and 1", h.journal.epoch, len(h.journal.entries))
	}
	if got := h.redirects("unresolved"); got != 1 {
		t.Errorf("%v redirects, want 1: the caller was told at once", got)
	}
}

func (h *hall) await(what string, condition func() bool) {
	h.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			h.Fatalf("no %s after 10 s", what)
		}
	}
}

type dueNow struct{ events []evently.EventID }

func (d dueNow) Due(context.Context, time.Duration, int) ([]evently.EventID, error) {
	return d.events, nil
}

func TestSweeper_WakesEventsThatNobodyServes(t *testing.T) {
	began := time.Now()
	h := newHall(t, 1, func(c *Config) { c.Now = func() time.Time { return opening.Add(time.Hour).Add(time.Since(began)) } })
	// A hold from before; the journal's clock says that it has expired long ago.
	h.journal.entries = []evently.Entry{{
		Kind: evently.HeldEntry, Seq: 2, At: opening.Add(-time.Hour), Token: 5, User: 7, Key: evently.Key{Hi: 1},
		Items: evently.OneItem(evently.Item{Quantity: 1}), ExpiresAt: opening.Add(-time.Minute),
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&Sweeper{Engine: h.engine, Index: dueNow{[]evently.EventID{77}}, Logger: slog.New(slog.DiscardHandler)}).Run(ctx)
	}()
	if state := <-h.states; state.Totals().Held != 0 {
		t.Errorf("got %+v, want the hold expired", state)
	}
	cancel()
	<-done
}

// A timer that fires early, because a clock went back, must not be the last one.
func TestEventActor_ExpiresHoldsAfterAStepOfTheClock(t *testing.T) {
	began := time.Now()
	var back atomic.Int64
	h := newHall(t, 1, func(c *Config) {
		c.Now = func() time.Time { return opening.Add(time.Since(began) - time.Duration(back.Load())) }
	})
	h.journal.event.HoldTTL = 100 * time.Millisecond
	if _, err := h.do(book(1, 1)); err != nil {
		t.Fatal(err)
	}
	back.Store(int64(50 * time.Millisecond))
	for state := range h.states {
		if state.Totals().Held == 0 {
			break
		}
	}
}

// A revision that takes its time has one attempt with all the time there is.
func TestEngine_SlowRevisionIsAnswered(t *testing.T) {
	h := newHall(t, 5)
	details := h.journal.event.EventDetails
	details.Name = "Revised"
	h.journal.hold = make(chan struct{})
	timer := time.AfterFunc(attemptRemoteMax+100*time.Millisecond, func() { close(h.journal.hold) })
	defer timer.Stop()
	reply, err := h.do(&evently.Request{Event: 77, Command: &evently.Revise{Version: 1, Details: details}})
	if err != nil || reply.Event.Name != "Revised" {
		t.Errorf("got %+v %v", reply.Event, err)
	}
}

// A request is not queued twice at an actor of this process because its commit is slow.
func TestEngine_SlowCommitIsWaitedFor(t *testing.T) {
	h := newHall(t, 5)
	h.journal.hold = make(chan struct{})
	timer := time.AfterFunc(attemptRemoteMax+100*time.Millisecond, func() { close(h.journal.hold) })
	defer timer.Stop()
	if reply, err := h.do(book(1, 1)); err != nil || reply.Replayed {
		t.Errorf("got %+v %v", reply, err)
	}
	if got := h.redirects("timeout"); got != 0 {
		t.Errorf("%v requests sent again, want none", got)
	}
}

// An event that cannot be loaded because it is damaged is not loaded again and again.
func TestEventActor_DamagedEventIsUnavailableAtOnce(t *testing.T) {
	h := newHall(t, 5)
	h.journal.damaged, h.journal.loading = errors.New("storage is damaged"), make(chan struct{})
	told := make(chan error, 1)
	go func() {
		_, err := h.do(book(1, 1))
		told <- err
	}()
	h.await("a request that waits", func() bool { return testutil.ToFloat64(h.metrics.waiting) == 1 })
	close(h.journal.loading)
	if err := <-told; !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
	}
	if h.locator.spawns != 1 {
		t.Errorf("%d loads, want 1", h.locator.spawns)
	}
}

// Whoever comes too late for an actor is told at once to ask for the next one, also when it failed.
func TestEventActor_CallsBehindTheEndAreMoved(t *testing.T) {
	const calls = 20
	for name, end := range map[string]func(*actor.ActorSystem, *actor.PID){
		"stopped": func(system *actor.ActorSystem, pid *actor.PID) { system.Root.Stop(pid) },
		"failed":  func(system *actor.ActorSystem, pid *actor.PID) { system.Root.Send(pid, "fail") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHall(t, 5)
			entered, goOn := make(chan struct{}), make(chan struct{})
			props := h.locator.props(evently.EventID(77).String()).Configure(actor.WithGuardian(stopping{}),
				actor.WithReceiverMiddleware(func(next actor.ReceiverFunc) actor.ReceiverFunc {
					return func(c actor.ReceiverContext, envelope *actor.MessageEnvelope) {
						switch envelope.Message {
						case "wait":
							close(entered)
							<-goOn
						case "fail":
							panic("asked to")
						default:
							next(c, envelope)
						}
					}
				}))
			system := h.locator.system
			pid := system.Root.Spawn(props)
			process, _ := system.ProcessRegistry.GetLocal(pid.Id)
			system.Root.Send(pid, "wait")
			<-entered
			end(system, pid)
			answers := make(chan outcome, calls+1)
			for range calls {
				process.SendUserMessage(pid, &call{request: book(1, 1), answer: answers})
			}
			close(goOn)
			h.await("the end of the actor", func() bool {
				_, alive := system.ProcessRegistry.GetLocal(pid.Id)
				return !alive
			})
			process.SendUserMessage(pid, &call{request: book(1, 1), answer: answers})
			for range calls + 1 {
				if out := <-answers; !errors.Is(out.err, errMoved) {
					t.Errorf("got %v, want %v", out.err, errMoved)
				}
			}
			if _, err := sendLocal(t.Context(), time.Minute, system, pid, book(1, 1)); !errors.Is(err, errMoved) {
				t.Errorf("got %v, want %v", err, errMoved)
			}
		})
	}
}

// stopping is the supervisor that event actors have in a cluster.
type stopping struct{}

func (stopping) HandleFailure(_ *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, _, _ any) {
	supervisor.StopChildren(child)
}

func TestEventActor_LogsTellTheRequest(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, connect := range map[string]func(*hall){"on this node": func(*hall) {}, "on another node": func(h *hall) { stretch(h) }} {
		t.Run(name, func(t *testing.T) {
			var log syncedBuffer
			logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			h := newHall(t, 5, func(c *Config) { c.Logger = logger })
			connect(h)
			h.engine.Logger = logger
			h.journal.fail = []error{evently.ErrNotWritten}
			request := book(1, 1)
			request.Trace = trace
			if _, err := h.do(request); err != nil {
				t.Fatal(err)
			}
			if _, err := h.do(book(2, 1)); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{
				"msg=redirected request_id=r trace_id=4bf92f3577b34da6a3ce929d0e0e4736 event=" + evently.EventID(77).String() + " attempt=0 reason=moved",
				"msg=answer event=" + evently.EventID(77).String() + " request_id=r trace_id=4bf92f3577b34da6a3ce929d0e0e4736 command=*evently.Book",
				"msg=answer event=" + evently.EventID(77).String() + " request_id=r command=*evently.Book",
			} {
				if text := log.String(); strings.Count(text, want) != 1 {
					t.Errorf("the log does not have once %q:\n%s", want, text)
				}
			}
		})
	}
}

// syncedBuffer takes the lines of several goroutines.
type syncedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
