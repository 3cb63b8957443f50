package actors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/cluster"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

// errGarbled: what came is no answer to the request. It was decided, perhaps.
var errGarbled = fmt.Errorf("%w: garbled answer", errUnresolved)

// answers is the process of an actor system that takes the answers of other nodes to an engine. Requests are told apart by the
// request id of the PID that is to be answered, which travels with it. One process for all costs less than one for each, for the
// registry as well as on the wire. Proto.Actor's futures know no context, and one that times out while its answer comes
// is written to and read without a lock.
type answers struct {
	system *actor.ActorSystem
	id     string

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]*slot // bounded by the requests in flight
}

// slot takes the answer to one request.
type slot struct {
	answer chan any // holds one
	timer  *time.Timer
	from   string // the address that is to answer
}

var slots = sync.Pool{New: func() any { return &slot{answer: make(chan any, 1), timer: newTimer()} }}

// left is what a slot is given when there is nobody to answer any more.
type left struct{}

func newAnswers(system *actor.ActorSystem) *answers {
	a := &answers{system: system, id: "answers" + system.ProcessRegistry.NextID(), waiting: make(map[uint32]*slot)}
	if _, fresh := system.ProcessRegistry.Add(a, a.id); !fresh {
		panic("engine: process " + a.id + " exists")
	}
	system.EventStream.Subscribe(func(event any) {
		if topology, ok := event.(*cluster.ClusterTopology); ok {
			for _, member := range topology.Left {
				a.abandon(member.Address())
			}
		}
	})
	return a
}

// abandon ends the wait for answers from an address: whatever was decided there, the request must go to the next owner.
func (a *answers) abandon(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, s := range a.waiting {
		if s.from == address {
			delete(a.waiting, n)
			s.answer <- left{}
		}
	}
}

// expect returns the PID that takes one answer, the first, into a slot.
func (a *answers) expect(s *slot, from string) *actor.PID {
	s.from = from
	a.mu.Lock()
	for taken := true; taken; _, taken = a.waiting[a.last] {
		if a.last++; a.last == 0 { // which is no id
			a.last++
		}
	}
	n := a.last
	a.waiting[n] = s
	a.mu.Unlock()
	return &actor.PID{Address: a.system.Address(), Id: a.id, RequestId: n}
}

// take returns the slot of a request, once; nil: it was taken before.
func (a *answers) take(n uint32) *slot {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.waiting[n]
	delete(a.waiting, n)
	return s
}

// SendUserMessage implements actor.Process.
func (a *answers) SendUserMessage(pid *actor.PID, message any) {
	if s := a.take(pid.RequestId); s != nil { // else it was answered already, or is not waited for any more
		s.answer <- actor.UnwrapEnvelopeMessage(message)
	}
}

// SendSystemMessage implements actor.Process. There is nothing to stop or to watch.
func (a *answers) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process.
func (a *answers) Stop(*actor.PID) {}

// sendRemote asks an actor of another node and waits for its answer, as long as limit and ctx allow.
func (e *Engine) sendRemote(ctx context.Context, limit time.Duration, pid *actor.PID, request *evently.Request) (evently.Reply, error) {
	message := encodeRequest(request)
	message.TimeoutMs = uint32(min(max(limit.Milliseconds(), 1), math.MaxUint32))
	s := slots.Get().(*slot)
	self := e.answers.expect(s, pid.Address)
	s.timer.Reset(limit)
	e.system.Root.RequestWithCustomSender(pid, message, self)
	var answer any
	var err error
	select {
	case answer = <-s.answer:
	case <-s.timer.C:
		err = errNoAnswer
	case <-evently.Gone(ctx):
		err = ctx.Err()
	}
	s.timer.Stop()
	if err != nil && e.answers.take(self.RequestId) == nil {
		answer, err = <-s.answer, nil // it came in the last moment
	}
	slots.Put(s)
	if _, gone := answer.(left); gone {
		err = errOwnerLeft
	}
	if err != nil {
		e.metrics.hops.WithLabelValues("unanswered").Inc()
		return evently.Reply{}, err
	}
	reply, err := decodeAnswer(answer, request)
	if errors.Is(err, errGarbled) {
		e.metrics.hops.WithLabelValues("garbled").Inc()
	} else {
		e.metrics.hopped.Inc()
	}
	return reply, err
}

// Messages are the full names of the protobuf messages that nodes send each other about events.
func Messages() []string {
	return []string{
		string((&eventpb.Request{}).ProtoReflect().Descriptor().FullName()),
		string((&eventpb.Response{}).ProtoReflect().Descriptor().FullName()),
	}
}

func decodeAnswer(answer any, request *evently.Request) (evently.Reply, error) {
	switch answer := answer.(type) {
	case *eventpb.Response:
		return decodeOutcome(answer, request)
	case *actor.DeadLetterResponse: // there is no such actor, or no way to its node: the request did not arrive
		return evently.Reply{}, errMoved
	}
	return evently.Reply{}, fmt.Errorf("%w: %T", errGarbled, answer)
}
