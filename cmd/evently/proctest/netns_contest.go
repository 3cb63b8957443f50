package proctest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// contestAttemptMax bounds the wait for an answer, and contestPauseMax the pause after it, which doubles from retryPause on.
	contestAttemptMax = 5 * time.Second
	contestPauseMax   = time.Second
	// refusalMax bounds the answer of a node that serves nothing. It hopes for an owner for as long as a request may take, 10 s.
	refusalMax = 12 * time.Second
)

// Contest is bookings that several nodes are asked for at the same time, with the same key, whatever the nodes think of each
// other. All that answer have to give the same answer.
//
// Its methods are for the test's own goroutine.
type Contest struct {
	*Crowd // of its promises, for Audit; nobody comes by itself

	scarce  int // how many of the events have few seats
	rounds  int
	ctx     context.Context
	keys    []*contested
	pending sync.WaitGroup
}

// contested is a key and what the nodes answered to it.
type contested struct {
	*Promise
	scarce bool

	mu      sync.Mutex
	answers map[*Server]Answer
}

// Contest publishes a number of events. Half of them have 1, 2, 3 ... seats, so that in every round some have their last one to
// give away, the others have plenty. The clients are those of a crowd.
func (c *Cluster) Contest(t testing.TB, crowd *Crowd, events int) *Contest {
	t.Helper()
	k := &Contest{Crowd: &Crowd{t: t, load: crowd.load, Users: crowd.Users}, scarce: events / 2}
	admin := c.Members[0].Client(t, c.Members[0].Login(t))
	for i := range events {
		capacity := plenty
		if i < k.scarce {
			capacity = 1 + i
		}
		made := admin.Must(t, 201, "POST", "/admin/events", "", EventBody(fmt.Sprint("Contest ", i), capacity, holdTTL))
		k.Events = append(k.Events, "/events/"+made.Seats(t).ID)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k.ctx = ctx
	t.Cleanup(func() {
		cancel()
		k.pending.Wait()
	})
	return k
}

// keysPerEvent compete in a round.
const keysPerEvent = 2

// Round is some bookings of each event that some nodes are asked for.
type Round struct {
	began time.Time
	keys  []*contested
	asked map[*Server]*sync.WaitGroup // until it has answered for all events
}

// Round asks every one of the nodes for two bookings of each event, all with the same two keys. Each is asked again, as long as it does not
// answer or says 503, until the test ends.
func (k *Contest) Round(servers ...*Server) *Round {
	k.rounds++
	r := &Round{began: time.Now(), asked: make(map[*Server]*sync.WaitGroup)}
	for _, s := range servers {
		r.asked[s] = new(sync.WaitGroup)
	}
	for number := range keysPerEvent * len(k.Events) {
		event := number % len(k.Events)
		key := &contested{
			Promise: &Promise{Client: k.Users[number%len(k.Users)], Event: k.Events[event], Key: fmt.Sprintf("round-%d-%d", k.rounds, number), Quantity: 1},
			scarce:  event < k.scarce, answers: make(map[*Server]Answer),
		}
		r.keys = append(r.keys, key)
		for _, s := range servers {
			k.pending.Add(1)
			r.asked[s].Go(func() {
				defer k.pending.Done()
				if answer, ok := k.answer(s, key.Promise); ok {
					key.mu.Lock()
					defer key.mu.Unlock()
					key.answers[s] = answer
				}
			})
		}
	}
	k.keys = append(k.keys, r.keys...)
	return r
}

// answer asks one node until it answers for good.
func (k *Contest) answer(s *Server, p *Promise) (answer Answer, ok bool) {
	node := &Client{HTTP: p.Client.HTTP, API: s.API, Token: p.Client.Token}
	var err error
	for pause := retryPause; ; pause = min(2*pause, contestPauseMax) {
		k.requests.Add(1)
		ctx, cancel := context.WithTimeout(k.ctx, contestAttemptMax)
		answer, err = node.Send(ctx, http.MethodPost, p.Event+"/book", p.Key, p.Body())
		cancel()
		switch {
		case err != nil:
			k.unreached.Add(1)
		case answer.Status == http.StatusServiceUnavailable:
			k.unavailable.Add(1)
		default:
			return answer, true
		}
		select {
		case <-time.After(pause):
		case <-k.ctx.Done():
			return answer, false
		}
	}
}

// Await waits until each of the nodes has answered for every event of the round, and returns how long after the round's begin
// the last one did.
func (r *Round) Await(t testing.TB, within time.Duration, servers ...*Server) time.Duration {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range servers {
			r.asked[s].Wait()
		}
	}()
	select {
	case <-done:
	case <-time.After(within):
		t.Fatalf("not all events were answered for within %s", within)
	}
	return time.Since(r.began)
}

// Answered says how many of the bookings that a node was asked for it has answered.
func (r *Round) Answered(s *Server) (answered, asked int) {
	for _, key := range r.keys {
		key.mu.Lock()
		if _, ok := key.answers[s]; ok {
			answered++
		}
		key.mu.Unlock()
	}
	return answered, len(r.keys)
}

// Refused waits until nodes are not ready and say of every event that they cannot serve it, and returns how long it took them to say
// so of all. It asks for keys of the round, which others have to have answered by now: so nothing is booked anew.
func (r *Round) Refused(t testing.TB, within time.Duration, servers ...*Server) (took time.Duration) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}, Timeout: refusalMax}
	defer client.CloseIdleConnections()
	Eventually(t, within, func() error {
		began, asked, wrong := time.Now(), sync.WaitGroup{}, make(chan error, len(servers)*(1+len(r.keys)))
		for _, s := range servers {
			if s.Probe(t.Context(), "/readyz") == nil {
				wrong <- fmt.Errorf("%s is ready", s.API)
			}
			for _, key := range r.keys {
				asked.Go(func() {
					one := &Client{HTTP: client, API: s.API, Token: key.Client.Token}
					answer, err := one.Send(t.Context(), http.MethodPost, key.Event+"/book", key.Key, key.Body())
					if err != nil {
						wrong <- fmt.Errorf("%s, asked for %s: %w", s.API, key.Event, err)
					} else if answer.Status != http.StatusServiceUnavailable {
						wrong <- fmt.Errorf("%s, asked for %s: %d %s", s.API, key.Event, answer.Status, answer.Body)
					}
				})
			}
		}
		asked.Wait()
		took = time.Since(began)
		select {
		case err := <-wrong:
			return err
		default:
			return nil
		}
	})
	return took
}

// Settle waits until every node has answered for every key, and compares the answers: for one key all name one reservation, or
// all say that the event is sold out, since nobody gives seats back. What they promised becomes a promise, for Audit.
func (k *Contest) Settle(t testing.TB, within time.Duration) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.pending.Wait()
	}()
	select {
	case <-done:
	case <-time.After(within):
		t.Fatalf("not every node has answered for every key within %s", within)
	}
	reserved, replayed, soldOut := 0, 0, 0
	for _, key := range k.keys {
		var first *Answer // of the nodes; all have to agree with it
		for s, answer := range key.answers {
			soldOut := answer.Status == http.StatusConflict && key.scarce && bytes.Contains(answer.Body, []byte(`"sold_out"`))
			if answer.Status != http.StatusCreated && !soldOut {
				t.Errorf("%s, key %s at %s: %d %s", key.Event, key.Key, s.API, answer.Status, answer.Body)
				continue
			}
			if soldOut {
				answer.Body = nil // it differs from node to node: it names the request
			}
			if answer.Replayed {
				replayed++
			}
			if first == nil {
				first = &answer
			} else if answer.Status != first.Status || !bytes.Equal(answer.Body, first.Body) {
				t.Errorf("%s, key %s: one node answered\n%d %s and %s\n%d %s", key.Event, key.Key, first.Status, first.Body, s.API, answer.Status, answer.Body)
			}
		}
		switch {
		case first == nil:
		case first.Status == http.StatusConflict:
			soldOut++
			k.soldOut.Add(1)
		default:
			key.Booked, key.ID = first.Body, first.Seats(t).ID
			k.promises = append(k.promises, key.Promise)
			reserved++
			k.acknowledged.Add(1)
		}
	}
	t.Logf("%d keys contested: %d reservations, which were answered again %d times, and %d times sold out", len(k.keys), reserved, replayed, soldOut)
	k.keys = slices.Delete(k.keys, 0, len(k.keys))
}
