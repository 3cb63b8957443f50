package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/http/apitest"
)

// client makes requests for one user and remembers what it was promised.
type client struct {
	http  *http.Client
	api   string
	token string
}

type answer struct {
	status   int
	replayed bool
	body     []byte
}

// send returns the answer, or an error when there was none: then the outcome is unknown.
func (c *client) send(ctx context.Context, method, path, key, body string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.api+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header.Get("Idempotency-Replayed") == "true", text}, err
}

// tally is the part of a reservation or of an availability that the tests add up.
type tally struct {
	ID                                string
	Status                            string
	Quantity                          int
	ExpiresAt                         time.Time `json:"expires_at"`
	Capacity, Available, Held, Booked int
}

func (a answer) seats(t testing.TB) (s tally) {
	t.Helper()
	if err := json.Unmarshal(a.body, &s); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return s
}

// plain is a client for load that is to be heavy: a check of an answer costs as much as some twenty requests.
func plain(t *testing.T) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// checking is a client for load, which holds every answer to the API's document. It does not wait for ever.
func checking(t *testing.T, api string) *http.Client {
	t.Helper()
	c := apitest.NewClient(t, api)
	c.Timeout = 20 * time.Second
	return c
}

// users registers users on a node and returns their tokens.
func users(t *testing.T, n *upNode, count int) (tokens []string) {
	t.Helper()
	checked := &client{http: apitest.NewClient(t, n.api), api: n.api}
	for i := range count {
		email := fmt.Sprintf("user%d@example.com", i)
		body := fmt.Sprintf(`{"email":%q,"password":"a-long-enough-password"`, email)
		checked.must(t, 201, "POST", "/register", "", body+`,"name":"User"}`)
		var login struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal(checked.must(t, 200, "POST", "/login", "", body+`}`).body, &login); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, login.AccessToken)
	}
	return tokens
}

// must sends a request that has an answer of a status.
func (c *client) must(t *testing.T, wantStatus int, method, path, key, body string) answer {
	t.Helper()
	got, err := c.send(t.Context(), method, path, key, body)
	if err != nil || got.status != wantStatus {
		t.Fatalf("%s %s: got %d %s (%v), want %d", method, path, got.status, got.body, err, wantStatus)
	}
	return got
}

// createEvent publishes an event of one tier.
func createEvent(t *testing.T, n *upNode, capacity int, ttl time.Duration) (path string) {
	t.Helper()
	admin := &client{http: apitest.NewClient(t, n.api), api: n.api, token: n.login(t)}
	starts := time.Now().Add(48 * time.Hour).UTC()
	body := fmt.Sprintf(`{"name":"Final","starts_at":%q,"ends_at":%q,"timezone":"Europe/Vienna","currency":"EUR","capacity":%d,
		"base_price_minor":1000,"hold_ttl_seconds":%d}`, starts.Format(time.RFC3339), starts.Add(time.Hour).Format(time.RFC3339),
		capacity, int(ttl.Seconds()))
	return "/events/" + admin.must(t, 201, "POST", "/admin/events", "create", body).seats(t).ID
}

// verified runs `evently verify` and expects no difference.
func verified(t *testing.T, dir string) {
	t.Helper()
	verify := launch(t, dir, "verify")
	if exit := verify.exit(t, upMax); exit != exitOK {
		t.Errorf("verify: exit %d\n%s", exit, verify.output())
	}
}

// 64 clients want more seats than there are, and repeat many requests, some of them while the first is in flight.
func TestPromise_ConcurrentClientsNeverOversellNorDoubleAKey(t *testing.T) {
	const capacity, clients = 500, 64
	dir := dataDir(t)
	n := up(t, dir, "--rate-limit-book=off")
	path := createEvent(t, n, capacity, time.Hour)
	tokens := users(t, n, 8)
	load := checking(t, n.api)

	var sold, doubled, replays atomic.Int64
	var ids sync.Map // reservation -> key
	var crowd sync.WaitGroup
	for number := range clients {
		crowd.Go(func() {
			c := &client{http: load, api: n.api, token: tokens[number%len(tokens)]}
			random := rand.New(rand.NewPCG(uint64(number), 1))
			for try, soldOut := 0, 0; soldOut < 3; try++ {
				key := fmt.Sprintf("client-%d-%d", number, try)
				quantity := 1 + random.IntN(3)
				body := fmt.Sprintf(`{"quantity":%d}`, quantity)
				answers := make([]answer, 1+random.IntN(3))
				var copies sync.WaitGroup
				for i := range answers {
					copies.Go(func() {
						var err error
						if answers[i], err = c.send(t.Context(), "POST", path+"/book", key, body); err != nil {
							t.Error(err)
						}
					})
				}
				copies.Wait()
				first := answer{}
				for _, a := range answers {
					switch {
					case a.status == 409:
						continue
					case a.status != 201:
						t.Errorf("key %s: %d %s", key, a.status, a.body)
						return
					}
					if a.replayed {
						replays.Add(1)
					} else {
						sold.Add(int64(quantity))
						if before, taken := ids.LoadOrStore(a.seats(t).ID, key); taken {
							t.Errorf("reservation %s for keys %s and %s", a.body, before, key)
						}
					}
					if first.body != nil && !bytes.Equal(first.body, a.body) {
						doubled.Add(1)
						t.Errorf("key %s has two answers:\n%s\n%s", key, first.body, a.body)
					}
					first = a
				}
				if first.body == nil {
					soldOut++
				}
			}
		})
	}
	crowd.Wait()
	counts := (&client{http: apitest.NewClient(t, n.api), api: n.api}).must(t, 200, "GET", path+"/availability", "", "").seats(t)
	if int(sold.Load()) != counts.Held || counts.Held+counts.Available != capacity || counts.Available < 0 {
		t.Errorf("clients were given %d seats; the event says %+v", sold.Load(), counts)
	}
	if counts.Available > 2 { // at most what is too little for a request of three
		t.Errorf("%d seats left though all was refused", counts.Available)
	}
	if replays.Load() == 0 {
		t.Error("no request was repeated: the test shows nothing")
	}
	n.signal(t, syscall.SIGTERM)
	n.exit(t, stopMax)
	verified(t, dir)
}

// A seat is back within a second of expires_at, and not before it.
func TestPromise_HoldsExpireToTheSecond(t *testing.T) {
	n := up(t, dataDir(t))
	path := createEvent(t, n, 1, 2*time.Second)
	c := &client{http: apitest.NewClient(t, n.api), api: n.api, token: users(t, n, 1)[0]}
	hold := c.must(t, 201, "POST", path+"/book", "first", `{"quantity":1}`).seats(t)
	eventually(t, 30*time.Second, func() error {
		now := time.Now()
		available := c.must(t, 200, "GET", path+"/availability", "", "").seats(t).Available
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
	c.must(t, 410, "POST", "/reservations/"+hold.ID+"/confirm", "", "")
	c.must(t, 201, "POST", path+"/book", "second", `{"quantity":1}`)
	if again := c.must(t, 201, "POST", path+"/book", "first", `{"quantity":1}`); !again.replayed {
		t.Errorf("the first key: %s, want its first answer", again.body)
	}
	n.signal(t, syscall.SIGTERM)
	n.exit(t, stopMax)
}

// promise is what a client was told of one key.
type promise struct {
	client    *client
	key, body string
	booked    []byte // the answer; nil: not known
	id        string
	confirmed bool // acknowledged
	cancelled bool // acknowledged
	tried     bool // a later request has no answer, so that the state may be ahead of what is known
}

// Kill the node, and with it its Postgres, in the middle of the load, again and again. What was acknowledged is there; what
// was not is settled by asking again with the same key.
func TestPromise_KillMinusNineLosesNothing(t *testing.T) {
	const rounds, clients = 20, 16
	dir := dataDir(t)
	n := up(t, dir, "--rate-limit-book=off")
	path := createEvent(t, n, 1_000_000, time.Hour)
	tokens := users(t, n, 4)
	var promises []*promise
	for round := range rounds {
		load := plain(t)
		made := make([][]*promise, clients)
		var acknowledged atomic.Int64
		var crowd sync.WaitGroup
		for number := range clients {
			crowd.Go(func() {
				c := &client{http: load, api: n.api, token: tokens[number%len(tokens)]}
				made[number] = c.bookUntilKilled(t, path, fmt.Sprintf("%d-%d", round, number), &acknowledged)
			})
		}
		eventually(t, upMax, func() error {
			if acknowledged.Load() < 50+int64(rand.IntN(100)) {
				return errors.New("not enough load yet")
			}
			return nil
		})
		n.signal(t, syscall.SIGKILL)
		n.exit(t, stopMax)
		crowd.Wait()
		for _, list := range made {
			promises = append(promises, list...)
		}
		n = up(t, dir, "--rate-limit-book=off")
	}

	unknown, seatsHeld, seatsBooked := 0, 0, 0
	ids := make(map[string]string)
	again := plain(t)
	for _, p := range promises {
		p.client.api, p.client.http = n.api, again
		held, booked := p.settle(t, path)
		seatsHeld += held
		seatsBooked += booked
		if p.booked == nil {
			unknown++
		}
		if before, taken := ids[p.id]; taken {
			t.Errorf("reservation %s for keys %s and %s", p.id, before, p.key)
		}
		ids[p.id] = p.key
	}
	t.Logf("%d keys over %d kills, %d of them without an answer", len(promises), rounds, unknown)
	counts := (&client{http: apitest.NewClient(t, n.api), api: n.api}).must(t, 200, "GET", path+"/availability", "", "").seats(t)
	if counts.Held != seatsHeld || counts.Booked != seatsBooked {
		t.Errorf("clients count %d held and %d booked, the event says %+v", seatsHeld, seatsBooked, counts)
	}
	n.signal(t, syscall.SIGTERM)
	n.exit(t, stopMax)
	verified(t, dir)
}

// bookUntilKilled books, confirms and cancels until a request has no answer.
func (c *client) bookUntilKilled(t *testing.T, path, name string, acknowledged *atomic.Int64) (made []*promise) {
	for try := 0; ; try++ {
		p := &promise{client: c, key: fmt.Sprintf("%s-%d", name, try), body: fmt.Sprintf(`{"quantity":%d}`, 1+try%3)}
		made = append(made, p)
		a, err := c.send(t.Context(), "POST", path+"/book", p.key, p.body)
		if err != nil || a.status == 503 {
			return made
		}
		if a.status != 201 || a.replayed {
			t.Errorf("key %s: %d %s", p.key, a.status, a.body)
			return made
		}
		p.booked, p.id = a.body, a.seats(t).ID
		acknowledged.Add(1)
		for _, step := range []struct {
			path string
			done *bool
			skip bool
		}{
			{"/reservations/" + p.id + "/confirm", &p.confirmed, try%2 == 0},
			{"/bookings/" + p.id + "/cancel", &p.cancelled, try%4 != 1},
		} {
			if step.skip {
				continue
			}
			a, err := c.send(t.Context(), "POST", step.path, "", "")
			if err != nil || a.status == 503 {
				p.tried = true
				return made
			}
			if a.status != 200 {
				t.Errorf("%s: %d %s", step.path, a.status, a.body)
				return made
			}
			*step.done = true
		}
	}
}

// settle asks again with the same key, compares with what was promised, and returns the seats that the reservation occupies.
func (p *promise) settle(t *testing.T, path string) (held, booked int) {
	t.Helper()
	again := p.client.must(t, 201, "POST", path+"/book", p.key, p.body)
	if p.booked != nil && (!again.replayed || !bytes.Equal(again.body, p.booked)) {
		t.Errorf("key %s was answered\n%s and after the crash\n%s", p.key, p.booked, again.body)
	}
	p.id = again.seats(t).ID
	now := p.client.must(t, 200, "GET", "/reservations/"+p.id, "", "").seats(t)
	want := "held"
	switch {
	case p.cancelled:
		want = "cancelled"
	case p.confirmed:
		want = "confirmed"
	}
	ahead := p.tried && (now.Status == "confirmed" && !p.cancelled || now.Status == "cancelled" && p.confirmed)
	if now.Status != want && !ahead {
		t.Errorf("key %s: %s, want %s", p.key, now.Status, want)
	}
	switch now.Status {
	case "held":
		return now.Quantity, 0
	case "confirmed":
		return 0, now.Quantity
	}
	return 0, 0
}
