package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// seen is a state that a stream told.
type seen struct {
	Name                   string `json:"-"`
	ID                     uint64 `json:"-"`
	Seq                    uint64
	Capacity, Held, Booked int
	Available              int
	AsOf                   time.Time `json:"as_of"`
}

// audience follows the stream of an event as a browser does: it comes again, with the last id, when the stream ends.
type audience struct {
	t      *testing.T
	path   string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	apis    []string // tried in turn
	states  []seen
	streams int
	refused []int
}

func follow(t *testing.T, path string, apis ...string) *audience {
	ctx, cancel := context.WithCancel(context.Background())
	a := &audience{t: t, path: path, apis: apis, cancel: cancel}
	a.done.Go(func() { a.run(ctx) })
	t.Cleanup(func() {
		cancel()
		a.done.Wait()
	})
	return a
}

func (a *audience) run(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for attempt := 0; ctx.Err() == nil; attempt++ {
		a.mu.Lock()
		api := a.apis[attempt%len(a.apis)]
		last := ""
		if len(a.states) > 0 {
			last = strconv.FormatUint(a.states[len(a.states)-1].ID, 10)
		}
		a.mu.Unlock()
		if over, err := a.listen(ctx, client, api, last); over {
			return
		} else if err != nil && ctx.Err() == nil {
			a.t.Logf("stream at %s after %q: %v", api, last, err)
		}
		select { // sooner than a browser
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// listen follows one stream to its end. over: there is nothing to come again for.
func (a *audience) listen(ctx context.Context, client *http.Client, api, last string) (over bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, api+a.path+"/stream", nil)
	if err != nil {
		return true, err
	}
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	response, err := client.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.refused = append(a.refused, response.StatusCode)
		return response.StatusCode == http.StatusNoContent, nil
	}
	a.mu.Lock()
	a.streams++
	a.mu.Unlock()
	state := seen{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "event":
			state.Name = value
		case "id":
			if state.ID, err = strconv.ParseUint(value, 10, 64); err != nil {
				return true, err
			}
		case "data":
			if err := json.Unmarshal([]byte(value), &state); err != nil {
				return true, err
			}
		case "":
			if state.Name != "" {
				a.mu.Lock()
				a.states = append(a.states, state)
				a.mu.Unlock()
				state = seen{}
			}
		}
	}
	return false, lines.Err()
}

func (a *audience) all() (states []seen, streams int, refused []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]seen(nil), a.states...), a.streams, append([]int(nil), a.refused...)
}

// sees waits until the audience has seen a state.
func (a *audience) sees(what string, is func(seen) bool) (found seen) {
	a.t.Helper()
	proctest.Eventually(a.t, proctest.UpMax, func() error {
		states, streams, refused := a.all()
		for _, state := range states {
			if is(state) {
				found = state
				return nil
			}
		}
		return fmt.Errorf("%s is not seen; %d streams told of %d states, refused with %v", what, streams, len(states), refused)
	})
	return found
}

// inOrder checks that no state came twice or out of order, and that each is whole.
func (a *audience) inOrder() []seen {
	a.t.Helper()
	states, _, _ := a.all()
	for i, state := range states {
		if state.ID != state.Seq || state.Held+state.Booked+state.Available != state.Capacity || state.AsOf.IsZero() ||
			i > 0 && state.ID <= states[i-1].ID {
			a.t.Errorf("state %d is %+v, after %+v", i, state, states[max(i-1, 0)])
		}
	}
	return states
}

// Each of three nodes has a client of its own. They all see the same, whichever node owns the event, while bookings go on; when the
// owner stops, its client goes on at another node with what it missed, and sees every entry's state from then on once.
func TestStream_OnAnyNodeAndThroughAMoveOfTheOwner(t *testing.T) {
	t.Parallel()
	cluster := proctest.Start(t, proctest.Config{Nodes: 3})
	path := cluster.Members[0].CreateEvent(t, 500, time.Hour)
	token := cluster.Members[0].Users(t, 1)[0]
	var audiences []*audience
	for i := range cluster.Members {
		audiences = append(audiences, follow(t, path, cluster.Members[i].API, cluster.Members[(i+1)%3].API, cluster.Members[(i+2)%3].API))
	}
	for i, a := range audiences {
		if first := a.sees("the first state", func(seen) bool { return true }); first.ID != 1 || first.Available != 500 || first.Name != "availability" {
			t.Errorf("node %d begins with %+v", i, first)
		}
	}
	booked := 0
	book := func(api, key string, quantity int) {
		t.Helper()
		c := &proctest.Client{HTTP: proctest.Plain(t), API: api, Token: token}
		proctest.Eventually(t, proctest.UpMax, func() error {
			answer, err := c.Send(t.Context(), "POST", path+"/book", key, fmt.Sprintf(`{"quantity":%d}`, quantity))
			if err == nil && answer.Status != 201 {
				err = fmt.Errorf("%d %s", answer.Status, answer.Body)
			}
			return err
		})
		booked += quantity
	}
	for i := range 9 {
		book(cluster.Members[i%3].API, fmt.Sprint("one", i), 1+i%2)
		for node, a := range audiences {
			began := time.Now()
			a.sees(fmt.Sprintf("%d seats held, at node %d", booked, node), func(s seen) bool { return s.Held == booked })
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("node %d was told after %s", node, took)
			}
		}
	}

	owner, _ := cluster.Owner(t)
	left := audiences[owner.Number]
	before, _, _ := left.all()
	began := time.Now()
	owner.Stop(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the node waited %s for its streams", took)
	}
	for i := range 6 {
		book(cluster.Members[(owner.Number+1+i%2)%3].API, fmt.Sprint("two", i), 1)
	}
	for node, a := range audiences {
		a.sees(fmt.Sprintf("%d seats held, at node %d", booked, node), func(s seen) bool { return s.Held == booked })
		a.inOrder()
	}
	after, streams, refused := left.all()
	if streams < 2 || len(refused) > 0 {
		t.Errorf("the client of the stopped node had %d streams, and was refused with %v", streams, refused)
	}
	if len(after) < len(before)+1 {
		t.Errorf("%d states before, %d after", len(before), len(after))
	}

	// A late one comes with an old id, and is told of every entry since.
	old := cluster.Members[(owner.Number+1)%3]
	late := &audience{t: t, path: path, apis: []string{old.API}, states: []seen{{ID: 2, Seq: 2}}}
	ctx, cancel := context.WithCancel(t.Context())
	late.done.Go(func() { late.run(ctx) })
	last := late.sees("the newest state", func(s seen) bool { return s.Held == booked })
	cancel()
	late.done.Wait()
	states, _, _ := late.all()
	held := 0
	for i, state := range states[1:] {
		if state.ID != uint64(i)+3 || state.Held <= held && i > 0 {
			t.Errorf("state %d is %+v", i, state)
		}
		held = state.Held
	}
	if last.ID != 16 || len(states) != 15 {
		t.Errorf("the last state is %+v, and there were %d", last, len(states))
	}

	// The end.
	admin := old.Client(t, old.Login(t))
	admin.Must(t, 200, "POST", "/admin"+path+"/cancel", "", "")
	for node, a := range audiences {
		a.sees(fmt.Sprintf("the cancellation, at node %d", node), func(s seen) bool { return s.Name == "cancelled" })
		a.done.Wait() // a client that has been told does not come again
		if _, _, refused := a.all(); len(refused) == 0 || refused[len(refused)-1] != http.StatusNoContent {
			t.Errorf("node %d refused with %v", node, refused)
		}
	}
}

// Bookings go on at full speed, and many clients follow: each sees states in order, few enough, and the last one.
func TestStream_ManyFollowASale(t *testing.T) {
	t.Parallel()
	const clients, buyers, each = 200, 8, 40
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--rate-limit-book=off", "--stream-clients-max=200", "--access-log=on")
	path := n.CreateEvent(t, 10_000, time.Hour)
	token := n.Users(t, 1)[0]
	var audiences []*audience
	for range clients {
		audiences = append(audiences, follow(t, path, n.API))
	}
	for _, a := range audiences {
		a.sees("the first state", func(seen) bool { return true })
	}
	if status, err := n.Status(t.Context(), path+"/stream"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("one client more: %d (%v), want 503", status, err)
	}
	if open := n.Metric(t, "evently_http_stream_clients"); open != clients {
		t.Errorf("%v streams are open, want %d", open, clients)
	}
	load := proctest.Plain(t)
	var crowd sync.WaitGroup
	for buyer := range buyers {
		crowd.Go(func() {
			c := &proctest.Client{HTTP: load, API: n.API, Token: token}
			for i := range each {
				if answer, err := c.Send(t.Context(), "POST", path+"/book", fmt.Sprint(buyer, "-", i), `{"quantity":1}`); err != nil || answer.Status != 201 {
					t.Errorf("%d %s (%v)", answer.Status, answer.Body, err)
					return
				}
			}
		})
	}
	crowd.Wait()
	for _, a := range audiences {
		a.sees("the last state", func(s seen) bool { return s.Held == buyers*each })
		a.inOrder()
	}
	began := time.Now()
	n.Signal(t, syscall.SIGTERM)
	if exit := n.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the node waited %s for its streams", took)
	}
	if !strings.Contains(n.Output(), path+"/stream") {
		t.Error("the streams are not in the access log")
	}
}
