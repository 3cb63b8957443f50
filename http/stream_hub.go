package http

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/evently/evently"
)

const (
	// streamPause lies between two states of an event that clients are sent: what is committed within it is told in one.
	streamPause = 100 * time.Millisecond
	// streamPollPeriod is how often a node asks the database for what other nodes have committed to the events that its clients
	// follow. Asking takes a tenth of the time at the most: the period grows with the number of events.
	streamPollPeriod = 250 * time.Millisecond
	streamPollShare  = 10
	streamPollMax    = 2 * time.Second // of one question
	streamMarksMax   = 2000            // events in one question
)

// hub tells the clients of this node what becomes of the events that they follow.
//
// A client holds no queue. There is one frame for each event, the newest, and a client that was slow goes on with that one. So
// a commit costs the same whoever listens, and a client costs no memory beyond its connection.
type hub struct {
	clientsMax, perAddressMax int
	load                      func(ctx context.Context, marks []evently.Mark) ([]*evently.State, error)
	heard                     func(state *evently.State, at time.Time) // is told what was read, and when the read began
	takeMax, heartbeat        time.Duration                            // streamTakeMax and streamHeartbeat
	now                       func() time.Time
	logger                    *slog.Logger
	metrics                   *streamMetrics

	ended   chan struct{} // closed: all streams end
	end     func()        // closes it
	running sync.WaitGroup

	mu        sync.RWMutex // Committed takes it for reading
	watches   map[evently.EventID]*watch
	clients   int
	addresses map[netip.Addr]int
	closed    bool // nobody joins any more
}

func newHub(config *Config, metrics *streamMetrics) *hub {
	h := &hub{
		clientsMax: config.StreamClientsMax, perAddressMax: config.StreamClientsPerAddress, load: config.Streams.Newer,
		takeMax: streamTakeMax, heartbeat: streamHeartbeat, now: config.Now, logger: config.Logger, metrics: metrics,
		ended: make(chan struct{}), watches: make(map[evently.EventID]*watch),
		addresses: make(map[netip.Addr]int), heard: func(*evently.State, time.Time) {},
	}
	h.end = sync.OnceFunc(func() { close(h.ended) })
	return h
}

// watch is an event that clients follow.
type watch struct {
	hub     *hub
	event   evently.EventID
	clients int           // guarded by the hub's mutex
	dirty   chan struct{} // holds an element when the state is newer than the frame
	stop    chan struct{}

	mu    sync.Mutex
	state *evently.State
	frame *frame
}

// frame is what clients are sent of a state. It never changes.
type frame struct {
	seq    uint64
	number uint64 // counts the frames of a watch
	text   []byte
	last   bool          // the stream ends with it
	newer  chan struct{} // closed: there is a newer frame
}

var errStreamsOfAddress = &evently.Error{
	Code: evently.CodeRateLimited, Detail: "Too many streams are open from your address.", RetryAfter: 30 * time.Second,
}

// join adds a client of an event, of which it knows a state. The client has to leave.
func (h *hub) join(state *evently.State, address netip.Addr) (*watch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, errDraining
	case h.clients >= h.clientsMax:
		return nil, evently.ErrOverloaded
	case h.addresses[address] >= h.perAddressMax:
		return nil, errStreamsOfAddress
	}
	h.clients++
	h.addresses[address]++
	h.metrics.clients.Set(float64(h.clients))
	w := h.watches[state.Event.ID]
	if w == nil {
		w = &watch{
			hub: h, event: state.Event.ID, dirty: make(chan struct{}, 1), stop: make(chan struct{}), state: state, frame: newFrame(state, 0),
		}
		h.watches[w.event] = w
		h.running.Go(w.run)
	} else {
		w.offer(state)
	}
	w.clients++
	return w, nil
}

func (h *hub) leave(w *watch, address netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients--
	h.metrics.clients.Set(float64(h.clients))
	if h.addresses[address]--; h.addresses[address] == 0 {
		delete(h.addresses, address)
	}
	if w.clients--; w.clients == 0 {
		delete(h.watches, w.event)
		close(w.stop)
	}
}

// committed takes a state that this node committed or read. It returns at once.
func (h *hub) committed(state *evently.State) {
	h.mu.RLock()
	w := h.watches[state.Event.ID]
	h.mu.RUnlock()
	if w != nil {
		w.offer(state)
	}
}

func (w *watch) offer(state *evently.State) {
	w.mu.Lock()
	newer := state.Seq > w.state.Seq
	if newer {
		w.state = state
	}
	w.mu.Unlock()
	if !newer {
		return
	}
	select {
	case w.dirty <- struct{}{}:
	default: // a state that nobody was sent has given way
		w.hub.metrics.coalesced.WithLabelValues("rate").Inc()
	}
}

// run publishes what is offered, until the last client has left.
func (w *watch) run() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-pause.C:
		}
		select {
		case <-w.stop:
			return
		case <-w.dirty:
			w.publish()
			pause.Reset(streamPause)
		}
	}
}

func (w *watch) publish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.frame
	if old.seq == w.state.Seq { // it was offered while the frame before was made
		return
	}
	w.frame = newFrame(w.state, old.number+1)
	close(old.newer)
}

func (w *watch) newest() *frame {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frame
}

func newFrame(state *evently.State, number uint64) *frame {
	return &frame{
		seq: state.Seq, number: number, text: appendFrame(nil, state), last: state.Event.Status == evently.EventCancelled,
		newer: make(chan struct{}),
	}
}

// appendFrame appends a state as a server-sent event.
func appendFrame(dst []byte, state *evently.State) []byte {
	body, err := json.Marshal(newAvailabilityJSON(state))
	if err != nil {
		panic("http: availability cannot be encoded: " + err.Error())
	}
	name := "availability"
	if state.Event.Status == evently.EventCancelled {
		name = "cancelled"
	}
	dst = append(append(append(dst, "event: "...), name...), "\nid: "...)
	dst = append(strconv.AppendUint(dst, state.Seq, 10), "\ndata: "...)
	return append(append(dst, body...), "\n\n"...)
}

// start asks for what other nodes commit until stop is called, which ends all streams and waits for them.
func (h *hub) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	h.running.Go(func() { h.poll(ctx) })
	return func() {
		h.end()
		cancel()
		h.mu.Lock()
		h.closed = true // so that nothing runs that is not waited for
		h.mu.Unlock()
		h.running.Wait()
	}
}

func (h *hub) poll(ctx context.Context) {
	failing := false
	for pause := streamPollPeriod; ; {
		timer := time.NewTimer(pause - rand.N(pause/8)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		began := time.Now()
		err := h.ask(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			h.logger.Warn("streams do not hear of other nodes' commits", "error", err)
		}
		failing = err != nil
		pause = max(streamPollPeriod, streamPollShare*time.Since(began))
	}
}

// ask reads what has changed of the events that clients follow.
func (h *hub) ask(ctx context.Context) error {
	for marks := range slices.Chunk(h.marks(), streamMarksMax) {
		began := h.now()
		ctx, cancel := context.WithTimeout(ctx, streamPollMax)
		states, err := h.load(ctx, marks)
		cancel()
		if err != nil {
			return err
		}
		for _, state := range states {
			h.heard(state, began)
			h.committed(state)
		}
	}
	return nil
}

func (h *hub) marks() []evently.Mark {
	h.mu.RLock()
	defer h.mu.RUnlock()
	marks := make([]evently.Mark, 0, len(h.watches))
	for id, w := range h.watches {
		w.mu.Lock()
		marks = append(marks, evently.Mark{Event: id, Seq: w.state.Seq})
		w.mu.Unlock()
	}
	return marks
}
