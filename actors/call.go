package actors

import (
	"context"
	"errors"
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/evently/evently"
)

// What an actor that does not answer tells Engine: resolve the event again and repeat the request.
var (
	errMoved      = errors.New("the event is moving") // the request was not decided
	errUnresolved = errors.New("outcome unknown")     // the request was decided, and perhaps committed
)

// call is a request on its way to an actor of this process. It is answered exactly once, or never when the actor system
// loses it; the caller gives it a deadline.
type call struct {
	request *evently.Request
	answer  chan outcome
}

type outcome struct {
	reply evently.Reply
	err   error
}

var calls = sync.Pool{New: func() any { return &call{answer: make(chan outcome, 1)} }}

func (c *call) finish(reply evently.Reply, err error) { c.answer <- outcome{reply, err} }

// send asks a local actor and waits for its answer or the end of ctx.
func send(ctx context.Context, system *actor.ActorSystem, pid *actor.PID, request *evently.Request) (evently.Reply, error) {
	c := calls.Get().(*call)
	c.request = request
	system.Root.Send(pid, c)
	select {
	case out := <-c.answer:
		c.request = nil
		calls.Put(c)
		return out.reply, out.err
	case <-ctx.Done():
		// The actor may still answer, so the call is not used again.
		return evently.Reply{}, ctx.Err()
	}
}

// boundedMailbox answers ErrOverloaded instead of queueing more than a number of calls. Proto.Actor's own bounded
// mailboxes block the sender or drop the message.
type boundedMailbox struct {
	actor.Mailbox
	max     int
	metrics *Metrics
}

func newBoundedMailbox(max int, metrics *Metrics) actor.MailboxProducer {
	unbounded := actor.Unbounded()
	return func() actor.Mailbox { return &boundedMailbox{unbounded(), max, metrics} }
}

// PostUserMessage queues any message but a call beyond the bound.
func (m *boundedMailbox) PostUserMessage(message any) {
	if c, ok := message.(*call); ok && m.UserMessageCount() >= m.max {
		m.metrics.overloaded.Inc()
		c.finish(evently.Reply{}, evently.ErrOverloaded)
		return
	}
	m.Mailbox.PostUserMessage(message)
}
