package store

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
)

const (
	pingPeriod = 500 * time.Millisecond
	pingMax    = time.Second
	// listenMax bounds connecting.
	listenMax = 3 * time.Second

	reconnectPauseMin = 50 * time.Millisecond
	reconnectPauseMax = time.Second
)

// Handlers are told what changes in the database, by whichever node. They are called one at a time, on Run's goroutine,
// and must not block: pings wait for them. A handler that is nil is not called.
type Handlers struct {
	// SessionEnded: a session was revoked.
	SessionEnded func(evently.SessionID)
	// EventChanged: the details or the status of an event changed, or it was created or deleted. Bookings do not change it.
	EventChanged func(evently.EventID)
	// Resumed: signals are heard from now on, and those of the time before may be lost. It comes first, and again after each loss
	// of the connection. What it reads is not older than what was signalled before.
	Resumed func()
}

// Listener hears the signals that the database sends when something changes that nodes cache, and watches whether Postgres
// answers. It does so on one connection of its own, which it makes again when it is lost. Behind a pooler that lends out
// connections for single transactions nothing is heard: signals make changes known sooner, and must not be the only way.
type Listener struct {
	connect  *pgx.ConnConfig
	handlers Handlers
	logger   *slog.Logger
	metrics  *Metrics

	mu        sync.Mutex
	reachable bool
	since     time.Time
}

// NewListener returns a listener for the database of a pool. It takes no connection from the pool, only its settings.
// Nothing happens before Run. A nil logger or nil metrics stand for defaults.
func NewListener(pool *pgxpool.Pool, handlers Handlers, logger *slog.Logger, metrics *Metrics) *Listener {
	if handlers.SessionEnded == nil {
		handlers.SessionEnded = func(evently.SessionID) {}
	}
	if handlers.EventChanged == nil {
		handlers.EventChanged = func(evently.EventID) {}
	}
	if handlers.Resumed == nil {
		handlers.Resumed = func() {}
	}
	if logger == nil {
		logger = slog.Default()
	}
	if metrics == nil {
		metrics = NewMetrics(prometheus.NewRegistry())
	}
	return &Listener{connect: pool.Config().ConnConfig, handlers: handlers, logger: logger, metrics: metrics, since: time.Now()}
}

// Reachable tells whether Postgres answers, and since when that is so. It is asked twice a second and has to answer within a
// second; a connection that breaks tells at once. Before the first connection and after Run it does not answer.
func (l *Listener) Reachable() (ok bool, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reachable, l.since
}

func (l *Listener) setReachable(ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ok == l.reachable {
		return
	}
	l.reachable, l.since = ok, time.Now()
	l.metrics.reachable.Set(0)
	if ok {
		l.metrics.reachable.Set(1)
	}
}

// Run listens until ctx ends. It is called once.
func (l *Listener) Run(ctx context.Context) {
	for pause := reconnectPauseMin; ; pause = min(2*pause, reconnectPauseMax) {
		listened, err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if listened {
			pause = reconnectPauseMin
		}
		// Not all nodes at once.
		jittered := pause/2 + rand.N(pause/2) //nolint:gosec // no secret
		l.logger.WarnContext(ctx, "the listener lost the database; connecting again", "pause", jittered, "error", err)
		timer := time.NewTimer(jittered)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

const listenSQL = `listen evently_signals`

// listen serves one connection. listened: it was one that could hear signals.
func (l *Listener) listen(ctx context.Context) (listened bool, err error) {
	connecting, cancel := context.WithTimeout(ctx, listenMax)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, l.connect)
	if err != nil {
		return false, err
	}
	defer l.disconnect(conn)
	if _, err := conn.Exec(connecting, listenSQL); err != nil {
		return false, fmt.Errorf("listen: %w", err)
	}
	cancel()
	l.setReachable(true)
	defer l.setReachable(false)
	// After LISTEN: what is signalled from here on is kept, by the server or the connection, until it is received below.
	l.handlers.Resumed()
	for next := time.Now().Add(pingPeriod); ; {
		if !time.Now().Before(next) {
			if err := ping(ctx, conn); err != nil {
				return true, err
			}
			next = time.Now().Add(pingPeriod)
		}
		waiting, cancel := context.WithDeadline(ctx, next)
		signal, err := conn.WaitForNotification(waiting) // the deadline leaves the connection as it is
		expired := waiting.Err() != nil
		cancel()
		if signal != nil {
			l.receive(signal.Payload)
		}
		if err != nil && !expired || ctx.Err() != nil {
			return true, err
		}
	}
}

func ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, pingMax)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// disconnect waits for the connection's end, so that nothing of it outlives Run.
func (l *Listener) disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), pingMax)
	defer cancel()
	if err := conn.Close(ctx); err != nil {
		l.logger.Debug("close the listener's connection", "error", err)
	}
	select {
	case <-conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// Kinds of signals.
const (
	sessionEndedSignal = "session_ended"
	eventChangedSignal = "event_changed"
	unknownSignal      = "unknown" // in the metrics
)

// receive reads the payload of a signal: a kind and an id. A newer schema may send other kinds, and say more of these.
func (l *Listener) receive(payload string) {
	kind, rest, _ := strings.Cut(payload, " ")
	id, _, _ := strings.Cut(rest, " ")
	switch kind {
	case sessionEndedSignal:
		var uuid pgtype.UUID
		if err := uuid.Scan(id); err == nil {
			l.metrics.signals.WithLabelValues(kind).Inc()
			l.handlers.SessionEnded(uuid.Bytes)
			return
		}
	case eventChangedSignal:
		if event, err := strconv.ParseInt(id, 10, 64); err == nil {
			l.metrics.signals.WithLabelValues(kind).Inc()
			l.handlers.EventChanged(evently.EventID(event))
			return
		}
	}
	l.metrics.signals.WithLabelValues(unknownSignal).Inc()
	l.logger.Debug("ignored a signal", "payload", payload)
}
