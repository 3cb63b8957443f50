package messages

import (
	"bytes"
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
