package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// 64 clients want more seats than there are, and repeat many requests, some of them while the first is in flight.
func TestPromise_ConcurrentClientsNeverOversellNorDoubleAKey(t *testing.T) {
	t.Parallel()
	const capacity, clients = 500, 64
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--rate-limit-book=off")
	path := n.CreateEvent(t, capacity, time.Hour)
	tokens := n.Users(t, 8)
	load := proctest.Checking(t, n.API)

	var sold, doubled, replays atomic.Int64
	var ids sync.Map // reservation -> key
	var crowd sync.WaitGroup
	for number := range clients {
		crowd.Go(func() {
			c := &proctest.Client{HTTP: load, API: n.API, Token: tokens[number%len(tokens)]}
			random := rand.New(rand.NewPCG(uint64(number), 1))
			for try, soldOut := 0, 0; soldOut < 3; try++ {
				key := fmt.Sprintf("client-%d-%d", number, try)
				quantity := 1 + random.IntN(3)
				body := fmt.Sprintf(`{"quantity":%d}`, quantity)
				answers := make([]proctest.Answer, 1+random.IntN(3))
				var copies sync.WaitGroup
				for i := range answers {
					copies.Go(func() {
						var err error
						if answers[i], err = c.Send(t.Context(), "POST", path+"/book", key, body); err != nil {
							t.Error(err)
						}
					})
				}
				copies.Wait()
				first := proctest.Answer{}
				for _, a := range answers {
					switch {
					case a.Status == 409:
						continue
					case a.Status != 201:
						t.Errorf("key %s: %d %s", key, a.Status, a.Body)
						return
					}
					if a.Replayed {
						replays.Add(1)
					} else {
						sold.Add(int64(quantity))
						if before, taken := ids.LoadOrStore(a.Seats(t).ID, key); taken {
							t.Errorf("reservation %s for keys %s and %s", a.Body, before, key)
						}
					}
					if first.Body != nil && !bytes.Equal(first.Body, a.Body) {
						doubled.Add(1)
						t.Errorf("key %s has two answers:\n%s\n%s", key, first.Body, a.Body)
					}
					first = a
				}
				if first.Body == nil {
					soldOut++
				}
			}
		})
	}
	crowd.Wait()
	counts := n.Client(t, "").Must(t, 200, "GET", path+"/availability", "", "").Seats(t)
	if int(sold.Load()) != counts.Held || counts.Held+counts.Available != capacity || counts.Available < 0 {
		t.Errorf("clients were given %d seats; the event says %+v", sold.Load(), counts)
	}
	if counts.Available > 2 { // at most what is too little for a request of three
		t.Errorf("%d seats left though all was refused", counts.Available)
	}
	if replays.Load() == 0 {
		t.Error("no request was repeated: the test shows nothing")
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	proctest.Verified(t, dir)
}

// A seat is back within a second of expires_at, and not before it.
func TestPromise_HoldsExpireToTheSecond(t *testing.T) {
	n := proctest.Up(t, proctest.DataDir(t))
	path := n.CreateEvent(t, 1, 2*time.Second)
	c := n.Client(t, n.Users(t, 1)[0])
	hold := c.Must(t, 201, "POST", path+"/book", "first", `{"quantity":1}`).Seats(t)
	proctest.Eventually(t, 30*time.Second, func() error {
		now := time.Now()
		available := c.Must(t, 200, "GET", path+"/availability", "", "").Seats(t).Available
		switch {
		case available == 1 && now.Before(hold.ExpiresAt):
			t.Fatalf("the seat was free %s before it expired", hold.ExpiresAt.Sub(now))
		case available == 0 && now.After(hold.ExpiresAt.Add(time.Second)):
			t.Fatalf("the seat was still held %s after it expired", now.Sub(hold.ExpiresAt))
		case available == 0:
			return errors.New("held")
		}
		return nil
	})
	c.Must(t, 410, "POST", "/reservations/"+hold.ID+"/confirm", "", "")
	c.Must(t, 201, "POST", path+"/book", "second", `{"quantity":1}`)
	if again := c.Must(t, 201, "POST", path+"/book", "first", `{"quantity":1}`); !again.Replayed {
		t.Errorf("the first key: %s, want its first answer", again.Body)
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
}

// Kill the node, and with it its Postgres, in the middle of the load, again and again. What was acknowledged is there; what
// was not is settled by asking again with the same key.
func TestPromise_KillMinusNineLosesNothing(t *testing.T) {
	t.Parallel()
	const rounds, clients = 20, 16
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--rate-limit-book=off")
	path := n.CreateEvent(t, 1_000_000, time.Hour)
	tokens := n.Users(t, 4)
	var promises []*proctest.Promise
	for round := range rounds {
		load := proctest.Plain(t)
		made := make([][]*proctest.Promise, clients)
		var acknowledged atomic.Int64
		var crowd sync.WaitGroup
		for number := range clients {
			crowd.Go(func() {
				c := &proctest.Client{HTTP: load, API: n.API, Token: tokens[number%len(tokens)]}
				made[number] = bookUntilKilled(t, c, path, fmt.Sprintf("%d-%d", round, number), &acknowledged)
			})
		}
		proctest.Eventually(t, proctest.UpMax, func() error {
			if acknowledged.Load() < 50+int64(rand.IntN(100)) {
				return errors.New("not enough load yet")
			}
			return nil
		})
		n.Signal(t, syscall.SIGKILL)
		n.Exit(t, proctest.StopMax)
		crowd.Wait()
		for _, list := range made {
			promises = append(promises, list...)
		}
		n = proctest.Up(t, dir, "--rate-limit-book=off")
	}

	unknown, seatsHeld, seatsBooked := 0, 0, 0
	ids := make(map[string]string)
	again := proctest.Plain(t)
	for _, p := range promises {
		p.Client.API, p.Client.HTTP = n.API, again
		held, booked := p.Settle(t)
		seatsHeld += held
		seatsBooked += booked
		if p.Booked == nil {
			unknown++
		}
		if before, taken := ids[p.ID]; taken {
			t.Errorf("reservation %s for keys %s and %s", p.ID, before, p.Key)
		}
		ids[p.ID] = p.Key
	}
	t.Logf("%d keys over %d kills, %d of them without an answer", len(promises), rounds, unknown)
	counts := n.Client(t, "").Must(t, 200, "GET", path+"/availability", "", "").Seats(t)
	if counts.Held != seatsHeld || counts.Booked != seatsBooked {
		t.Errorf("clients count %d held and %d booked, the event says %+v", seatsHeld, seatsBooked, counts)
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	proctest.Verified(t, dir)
}

// bookUntilKilled books, confirms and cancels until a request has no answer.
func bookUntilKilled(t *testing.T, c *proctest.Client, path, name string, acknowledged *atomic.Int64) (made []*proctest.Promise) {
	for try := 0; ; try++ {
		p := &proctest.Promise{Client: c, Event: path, Key: fmt.Sprintf("%s-%d", name, try), Quantity: 1 + try%3}
		made = append(made, p)
		a, err := c.Send(t.Context(), "POST", path+"/book", p.Key, p.Body())
		if err != nil || a.Status == 503 {
			return made
		}
		if a.Status != 201 || a.Replayed {
			t.Errorf("key %s: %d %s", p.Key, a.Status, a.Body)
			return made
		}
		p.Booked, p.ID = a.Body, a.Seats(t).ID
		acknowledged.Add(1)
		for _, step := range []struct {
			path string
			done *bool
			skip bool
		}{
			{"/reservations/" + p.ID + "/confirm", &p.Confirmed, try%2 == 0},
			{"/bookings/" + p.ID + "/cancel", &p.Cancelled, try%4 != 1},
		} {
			if step.skip {
				continue
			}
			a, err := c.Send(t.Context(), "POST", step.path, "", "")
			if err != nil || a.Status == 503 {
				p.Tried = true
				return made
			}
			if a.Status != 200 {
				t.Errorf("%s: %d %s", step.path, a.Status, a.Body)
				return made
			}
			*step.done = true
		}
	}
}
