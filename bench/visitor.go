package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/evently/evently"
)

// visitor makes the visits of one connection, one after the other.
type visitor struct {
	load       *Load
	client     *Client
	clock      clock
	random     *rand.Rand
	ranks      *rand.PCG // of samples: not of random, as visits must not depend on answers
	popularity *zipf
	recorder   *recorder
	told       Told
	key        Key
	request    []byte
	last       time.Duration // when the last answer came
}

func newVisitor(l *Load, number int, popularity *zipf, recorder *recorder) *visitor {
	dial := l.dial
	if dial == nil {
		dial = l.Endpoint.dial
	}
	return &visitor{
		load: l, client: newClient(dial), popularity: popularity, recorder: recorder,
		random: rand.New(rand.NewPCG(l.Seed, uint64(number)+1)), ranks: rand.NewPCG(l.Seed, ^uint64(number)),
		key: Key{l.Keys, uint64(number) << 40},
	}
}

// closed makes visits until the time is over or none is left.
func (v *visitor) closed(ctx context.Context, left *atomic.Int64) error {
	due, end := v.clock.now(), v.load.Warmup+v.load.Duration
	for due < end && left.Add(-1) >= 0 {
		var err error
		if due, err = v.visit(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

// open makes the visits that are due.
func (v *visitor) open(ctx context.Context, due <-chan time.Duration) error {
	end := v.load.Warmup + v.load.Duration + drainMax
	for at := range due {
		now := v.clock.now()
		if now >= end {
			v.recorder.unfinished(at, now)
			continue
		}
		v.recorder.scheduled(at, now)
		if _, err := v.visit(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// visit makes a visit that is due at a moment and returns when it was over. The error is that of ctx, or that the target cannot be
// reached.
func (v *visitor) visit(ctx context.Context, due time.Duration) (time.Duration, error) {
	event := v.load.Events[v.popularity.draw(v.random)]
	user := &v.load.Users[v.random.IntN(len(v.load.Users))]
	kind := v.random.Float64()
	of := func(share float64) bool { // takes a share off
		taken := kind < share
		kind -= share
		return taken
	}
	mix := &v.load.Workload.Mix
	if of(mix.Reads) {
		return v.read(ctx, due, event, user)
	}
	v.key.Number++
	id, at, err := v.book(ctx, due, event, user)
	if err != nil || id == (evently.ReservationID{}) {
		return at, err
	}
	switch {
	case of(mix.Retries):
		return v.retry(ctx, at, id, user)
	case of(mix.Confirms):
		_, at, err = v.confirm(ctx, at, id, user)
	case of(mix.Cancels):
		var done bool
		if done, at, err = v.confirm(ctx, at, id, user); err == nil && done {
			at, err = v.cancel(ctx, at, id, user)
		}
	}
	return at, err
}

// ask sends v.request. An answer without a status is none: the outcome is unknown.
func (v *visitor) ask(ctx context.Context) (answer Answer, at time.Duration, err error) {
	answer, err = v.client.Do(ctx, v.request)
	at = v.clock.now()
	v.last = at
	if v.load.Answered != nil {
		v.load.Answered.Add(1)
	}
	if err == nil {
		return answer, at, nil
	}
	// The end of a context closes the connection, and may do so before it has come to this context.
	ended := ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
	if ended || errors.As(err, new(unreachable)) {
		return Answer{}, at, err
	}
	v.example("no answer: %v", err)
	return Answer{}, at, nil
}

const exampleMax = 300 // bytes of an answer

// example keeps the first failure.
func (v *visitor) example(format string, args ...any) {
	if v.recorder.failure == "" {
		v.recorder.failure = fmt.Sprintf(format, args...)
	}
}

// unexpected keeps an answer as an example of a failure.
func (v *visitor) unexpected(what asked, answer Answer) {
	if answer.Status != 0 {
		v.example("%s: %d %.*s", what, answer.Status, exampleMax, answer.Body)
	}
}

func (v *visitor) read(ctx context.Context, due time.Duration, event evently.EventID, user *User) (time.Duration, error) {
	v.request = v.load.Endpoint.AppendRead(v.request[:0], event, user.Token)
	answer, at, err := v.ask(ctx)
	if err != nil {
		return at, err
	}
	came := read
	var text [32]byte
	if !v.good(answer, 200) || !v.load.Unchecked && !bytes.Contains(answer.Body, event.AppendText(text[:0])) {
		came = failed
		v.unexpected(askedRead, answer)
	}
	v.recorder.answered(askedRead, came, due, at)
	return at, nil
}

// good reports whether an answer has the status that stands for success.
func (v *visitor) good(answer Answer, status int) bool {
	return answer.Status == status || v.load.Unchecked && 200 <= answer.Status && answer.Status <= 299
}

// unsure reports whether a request may have been carried out although its answer does not say so.
func unsure(answer Answer) bool { return answer.Status < 400 || answer.Status >= 500 }

var soldOut = []byte(`"code":"` + string(evently.CodeSoldOut) + `"`)

// book asks for a seat with a new key. The id is zero when none was given.
func (v *visitor) book(ctx context.Context, due time.Duration, event evently.EventID, user *User) (
	id evently.ReservationID, at time.Duration, err error,
) {
	v.request = v.load.Endpoint.AppendBook(v.request[:0], event, user.Token, v.key)
	answer, at, err := v.ask(ctx)
	if err != nil {
		v.told.unknown(event, 1)
		return id, at, err
	}
	came, given := failed, false
	switch {
	case v.good(answer, 201):
		if id, given = v.reservation(answer, event); given && !answer.Replayed {
			came = booked
		}
	case answer.Status == 409 && bytes.Contains(answer.Body, soldOut):
		came = refused
		v.told.refused(event, 1)
	}
	v.recorder.answered(askedBook, came, due, at)
	if given && !v.load.Unchecked {
		v.told.Promises = append(v.told.Promises, Promise{ID: id, User: user.ID})
		v.told.sample(keySample{v.key, id, user, v.ranks.Uint64()})
	}
	if came == failed {
		v.unexpected(askedBook, answer)
		if !given && unsure(answer) {
			v.told.unknown(event, 1)
		}
		return evently.ReservationID{}, at, nil
	}
	return id, at, nil
}

var idField = []byte(`"id":"`)

const reservationIDLen = len("rsv_") + 26

// reservation finds the id in an answer that is a reservation of an event.
func (v *visitor) reservation(answer Answer, event evently.EventID) (id evently.ReservationID, ok bool) {
	at := bytes.Index(answer.Body, idField) + len(idField)
	if at < len(idField) || len(answer.Body) < at+reservationIDLen {
		return id, false
	}
	id, err := evently.ParseReservationID(string(answer.Body[at : at+reservationIDLen]))
	return id, err == nil && (v.load.Unchecked || id.Event == event)
}

// retry sends the booking that was just answered once more.
func (v *visitor) retry(ctx context.Context, due time.Duration, id evently.ReservationID, user *User) (time.Duration, error) {
	v.request = v.load.Endpoint.AppendBook(v.request[:0], id.Event, user.Token, v.key)
	answer, at, err := v.ask(ctx)
	if err != nil {
		return at, err
	}
	came := failed
	if v.good(answer, 201) {
		again, ok := v.reservation(answer, id.Event)
		switch {
		case ok && again == id:
			came = replayed
		case ok:
			v.told.Doubled = append(v.told.Doubled, fmt.Sprintf("key %s was answered with %s and then with %s", v.key.Text(), id, again))
			v.told.Promises = append(v.told.Promises, Promise{ID: again, User: user.ID})
		}
	}
	if came == failed {
		v.unexpected(askedBook, answer)
	}
	v.recorder.answered(askedBook, came, due, at)
	return at, nil
}

var (
	confirmedField = []byte(`"status":"confirmed"`)
	cancelledField = []byte(`"status":"cancelled"`)
)

func (v *visitor) confirm(ctx context.Context, due time.Duration, id evently.ReservationID, user *User) (bool, time.Duration, error) {
	v.request = v.load.Endpoint.AppendConfirm(v.request[:0], id, user.Token)
	return v.change(ctx, due, askedConfirm, confirmed, confirmedField, evently.Confirmed)
}

func (v *visitor) cancel(ctx context.Context, due time.Duration, id evently.ReservationID, user *User) (time.Duration, error) {
	v.request = v.load.Endpoint.AppendCancel(v.request[:0], id, user.Token)
	_, at, err := v.change(ctx, due, askedCancel, cancelled, cancelledField, evently.Cancelled)
	return at, err
}

// change sends v.request, which changes the reservation that was promised last.
func (v *visitor) change(ctx context.Context, due time.Duration, what asked, want outcome, field []byte, status evently.ReservationStatus) (
	done bool, at time.Duration, err error,
) {
	answer, at, err := v.ask(ctx)
	var promise *Promise
	if n := len(v.told.Promises); n > 0 {
		promise = &v.told.Promises[n-1]
	} else {
		promise = new(Promise) // of a ceiling
	}
	if err != nil {
		promise.Unsure = true
		return false, at, err
	}
	if v.good(answer, 200) && (v.load.Unchecked || bytes.Contains(answer.Body, field)) {
		promise.Status = status
		v.recorder.answered(what, want, due, at)
		return true, at, nil
	}
	promise.Unsure = promise.Unsure || unsure(answer)
	v.unexpected(what, answer)
	v.recorder.answered(what, failed, due, at)
	return false, at, nil
}
