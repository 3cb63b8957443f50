package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

// What an actor that does not answer tells Engine: resolve the event again and repeat the request.
var (
	errMoved      = errors.New("the event is moving") // the request was not decided
	errUnresolved = errors.New("outcome unknown")     // the request was decided, and perhaps committed
)

// What Engine finds out itself.
var (
	errNotLocated = fmt.Errorf("%w: not located", errMoved)
	errNoAnswer   = errors.New("no answer in time")                      // perhaps decided, and perhaps committed
	errOwnerLeft  = errors.New("the owner's node is no longer a member") // the same
)

// call is a request at an event actor, and the caller that waits for the answer: in this process, by a channel, without
// serialization; or on another node, by a message. It is answered exactly once, although a message may be lost between nodes;
// the caller gives it a deadline.
type call struct {
	request *evently.Request
	answer  chan outcome // nil: the caller is on another node
	timer   *time.Timer  // of the caller in this process
	gone    atomic.Bool  // the caller in this process does not wait any more

	system   *actor.ActorSystem // of this node
	sender   *actor.PID         // on the other one
	deadline time.Time          // from when on that caller does not wait any more; zero: not known
}

type outcome struct {
	reply evently.Reply
	err   error
}

var calls = sync.Pool{New: func() any { return &call{answer: make(chan outcome, 1), timer: newTimer()} }}

// newTimer returns a timer that is to be Reset.
func newTimer() *time.Timer {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return timer
}

// finish gives the caller its answer.
func (c *call) finish(reply evently.Reply, err error) {
	if c.answer != nil {
		c.answer <- outcome{reply, err}
		return
	}
	c.system.Root.Send(c.sender, encodeOutcome(&reply, err))
}

// abandoned reports whether the caller is known not to wait any more.
func (c *call) abandoned(now func() time.Time) bool {
	return c.gone.Load() || !c.deadline.IsZero() && !now().Before(c.deadline)
}

// sendLocal asks an actor of this process and waits for its answer, as long as limit and ctx allow.
func sendLocal(
	ctx context.Context, limit time.Duration, system *actor.ActorSystem, pid *actor.PID, request *evently.Request,
) (evently.Reply, error) {
	process, alive := system.ProcessRegistry.GetLocal(pid.Id)
	if !alive {
		return evently.Reply{}, errMoved
	}
	c := calls.Get().(*call)
	c.request = request
	c.timer.Reset(limit)
	process.SendUserMessage(pid, c)
	var err error
	select {
	case out := <-c.answer:
		c.timer.Stop()
		c.request = nil
		calls.Put(c)
		return out.reply, out.err
	case <-c.timer.C:
		err = errNoAnswer
	case <-evently.Gone(ctx):
		err = ctx.Err()
		c.timer.Stop()
	}
	// The actor may still answer, so the call is not used again.
	c.gone.Store(true)
	return evently.Reply{}, err
}

// callMailbox is the mailbox of an event actor. It makes calls of the requests of other nodes, so that the actor knows only
// one kind and does not spend its time on decoding, and answers ErrOverloaded instead of queueing more than a number of
// them. Proto.Actor's own bounded mailboxes block the sender or drop the message.
type callMailbox struct {
	actor.Mailbox
	event   evently.EventID // of the actor; zero: its identity is none
	max     int
	now     func() time.Time
	metrics *Metrics
	system  *actor.ActorSystem
}

func newCallMailbox(config *Config, identity string) actor.MailboxProducer {
	unbounded := actor.Unbounded()
	event, err := evently.ParseEventID(identity)
	if err != nil {
		event = 0 // the actor tells every caller
	}
	return func() actor.Mailbox {
		return &callMailbox{Mailbox: unbounded(), event: event, max: config.MailboxMax, now: config.Now, metrics: config.Metrics}
	}
}

// RegisterHandlers implements actor.Mailbox. Proto.Actor calls it before the actor's PID is known to anybody.
func (m *callMailbox) RegisterHandlers(invoker actor.MessageInvoker, dispatcher actor.Dispatcher) {
	m.system = invoker.(actor.Context).ActorSystem()
	m.Mailbox.RegisterHandlers(&undertaker{MessageInvoker: invoker, mailbox: m.Mailbox}, dispatcher)
}

// undertaker passes messages to an actor while it lives, and answers the calls that are queued then: Proto.Actor would drop
// them.
type undertaker struct {
	actor.MessageInvoker
	mailbox actor.Mailbox
	stopped bool
}

// InvokeSystemMessage implements actor.MessageInvoker. An event actor has no children, so it has stopped when it has handled
// Stop.
func (u *undertaker) InvokeSystemMessage(message any) {
	u.MessageInvoker.InvokeSystemMessage(message)
	if _, ok := message.(*actor.Stop); ok && !u.stopped {
		u.stopped = true
		u.mailbox.PostSystemMessage(&actor.ResumeMailbox{}) // the queue of an actor that failed is suspended
	}
}

// InvokeUserMessage implements actor.MessageInvoker.
func (u *undertaker) InvokeUserMessage(message any) {
	if c, ok := message.(*call); ok && u.stopped {
		c.finish(evently.Reply{}, errMoved)
		return
	}
	u.MessageInvoker.InvokeUserMessage(message)
}

// PostUserMessage queues any message but a call beyond the bound, or a request from another node that cannot be decided.
func (m *callMailbox) PostUserMessage(message any) {
	if envelope, ok := message.(*actor.MessageEnvelope); ok {
		if request, ok := envelope.Message.(*eventpb.Request); ok {
			c := m.receive(request, envelope.Sender)
			if c == nil {
				return
			}
			message = c
		}
	}
	if c, ok := message.(*call); ok {
		depth := m.UserMessageCount()
		m.metrics.depth.Observe(float64(depth))
		if depth >= m.max {
			m.metrics.overloaded.Inc()
			c.finish(evently.Reply{}, evently.ErrOverloaded)
			return
		}
	}
	m.Mailbox.PostUserMessage(message)
}

// receive makes a call of a request of another node, or answers it and returns nil.
func (m *callMailbox) receive(request *eventpb.Request, sender *actor.PID) *call {
	if sender == nil {
		return nil // nobody waits for an answer
	}
	c := &call{system: m.system, sender: sender}
	if request.TimeoutMs > 0 {
		c.deadline = m.now().Add(time.Duration(request.TimeoutMs) * time.Millisecond)
	}
	var err error
	if c.request, err = decodeRequest(request, m.event); err != nil {
		c.finish(evently.Reply{}, err)
		return nil
	}
	return c
}
