package proctest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Sales is what a crowd is let loose on. All fields have a useful zero value.
type Sales struct {
	Events      int           // 0: 30
	Scarce      int           // how many of them have few seats, which nobody gives back; 0: a third, negative: none
	ScarceSeats int           // 0: 40
	Users       int           // 0: 4
	Pause       time.Duration // of a client after each visit; 0: 20 ms, negative: none
	Limited     bool          // users have a limit of bookings: the audit does not ask again with their keys
}

const (
	plenty       = 1_000_000 // seats of an event that is not scarce
	holdTTL      = time.Hour // longer than any test
	pauseDefault = 20 * time.Millisecond
	// retryAfterMax is how much of a Retry-After a client obeys; retryPause is what it waits when it is told nothing, and from
	// the second retry on.
	retryAfterMax = time.Second
	retryPause    = 100 * time.Millisecond
	complaintsMax = 30 // kept for the log of a failed test
)

// patience is how a client takes failures.
type patience struct {
	attemptMax time.Duration // it waits no longer for a node that has gone silent
	customer   bool          // it waits as long as it is told before the first retry, and is counted
}

var (
	customer = patience{attemptMax: 5 * time.Second, customer: true}
	// watch wants to know as soon as something works.
	watch = patience{attemptMax: 2 * time.Second}
	// organizer makes the preparations.
	organizer = patience{attemptMax: attemptMax}
)

// Crowd is clients that book and repeat, confirm and cancel, each request at any node of a load balancer's set. Each client
// waits for one answer before it asks the next; a request that fails is repeated, with its key, until it is answered.
type Crowd struct {
	Balancer Balancer
	Events   []string  // paths
	Users    []*Client // one for each user, at no node in particular

	t       testing.TB
	load    *http.Client
	admin   *Client
	scarce  int
	pause   time.Duration
	limited bool

	requests, firstErrors, errors, unreached, unavailable, acknowledged, soldOut, visits atomic.Int64

	mu         sync.Mutex
	promises   []*Promise
	complaints []string
	stop       chan struct{} // nil: no client is there
	clients    sync.WaitGroup
}

// Count is what the clients of a crowd went through since it was made. That a node closes a connection which it does not use is no failure: Go's
// transport repeats a request with a key on a new one.
type Count struct {
	Requests     int64
	FirstErrors  int64 // requests whose first attempt failed
	Errors       int64 // requests whose first retry failed, too: what a client with one retry sees
	Unreached    int64 // attempts without an answer
	Unavailable  int64 // attempts answered 503, by a node or for want of one
	Acknowledged int64 // bookings
	SoldOut      int64
}

// Count returns the counts up to now.
func (c *Crowd) Count() Count {
	return Count{
		c.requests.Load(), c.firstErrors.Load(), c.errors.Load(), c.unreached.Load(), c.unavailable.Load(),
		c.acknowledged.Load(), c.soldOut.Load(),
	}
}

// Since is what was counted after an earlier count.
func (n Count) Since(earlier Count) Count {
	return Count{
		n.Requests - earlier.Requests, n.FirstErrors - earlier.FirstErrors, n.Errors - earlier.Errors, n.Unreached - earlier.Unreached,
		n.Unavailable - earlier.Unavailable, n.Acknowledged - earlier.Acknowledged, n.SoldOut - earlier.SoldOut,
	}
}

func (n Count) String() string {
	return fmt.Sprintf("%d requests, %d failed at first, %d after one retry (%.3f %%); %d attempts had no answer, %d were 503; %d bookings, %d sold out",
		n.Requests, n.FirstErrors, n.Errors, 100*float64(n.Errors)/float64(max(1, n.Requests)), n.Unreached, n.Unavailable, n.Acknowledged, n.SoldOut)
}

// Crowd publishes events and registers users. Nobody books yet: see Open. Its requests go to those
// of the cluster's nodes that are ready.
func (c *Cluster) Crowd(t testing.TB, sales Sales) *Crowd {
	t.Helper()
	setDefault(&sales.Events, 30)
	setDefault(&sales.Scarce, sales.Events/3)
	setDefault(&sales.ScarceSeats, 40)
	setDefault(&sales.Users, 4)
	setDefault(&sales.Pause, pauseDefault)
	crowd := &Crowd{t: t, load: Plain(t), scarce: sales.Scarce, pause: sales.Pause, limited: sales.Limited}
	crowd.Balancer.Set(c.Servers()...)
	crowd.Balancer.Follow(t, c.Servers()...)
	t.Cleanup(func() {
		crowd.Close()
		if t.Failed() {
			for _, complaint := range crowd.complaints {
				t.Log(complaint)
			}
		}
	})
	crowd.admin = &Client{HTTP: crowd.load}
	crowd.admin.Token = crowd.login(t, c.Members[0].Email, c.Members[0].Password)
	for i := range sales.Events {
		seats := plenty
		if i < sales.Scarce {
			seats = sales.ScarceSeats
		}
		crowd.Events = append(crowd.Events, crowd.Publish(t, fmt.Sprint("Event ", i), seats))
	}
	for i := range sales.Users {
		crowd.Users = append(crowd.Users, crowd.register(t, fmt.Sprintf("user%d@example.com", i)))
	}
	return crowd
}

// must is a request of the preparations, which goes on through whatever happens to the nodes.
func (c *Crowd) must(t testing.TB, user *Client, wantStatus int, method, path, key, body string) Answer {
	t.Helper()
	answer, err := c.ask(user, method, path, key, body, organizer)
	if err != nil || answer.Status != wantStatus {
		t.Fatalf("%s %s: got %d %s (%v), want %d", method, path, answer.Status, answer.Body, err, wantStatus)
	}
	return answer
}

// Publish publishes an event of one tier, whose name nobody has used, and returns its path.
func (c *Crowd) Publish(t testing.TB, name string, capacity int) (path string) {
	t.Helper()
	key := strings.ReplaceAll(name, " ", "-")
	return "/events/" + c.must(t, c.admin, 201, "POST", "/admin/events", key, EventBody(name, capacity, holdTTL)).Seats(t).ID
}

func (c *Crowd) login(t testing.TB, email, password string) (token string) {
	t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	c.must(t, &Client{HTTP: c.load}, 200, "POST", "/login", "", fmt.Sprintf(`{"email":%q,"password":%q}`, email, password)).decode(t, &answer)
	return answer.AccessToken
}

// register signs a new user up and in.
func (c *Crowd) register(t testing.TB, email string) *Client {
	t.Helper()
	const password = "a-long-enough-password"
	// An email that is taken gets the same answer: nothing goes wrong when this is repeated.
	c.must(t, &Client{HTTP: c.load}, 201, "POST", "/register", "", fmt.Sprintf(`{"email":%q,"password":%q,"name":"User"}`, email, password))
	user := &Client{HTTP: c.load, Token: c.login(t, email, password)}
	user.User = c.must(t, user, 200, "GET", "/me", "", "").Seats(t).ID
	return user
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// Open lets clients in, who go on until Close.
func (c *Crowd) Open(t testing.TB, clients int) {
	t.Helper()
	if c.stop != nil {
		t.Fatal("the crowd is there already")
	}
	c.stop = make(chan struct{})
	for number := range clients {
		c.clients.Go(func() { c.come(c.Users[number%len(c.Users)], c.stop) })
	}
}

// Close asks the clients to go and returns when the last one has: when all of their requests have been answered.
func (c *Crowd) Close() {
	if c.stop == nil {
		return
	}
	close(c.stop)
	c.clients.Wait()
	c.stop = nil
}

func (c *Crowd) come(user *Client, stop <-chan struct{}) {
	for {
		visit := int(c.visits.Add(1))
		if err := c.visit(user, fmt.Sprint("visit-", visit), visit); err != nil {
			c.t.Error(err)
			return
		}
		select {
		case <-time.After(max(0, c.pause)):
		case <-stop:
			return
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// visit books, asks again with the same key, and goes on with the reservation. All that was acknowledged is in its promise.
func (c *Crowd) visit(user *Client, key string, number int) error {
	event := rand.IntN(len(c.Events))
	p, err := c.book(user, event, key, 1+number%3, customer)
	if p == nil {
		return err
	}
	second, err := c.ask(user, "POST", p.Event+"/book", p.Key, p.Body(), customer)
	if err != nil {
		return err
	}
	if second.Status != http.StatusCreated || !second.Replayed || !bytes.Equal(p.Booked, second.Body) {
		return fmt.Errorf("key %s was answered\n%s and then %d\n%s", key, p.Booked, second.Status, second.Body)
	}
	if event < c.scarce {
		return nil
	}
	for _, step := range []struct {
		path string
		done *bool
		skip bool
	}{
		{"/reservations/" + p.ID + "/confirm", &p.Confirmed, number%2 == 0},
		{"/bookings/" + p.ID + "/cancel", &p.Cancelled, number%4 != 1},
	} {
		if step.skip {
			continue
		}
		p.Tried = true
		a, err := c.ask(user, "POST", step.path, "", "", customer)
		if err != nil {
			return err
		}
		if a.Status != http.StatusOK {
			return fmt.Errorf("%s: %d %s", step.path, a.Status, a.Body)
		}
		*step.done, p.Tried = true, false
	}
	return nil
}

// book returns the promise that was made, or nil if the event is sold out.
func (c *Crowd) book(user *Client, event int, key string, quantity int, patience patience) (*Promise, error) {
	p := &Promise{Client: user, Event: c.Events[event], Key: key, Quantity: quantity}
	a, err := c.ask(user, "POST", p.Event+"/book", p.Key, p.Body(), patience)
	switch {
	case err != nil:
		return nil, err
	case a.Status == http.StatusConflict && event < c.scarce && bytes.Contains(a.Body, []byte(`"sold_out"`)):
		c.soldOut.Add(1)
		return nil, nil
	case a.Status != http.StatusCreated:
		return nil, fmt.Errorf("key %s: %d %s", key, a.Status, a.Body)
	}
	p.Booked, p.ID = a.Body, a.Seats(c.t).ID
	c.Keep(p)
	return p, nil
}

var errNoNode = errors.New("no node is in the load balancer's set")

// ask sends a request to one node after the other, at random, until one answers it for good.
func (c *Crowd) ask(user *Client, method, path, key, body string, patience patience) (a Answer, err error) {
	count := func(n *atomic.Int64) {
		if patience.customer {
			n.Add(1)
		}
	}
	count(&c.requests)
	began, timeout := time.Now(), time.After(UpMax)
	for attempt := 0; ; attempt++ {
		node := c.Balancer.pick()
		if a, err = c.attempt(node, user, method, path, key, body, patience.attemptMax); err == nil {
			return a, nil
		}
		if a.Status == http.StatusServiceUnavailable || errors.Is(err, errNoNode) {
			count(&c.unavailable)
		} else {
			count(&c.unreached)
		}
		wait := retryPause
		switch attempt {
		case 0:
			count(&c.firstErrors)
			if patience.customer && a.RetryAfter > 0 {
				wait = min(a.RetryAfter, retryAfterMax)
			}
		case 1:
			count(&c.errors)
			c.complain(node, began, method+" "+path, err)
		}
		select {
		case <-time.After(wait):
		case <-timeout:
			return a, fmt.Errorf("%s %s, key %q: no answer within %s: %w", method, path, key, UpMax, err)
		case <-c.t.Context().Done():
			return a, fmt.Errorf("%s %s, key %q: no answer until the end of the test: %w", method, path, key, err)
		}
	}
}

// attempt sends a request once. 503 is an error.
func (c *Crowd) attempt(node *Server, user *Client, method, path, key, body string, within time.Duration) (Answer, error) {
	if node == nil {
		return Answer{}, errNoNode
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	defer cancel()
	a, err := (&Client{HTTP: user.HTTP, API: node.API, Token: user.Token}).Send(ctx, method, path, key, body)
	if err == nil && a.Status == http.StatusServiceUnavailable {
		err = fmt.Errorf("status %d: %s", a.Status, a.Body)
	}
	return a, err
}

func (c *Crowd) complain(node *Server, began time.Time, request string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.complaints) == complaintsMax {
		return
	}
	at := "no node"
	if node != nil {
		at = node.API
	}
	c.complaints = append(c.complaints, fmt.Sprintf("%s, asked at %s, has failed twice within %s, at last at %s: %v",
		request, began.UTC().Format(time.RFC3339Nano), time.Since(began), at, err))
}

// More waits until a number of bookings more have been acknowledged.
func (c *Crowd) More(t testing.TB, bookings int64) {
	t.Helper()
	from := c.acknowledged.Load()
	Eventually(t, UpMax, func() error {
		if got := c.acknowledged.Load() - from; got < bookings && !c.t.Failed() {
			return fmt.Errorf("%d bookings of %d", got, bookings)
		}
		return nil
	})
}

// Reach books each event, all at the same time, and returns how long it took until the last one had answered. The occasion is
// part of the keys: use each once.
func (c *Crowd) Reach(t testing.TB, occasion string) time.Duration {
	t.Helper()
	began := time.Now()
	var all sync.WaitGroup
	for event := range c.Events {
		all.Go(func() {
			if _, err := c.book(c.Users[event%len(c.Users)], event, fmt.Sprintf("%s-%d", occasion, event), 1, watch); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

// Keep adds a promise that was made to one of the crowd's users without the crowd.
func (c *Crowd) Keep(p *Promise) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.promises = append(c.promises, p)
	c.acknowledged.Add(1)
}
