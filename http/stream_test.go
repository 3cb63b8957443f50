package http

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/evently/evently"
)

// fakeStreams is the database of streams, and the catalogue beside it.
type fakeStreams struct {
	evently.Catalogue
	mu     sync.Mutex
	states map[evently.EventID][]*evently.State // after each entry
	reads  int                                  // of last states
	err    error
}

func (f *fakeStreams) add(state *evently.State) *evently.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states[state.Event.ID] = append(f.states[state.Event.ID], state)
	return state
}

func (f *fakeStreams) last(id evently.EventID) (*evently.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := f.states[id]
	if len(states) == 0 {
		return nil, evently.ErrEventNotFound
	}
	return states[len(states)-1], nil
}

func (f *fakeStreams) State(_ context.Context, id evently.EventID) (*evently.State, error) {
	return f.last(id)
}

func (f *fakeStreams) Newer(_ context.Context, marks []evently.Mark) (newer []*evently.State, err error) {
	for _, mark := range marks {
		if state, err := f.last(mark.Event); err == nil && state.Seq > mark.Seq {
			newer = append(newer, state)
		}
	}
	return newer, nil
}

func (f *fakeStreams) Recent(_ context.Context, id evently.EventID, limit int) ([]*evently.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	states := f.states[id]
	return slices.Clone(states[max(0, len(states)-limit):]), f.err
}

// shown is a published event's state.
func shown(id evently.EventID, seq uint64, booked int) *evently.State {
	state := &evently.State{
		Event:        &evently.Event{ID: id, Status: evently.EventPublished, EventDetails: evently.EventDetails{Tiers: make([]evently.Tier, 1)}},
		Availability: evently.Availability{Event: id, Seq: seq, AsOf: time.Date(2027, 3, 1, 12, 0, 0, int(seq)*1e6, time.UTC)},
	}
	state.Add(evently.TierAvailability{Capacity: 1000, Booked: booked})
	return state
}

// staged is a state at another stage of the event.
func staged(state *evently.State, status evently.EventStatus) *evently.State {
	event := *state.Event
	event.Status = status
	return &evently.State{Event: &event, Availability: state.Availability}
}

// newTheatre is a site with streams of a fake database.
func newTheatre(t *testing.T, change func(*Config)) (*site, *fakeStreams) {
	t.Helper()
	streams := &fakeStreams{states: make(map[evently.EventID][]*evently.State)}
	return newSite(t, func(c *Config) {
		c.Catalogue, c.Streams = streams, streams
		if change != nil {
			change(c)
		}
	}), streams
}

// message is a server-sent event.
type message struct{ name, id, data string }

// listener reads a stream.
type listener struct {
	t      testing.TB
	body   io.ReadCloser
	lines  *bufio.Scanner
	status int
	header http.Header
	retry  time.Duration
}

// open opens a stream. It ends with the test.
func (w *site) open(t testing.TB, path string, headers ...string) *listener {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Add(pair[0], pair[1])
	}
	response, err := w.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return &listener{t: t, body: response.Body, lines: bufio.NewScanner(response.Body), status: response.StatusCode, header: response.Header}
}

// next returns the next event, or comment, of a stream; false at its end.
func (l *listener) next() (m message, more bool) {
	for l.lines.Scan() {
		name, value, _ := strings.Cut(l.lines.Text(), ": ")
		switch name {
		case "":
			if m != (message{}) {
				return m, true
			}
		case ":":
			m.name = ":"
		case "retry":
			ms, err := strconv.Atoi(value)
			if err != nil {
				l.t.Errorf("retry: %v", err)
			}
			l.retry = time.Duration(ms) * time.Millisecond
		case "event":
			m.name = value
		case "id":
			m.id = value
		case "data":
			m.data = value
		default:
			l.t.Errorf("line %q", l.lines.Text())
		}
	}
	return m, false
}

// want reads states of these numbers, and of no other.
func (l *listener) want(seqs ...uint64) {
	l.t.Helper()
	for _, seq := range seqs {
		m, more := l.next()
		var body availabilityJSON
		if err := json.Unmarshal([]byte(m.data), &body); err != nil || !more || m.name != "availability" ||
			m.id != fmt.Sprint(seq) || body.Seq != seq {
			l.t.Fatalf("got %+v (%v, more: %v), want the state after entry %d", m, err, more, seq)
		}
	}
}

// ends expects the stream to be over.
func (l *listener) ends() {
	l.t.Helper()
	if m, more := l.next(); more || m != (message{}) {
		l.t.Errorf("the stream goes on with %+v", m)
	}
}

const theatre = evently.EventID(7)

func streamPath(id evently.EventID) string { return "/events/" + id.String() + "/stream" }

func TestStream_TellsThePresentStateAndThenChanges(t *testing.T) {
	w, database := newTheatre(t, nil)
	database.add(shown(theatre, 5, 10))
	l := w.open(t, streamPath(theatre))
	if l.status != http.StatusOK || l.header.Get("Content-Type") != "text/event-stream" || l.header.Get("X-Accel-Buffering") != "no" ||
		!strings.Contains(l.header.Get("Cache-Control"), "no-transform") || l.header.Get("Content-Encoding") != "" || l.header.Get("X-Request-Id") == "" {
		t.Fatalf("status %d, header %v", l.status, l.header)
	}
	m, _ := l.next()
	if want := w.do(t, "GET", "/events/"+theatre.String()+"/availability", ""); m != (message{"availability", "5", string(want.body)}) {
		t.Errorf("got %+v, want the availability %s", m, want.body)
	}
	if l.retry < streamRetryMin || l.retry > streamRetryMax {
		t.Errorf("retry after %s", l.retry)
	}
	for seq := uint64(6); seq < 10; seq++ {
		w.server.Committed(database.add(shown(theatre, seq, int(seq))))
		w.server.Committed(shown(theatre+1, seq+100, 0)) // of another event
		l.want(seq)
	}
	w.server.Committed(shown(theatre, 8, 0)) // late
	w.server.Committed(database.add(shown(theatre, 10, 0)))
	l.want(10)
	if err := l.body.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the access is counted", func() bool { return testutil.ToFloat64(w.server.metrics.streams.ends.WithLabelValues(streamLeft)) == 1 })
	if n := testutil.ToFloat64(w.server.metrics.streams.events); n != 6 {
		t.Errorf("%v states were sent, want 6", n)
	}
}

func TestStream_OnlyOfWhatIsPublished(t *testing.T) {
	w, database := newTheatre(t, nil)
	database.add(staged(shown(theatre, 5, 0), evently.EventDraft))
	w.do(t, "GET", streamPath(theatre), "").problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", streamPath(theatre+1), "").problem(t, evently.CodeEventNotFound)
	w.do(t, "GET", "/events/nonsense/stream", "").problem(t, evently.CodeEventNotFound)
	if a := w.do(t, "HEAD", streamPath(theatre), ""); a.status != http.StatusNotFound {
		t.Errorf("HEAD of a draft: %d", a.status)
	}
	database.add(shown(theatre, 6, 0))
	w.clock.add(2 * cacheTTL)
	if a := w.do(t, "HEAD", streamPath(theatre), ""); a.status != http.StatusOK || a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	if n := testutil.ToFloat64(w.server.metrics.streams.clients); n != 0 {
		t.Errorf("%v clients, want none", n)
	}
}

func TestStream_Resumes(t *testing.T) {
	all := func(from, to uint64) (seqs []uint64) {
		for seq := from; seq <= to; seq++ {
			seqs = append(seqs, seq)
		}
		return seqs
	}
	const newest = 400
	for name, c := range map[string]struct {
		query string
		ids   []string
		want  []uint64 // before what comes next
	}{
		"the last but two":     {"", []string{"398"}, []uint64{399, 400}},
		"by query":             {"?last_event_id=398", nil, []uint64{399, 400}},
		"header before query":  {"?last_event_id=398", []string{"399"}, []uint64{400}},
		"nothing missed":       {"", []string{"400"}, nil},
		"as far as it goes":    {"", []string{"144"}, all(145, 400)},
		"too far back":         {"", []string{"143"}, []uint64{400}},
		"from the beginning":   {"", []string{"0"}, []uint64{400}},
		"of a restored one":    {"", []string{"401"}, []uint64{400}},
		"far ahead":            {"", []string{"9223372036854775807"}, []uint64{400}},
		"beyond all numbers":   {"", []string{"18446744073709551616"}, []uint64{400}},
		"negative":             {"", []string{"-1"}, []uint64{400}},
		"no number":            {"", []string{"abc"}, []uint64{400}},
		"empty":                {"", []string{""}, []uint64{400}},
		"long":                 {"", []string{strings.Repeat("9", 8000)}, []uint64{400}},
		"other alphabets":      {"", []string{"٣٩٨"}, []uint64{400}},
		"twice":                {"", []string{"398", "397"}, []uint64{400}},
		"number and something": {"", []string{"398, 399"}, []uint64{400}},
	} {
		t.Run(name, func(t *testing.T) {
			w, database := newTheatre(t, nil)
			for seq := range uint64(newest) {
				database.add(shown(theatre, seq+1, int(seq)))
			}
			var headers []string
			for _, id := range c.ids {
				headers = append(headers, "Last-Event-ID", id)
			}
			l := w.open(t, streamPath(theatre)+c.query, headers...)
			l.want(c.want...)
			w.server.Committed(database.add(shown(theatre, newest+1, 0)))
			l.want(newest + 1)
		})
	}
	w, database := newTheatre(t, nil)
	database.add(shown(theatre, 5, 0))
	for _, query := range []string{"", "x", "-1", "1.5", "9223372036854775808"} {
		w.do(t, "GET", streamPath(theatre)+"?last_event_id="+query, "").field(t, "last_event_id")
	}
}

// What was a draft is nobody's business, and a client that knows more than a remembered read of the database is not taken for one
// of another database.
func TestStream_ResumesBehindADraftAndAheadOfTheCache(t *testing.T) {
	w, database := newTheatre(t, nil)
	for seq := uint64(1); seq <= 3; seq++ {
		database.add(staged(shown(theatre, seq, 0), evently.EventDraft))
	}
	database.add(shown(theatre, 4, 0))
	database.add(shown(theatre, 5, 0))
	w.open(t, streamPath(theatre), "Last-Event-ID", "1").want(4, 5)
	for seq := uint64(6); seq <= 8; seq++ {
		w.server.Committed(database.add(shown(theatre, seq, 0)))
	}
	w.open(t, streamPath(theatre), "Last-Event-ID", "6").want(7, 8)
	before := database.reads
	for range 50 { // all at once, as after a node has gone
		w.open(t, streamPath(theatre), "Last-Event-ID", "6").want(7, 8)
	}
	if n := database.reads - before; n != 0 {
		t.Errorf("%d reads of the database for 50 clients, want none", n)
	}
	database.err = errors.New("broken")
	w.clock.add(time.Hour)
	w.open(t, streamPath(theatre), "Last-Event-ID", "7").want(8) // what is known
}

func TestStream_EndsWithTheEvent(t *testing.T) {
	w, database := newTheatre(t, nil)
	database.add(shown(theatre, 5, 10))
	l := w.open(t, streamPath(theatre))
	l.want(5)
	w.server.Committed(database.add(staged(shown(theatre, 6, 10), evently.EventCancelled)))
	if m, _ := l.next(); m.name != "cancelled" || m.id != "6" || !strings.Contains(m.data, `"booked":10`) {
		t.Errorf("got %+v, want the cancellation", m)
	}
	l.ends()
	w.server.Committed(database.add(staged(shown(theatre, 7, 0), evently.EventCancelled))) // its bookings are cancelled after it
	again := w.open(t, streamPath(theatre), "Last-Event-ID", "6")
	if m, _ := again.next(); m.name != "cancelled" || m.id != "7" {
		t.Errorf("got %+v, want the cancellation", m)
	}
	again.ends()
	if a := w.do(t, "GET", streamPath(theatre), "", "Last-Event-ID", "7"); a.status != http.StatusNoContent {
		t.Errorf("told of the end: %d, want 204, which browsers do not come back from", a.status)
	}
	late := w.open(t, streamPath(theatre))
	if m, _ := late.next(); m.name != "cancelled" || m.id != "7" {
		t.Errorf("got %+v, want the cancellation", m)
	}
	late.ends()
	if n := testutil.ToFloat64(w.server.metrics.streams.ends.WithLabelValues(streamCancelled)); n != 3 {
		t.Errorf("%v streams ended with the event, want 3", n)
	}
}

func TestStream_IsBounded(t *testing.T) {
	w, database := newTheatre(t, func(c *Config) {
		c.StreamClientsMax, c.StreamClientsPerAddress, c.InFlightMax, c.TrustedProxies = 3, 2, 1, []string{"127.0.0.1"}
	})
	database.add(shown(theatre, 5, 0))
	of := func(address string) []string { return []string{"X-Forwarded-For", address} }
	first := w.open(t, streamPath(theatre), of("192.0.2.1")...)
	first.want(5)
	w.open(t, streamPath(theatre), of("192.0.2.1")...).want(5)
	refused := w.do(t, "GET", streamPath(theatre), "", of("192.0.2.1")...)
	refused.problem(t, evently.CodeRateLimited)
	if refused.header.Get("Retry-After") == "" || refused.header.Get("X-Accel-Buffering") != "" {
		t.Errorf("refused with %v", refused.header)
	}
	w.open(t, streamPath(theatre), of("192.0.2.2")...).want(5)
	w.do(t, "GET", streamPath(theatre), "", of("192.0.2.3")...).problem(t, evently.CodeOverloaded)
	if a := w.do(t, "GET", "/events/"+theatre.String(), ""); a.status != http.StatusOK {
		t.Errorf("streams count as requests in flight: %d %s", a.status, a.body)
	}
	if err := first.body.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the place is free", func() bool { return testutil.ToFloat64(w.server.metrics.streams.clients) == 2 })
	w.open(t, streamPath(theatre), of("192.0.2.1")...).want(5)
	if n := testutil.ToFloat64(w.server.metrics.inFlight); n != 0 {
		t.Errorf("%v requests in flight, want none", n)
	}
}

func TestStream_BeginsOnlyWhereThereIsRoomForARequest(t *testing.T) {
	slow, reached, let := blocking("/slow")
	w := newSite(t, func(c *Config) {
		database := &fakeStreams{states: make(map[evently.EventID][]*evently.State)}
		database.add(shown(theatre, 5, 0))
		c.Catalogue, c.Streams, c.InFlightMax = database, database, 1
	}, slow)
	other := w.begin(t, "POST", "/slow", "{}")
	<-reached
	if status := w.statusOf(t, "GET", streamPath(theatre), "", nil); status != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", status)
	}
	close(let)
	if o := <-other; o.err != nil {
		t.Fatal(o.err)
	}
	w.open(t, streamPath(theatre)).want(5)
}

func TestStream_IsSilentForNoLongerThanAHeartbeat(t *testing.T) {
	w, database := newTheatre(t, nil)
	w.server.streams.heartbeat = 20 * time.Millisecond
	database.add(shown(theatre, 5, 0))
	l := w.open(t, streamPath(theatre))
	l.want(5)
	for range 3 {
		if m, more := l.next(); m != (message{name: ":"}) || !more {
			t.Fatalf("got %+v, want a comment", m)
		}
	}
}

// The times that net/http has for requests are not those of streams.
func TestStream_OutlivesTheTimesOfRequests(t *testing.T) {
	w, database := newTheatre(t, func(c *Config) { c.RequestTimeout = 50 * time.Millisecond })
	w.server.streams.heartbeat = 10 * time.Millisecond
	database.add(shown(theatre, 5, 0))
	socket := listen(t)
	server := &http.Server{Handler: w.server.Handler(), ReadTimeout: 50 * time.Millisecond, WriteTimeout: 50 * time.Millisecond}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(socket) }()
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	w.url = "http://" + socket.Addr().String()
	l := w.open(t, streamPath(theatre))
	l.want(5)
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
		if m, more := l.next(); m.name != ":" || !more {
			t.Fatalf("the stream ended after %s with %+v", time.Since(began), m)
		}
	}
	w.server.Committed(database.add(shown(theatre, 6, 0)))
	for {
		if m, more := l.next(); m.id == "6" {
			break
		} else if !more {
			t.Fatal("the stream ended")
		}
	}
}

func TestStream_HearsOfOtherNodes(t *testing.T) {
	w, database := newTheatre(t, nil)
	defer w.server.streams.start()()
	database.add(shown(theatre, 5, 0))
	database.add(shown(theatre+1, 5, 0))
	l, other := w.open(t, streamPath(theatre)), w.open(t, streamPath(theatre+1))
	l.want(5)
	other.want(5)
	database.add(shown(theatre, 6, 3)) // committed elsewhere
	l.want(6)
	database.add(shown(theatre, 7, 3))
	l.want(7)
	if state, known := w.server.caches.states.peek(theatre); !known || state.Seq != 7 {
		t.Errorf("the cache has %+v", state)
	}
}

func TestServe_EndsStreamsAtOnceWhenItDrains(t *testing.T) {
	w, database := newTheatre(t, nil)
	database.add(shown(theatre, 5, 0))
	s := serve(t, w, w.server.Serve)
	defer w.client.CloseIdleConnections()
	var open []*listener
	for range 20 {
		l := w.open(t, streamPath(theatre))
		l.want(5)
		open = append(open, l)
	}
	began := time.Now()
	s.stop()
	for _, l := range open {
		l.ends()
	}
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > drainSlowMax {
		t.Errorf("the drain took %s", took)
	}
	if n := testutil.ToFloat64(w.server.metrics.streams.ends.WithLabelValues(streamDrained)); n != 20 {
		t.Errorf("%v streams were drained, want 20", n)
	}
}

// finish stops a server that has nothing more to do.
func (s *served) finish(t *testing.T) {
	s.stop()
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}

// deaf opens a stream and reads nothing of it.
func (w *site) deaf(t *testing.T, path string) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	tcp := conn.(*net.TCPConn)
	if err := tcp.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: evently\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	return tcp
}

// wide is a state of an event of many tiers, some 3 KB.
func wide(id evently.EventID, seq uint64) *evently.State {
	state := shown(id, seq, 0)
	event := *state.Event
	event.Tiers = make([]evently.Tier, evently.TiersMax)
	wide := &evently.State{Event: &event, Availability: evently.Availability{Event: id, Seq: seq, AsOf: state.AsOf}}
	for range evently.TiersMax {
		wide.Add(evently.TierAvailability{Capacity: 1_000_000, Booked: int(seq)})
	}
	return wide
}

// watched is what clients of an event wait at.
func (w *site) watched(t *testing.T, id evently.EventID) (found *watch) {
	t.Helper()
	eventually(t, "somebody follows the event", func() bool {
		w.server.streams.mu.RLock()
		defer w.server.streams.mu.RUnlock()
		found = w.server.streams.watches[id]
		return found != nil
	})
	return found
}

// A client takes nothing for a while, and goes on with the newest state. Another one misses none.
func TestStream_SlowClientsHarmNobody(t *testing.T) {
	const states = 400
	w, database := newTheatre(t, nil)
	database.add(wide(theatre, 1))
	s := serve(t, w, w.server.Serve)
	defer s.finish(t)
	late := w.deaf(t, streamPath(theatre))
	fast := w.open(t, streamPath(theatre))
	fast.want(1)
	watched := w.watched(t, theatre)
	for seq := uint64(2); seq <= states; seq++ {
		watched.offer(database.add(wide(theatre, seq)))
		watched.publish() // without the pause
		if seq%50 == 0 {
			for m, more := fast.next(); m.id != fmt.Sprint(seq); m, more = fast.next() {
				if !more {
					t.Fatal("the fast client's stream ended")
				}
			}
		}
	}
	reader := bufio.NewReader(late)
	var ids []uint64
	for len(ids) == 0 || ids[len(ids)-1] != states {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatalf("after %v: %v", ids, err)
		}
		if text, found := strings.CutPrefix(strings.TrimSpace(line), "id: "); found {
			id, err := strconv.ParseUint(text, 10, 64)
			if err != nil || len(ids) > 0 && id <= ids[len(ids)-1] {
				t.Fatalf("id %q after %v", text, ids)
			}
			ids = append(ids, id)
		}
	}
	missed := testutil.ToFloat64(w.server.metrics.streams.coalesced.WithLabelValues("client"))
	if len(ids) > states*3/4 || missed < states/4 {
		t.Errorf("the slow client was sent %d of %d states, and %v were left out: it was not slow", len(ids), states, missed)
	}
}

func TestStream_ClientThatTakesNothingIsCut(t *testing.T) {
	w, database := newTheatre(t, nil)
	w.server.streams.takeMax = 100 * time.Millisecond
	database.add(wide(theatre, 1))
	s := serve(t, w, w.server.Serve)
	defer s.finish(t)
	w.deaf(t, streamPath(theatre))
	watched := w.watched(t, theatre)
	seq := uint64(1)
	eventually(t, "the client that takes nothing is cut", func() bool {
		seq++
		watched.offer(database.add(wide(theatre, seq)))
		watched.publish()
		return testutil.ToFloat64(w.server.metrics.streams.ends.WithLabelValues(streamSlow)) == 1
	})
}

func TestStream_ManyClientsOfManyEvents(t *testing.T) {
	const clients, events, changes = 300, 10, 20
	w, database := newTheatre(t, nil)
	for id := range evently.EventID(events) {
		database.add(shown(id+1, 1, 0))
	}
	w.client.Transport.(*http.Transport).MaxConnsPerHost = 0
	var listening, done sync.WaitGroup
	listening.Add(clients)
	for i := range clients {
		id := evently.EventID(i%events) + 1
		done.Go(func() {
			l := w.open(t, streamPath(id))
			listening.Done()
			last := uint64(0)
			for last < changes {
				m, more := l.next()
				seq, err := strconv.ParseUint(m.id, 10, 64)
				if err != nil || !more || seq <= last {
					t.Errorf("got %+v after %d (%v)", m, last, err)
					return
				}
				last = seq
			}
			l.body.Close()
		})
	}
	listening.Wait()
	for seq := uint64(2); seq <= changes; seq++ {
		for id := range evently.EventID(events) {
			w.server.Committed(database.add(shown(id+1, seq, int(seq))))
		}
	}
	done.Wait()
	eventually(t, "all have left", func() bool { return testutil.ToFloat64(w.server.metrics.streams.clients) == 0 })
	w.server.streams.mu.RLock()
	defer w.server.streams.mu.RUnlock()
	if len(w.server.streams.watches) > 0 || len(w.server.streams.addresses) > 0 {
		t.Errorf("left behind: %d events, %d addresses", len(w.server.streams.watches), len(w.server.streams.addresses))
	}
	w.server.streams.running.Wait()
}

// However many commits there are, an event has ten states a second, the first one at once and the last one always.
func TestHub_Coalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := &Config{Streams: &fakeStreams{}, Now: time.Now, StreamClientsMax: 1, StreamClientsPerAddress: 1}
		h := newHub(config, newStreamMetrics(prometheus.NewRegistry()))
		address := netip.MustParseAddr("192.0.2.1")
		w, err := h.join(shown(theatre, 1, 0), address)
		if err != nil {
			t.Fatal(err)
		}
		began, first := time.Now(), w.newest()
		var got []uint64
		var at []time.Duration
		var reading sync.WaitGroup
		reading.Go(func() {
			for f := first; f.seq < 2500; f = w.newest() {
				<-f.newer
				got, at = append(got, w.newest().seq), append(at, time.Since(began))
			}
		})
		for seq := uint64(2); seq <= 2500; seq++ {
			h.committed(shown(theatre, seq, 0))
			synctest.Wait()
			<-time.After(time.Millisecond)
		}
		reading.Wait()
		if len(got) < 25 || len(got) > 27 || got[0] != 2 || at[0] != 0 || got[len(got)-1] != 2500 {
			t.Errorf("states %v at %v", got, at)
		}
		for i := 1; i < len(at); i++ {
			if at[i]-at[i-1] < streamPause {
				t.Errorf("%s between two states", at[i]-at[i-1])
			}
		}
		h.leave(w, address)
		h.running.Wait()
	})
}

// Not even a request that was cut off at the end of the drain, and does not know it yet.
func TestHub_NobodyJoinsWhenItHasStopped(t *testing.T) {
	config := &Config{Streams: &fakeStreams{}, Now: time.Now, StreamClientsMax: 1, StreamClientsPerAddress: 1}
	h := newHub(config, newStreamMetrics(prometheus.NewRegistry()))
	h.start()()
	if w, err := h.join(shown(theatre, 1, 0), netip.MustParseAddr("192.0.2.1")); !errors.Is(err, evently.ErrUnavailable) || w != nil {
		t.Errorf("got %v, %v", w, err)
	}
}
