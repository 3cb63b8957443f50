package actors

import (
	"time"

	"github.com/evently/evently"
)

// BoxOffice serves the requests of one event from memory. It holds the ledger with the entries that are decided but not
// yet committed (the unsaved window), and every answer that waits for them.
//
// Entries are gathered while one batch commits; the commit releases the answers of that batch and lets the next one go. An
// answer that changes nothing, such as a refusal, waits too: it may rest on unsaved entries, and a superseded owner must
// not give it. So no answer leaves before the journal has confirmed, after the request came, that this owner still is the owner.
//
// When a batch fails there is no way back from the decisions that rest on it: the box office is retired, its callers are
// told to come again, and the next activation loads what was committed.
//
// T identifies a caller. A BoxOffice is pure, holds no lock and must not be used concurrently.
type BoxOffice[T any] struct {
	ledger   *evently.Ledger
	epoch    uint64
	owner    [16]byte
	decision evently.Decision

	gathering  *window[T] // takes what is decided now
	committing *window[T] // is with the journal, or empty and idle
	busy       bool       // committing is with the journal
	waiting    int
}

// WaitingMax bounds the callers of one box office that wait for a commit, and so the size of its batches.
const WaitingMax = 8192

// window is the entries of one batch and the answers that wait for it.
type window[T any] struct {
	batch   evently.Batch
	answers []Answer[T]
	state   evently.State // after the batch
}

// Answer tells a caller the outcome of a request.
type Answer[T any] struct {
	Caller T
	Reply  evently.Reply
	Err    error
}

// NewBoxOffice opens the box office of a tenure.
func NewBoxOffice[T any](tenure *evently.Tenure) *BoxOffice[T] {
	return &BoxOffice[T]{
		ledger: tenure.Ledger, epoch: tenure.Epoch, owner: tenure.Owner,
		gathering: new(window[T]), committing: new(window[T]),
	}
}

// Step decides a request at a moment. It returns false when too much waits for a commit; then nothing was decided. What is due by
// then is done first, all of it: holds expire, so that their seats can be had, and seats that are free are given to those who wait
// for them, so that nobody overtakes.
func (b *BoxOffice[T]) Step(caller T, request *evently.Request, at time.Time) bool {
	if b.waiting >= WaitingMax {
		return false
	}
	for b.due(at) {
		if !b.Tick(at) {
			return false
		}
	}
	answer := Answer[T]{Caller: caller, Err: b.ledger.Decide(request.Command, at, &b.decision)}
	if answer.Err == nil {
		d := &b.decision
		answer.Reply = evently.Reply{Reservation: d.Reservation, Event: d.Event, Waiter: d.Waiter, Replayed: d.Replayed}
		b.post(request.Who, request.ID)
	}
	b.gathering.answers = append(b.gathering.answers, answer)
	b.waiting++
	return true
}

// Tick does what is due at a moment: holds expire, waiters are served or closed, a cancelled event's reservations end. One call does at
// most evently.SweepMax of each; NextDue says whether more is due. It returns false when nothing was due, or too much waits for a
// commit.
func (b *BoxOffice[T]) Tick(at time.Time) bool {
	if !b.due(at) && !b.sweeping() || len(b.gathering.batch.Entries) >= WaitingMax {
		return false
	}
	var command evently.Command = (*evently.Expire)(nil)
	if b.sweeping() {
		command = (*evently.Sweep)(nil)
	}
	// Neither command can be refused.
	if err := b.ledger.Decide(command, at, &b.decision); err != nil {
		panic("box office: " + err.Error())
	}
	b.post(0, "")
	return true
}

// due reports whether something is due that frees seats or gives them away. A cancelled event sells no more.
func (b *BoxOffice[T]) due(at time.Time) bool {
	due := b.ledger.NextDue()
	return !due.IsZero() && !due.After(at) && !b.sweeping()
}

func (b *BoxOffice[T]) sweeping() bool {
	return b.ledger.Event().Status == evently.EventCancelled && b.ledger.Live()+b.ledger.Waiting() > 0
}

func (b *BoxOffice[T]) post(who evently.UserID, requestID string) {
	for i := range b.decision.Entries {
		entry := &b.decision.Entries[i]
		if entry.Waiter {
			who = 0 // to serve waiters, which comes last, is not what was asked for
		}
		entry.Who, entry.RequestID = who, requestID
		b.ledger.Post(entry)
	}
	b.gathering.batch.Entries = append(b.gathering.batch.Entries, b.decision.Entries...)
	if err := b.ledger.Check(); err != nil {
		panic(err.Error())
	}
}

// Flush returns the next batch to append, or nil when there is nothing to append or one is under way. The batch stays the
// caller's until Committed or Retire.
func (b *BoxOffice[T]) Flush() *evently.Batch {
	next := b.gathering
	if b.busy || len(next.answers) == 0 && len(next.batch.Entries) == 0 {
		return nil
	}
	b.gathering, b.committing, b.busy = b.committing, next, true
	next.state.Event = b.ledger.Event()
	next.state.Tiers = nil // the state before is shared with its readers
	b.ledger.Availability(&next.state.Availability)
	next.batch = evently.Batch{
		Event: next.state.Event.ID, Epoch: b.epoch, Owner: b.owner,
		PrevSeq: b.ledger.Seq() - uint64(len(next.batch.Entries)), Entries: next.batch.Entries,
		Tiers: next.state.Tiers, Waiting: next.state.Waiting, NextDue: b.ledger.NextDue(),
	}
	return &next.batch
}

// Committed releases the answers of the batch that Flush gave, in the order of their requests, and returns the state that
// is committed now. The answers are valid until the next Flush.
func (b *BoxOffice[T]) Committed(now time.Time) ([]Answer[T], *evently.State) {
	done := b.committing
	answers, state := done.answers, done.state
	state.AsOf = now
	if len(b.gathering.answers) > 0 { // busy: a next batch takes the room of this one
		clear(done.batch.Entries)
		done.answers, done.batch.Entries = done.answers[:0], done.batch.Entries[:0]
	} else { // of many events few are busy, and the others are to be small
		*done, b.decision = window[T]{}, evently.Decision{}
	}
	b.busy = false
	b.waiting -= len(answers)
	return answers, &state
}

// Retire closes the box office and returns the callers that still wait.
func (b *BoxOffice[T]) Retire() []T {
	callers := make([]T, 0, b.waiting)
	for _, w := range []*window[T]{b.committing, b.gathering} {
		for i := range w.answers {
			callers = append(callers, w.answers[i].Caller)
		}
	}
	b.gathering, b.committing, b.waiting = nil, nil, 0
	return callers
}

// NextDue is the moment of the next Tick, or zero.
func (b *BoxOffice[T]) NextDue() time.Time { return b.ledger.NextDue() }

// Waiting is the number of callers that wait for a commit.
func (b *BoxOffice[T]) Waiting() int { return b.waiting }

// Idle reports whether nothing is unsaved and nobody waits.
func (b *BoxOffice[T]) Idle() bool {
	return !b.busy && b.waiting == 0 && len(b.gathering.batch.Entries) == 0
}
