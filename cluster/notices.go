package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/evently/evently/cluster/noticepb"
)

const (
	// boardName is the actor of each member that exchanges notices and queries with those of others.
	boardName = "evently-notices"
	// bodyBytesMax bounds the body of a notice, a query or an answer.
	bodyBytesMax = 1 << 20
	// noticesMax bounds the notices that wait for one member; the oldest is dropped for each one more.
	noticesMax = 256
	// noticeTimeout bounds the wait for a member to confirm a notice, before the next one is sent to it.
	noticeTimeout = time.Second
	// deliveriesMax bounds the notices and the queries that have arrived and wait for their functions.
	deliveriesMax = 64
	// queriesMax bounds the queries of this member under way; answersMax those of others that are answered at a time.
	queriesMax = 8
	answersMax = 8
	// queryTimeout bounds a query whose context has no earlier deadline.
	queryTimeout = 10 * time.Second
)

// Why a query has no answer, from Node.Query.
var (
	// ErrUnknownMember: no member of that id is in the view in force.
	ErrUnknownMember = errors.New("cluster: no such member")
	// ErrUnknownTopic: the member answers no queries of the topic; it may run another version.
	ErrUnknownTopic = errors.New("cluster: the member does not know the topic")
	// ErrUnreachable: the member cannot be reached, or was another process by then.
	ErrUnreachable = errors.New("cluster: the member cannot be reached")
	// ErrTooLong: the body is longer than 1 MiB.
	ErrTooLong = errors.New("cluster: body longer than 1 MiB")
)

type (
	receiveNotice func(from string, body []byte)
	answerQuery   func(ctx context.Context, body []byte) ([]byte, error)

	// arrivedQuery is a query and whom to answer.
	arrivedQuery struct {
		asked  *noticepb.Envelope
		sender *actor.PID
	}
)

// notices exchanges short messages with the other members. One notice at a time is under way to a member and each is
// confirmed, so that no more than a bounded number wait anywhere when that member hangs: Proto.Actor's own queues have no end.
type notices struct {
	system  *actor.ActorSystem
	view    *atomic.Pointer[view]
	metrics *Metrics
	log     *slog.Logger

	delivered chan *noticepb.Envelope
	queries   chan arrivedQuery
	slots     chan struct{} // one for each own query under way
	closing   chan struct{}
	stop      context.CancelFunc // ends the functions that answer queries
	work      sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	waiting  map[string][]*noticepb.Notice // by member id; an entry exists while a goroutine sends to that member
	calls    map[uint32]chan *noticepb.Answer
	lastCall uint32
	receive  map[string]receiveNotice
	answers  map[string]answerQuery
}

// Notify sends a notice to every other member in the view in force and does not wait: up to 256 wait for a member, then the
// oldest is dropped. A notice arrives once or not at all, and those of one member in their order. The body, at most 1 MiB (a
// longer one is dropped), must not change any more. What is lost is counted and not told, so a notice must be one
// that a later one makes good, or another way does.
func (n *Node) Notify(topic string, body []byte) { n.notices.notify(topic, body) }

// OnNotice sets the function that receives the notices of a topic; those that came before it are lost. The functions of all
// topics are called by one goroutine, in the order of arrival: while one runs, others wait, 64 at most, and Stop waits for it.
// from is the sending member's id.
func (n *Node) OnNotice(topic string, receive func(from string, body []byte)) {
	n.notices.mu.Lock()
	defer n.notices.mu.Unlock()
	n.notices.receive[topic] = receive
}

// Query asks a member, which may be this one, and returns the body of its answer. It returns at the end of ctx or after
// 10 s with ctx's error, before if it is known sooner that there will be no answer. At most 8 queries are under way at a time,
// others wait. Bodies are at most 1 MiB. Its errors wrap ErrUnknownMember, ErrUnknownTopic, ErrUnreachable, ErrTooLong,
// ErrStopped, ctx's error, or are the answering function's, as text.
func (n *Node) Query(ctx context.Context, memberID, topic string, body []byte) ([]byte, error) {
	return n.notices.query(ctx, memberID, topic, body)
}

// OnQuery sets the function that answers queries of a topic, in at most 1 MiB each. Up to 8 calls for other members run at the
// same time and 64 wait; those beyond are refused. ctx ends when the asking member gives up, or when this one stops, and Stop
// waits for the function.
func (n *Node) OnQuery(topic string, answer func(ctx context.Context, body []byte) ([]byte, error)) {
	n.notices.mu.Lock()
	defer n.notices.mu.Unlock()
	n.notices.answers[topic] = answer
}

func newNotices(system *actor.ActorSystem, v *atomic.Pointer[view], metrics *Metrics, logger *slog.Logger) *notices {
	return &notices{
		system: system, view: v, metrics: metrics, log: logger,
		delivered: make(chan *noticepb.Envelope, deliveriesMax),
		queries:   make(chan arrivedQuery, deliveriesMax),
		slots:     make(chan struct{}, queriesMax),
		closing:   make(chan struct{}),
		waiting:   make(map[string][]*noticepb.Notice),
		calls:     make(map[uint32]chan *noticepb.Answer),
		lastCall:  rand.Uint32(), // an answer to an earlier process here must not fit
		receive:   make(map[string]receiveNotice),
		answers:   make(map[string]answerQuery),
	}
}

// start begins to receive.
func (n *notices) start() {
	if _, err := n.system.Root.SpawnNamed(actor.PropsFromFunc(n.arrive), boardName); err != nil {
		panic(fmt.Sprintf("cluster: notice board spawned twice: %v", err))
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.work.Go(n.deliver)
	for range answersMax {
		n.work.Go(func() { n.answer(ctx) })
	}
}

// shutdown ends all sending and waits for the functions that were called. Proto.Actor's remote does not survive a message sent
// while it shuts down.
func (n *notices) shutdown() error {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.closing)
	}
	n.mu.Unlock()
	n.stop()
	n.work.Wait()
	if err := n.system.Root.StopFuture(n.system.NewLocalPID(boardName)).Wait(); err != nil {
		return fmt.Errorf("stop notice board: %w", err)
	}
	return nil
}

// notify queues a notice for every other member in the view.
func (n *notices) notify(topic string, body []byte) {
	if len(body) > bodyBytesMax {
		n.metrics.noticesDropped.Inc()
		n.log.Error("notice dropped", "topic", topic, "bytes", len(body), "error", ErrTooLong)
		return
	}
	notice := &noticepb.Notice{Topic: topic, Body: body}
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.view.Load().addrs {
		if id == n.system.ID || n.closed {
			continue
		}
		queue, sending := n.waiting[id]
		if len(queue) == noticesMax {
			queue[0] = nil
			queue = queue[1:]
			n.metrics.noticesDropped.Inc()
		}
		n.waiting[id] = append(queue, notice)
		if !sending {
			n.work.Go(func() { n.send(id) })
		}
	}
}

// send sends what waits for a member, until nothing does or the member is gone.
func (n *notices) send(id string) {
	for {
		n.mu.Lock()
		queue := n.waiting[id]
		addr, member := n.view.Load().addrs[id]
		if len(queue) == 0 || !member || n.closed {
			delete(n.waiting, id)
			n.metrics.noticesDropped.Add(float64(len(queue)))
			n.mu.Unlock()
			return
		}
		notice := queue[0]
		queue[0] = nil // the array may live on for long
		n.waiting[id] = queue[1:]
		n.mu.Unlock()

		ctx, cancel := context.WithTimeout(context.Background(), noticeTimeout)
		answer, err := n.call(ctx, id, addr, &noticepb.Envelope{Content: &noticepb.Envelope_Notice{Notice: notice}})
		cancel()
		if err != nil || answer.Error != "" {
			n.metrics.noticesLost.Inc()
			n.log.Debug("notice not confirmed", "member", id, "topic", notice.Topic, "error", err, "answer", answer.GetError())
		} else {
			n.metrics.noticesSent.Inc()
		}
	}
}

// query asks a member.
func (n *notices) query(ctx context.Context, id, topic string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	answer, err := n.ask(ctx, id, topic, body)
	if err != nil {
		n.metrics.queriesFailed.Inc()
		return nil, fmt.Errorf("query %q at member %s: %w", topic, id, err)
	}
	n.metrics.queriesAnswered.Inc()
	return answer, nil
}

func (n *notices) ask(ctx context.Context, id, topic string, body []byte) ([]byte, error) {
	if len(body) > bodyBytesMax {
		return nil, ErrTooLong
	}
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	case <-n.closing:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	asked := &noticepb.Query{Topic: topic, Body: body}
	if end, ok := ctx.Deadline(); ok {
		asked.TimeoutMs = uint32(max(1, time.Until(end).Milliseconds()))
	}
	var answer *noticepb.Answer
	if id == n.system.ID {
		answer = n.reply(ctx, asked)
	} else {
		addr, member := n.view.Load().addrs[id]
		if !member {
			return nil, ErrUnknownMember
		}
		var err error
		if answer, err = n.call(ctx, id, addr, &noticepb.Envelope{Content: &noticepb.Envelope_Query{Query: asked}}); err != nil {
			return nil, err
		}
	}
	switch {
	case answer.UnknownTopic:
		return nil, ErrUnknownTopic
	case answer.Error != "":
		return nil, errors.New(answer.Error)
	}
	return answer.Body, nil
}

// call sends an envelope and waits for its answer, to the end of ctx at most.
func (n *notices) call(ctx context.Context, id, addr string, envelope *noticepb.Envelope) (*noticepb.Answer, error) {
	answered := make(chan *noticepb.Answer, 1)
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil, ErrStopped
	}
	n.work.Add(1) // shutdown must not take remoting apart under a message
	n.lastCall++
	call := n.lastCall
	n.calls[call] = answered
	n.mu.Unlock()
	defer n.work.Done()
	defer func() {
		n.mu.Lock()
		delete(n.calls, call)
		n.mu.Unlock()
	}()

	envelope.From, envelope.To, envelope.Call = n.system.ID, id, call
	target := actor.NewPID(addr, boardName)
	target.RequestId = call // comes back in a dead letter
	n.system.Root.RequestWithCustomSender(target, envelope, n.system.NewLocalPID(boardName))
	select {
	case answer := <-answered:
		if answer == nil {
			return nil, ErrUnreachable
		}
		return answer, nil
	case <-n.closing:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// settle ends a call. A nil answer says that there will be none.
func (n *notices) settle(call uint32, answer *noticepb.Answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if answered, ok := n.calls[call]; ok {
		delete(n.calls, call)
		answered <- answer // there is room for the one
	}
}

// arrive is the notice board. It never waits.
func (n *notices) arrive(c actor.Context) {
	switch message := c.Message().(type) {
	case *actor.DeadLetterResponse:
		n.settle(message.GetTarget().GetRequestId(), nil)
	case *noticepb.Envelope:
		switch content := message.Content.(type) {
		case *noticepb.Envelope_Answer:
			if message.To == n.system.ID {
				n.settle(message.Call, content.Answer)
			}
		case *noticepb.Envelope_Notice:
			n.confirm(c, message)
		case *noticepb.Envelope_Query:
			n.admit(c, message)
		}
	}
}

// confirm takes a notice in. One that finds no room is confirmed, too: sent again it would not find any sooner.
func (n *notices) confirm(c actor.Context, message *noticepb.Envelope) {
	if message.To != n.system.ID {
		n.respond(c.Sender(), message, &noticepb.Answer{Error: "another member was meant"})
		return
	}
	select {
	case n.delivered <- message:
	default:
		n.metrics.noticesOverflowing.Inc()
	}
	n.respond(c.Sender(), message, &noticepb.Answer{})
}

// admit takes a query in.
func (n *notices) admit(c actor.Context, message *noticepb.Envelope) {
	if message.To != n.system.ID {
		n.respond(c.Sender(), message, &noticepb.Answer{Error: "another member was meant"})
		return
	}
	select {
	case n.queries <- arrivedQuery{message, c.Sender()}:
	default:
		n.respond(c.Sender(), message, &noticepb.Answer{Error: "too many queries"})
	}
}

func (n *notices) respond(to *actor.PID, asked *noticepb.Envelope, answer *noticepb.Answer) {
	if to == nil {
		return
	}
	select {
	case <-n.closing:
		return
	default:
	}
	n.system.Root.Send(to, &noticepb.Envelope{
		From: n.system.ID, To: asked.From, Call: asked.Call, Content: &noticepb.Envelope_Answer{Answer: answer},
	})
}

// deliver calls the functions of OnNotice, in the order of arrival.
func (n *notices) deliver() {
	for {
		select {
		case <-n.closing:
			return
		case message := <-n.delivered:
			notice := message.GetNotice()
			n.mu.Lock()
			receive, ok := n.receive[notice.GetTopic()]
			n.mu.Unlock()
			if !ok {
				n.metrics.noticesUnknown.Inc()
				continue
			}
			if err := n.guard(notice.GetTopic(), func() { receive(message.From, notice.GetBody()) }); err == nil {
				n.metrics.noticesReceived.Inc()
			}
		}
	}
}

// answer calls the functions of OnQuery.
func (n *notices) answer(ctx context.Context) {
	for {
		select {
		case <-n.closing:
			return
		case query := <-n.queries:
			n.respond(query.sender, query.asked, n.reply(ctx, query.asked.GetQuery()))
		}
	}
}

func (n *notices) reply(ctx context.Context, asked *noticepb.Query) *noticepb.Answer {
	n.mu.Lock()
	answer, ok := n.answers[asked.GetTopic()]
	n.mu.Unlock()
	if !ok {
		return &noticepb.Answer{UnknownTopic: true}
	}
	ctx, cancel := context.WithTimeout(ctx, min(queryTimeout, time.Duration(asked.GetTimeoutMs())*time.Millisecond))
	defer cancel()
	var body []byte
	var err error
	if failed := n.guard(asked.GetTopic(), func() { body, err = answer(ctx, asked.GetBody()) }); failed != nil {
		err = failed
	}
	if err == nil && len(body) > bodyBytesMax {
		err = ErrTooLong
	}
	if err != nil {
		return &noticepb.Answer{Error: "no answer: " + err.Error()}
	}
	return &noticepb.Answer{Body: body}
}

// guard turns a panic of a function into an error: another member's words must not end this one.
func (n *notices) guard(topic string, call func()) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			n.log.Error("function of a topic failed", "topic", topic, "reason", reason, "stack", string(debug.Stack()))
			err = errors.New("it failed")
		}
	}()
	call()
	return nil
}
