package messages

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// memoryQueue is an evently.WebhookQueue. Deliveries have URLs http://<webhook>.example.
type memoryQueue struct {
	mu         sync.Mutex
	deliveries []*evently.Delivery
	ended      map[evently.WebhookID]evently.WebhookEnd
	failing    map[evently.WebhookID]time.Time
	backlog    map[evently.WebhookID]int // deliveries that Refill makes
	failLanes  error
	failRecord error
	looks      int
}

var _ evently.WebhookQueue = (*memoryQueue)(nil)

func newMemoryQueue() *memoryQueue {
	return &memoryQueue{
		ended: make(map[evently.WebhookID]evently.WebhookEnd), failing: make(map[evently.WebhookID]time.Time),
		backlog: make(map[evently.WebhookID]int),
	}
}

// add queues deliveries that are due now.
func (q *memoryQueue) add(id evently.WebhookID, count int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range count {
		q.addOne(id)
	}
}

func (q *memoryQueue) addOne(id evently.WebhookID) {
	now, seq := time.Now(), uint64(len(q.deliveries)+1)
	q.deliveries = append(q.deliveries, &evently.Delivery{
		ID: evently.NewDeliveryID(id, 1, seq), Webhook: id, Type: evently.WebhookEventUpdated, Event: 1, Seq: seq,
		Payload: fmt.Appendf(nil, `{"seq":%d}`, seq), CreatedAt: now, DueAt: now, GiveUpAt: now.Add(evently.WebhookGiveUp),
	})
}

func (q *memoryQueue) Lanes(_ context.Context, after evently.WebhookID, limit int, now time.Time) (lanes []evently.WebhookLane, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.looks++
	found := make(map[evently.WebhookID]*evently.WebhookLane)
	lane := func(id evently.WebhookID) *evently.WebhookLane {
		if found[id] == nil {
			found[id] = &evently.WebhookLane{Webhook: id, URL: fmt.Sprintf("http://%d.example", id), Secrets: [][]byte{newSecret}}
		}
		return found[id]
	}
	for _, d := range q.deliveries {
		if d.Webhook > after && q.ended[d.Webhook] == evently.WebhookActive && !d.DueAt.IsZero() && !d.DueAt.After(now) {
			lane(d.Webhook).Due = true
		}
	}
	for id, count := range q.backlog {
		if id > after && count > 0 {
			lane(id).Backlog = true
		}
	}
	for _, l := range found {
		lanes = append(lanes, *l)
	}
	slices.SortFunc(lanes, func(a, b evently.WebhookLane) int { return cmp.Compare(a.Webhook, b.Webhook) })
	return lanes[:min(limit, len(lanes))], q.failLanes
}

func (q *memoryQueue) Claim(_ context.Context, id evently.WebhookID, now, until time.Time) (*evently.Delivery, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due *evently.Delivery
	for _, d := range q.deliveries {
		if d.Webhook == id && q.ended[id] == evently.WebhookActive && !d.DueAt.IsZero() && !d.DueAt.After(now) &&
			(due == nil || d.DueAt.Before(due.DueAt)) {
			due = d
		}
	}
	if due == nil {
		return nil, nil
	}
	due.DueAt = until
	claimed := *due
	claimed.Attempts = slices.Clone(due.Attempts)
	return &claimed, nil
}

func (q *memoryQueue) find(id evently.DeliveryID) *evently.Delivery {
	return q.deliveries[slices.IndexFunc(q.deliveries, func(d *evently.Delivery) bool { return d.ID == id })]
}

func (q *memoryQueue) Unclaim(_ context.Context, delivery *evently.Delivery, now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.find(delivery.ID).DueAt = now
	return nil
}

func (q *memoryQueue) Record(_ context.Context, d *evently.Delivery, ended evently.WebhookEnd, now time.Time) (evently.WebhookEnd, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failRecord != nil {
		return 0, q.failRecord
	}
	kept := q.find(d.ID)
	kept.Attempts = append(kept.Attempts, d.Attempts...)
	kept.Status, kept.Tried, kept.DueAt, kept.EndedAt = d.Status, d.Tried, d.DueAt, d.EndedAt
	if d.Status == evently.DeliveryDone {
		delete(q.failing, d.Webhook)
		return evently.WebhookActive, nil
	}
	since, failing := q.failing[d.Webhook]
	if !failing {
		q.failing[d.Webhook] = now
	}
	if ended == evently.WebhookActive && failing && now.Sub(since) >= evently.WebhookFailingMax {
		ended = evently.WebhookDisabled
	}
	q.ended[d.Webhook] = ended
	return ended, nil
}

func (q *memoryQueue) Refill(_ context.Context, id evently.WebhookID, _ time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range min(q.backlog[id], 10) {
		q.addOne(id)
		q.backlog[id]--
	}
	return nil
}

func (q *memoryQueue) Load(context.Context) (evently.WebhookLoad, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return evently.WebhookLoad{Pending: int64(len(q.deliveries)), Backlogs: 2, Active: 3, Ended: 4}, nil
}

// count returns how many deliveries of a webhook are in a status.
func (q *memoryQueue) count(id evently.WebhookID, status evently.DeliveryStatus) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.deliveries {
		if d.Webhook == id && d.Status == status {
			n++
		}
	}
	return n
}

// list is a copy of all deliveries.
func (q *memoryQueue) list() (list []evently.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.deliveries {
		list = append(list, *d)
	}
	return list
}

// state is why a webhook has ended, and whether it fails.
func (q *memoryQueue) state(id evently.WebhookID) (ended evently.WebhookEnd, failing bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended[id], !q.failing[id].IsZero()
}

func (q *memoryQueue) set(change func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change()
}

// pipes is a network inside the test's bubble, where time passes as soon as everybody waits.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, open := <-p; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// logs is a log to look at while it is written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// received is a message as it came.
type received struct {
	id string
	at time.Time
}

// world is a dispatcher and the receivers of all webhooks.
type world struct {
	*Dispatcher
	queue   *memoryQueue
	metrics *WebhookMetrics
	logs    *logs

	mu       sync.Mutex
	handle   map[string]http.HandlerFunc // by host; else 200
	got      map[string][]received
	inFlight map[string]int
	most     map[string]int // that were in flight
	handling sync.WaitGroup
}

// inWorld runs a test in a bubble. The dispatcher runs until the test ends.
func inWorld(t *testing.T, poll time.Duration, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, poll)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.Run(ctx)
		}()
		defer func() {
			cancel()
			<-ended
		}()
		test(t, w)
	})
}

func newWorld(t *testing.T, poll time.Duration) *world {
	t.Helper()
	w := &world{
		queue: newMemoryQueue(), metrics: NewWebhookMetrics(prometheus.NewPedanticRegistry()), logs: new(logs),
		handle: make(map[string]http.HandlerFunc), got: make(map[string][]received), inFlight: make(map[string]int), most: make(map[string]int),
	}
	w.Dispatcher = NewDispatcher(DispatcherConfig{
		Queue: w.queue, Targets: &Targets{AllowPrivate: true}, Poll: poll, Metrics: w.metrics, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(w.logs, nil)),
	})
	network := make(pipes)
	w.client.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		client, server := net.Pipe()
		select {
		case network <- server:
			return client, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	server := &http.Server{Handler: http.HandlerFunc(w.receive)}
	serving := make(chan struct{})
	go func() {
		defer close(serving)
		if err := server.Serve(network); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		close(network)
		<-serving
		w.handling.Wait()
		server.Close()
	})
	return w
}

func (w *world) receive(answer http.ResponseWriter, r *http.Request) {
	w.handling.Add(1)
	defer w.handling.Done()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	host, _, _ := strings.Cut(r.Host, ".")
	id, err := verified(r.Header, body, secretText(newSecret), time.Now())
	if err != nil {
		id = err.Error()
	}
	w.mu.Lock()
	w.got[host] = append(w.got[host], received{id, time.Now()})
	w.inFlight[host]++
	w.most[host] = max(w.most[host], w.inFlight[host])
	handle := w.handle[host]
	w.mu.Unlock()
	if handle != nil {
		handle(answer, r)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight[host]--
}

// on sets what a webhook's receiver does.
func (w *world) on(id evently.WebhookID, handle http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handle[fmt.Sprint(uint64(id))] = handle
}

func (w *world) requests(id evently.WebhookID) []received {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got[fmt.Sprint(uint64(id))])
}

func (w *world) mostOf(id evently.WebhookID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most[fmt.Sprint(uint64(id))]
}

func (w *world) attempts(outcome string) int {
	return int(testutil.ToFloat64(w.metrics.attempts.WithLabelValues(outcome)))
}

func code(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for pair := range slices.Chunk(header, 2) {
			w.Header().Set(pair[0], pair[1])
		}
		w.WriteHeader(status)
	}
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// after waits inside the bubble.
func after(d time.Duration) { <-time.After(d) }

func TestDispatcher_SendsOnceWhatIsTaken(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.add(1, 50)
		w.queue.add(2, 1)
		after(2 * time.Second)
		for id, want := range map[evently.WebhookID]int{1: 50, 2: 1} {
			got := w.requests(id)
			ids := make(map[string]bool)
			for _, r := range got {
				ids[r.id] = true
			}
			if len(got) != want || len(ids) != want || w.queue.count(id, evently.DeliveryDone) != want {
				t.Errorf("webhook %d: %d requests, %d ids, %d delivered; want %d", id, len(got), len(ids), w.queue.count(id, evently.DeliveryDone), want)
			}
		}
		if most := w.mostOf(1); most > workersMax || w.attempts(delivered) != 51 {
			t.Errorf("%d at a time, %d delivered", most, w.attempts(delivered))
		}
		after(2 * lanesKeptFor)
		w.Dispatcher.mu.Lock()
		defer w.Dispatcher.mu.Unlock()
		if len(w.lanes) != 0 {
			t.Errorf("%d lanes are kept", len(w.lanes))
		}
	})
}

// Ten attempts in three days by the schedule of Standard Webhooks, all with one id; then it has failed for good.
func TestDispatcher_TriesForThreeDays(t *testing.T) {
	inWorld(t, 5*time.Second, func(t *testing.T, w *world) {
		w.on(1, code(500))
		w.queue.add(1, 1)
		began := time.Now()
		after(4 * 24 * time.Hour)
		got := w.requests(1)
		var gaps []time.Duration
		for i := range got {
			if got[i].id != w.queue.list()[0].ID.String() {
				t.Errorf("attempt %d: %s", i, got[i].id)
			}
			if i > 0 {
				gaps = append(gaps, got[i].at.Sub(got[i-1].at))
			}
		}
		if len(gaps) != len(retryDelays)+1 {
			t.Fatalf("gaps %v", gaps)
		}
		for i, want := range retryDelays {
			if slack := want/10 + 6*time.Second; gaps[i] < want-slack || gaps[i] > want+slack {
				t.Errorf("gap %d is %s, want %s", i, gaps[i], want)
			}
		}
		if last := got[len(got)-1].at.Sub(began); last < evently.WebhookGiveUp || last > evently.WebhookGiveUp+6*time.Second {
			t.Errorf("the last attempt was after %s, want %s", last, evently.WebhookGiveUp)
		}
		d := w.queue.list()[0]
		if d.Status != evently.DeliveryFailed || !d.DueAt.IsZero() || len(d.Attempts) != 10 {
			t.Errorf("%+v", d)
		}
		if ended, _ := w.queue.state(1); ended != evently.WebhookActive {
			t.Errorf("the webhook is %s", ended)
		}
	})
}

func TestDispatcher_RecoversWithItsReceiver(t *testing.T) {
	inWorld(t, 20*time.Second, func(t *testing.T, w *world) {
		w.on(1, code(502))
		w.queue.add(1, 20)
		after(26 * time.Hour)
		if n := w.queue.count(1, evently.DeliveryPending); n != 20 {
			t.Fatalf("%d wait", n)
		}
		if _, failing := w.queue.state(1); !failing {
			t.Error("the webhook does not fail")
		}
		if got := testutil.ToFloat64(w.metrics.breakers); got > 1 {
			t.Errorf("%v breakers are open", got)
		}
		w.on(1, nil)
		after(26 * time.Hour)
		if n := w.queue.count(1, evently.DeliveryDone); n != 20 {
			t.Errorf("%d delivered", n)
		}
		if _, failing := w.queue.state(1); failing {
			t.Error("the webhook fails")
		}
		if got := testutil.ToFloat64(w.metrics.breakers); got != 0 {
			t.Errorf("%v breakers are open", got)
		}
	})
}

func TestDispatcher_FiveDaysOfFailuresDisable(t *testing.T) {
	inWorld(t, time.Minute, func(t *testing.T, w *world) {
		w.on(1, code(500))
		began := time.Now()
		ended := evently.WebhookActive
		for ended == evently.WebhookActive && time.Since(began) < 7*24*time.Hour {
			w.queue.add(1, 1)
			after(time.Hour)
			ended, _ = w.queue.state(1)
		}
		if took := time.Since(began); ended != evently.WebhookDisabled || took < evently.WebhookFailingMax || took > evently.WebhookFailingMax+2*time.Hour {
			t.Errorf("%s after %s", ended, took)
		}
		sent := len(w.requests(1))
		w.queue.add(1, 1)
		after(24 * time.Hour)
		if more := len(w.requests(1)); more != sent {
			t.Errorf("%d requests after it was disabled", more-sent)
		}
		if n := testutil.ToFloat64(w.metrics.disabled.WithLabelValues("failing")); n != 1 || !strings.Contains(w.logs.String(), "reason=failing") {
			t.Errorf("counted %v, log %s", n, w.logs)
		}
	})
}

func TestDispatcher_GoneDisablesAtOnce(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.on(1, code(410))
		w.queue.add(1, 100)
		after(time.Minute)
		if ended, _ := w.queue.state(1); len(w.requests(1)) > workersMax || ended != evently.WebhookGone {
			t.Errorf("%d requests, %s", len(w.requests(1)), ended)
		}
		if n := w.queue.count(1, evently.DeliveryFailed); n != len(w.requests(1)) {
			t.Errorf("%d failed of %d that were sent", n, len(w.requests(1)))
		}
		if n := testutil.ToFloat64(w.metrics.disabled.WithLabelValues("gone")); n < 1 || !strings.Contains(w.logs.String(), "reason=gone") {
			t.Errorf("counted %v, log %s", n, w.logs)
		}
	})
}

func TestDispatcher_RetryAfterHoldsTheWebhook(t *testing.T) {
	for _, test := range []struct {
		header    string
		min, hold time.Duration // for the first message, for all others
	}{
		{"600", 10 * time.Minute, 10 * time.Minute},
		{"14400", 4 * time.Hour, laneHoldMax},
		{"9999999", retryAfterMax, laneHoldMax},
	} {
		inWorld(t, 5*time.Second, func(t *testing.T, w *world) {
			w.on(1, code(429, "Retry-After", test.header))
			w.queue.add(1, 1)
			after(7 * time.Second)
			w.on(1, nil)
			w.queue.add(1, 3)
			began := time.Now()
			after(30 * time.Hour)
			got := w.requests(1)
			if len(got) != 5 {
				t.Fatalf("%s: %d requests", test.header, len(got))
			}
			if held := got[1].at.Sub(began); held < test.hold-8*time.Second || held > test.hold+8*time.Second {
				t.Errorf("%s: others were sent after %s, want %s", test.header, held, test.hold)
			}
			first := w.queue.list()[0].Attempts
			if gap := first[1].At.Sub(first[0].At); gap < test.min || gap > test.min+time.Minute {
				t.Errorf("%s: the first was sent again after %s, want %s", test.header, gap, test.min)
			}
		})
	}
}

// What a dead receiver costs: a few attempts, and then one in each pause of the breaker.
func TestDispatcher_DeadReceiverIsLeftAlone(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.on(1, code(500))
		w.queue.add(1, 1000)
		after(10 * time.Minute)
		most := breakerFailures + workersMax + int(10*time.Minute/breakerPauseDefault)
		if n := len(w.requests(1)); n > most || n < most/2 {
			t.Errorf("%d requests in ten minutes, want at most %d", n, most)
		}
		if got := testutil.ToFloat64(w.metrics.breakers); got != 1 {
			t.Errorf("%v breakers are open", got)
		}
	})
}

// Receivers that hang, more than there are slots, and slow ones: another one gets all of its messages at once.
func TestDispatcher_OthersDoNotWaitForSlowReceivers(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		const hung, slow, healthy = 40, 20, 1000
		for id := range evently.WebhookID(hung) {
			w.on(id+1, hang)
			w.queue.add(id+1, 100)
		}
		for id := range evently.WebhookID(slow) {
			w.on(100+id, func(http.ResponseWriter, *http.Request) { after(14 * time.Second) })
			w.queue.add(100+id, 100)
		}
		after(time.Minute) // they have taken all that they can get
		for range 5 {
			w.queue.add(healthy, 200)
			after(3 * time.Second)
			if n := w.queue.count(healthy, evently.DeliveryPending); n != 0 {
				t.Errorf("%d of 200 wait after 3 s", n)
			}
			after(20 * time.Second)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for host, most := range w.most {
			if most > workersMax {
				t.Errorf("%d at a time to %s", most, host)
			}
		}
		if w.attempts(faultTimeout) < hung*breakerFailures {
			t.Errorf("%d timeouts", w.attempts(faultTimeout))
		}
	})
}

func TestDispatcher_MoreWebhooksThanSlotsTakeTurns(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		const webhooks = slotsMax * 3 / 2
		for id := range evently.WebhookID(webhooks) {
			w.on(id+1, func(http.ResponseWriter, *http.Request) { after(time.Second) })
			w.queue.add(id+1, 30)
		}
		after(30 * time.Second)
		least, most := 30, 0
		for id := range evently.WebhookID(webhooks) {
			n := w.queue.count(id+1, evently.DeliveryDone)
			least, most = min(least, n), max(most, n)
		}
		if least < 10 {
			t.Errorf("after half a minute one webhook has %d of 30 messages, another one %d", least, most)
		}
	})
}

// Sent, and the outcome not recorded, as when the node dies: it is sent again with the same id, and counted once.
func TestDispatcher_WhatIsNotRecordedIsSentAgain(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.set(func() { w.queue.failRecord = errors.New("connection lost") })
		w.queue.add(1, 3)
		after(10 * time.Second)
		if n := len(w.requests(1)); n != 3 || w.queue.count(1, evently.DeliveryPending) != 3 {
			t.Fatalf("%d requests, %d wait", n, w.queue.count(1, evently.DeliveryPending))
		}
		w.queue.set(func() { w.queue.failRecord = nil })
		after(claimFor)
		times := make(map[string]int)
		for _, r := range w.requests(1) {
			times[r.id]++
		}
		for _, d := range w.queue.list() {
			if times[d.ID.String()] != 2 || d.Status != evently.DeliveryDone || len(d.Attempts) != 1 {
				t.Errorf("%s was received %d times: %+v", d.ID, times[d.ID.String()], d)
			}
		}
		if len(times) != 3 {
			t.Errorf("received %v", times)
		}
	})
}

func TestDispatcher_BacklogIsWorkedOff(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.set(func() { w.queue.backlog[1] = 95 })
		after(15 * time.Second)
		if n := w.queue.count(1, evently.DeliveryDone); n != 95 || len(w.requests(1)) != 95 {
			t.Errorf("%d delivered, %d requests", n, len(w.requests(1)))
		}
	})
}

func TestDispatcher_OutlivesItsDatabase(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.set(func() { w.queue.failLanes = errors.New("no route") })
		w.queue.add(1, 1)
		after(time.Minute)
		if n := strings.Count(w.logs.String(), "no route"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		w.queue.set(func() { w.queue.failLanes = nil })
		after(2 * time.Second)
		if w.queue.count(1, evently.DeliveryDone) != 1 {
			t.Error("not delivered")
		}
	})
}

// Told to end, it waits for attempts under way, though not for ever, and gives back what it abandons.
func TestDispatcher_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Second)
		w.on(1, func(http.ResponseWriter, *http.Request) { after(stopGrace / 2) })
		w.on(2, hang)
		w.queue.add(1, 3)
		w.queue.add(2, 3)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		began := time.Now()
		w.Run(ctx)
		if took := time.Since(began); took < 1500*time.Millisecond+stopGrace || took > 2*time.Second+stopGrace {
			t.Errorf("took %s", took)
		}
		if done, wait := w.queue.count(1, evently.DeliveryDone), w.queue.count(2, evently.DeliveryPending); done != 3 || wait != 3 {
			t.Errorf("%d delivered, %d wait", done, wait)
		}
		for _, d := range w.queue.list() {
			if d.Webhook == 2 && (d.DueAt.After(time.Now()) || len(d.Attempts) != 0) {
				t.Errorf("abandoned and not given back: %+v", d)
			}
		}
		if n := testutil.ToFloat64(w.metrics.inFlight); n != 0 || w.slots != 0 || w.probes != 0 {
			t.Errorf("%v in flight, %d slots, %d probes", n, w.slots, w.probes)
		}
	})
}

func TestDispatcher_TellsWhatWaits(t *testing.T) {
	inWorld(t, time.Second, func(t *testing.T, w *world) {
		w.queue.add(1, 7)
		after(loadPeriod + time.Second)
		for name, got := range map[string]float64{
			"pending 7": testutil.ToFloat64(w.metrics.pending), "backlogs 2": testutil.ToFloat64(w.metrics.backlogs),
			"active 3": testutil.ToFloat64(w.metrics.webhooks.WithLabelValues("active")),
			"ended 4":  testutil.ToFloat64(w.metrics.webhooks.WithLabelValues("ended")),
		} {
			if !strings.HasSuffix(name, fmt.Sprintf(" %v", got)) {
				t.Errorf("%s: got %v", name, got)
			}
		}
	})
}

func TestNextAttempt(t *testing.T) {
	now := time.Date(2027, 3, 28, 0, 30, 0, 0, time.UTC)
	giveUp := now.Add(evently.WebhookGiveUp)
	for _, test := range []struct {
		tried      int
		retryAfter time.Duration
		chance     float64
		want       time.Duration
	}{
		{1, 0, 0.5, 5 * time.Second},
		{1, 0, 0, 4500 * time.Millisecond},
		{1, 0, 1, 5500 * time.Millisecond},
		{2, 0, 0.5, 5 * time.Minute},
		{8, 0, 0.5, 20 * time.Hour},
		{9, 0, 0.5, evently.WebhookGiveUp},
		{100, 0, 0.5, evently.WebhookGiveUp},
		{0, 0, 0.5, 5 * time.Second},
		{1, time.Minute, 0.5, time.Minute},
		{4, time.Minute, 0.5, 2 * time.Hour},
		{1, 1000 * time.Hour, 0.5, retryAfterMax},
	} {
		d := &evently.Delivery{Tried: test.tried, GiveUpAt: giveUp}
		if got := nextAttempt(d, now, test.retryAfter, test.chance).Sub(now); got != test.want {
			t.Errorf("%+v: got %s", test, got)
		}
	}
	d := &evently.Delivery{Tried: 5, GiveUpAt: giveUp}
	if got := nextAttempt(d, giveUp.Add(-time.Hour), 0, 0.5); !got.Equal(giveUp) {
		t.Errorf("got %s, want the end %s", got, giveUp)
	}
}
