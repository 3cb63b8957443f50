package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

// BenchmarkWire is what a request costs the process that serves it, over TCP and with all that net/http and the kernel do: cpu-ns/op
// is the time of all its threads, clients are another process. The engine answers from a goroutine of its own, at once
// or with all others after a commit's time, as actors do.
func BenchmarkWire(b *testing.B) {
	for _, c := range []struct {
		name   string
		commit time.Duration
		make   func(w *wire, n int) []byte
	}{
		{"gin", 0, func(w *wire, _ int) []byte { return w.post("/bare", "") }},
		{"book at once", 0, (*wire).book},
		{"book", time.Millisecond, (*wire).book},
		{"refused", time.Millisecond, func(w *wire, _ int) []byte {
			return w.post("/events/evt_0000000000002/book", "Authorization: Bearer "+w.tokens[0]+"\r\nIdempotency-Key: k\r\n")
		}},
		{"event", 0, func(*wire, int) []byte {
			return []byte("GET /events/evt_0000000000001 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: bench\r\n\r\n")
		}},
		{"event 304", 0, func(*wire, int) []byte {
			return []byte("GET /events/evt_0000000000001 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nIf-None-Match: \"1\"\r\nUser-Agent: bench\r\n\r\n")
		}},
	} {
		b.Run(c.name, func(b *testing.B) { newWire(b, c.commit).run(b, c.make) })
	}
}

const (
	wireConnections = 64
	wireUsers       = 1000
	wireVariable    = "EVENTLY_WIRE_CLIENT" // makes the test program a client
)

// wire is a server and what its clients need.
type wire struct {
	url    string
	tokens []string
}

func newWire(b *testing.B, commit time.Duration) *wire {
	config := newConfig()
	config.BookLimit = Limit{limitRequestsMax, time.Second}
	config.Engine = newCommits(b, commit)
	config.Catalogue = wireCatalogue{state: wireState()}
	server, err := New(config)
	if err != nil {
		b.Fatal(err)
	}
	server.router.POST("/bare", func(c *gin.Context) { c.Data(http.StatusCreated, "application/json", wireReservation) })
	w := &wire{}
	for user := range evently.UserID(wireUsers) {
		token, err := server.tokens.sign(evently.Principal{User: user + 1, Session: evently.SessionID{1, byte(user), byte(user >> 8)}})
		if err != nil {
			b.Fatal(err)
		}
		w.tokens = append(w.tokens, token)
	}
	listener := listen(b)
	w.url = listener.Addr().String()
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	return w
}

func (w *wire) book(n int) []byte {
	return w.post("/events/evt_0000000000001/book", "Authorization: Bearer "+w.tokens[n%wireUsers]+"\r\nIdempotency-Key: bench-"+strconv.Itoa(n)+"\r\n")
}

func (w *wire) post(path, headers string) []byte {
	const body = `{"quantity":1}`
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: bench\r\nContent-Length: %d\r\nContent-Type: application/json\r\n%s\r\n%s",
		path, len(body), headers, body)
}

// run has another process send b.N requests, wireConnections at a time, after as many to warm up as tokens are to be verified.
func (w *wire) run(b *testing.B, request func(w *wire, n int) []byte) {
	client := exec.CommandContext(b.Context(), os.Args[0])
	client.Env = append(os.Environ(), wireVariable+"="+w.url)
	client.Stderr = os.Stderr
	in, err := client.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := client.Start(); err != nil {
		b.Fatal(err)
	}
	var requests [][]byte
	for n := range wireUsers {
		requests = append(requests, request(w, n))
	}
	orders, reports := json.NewEncoder(in), bufio.NewReader(out)
	send := func(count int) {
		if err := orders.Encode(wireOrder{requests, count}); err != nil {
			b.Fatal(err)
		}
		requests = nil
		if line, err := reports.ReadString('\n'); err != nil || line != "done\n" {
			b.Fatalf("%q, %v", line, err)
		}
	}
	send(2 * wireUsers)
	b.ReportAllocs()
	runtime.GC()
	b.ResetTimer()
	before := processTime(b)
	send(b.N)
	b.ReportMetric(float64(processTime(b)-before)/float64(b.N), "cpu-ns/op")
	b.StopTimer()
	if err := errors.Join(in.Close(), client.Wait()); err != nil {
		b.Fatal(err)
	}
}

func processTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// wireOrder tells a client to send a number of requests, in turns.
type wireOrder struct {
	Requests [][]byte // none: those of the order before
	Count    int
}

func init() {
	if address := os.Getenv(wireVariable); address != "" {
		if err := wireClient(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func wireClient(address string) error {
	var connections []*bufio.ReadWriter
	for range wireConnections {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		connections = append(connections, bufio.NewReadWriter(bufio.NewReader(connection), bufio.NewWriter(connection)))
	}
	orders := json.NewDecoder(os.Stdin)
	var requests [][]byte
	for {
		var order wireOrder
		if err := orders.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if order.Requests != nil {
			requests = order.Requests
		}
		var next atomic.Int64
		var failed atomic.Pointer[error]
		var sending sync.WaitGroup
		for _, connection := range connections {
			sending.Go(func() {
				for {
					n := int(next.Add(1)) - 1
					if n >= order.Count || failed.Load() != nil {
						return
					}
					if err := exchangeOnWire(connection, requests[n%len(requests)]); err != nil {
						failed.Store(&err)
					}
				}
			})
		}
		sending.Wait()
		if err := failed.Load(); err != nil {
			return *err
		}
		fmt.Println("done")
	}
}

func exchangeOnWire(connection *bufio.ReadWriter, request []byte) error {
	if _, err := connection.Write(request); err != nil {
		return err
	}
	if err := connection.Flush(); err != nil {
		return err
	}
	status, length := "", 0
	for {
		line, err := connection.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			break
		}
		if status == "" {
			status = string(line)
		}
		if value, found := bytes.CutPrefix(line, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	switch status {
	case "HTTP/1.1 201 Created", "HTTP/1.1 200 OK", "HTTP/1.1 304 Not Modified", "HTTP/1.1 409 Conflict":
	default:
		return errors.New(status)
	}
	_, err := connection.Discard(length)
	return err
}

var wireReservation = appendReservation(nil, newCommitted(&evently.Request{Event: 1}, &evently.Book{User: 1, Token: 1}))

func newCommitted(request *evently.Request, book *evently.Book) *evently.Reservation {
	now := time.Date(2027, 3, 1, 12, 0, 0, 123e6, time.UTC)
	return &evently.Reservation{
		ID: evently.ReservationID{Event: request.Event, Token: book.Token}, User: book.User, Status: evently.Held,
		Items:    evently.OneItem(evently.Item{Tier: 0, Quantity: 1, UnitPriceMinor: 2500}),
		Currency: "EUR", CreatedAt: now, ExpiresAt: now.Add(10 * time.Minute), Seq: 17,
	}
}

// commits is an engine that answers as an event's actor does: from another goroutine, and all that came during a commit together.
type commits struct{ asked chan *commitCall }

type commitCall struct {
	request *evently.Request
	answer  chan commitOutcome
	timer   *time.Timer
}

type commitOutcome struct {
	reply evently.Reply
	err   error
}

var commitCalls = sync.Pool{New: func() any {
	return &commitCall{answer: make(chan commitOutcome, 1), timer: time.NewTimer(time.Hour)}
}}

func newCommits(b *testing.B, took time.Duration) *commits {
	e := &commits{make(chan *commitCall, 4096)}
	go e.serve(b.Context(), took)
	return e
}

func (e *commits) Do(ctx context.Context, request *evently.Request) (evently.Reply, error) {
	call := commitCalls.Get().(*commitCall)
	call.request = request
	limit := 2 * time.Second
	if deadline, bounded := ctx.Deadline(); bounded {
		limit = min(limit, time.Until(deadline))
	}
	call.timer.Reset(limit)
	e.asked <- call
	select {
	case out := <-call.answer:
		call.timer.Stop()
		commitCalls.Put(call)
		return out.reply, out.err
	case <-call.timer.C:
		return evently.Reply{}, evently.ErrUnavailable
	case <-evently.Gone(ctx):
		return evently.Reply{}, ctx.Err()
	}
}

func (e *commits) serve(ctx context.Context, took time.Duration) {
	var window []*commitCall
	for {
		select {
		case call := <-e.asked:
			window = append(window, call)
		case <-ctx.Done():
			return
		}
		if took > 0 {
			<-time.After(took)
		}
		for len(e.asked) > 0 {
			window = append(window, <-e.asked)
		}
		for i, call := range window {
			out := commitOutcome{}
			if call.request.Event == 2 {
				out.err = evently.ErrSoldOut
			} else {
				out.reply.Reservation = *newCommitted(call.request, call.request.Command.(*evently.Book))
			}
			call.answer <- out
			window[i] = nil
		}
		window = window[:0]
	}
}

// wireCatalogue knows one event.
type wireCatalogue struct {
	evently.Catalogue
	state *evently.State
}

func (c wireCatalogue) State(context.Context, evently.EventID) (*evently.State, error) {
	return c.state, nil
}

func wireState() *evently.State {
	starts := time.Date(2027, 6, 1, 18, 0, 0, 0, time.UTC)
	state := &evently.State{
		Event: &evently.Event{ID: 1, Status: evently.EventPublished, Version: 1, EventDetails: evently.EventDetails{
			Name: "Night of the long strings", Description: "Chamber music until midnight.", Category: "music", Venue: "Great Hall",
			City: "Vienna", Timezone: "Europe/Vienna", Currency: "EUR", StartsAt: starts, EndsAt: starts.Add(4 * time.Hour),
			HoldTTL: 10 * time.Minute, MaxPerBooking: 10,
			Tiers: []evently.Tier{{Name: "General admission", Capacity: 1_000_000, BasePriceMinor: 2500, PriceMinor: 2500}},
		}},
		Availability: evently.Availability{Event: 1, Seq: 17},
	}
	state.Add(evently.TierAvailability{Capacity: 1_000_000, Held: 20, Booked: 300})
	return state
}
