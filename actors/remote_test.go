package actors

import (
	"context"
	"errors"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/cluster"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

// The addresses of a wire's ends.
const (
	ownerAddr  = "owner:1"
	callerAddr = "caller:1"
)

// wire stands for remoting between two nodes, in one actor system: messages to a node's address arrive as what their bytes
// say, or not at all.
type wire struct {
	*testing.T
	system *actor.ActorSystem

	mu         sync.Mutex
	requests   []*eventpb.Request                                // sent so far
	onRequest  func(n int, request *eventpb.Request) bool        // of the n-th request; false: it is lost
	onResponse func(n int, response proto.Message) proto.Message // after n requests; nil: it is lost
}

// stretch makes the hall's engine a client on another node.
func stretch(h *hall) *wire {
	w := &wire{T: h.T, system: h.locator.system}
	w.system.ProcessRegistry.RegisterAddressResolver(func(pid *actor.PID) (actor.Process, bool) {
		return w, pid.Address == ownerAddr || pid.Address == callerAddr
	})
	h.engine = NewEngine(w.system, &farLocator{spawner: h.locator}, h, h.metrics)
	return w
}

func (w *wire) SendUserMessage(pid *actor.PID, message any) {
	_, body, sender := actor.UnwrapEnvelope(message)
	carried := body.(proto.Message)
	carried = carry(w, carried, carried.ProtoReflect().New().Interface())
	here := actor.NewPID(w.system.Address(), pid.Id)
	here.RequestId = pid.RequestId
	if request, ok := carried.(*eventpb.Request); ok {
		if w.passes(request) {
			from := actor.NewPID(callerAddr, sender.Id)
			from.RequestId = sender.RequestId
			w.system.Root.RequestWithCustomSender(here, carried, from)
		}
		return
	}
	w.mu.Lock()
	if w.onResponse != nil {
		carried = w.onResponse(len(w.requests), carried)
	}
	w.mu.Unlock() // before sending: a dead letter is answered in the middle of it
	if carried != nil {
		w.system.Root.Send(here, carried)
	}
}

// passes notes a request and reports whether it arrives.
func (w *wire) passes(request *eventpb.Request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, request)
	return w.onRequest == nil || w.onRequest(len(w.requests), request)
}

func (w *wire) SendSystemMessage(*actor.PID, any) {}
func (w *wire) Stop(*actor.PID)                   {}

func (w *wire) sent() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.requests)
}

// farLocator tells the address of the owner's node. The first stale PIDs are of an actor that is gone.
type farLocator struct {
	*spawner
	stale     atomic.Int64
	forgotten atomic.Int64
}

func (l *farLocator) Locate(ctx context.Context, kind, identity string) (*actor.PID, error) {
	if l.stale.Add(-1) >= 0 {
		return actor.NewPID(ownerAddr, "gone"), nil
	}
	pid, err := l.spawner.Locate(ctx, kind, identity)
	return actor.NewPID(ownerAddr, pid.GetId()), err
}

func (l *farLocator) Forget(_, _ string, pid *actor.PID) { l.forgotten.Add(1) }

func (h *hall) redirects(reason string) float64 {
	return testutil.ToFloat64(h.metrics.redirects.WithLabelValues(reason))
}

func (h *hall) hops(result string) float64 {
	return testutil.ToFloat64(h.metrics.hops.WithLabelValues(result))
}

func TestEngine_OwnerOnAnotherNodeDecides(t *testing.T) {
	h := newHall(t, 3)
	w := stretch(h)
	held, err := h.do(book(1, 2))
	want := evently.Reservation{
		ID: evently.ReservationID{Event: 77, Token: 1}, User: 7, Status: evently.Held,
		Items: evently.OneItem(evently.Item{Quantity: 2, UnitPriceMinor: 500}), Currency: "EUR",
		CreatedAt: opening, ExpiresAt: opening.Add(time.Minute), Seq: 2,
	}
	if err != nil || !reflect.DeepEqual(held, evently.Reply{Reservation: want}) {
		t.Fatalf("got %+v %v, want %+v", held, err, want)
	}
	if entry := h.journal.entries[0]; entry.Who != 7 || entry.RequestID != "r" || entry.Key != (evently.Key{Hi: 1}) {
		t.Errorf("journal has %+v", entry)
	}
	if again, err := h.do(again(1, 2)); err != nil || !again.Replayed || !reflect.DeepEqual(again.Reservation, want) {
		t.Errorf("replay: got %+v %v", again, err)
	}
	_, err = h.do(book(2, 2))
	var refusal *evently.Error
	if !errors.Is(err, evently.ErrSoldOut) || !errors.As(err, &refusal) || refusal.Available != 1 || refusal.Detail != evently.ErrSoldOut.Detail {
		t.Errorf("got %#v, want %v with 1 seat", err, evently.ErrSoldOut)
	}
	do := func(command evently.Command) evently.Reply {
		t.Helper()
		reply, err := h.do(&evently.Request{Event: 77, Who: 7, Command: command})
		if err != nil {
			t.Fatalf("%T: %v", command, err)
		}
		return reply
	}
	if got := do(&evently.Confirm{User: 7, Token: 1}); got.Reservation.Status != evently.Confirmed || !got.Reservation.ConfirmedAt.Equal(opening) {
		t.Errorf("confirm: got %+v", got)
	}
	if got := do(&evently.Cancel{User: 7, Token: 1}); got.Reservation.Status != evently.Cancelled || !got.Reservation.CancelledAt().Equal(opening) {
		t.Errorf("cancel: got %+v", got)
	}
	if _, err := h.do(book(3, 1)); err != nil {
		t.Error(err)
	}
	if got := do(&evently.Release{User: 7, Token: 3}); got.Reservation.Status != evently.Cancelled {
		t.Errorf("release: got %+v", got)
	}
	_, err = h.do(&evently.Request{Event: 77, Command: &evently.Confirm{User: 7, Token: 99}})
	if !errors.Is(err, evently.ErrReservationNotFound) {
		t.Errorf("got %v, want %v", err, evently.ErrReservationNotFound)
	}
	do(&evently.Expire{})
	details := h.journal.event.EventDetails
	details.Name = "Revised"
	revised := *h.journal.event
	revised.EventDetails, revised.Version = details, 2
	if got := do(&evently.Revise{Version: 1, Details: details}); !reflect.DeepEqual(got.Event, &revised) {
		t.Errorf("revise: got %+v, want %+v", got.Event, &revised)
	}
	details.Tiers = []evently.Tier{{Name: "Stalls", Capacity: 1}}
	if _, err := h.do(&evently.Request{Event: 77, Command: &evently.Revise{Version: 1, Details: details}}); !errors.Is(err, evently.ErrVersionStale) {
		t.Errorf("got %v, want %v", err, evently.ErrVersionStale)
	}
	if got := do(&evently.Publish{}); got.Event == nil || got.Event.Status != evently.EventPublished {
		t.Errorf("publish: got %+v", got.Event)
	}
	if got := do(&evently.CancelEvent{}); got.Event == nil || got.Event.Status != evently.EventCancelled {
		t.Errorf("cancel the event: got %+v", got.Event)
	}
	do(&evently.Sweep{})
	if sent := w.sent(); h.hops("answered") != float64(sent) || sent != 14 || w.requests[0].TimeoutMs == 0 || w.requests[0].TimeoutMs > 500 {
		t.Errorf("%d requests were sent and %v answered, the first with %d ms left", sent, h.hops("answered"), w.requests[0].TimeoutMs)
	}
}

func TestEngine_OwnerOnAnotherNodeKnowsNoSuchEvent(t *testing.T) {
	for _, event := range []evently.EventID{77, 0} { // 0 has no valid text form
		h := newHall(t, 3)
		stretch(h)
		h.journal.missing = true
		request := book(1, 1)
		request.Event = event
		if _, err := h.do(request); !errors.Is(err, evently.ErrEventNotFound) {
			t.Errorf("event %d: got %v, want %v", event, err, evently.ErrEventNotFound)
		}
	}
}

// Whatever is lost on the way, the client gets one answer and the seat is sold once.
func TestEngine_RepeatsWhatIsLostBetweenNodes(t *testing.T) {
	for name, test := range map[string]struct {
		breakDown func(*wire)
		result    string
	}{
		"request": {func(w *wire) {
			w.onRequest = func(n int, _ *eventpb.Request) bool { return n > 1 }
		}, "unanswered"},
		"answer": {func(w *wire) {
			w.onResponse = func(n int, response proto.Message) proto.Message {
				if n == 1 {
					return nil
				}
				return response
			}
		}, "unanswered"},
		"sense of the answer": {func(w *wire) {
			w.onResponse = func(n int, response proto.Message) proto.Message {
				if n == 1 {
					response.(*eventpb.Response).GetReply().Reservation.User++
				}
				return response
			}
		}, "garbled"},
		"code of a later version": {func(w *wire) {
			w.onResponse = func(n int, response proto.Message) proto.Message {
				if n == 1 {
					return &eventpb.Response{Outcome: &eventpb.Response_Error{Error: &eventpb.Error{Code: "invented"}}}
				}
				return response
			}
		}, "garbled"},
		"outcome of a later version": {func(w *wire) {
			w.onResponse = func(n int, response proto.Message) proto.Message {
				if n == 1 {
					return later(w, &eventpb.Response{}, &eventpb.Response{})
				}
				return response
			}
		}, "garbled"},
		"type of the answer": {func(w *wire) {
			w.onResponse = func(n int, response proto.Message) proto.Message {
				if n == 1 {
					return &eventpb.Book{}
				}
				return response
			}
		}, "garbled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHall(t, 5)
			w := stretch(h)
			test.breakDown(w)
			reply, err := h.do(book(1, 1))
			if err != nil || reply.Replayed || reply.Reservation.ID.Token != 1 {
				t.Errorf("got %+v %v", reply, err)
			}
			if len(h.journal.entries) != 1 || w.sent() != 2 || h.hops(test.result) != 1 || h.hops("answered") != 1 {
				t.Errorf("%d entries after %d requests, %v %s", len(h.journal.entries), w.sent(), h.hops(test.result), test.result)
			}
			if got := h.engine.locator.(*farLocator).forgotten.Load(); got != 1 {
				t.Errorf("%d PIDs forgotten, want 1", got)
			}
		})
	}
}

// A dead letter says at once that nothing was decided, so that even a revision is repeated.
func TestEngine_DeadLettersAreAskedAnew(t *testing.T) {
	h := newHall(t, 5)
	stretch(h)
	far := h.engine.locator.(*farLocator)
	far.stale.Store(2)
	details := h.journal.event.EventDetails
	details.Name = "Revised"
	reply, err := h.do(&evently.Request{Event: 77, Command: &evently.Revise{Version: 1, Details: details}})
	if err != nil || reply.Event.Name != "Revised" {
		t.Errorf("got %+v %v", reply, err)
	}
	if far.forgotten.Load() != 2 || h.hops("unanswered") != 0 {
		t.Errorf("%d PIDs forgotten, want 2; %v requests timed out, want 0", far.forgotten.Load(), h.hops("unanswered"))
	}
}

func TestEngine_RevisionWithoutAnswerIsNotRepeated(t *testing.T) {
	h := newHall(t, 5)
	w := stretch(h)
	w.onResponse = func(int, proto.Message) proto.Message { return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := h.engine.Do(ctx, &evently.Request{Event: 77, Command: &evently.Revise{Version: 1, Details: h.journal.event.EventDetails}})
	if !errors.Is(err, evently.ErrUnavailable) || w.sent() != 1 {
		t.Errorf("got %v after %d requests, want %v after 1", err, w.sent(), evently.ErrUnavailable)
	}
}

// The outcome of a batch that fails is settled in the same way wherever the caller is.
func TestEventActor_RemoteCallersOfAFailedAppend(t *testing.T) {
	h := newHall(t, 5)
	w := stretch(h)
	var told []proto.Message
	w.onResponse = func(_ int, response proto.Message) proto.Message {
		told = append(told, response)
		return response
	}
	h.journal.fail = []error{errCommitted}
	reply, err := h.do(book(1, 1))
	if err != nil || reply.Replayed || len(h.journal.entries) != 1 || h.journal.epoch != 2 {
		t.Errorf("got %+v %v with %d entries in epoch %d", reply, err, len(h.journal.entries), h.journal.epoch)
	}
	if len(told) != 2 || told[0].(*eventpb.Response).GetUnresolved() == nil {
		t.Errorf("the caller was told %v, want that it is unresolved first", told)
	}
}

func TestEventActor_DrainMovesRemoteCallers(t *testing.T) {
	h := newHall(t, 5)
	w := stretch(h)
	if _, err := h.do(book(1, 1)); err != nil {
		t.Fatal(err)
	}
	moved := 0
	w.onResponse = func(_ int, response proto.Message) proto.Message {
		if r, ok := response.(*eventpb.Response); ok && r.GetMoved() != nil {
			moved++
		}
		return response
	}
	hold := make(chan struct{})
	h.journal.mu.Lock()
	h.journal.hold = hold
	h.journal.mu.Unlock()
	decided, late := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := h.do(book(2, 1))
		decided <- err
	}()
	h.await("a request that waits", func() bool { return testutil.ToFloat64(h.metrics.waiting) == 1 })
	h.locator.system.Root.Send(h.locator.pid, &DrainMessage{})
	go func() {
		_, err := h.do(book(3, 1))
		late <- err
	}()
	h.await("a request that is moved", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return moved > 0
	})
	close(hold)
	for _, outcome := range []chan error{decided, late} {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
	if h.locator.spawns != 2 {
		t.Errorf("%d activations, want 2", h.locator.spawns)
	}
}

// A caller that has given up asks again, so that its first request would only be in the way.
func TestEventActor_AbandonedRequestsAreNotDecided(t *testing.T) {
	var ahead atomic.Int64
	h := newHall(t, 5, func(c *Config) { c.Now = func() time.Time { return opening.Add(time.Duration(ahead.Load())) } })
	w := stretch(h)
	inner := h.locator.props
	h.locator.props = func(identity string) *actor.Props {
		return inner(identity).Configure(actor.WithReceiverMiddleware(func(next actor.ReceiverFunc) actor.ReceiverFunc {
			return func(c actor.ReceiverContext, envelope *actor.MessageEnvelope) {
				if call, ok := envelope.Message.(*call); ok && call.request.Command.(*evently.Book).Token == 1 {
					ahead.CompareAndSwap(0, int64(attemptRemoteMax)) // it was in the queue for as long as its caller waited
				}
				next(c, envelope)
			}
		}))
	}
	reply, err := h.do(book(1, 1))
	if err != nil || reply.Replayed {
		t.Errorf("got %+v %v", reply, err)
	}
	if got := testutil.ToFloat64(h.metrics.abandoned); got != 1 || w.sent() != 2 || len(h.journal.entries) != 1 {
		t.Errorf("%v of %d requests abandoned, want 1 of 2; %d entries", got, w.sent(), len(h.journal.entries))
	}
}

func TestEventActor_UndecidableRequestsAreAnswered(t *testing.T) {
	h := newHall(t, 5)
	if _, err := h.do(book(1, 1)); err != nil {
		t.Fatal(err)
	}
	root, pid := h.locator.system.Root, h.locator.pid
	root.Send(pid, encodeRequest(book(2, 1)))                                         // tells nobody to answer
	root.Send(pid, &actor.MessageEnvelope{Message: encodeRequest(book(3, 1))})        // nor does this
	root.Send(pid, &actor.MessageEnvelope{Message: &eventpb.Response{}, Sender: pid}) // and this is no request
	for _, test := range []struct {
		message *eventpb.Request
		want    evently.Code
	}{
		{&eventpb.Request{Event: 77}, evently.CodeUnavailable}, // a command of a later version
		{&eventpb.Request{Event: 78, Command: &eventpb.Request_Expire{}}, evently.CodeInternal},
	} {
		s := &slot{answer: make(chan any, 1)}
		root.RequestWithCustomSender(pid, test.message, h.engine.answers.expect(s, ownerAddr))
		_, err := decodeAnswer(<-s.answer, book(1, 1))
		if !errors.Is(err, &evently.Error{Code: test.want}) {
			t.Errorf("%v: got %v, want %s", test.message, err, test.want)
		}
	}
	if _, err := h.do(book(4, 1)); err != nil || len(h.journal.entries) != 2 || h.locator.spawns != 1 {
		t.Errorf("afterwards: %v, %d entries, %d activations; want 2 and 1", err, len(h.journal.entries), h.locator.spawns)
	}
}

func TestAnswers_SlotTakesTheFirstAnswerToItsRequest(t *testing.T) {
	a := newHall(t, 1).engine.answers
	a.last = math.MaxUint32 - 1 // the ids begin anew
	first, second, third := &slot{answer: make(chan any, 1)}, &slot{answer: make(chan any, 1)}, &slot{answer: make(chan any, 1)}
	one, two := a.expect(first, ownerAddr), a.expect(second, ownerAddr)
	if one.RequestId != math.MaxUint32 || two.RequestId != 1 {
		t.Errorf("got ids %d and %d, want %d and 1", one.RequestId, two.RequestId, uint32(math.MaxUint32))
	}
	a.last = 0
	if three := a.expect(third, ownerAddr); three.RequestId != 2 {
		t.Errorf("got id %d, want 2: 1 is waited for", three.RequestId)
	}
	a.SendUserMessage(two, &actor.MessageEnvelope{Message: 1})
	a.SendUserMessage(two, 2)
	a.SendSystemMessage(one, 3)
	a.Stop(one)
	if got := <-second.answer; got != 1 || len(second.answer)+len(first.answer)+len(third.answer) != 0 || len(a.waiting) != 2 {
		t.Errorf("got %v and more, want the first alone; %d requests wait, want 2", got, len(a.waiting))
	}
	if a.take(two.RequestId) != nil || a.take(one.RequestId) != first || a.take(one.RequestId) != nil {
		t.Error("a slot can be taken twice, or not at all")
	}
}

func TestEngine_SendsNothingAfterTheDeadline(t *testing.T) {
	h := newHall(t, 5)
	w := stretch(h)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := h.engine.Do(ctx, book(1, 1)); !errors.Is(err, evently.ErrUnavailable) || w.sent() != 0 {
		t.Errorf("got %v after %d requests, want %v after none", err, w.sent(), evently.ErrUnavailable)
	}
}

// The engine keeps nothing of requests whose answers are lost.
func TestEngine_ForgetsWhatIsNotAnswered(t *testing.T) {
	h := newHall(t, 5)
	w := stretch(h)
	w.onResponse = func(int, proto.Message) proto.Message { return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.engine.Do(ctx, book(1, 1)); !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
	}
	if got := len(h.engine.answers.waiting); got != 0 || h.redirects("timeout") != 1 || h.hops("unanswered") != 1 {
		t.Errorf("%d requests wait; %v timed out, %v unanswered; want 0, 1, 1", got, h.redirects("timeout"), h.hops("unanswered"))
	}
}

// A request is brought to the next owner when its owner's node has left the cluster, and not only when its time is over.
func TestEngine_DoesNotWaitForANodeThatHasLeft(t *testing.T) {
	h := newHall(t, 3)
	w := stretch(h)
	asked := make(chan struct{})
	w.onRequest = func(n int, _ *eventpb.Request) bool {
		if n == 1 {
			close(asked)
		}
		return n > 1
	}
	go func() {
		<-asked
		for _, host := range []string{"bystander", "owner"} {
			w.system.EventStream.Publish(&cluster.ClusterTopology{Left: []*cluster.Member{{Host: host, Port: 1}}})
		}
	}()
	reply, err := h.do(book(1, 2))
	if err != nil || reply.Reservation.ID.Token != 1 {
		t.Errorf("got %+v %v", reply, err)
	}
	if n := h.redirects("owner_left"); n != 1 || h.redirects("timeout") != 0 {
		t.Errorf("%v redirects from who left, %v after the time, want 1 and 0", n, h.redirects("timeout"))
	}
}
