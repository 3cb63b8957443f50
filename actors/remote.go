package actors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

// errGarbled: what came is no answer to the request. It was decided, perhaps.
var errGarbled = fmt.Errorf("%w: garbled answer", errUnresolved)

// answerSlot is a process of the actor system that takes the first answer to one request. Proto.Actor's futures know no
// context, and one that times out while its answer comes is written to and read without a lock.
type answerSlot chan any

// SendUserMessage implements actor.Process.
func (s answerSlot) SendUserMessage(_ *actor.PID, message any) {
	select {
	case s <- actor.UnwrapEnvelopeMessage(message):
	default: // answered already
	}
}

// SendSystemMessage implements actor.Process. There is nothing to stop or to watch.
func (s answerSlot) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process.
func (s answerSlot) Stop(*actor.PID) {}

// sendRemote asks an actor of another node and waits for its answer or the end of ctx, which is left away.
func (e *Engine) sendRemote(ctx context.Context, left time.Duration, pid *actor.PID, request *evently.Request) (evently.Reply, error) {
	message := encodeRequest(request)
	message.TimeoutMs = uint32(min(max(left.Milliseconds(), 1), math.MaxUint32))
	slot, registry := make(answerSlot, 1), e.system.ProcessRegistry
	self, fresh := registry.Add(slot, "answer"+registry.NextID())
	if !fresh {
		panic("engine: process " + self.Id + " exists")
	}
	defer registry.Remove(self)
	e.system.Root.RequestWithCustomSender(pid, message, self)
	select {
	case answer := <-slot:
		reply, err := decodeAnswer(answer, request)
		if errors.Is(err, errGarbled) {
			e.metrics.hops.WithLabelValues("garbled").Inc()
		} else {
			e.metrics.hops.WithLabelValues("answered").Inc()
		}
		return reply, err
	case <-ctx.Done():
		e.metrics.hops.WithLabelValues("unanswered").Inc()
		return evently.Reply{}, ctx.Err()
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
