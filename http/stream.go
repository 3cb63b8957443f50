package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/evently/evently"
)

const (
	// streamHeartbeat is the longest silence of a stream: proxies and clients take a longer one for a dead connection.
	streamHeartbeat = 15 * time.Second
	// streamTakeMax is the time in which a client takes what it is sent, or is cut.
	streamTakeMax = 10 * time.Second
	// streamBufferBytes bounds what the operating system keeps for a client that takes nothing.
	streamBufferBytes = 32 << 10
	// streamResumeMax is how many entries a client that comes again may have missed and be told of one by one.
	streamResumeMax = 256
	// recentMax bounds the events whose last states are remembered, for clients that all come again at the same time.
	recentMax = 64
	// recentLoadsMax bounds the events whose last states are read at a time, which leaves connections to other requests.
	recentLoadsMax = 4
	// Clients that lost their stream come again after a time between these.
	streamRetryMin = time.Second
	streamRetryMax = 3 * time.Second
)

var (
	streamMediaType = []string{"text/event-stream"}
	streamCaching   = []string{"no-store, no-transform"} // a proxy that compresses collects what it should pass on
	streamBuffering = []string{"no"}                     // of nginx
	heartbeat       = []byte(":\n\n")
)

func (s *Server) streamRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/events/:id/stream", handle: s.streamAvailability, query: []string{"last_event_id"}, endless: true},
	}
}

// streamAvailability is GET /events/{id}/stream: server-sent events, the present state at once and then every change.
func (s *Server) streamAvailability(c *gin.Context) error {
	var state *evently.State
	var missed []byte
	var known uint64
	// Until it begins a stream is a request like others, and bounded as they are.
	if err := s.admitted(false, s.config.RequestTimeout, func(c *gin.Context) (err error) {
		state, missed, known, err = s.toldFirst(c)
		return err
	})(c); err != nil {
		return err
	}
	if state.Event.Status == evently.EventCancelled && known == state.Seq {
		writeNothing(c) // it has been told that all is over: a browser that gets this does not come again
		return nil
	}
	header := c.Writer.Header()
	begin := func() {
		header["Content-Type"], header["Cache-Control"] = streamMediaType, streamCaching
		header["X-Accel-Buffering"], header["Connection"] = streamBuffering, connectionClose // whose buffer is small
		c.Writer.WriteHeaderNow()
	}
	if c.Request.Method == http.MethodHead {
		begin()
		return nil
	}
	address := addressOf(c)
	w, err := s.streams.join(state, address)
	if err != nil {
		return err
	}
	defer s.streams.leave(w, address)
	begin()
	s.metrics.streams.ends.WithLabelValues(s.follow(c, w, missed, known)).Inc()
	return nil
}

// toldFirst returns the newest state, the frames of what a client that comes again has missed before it, and the number of the last
// entry that the client knows then; 0: none.
func (s *Server) toldFirst(c *gin.Context) (state *evently.State, missed []byte, known uint64, err error) {
	after, resumes, err := lastEventID(c)
	if err != nil {
		return nil, nil, 0, err
	}
	if state, err = s.publicState(c); err != nil || !resumes {
		return state, nil, 0, err
	}
	state, missed, known = s.resume(c.Request.Context(), state, after)
	return state, missed, known, nil
}

// newRecent makes the cache of the states that clients may have missed.
func newRecent(config *Config, metrics *metrics) *cache[evently.EventID, []*evently.State] {
	recent := newCache[evently.EventID, []*evently.State](recentMax, "recent", config, metrics)
	loading := make(chan struct{}, recentLoadsMax)
	recent.load = func(ctx context.Context, id evently.EventID) ([]*evently.State, error) {
		select {
		case loading <- struct{}{}:
			defer func() { <-loading }()
		case <-ctx.Done():
			return nil, fmt.Errorf("wait to read the last states of event %s: %w", id, ctx.Err())
		}
		return config.Streams.Recent(ctx, id, streamResumeMax)
	}
	recent.newest = func(_, loaded []*evently.State) []*evently.State { return loaded }
	return recent
}

// lastEventID is the number of the last entry that the client was told of. What is no number in the header is none: browsers repeat
// what they were sent, and would not come again after a refusal.
func lastEventID(c *gin.Context) (seq uint64, found bool, err error) {
	if values := c.Request.Header["Last-Event-Id"]; len(values) == 1 {
		if seq, err = strconv.ParseUint(values[0], 10, 63); err != nil {
			return 0, false, nil
		}
		return seq, true, nil
	}
	text, found := c.GetQuery("last_event_id")
	if !found {
		return 0, false, nil
	}
	if seq, err = strconv.ParseUint(text, 10, 63); err != nil {
		return 0, false, invalid("last_event_id", "must be the id of an event of this stream")
	}
	return seq, true, nil
}

// resume finds what a client has missed since the entry after. It returns the newest state, the frames of those before it, and the
// number of the last entry that the client knows then; 0: none.
func (s *Server) resume(ctx context.Context, state *evently.State, after uint64) (_ *evently.State, missed []byte, known uint64) {
	id := state.Event.ID
	s.caches.recent.outdate() // one read in a tenth of a second is for all that come again
	recent, err := s.caches.recent.get(ctx, id)
	if err == nil && recent[len(recent)-1].Seq < after {
		s.caches.recent.expire(id) // it may be older than what the client knows
		recent, err = s.caches.recent.get(ctx, id)
	}
	if err != nil {
		if !errors.Is(err, evently.ErrUnavailable) && ctx.Err() == nil {
			s.config.Logger.ErrorContext(ctx, "a stream goes on without what it missed", slog.Any("error", err))
		}
		return state, nil, 0
	}
	newest := recent[len(recent)-1]
	switch {
	case after > newest.Seq, after+1 < recent[0].Seq: // of a database that was restored since, or too long ago
		return newest, nil, 0
	case after == newest.Seq:
		return newest, nil, after
	}
	for _, state := range recent[after+1-recent[0].Seq : len(recent)-1] {
		// Nobody is to know of a draft, and of a cancelled event only the end is told.
		if state.Event.Status == evently.EventPublished {
			missed = appendFrame(missed, state)
		}
	}
	return newest, missed, newest.Seq - 1
}

// Why a stream ended.
const (
	streamLeft      = "left" // the client did
	streamSlow      = "slow"
	streamDrained   = "drained"
	streamCancelled = "cancelled"
)

// follow sends a client what becomes of the event after the entry known, 0 for none, and returns why it ended.
func (s *Server) follow(c *gin.Context, w *watch, missed []byte, known uint64) (ended string) {
	out := newStreamWriter(c, s.streams.takeMax)
	retry := streamRetryMin + rand.N(streamRetryMax-streamRetryMin) //nolint:gosec // no secret
	text := append([]byte("retry: "), strconv.AppendInt(nil, retry.Milliseconds(), 10)...)
	text = append(append(text, "\n\n"...), missed...)
	if err := out.write(text); err != nil {
		return s.failedStream(c, err)
	}
	silence := time.NewTimer(s.streams.heartbeat)
	defer silence.Stop()
	var before *frame // that the client was sent
	for {
		newest := w.newest()
		if newest != before && newest.seq > known {
			if err := out.write(newest.text); err != nil {
				return s.failedStream(c, err)
			}
			s.metrics.streams.events.Inc()
			if before != nil {
				s.metrics.streams.coalesced.WithLabelValues("client").Add(float64(newest.number - before.number - 1))
			}
			silence.Reset(s.streams.heartbeat)
		}
		if before = newest; newest.last {
			return streamCancelled
		}
		select {
		case <-newest.newer:
		case <-silence.C:
			if err := out.write(heartbeat); err != nil {
				return s.failedStream(c, err)
			}
			silence.Reset(s.streams.heartbeat)
		case <-s.streams.ended:
			return streamDrained
		case <-c.Request.Context().Done():
			return streamLeft
		}
	}
}

// failedStream tells why a write failed.
func (s *Server) failedStream(c *gin.Context, err error) (ended string) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.config.Logger.InfoContext(c.Request.Context(), "a stream is cut: its client takes nothing",
			slog.String("request_id", requestID(c)), slog.String("address", c.ClientIP()))
		return streamSlow
	}
	return streamLeft
}

// streamWriter writes to a client at once, and with a time limit.
type streamWriter struct {
	to      gin.ResponseWriter
	control *http.ResponseController
	takeMax time.Duration
}

// newStreamWriter prepares the connection: the deadlines of net/http are those of requests that end.
func newStreamWriter(c *gin.Context, takeMax time.Duration) *streamWriter {
	w := &streamWriter{to: c.Writer, takeMax: takeMax}
	raw := http.ResponseWriter(c.Writer)
	for { // net/http's own, which alone tells of failures to flush
		inner, wrapped := raw.(interface{ Unwrap() http.ResponseWriter })
		if !wrapped {
			break
		}
		raw = inner.Unwrap()
	}
	w.control = http.NewResponseController(raw)
	// A deadline for reading would be taken for a client that hung up. Errors mean that the connection is closed, which the first
	// write finds out.
	_ = w.control.SetReadDeadline(time.Time{})
	if conn := exchangeOf(c).conn; conn != nil {
		if tcp, bounded := conn.Conn.(interface{ SetWriteBuffer(bytes int) error }); bounded {
			_ = tcp.SetWriteBuffer(streamBufferBytes)
		}
	}
	exchangeOf(c).conn.move(sending)
	return w
}

func (w *streamWriter) write(text []byte) error {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.takeMax)) // as above
	if _, err := w.to.Write(text); err != nil {
		return err
	}
	return w.control.Flush()
}
