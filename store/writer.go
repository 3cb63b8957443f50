package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently"
)

// writer commits batches on a connection of its own. While one transaction is under way the next one gathers in the
// queue: nobody waits for a timer, and the more there is to write, the larger the transactions.
type writer struct {
	config  *JournalConfig
	connect *pgx.ConnConfig
	queue   chan *evently.Batch
	reach   *reach
	stopped chan struct{}

	conn    *pgconn.PgConn
	lost    error       // why there is no connection
	unsure  atomic.Bool // the server warned that a commit may not be replicated
	args    *appendArgs
	params  [][]byte
	formats []int16
	confirm []column
	tenures map[tenureKey]bool

	writes, reads []*evently.Batch
	taken         map[evently.EventID]bool // of which writes or reads have a batch

	statements map[string]string // name to SQL
}

// Names of the prepared statements.
const (
	appendStatement         = "evently_append"
	appendHoldsStatement    = "evently_append_holds"
	appendWaitlistStatement = "evently_append_waitlist"
	confirmStatement        = "evently_confirm"
)

func newWriter(connect *pgx.ConnConfig, config *JournalConfig, reach *reach) *writer {
	w := &writer{
		reach:  reach,
		config: config, connect: connect.Copy(), stopped: make(chan struct{}), args: newAppendArgs(),
		queue:   make(chan *evently.Batch, config.QueueMax/config.Writers),
		confirm: columnsOf(oidInt8, oidInt8, oidUUID, oidInt8), formats: []int16{pgx.BinaryFormatCode},
		tenures: make(map[tenureKey]bool), taken: make(map[evently.EventID]bool),
		statements: map[string]string{
			appendStatement: appendSQL, appendHoldsStatement: appendHoldsSQL, appendWaitlistStatement: appendWaitlistSQL,
			confirmStatement: confirmSQL,
		},
	}
	// All statements look rows up by their keys. One plan for each is as good as any, and stays so when tables grow: a plan that was made
	// while a table was small would read all of it.
	for name, value := range map[string]string{"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"} {
		if _, found := w.connect.RuntimeParams[name]; !found {
			w.connect.RuntimeParams[name] = value
		}
	}
	w.connect.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
		if notice.Code == pgWarning {
			w.unsure.Store(true)
		}
	}
	return w
}

// pgWarning is the SQLSTATE of plain warnings; the one that a commit brings says that waiting for synchronous
// replication was given up: the commit is on this server only.
const pgWarning = "01000"

func (w *writer) run() {
	defer close(w.stopped)
	defer w.disconnect()
	var group []*evently.Batch
	for batch := range w.queue {
		w.ensureConnected()
		group = w.gather(append(group[:0], batch)) // what came while it connected, too: nobody waits for two attempts
		w.config.Metrics.queued.Sub(float64(len(group)))
		for rest := group; len(rest) > 0; {
			rest = w.commit(rest)
		}
	}
}

// commit writes and confirms the first batch of each event of a group. It returns, in the group's memory, the others: a statement
// can update a row only once. There are some when an event's owner has changed on this node while a batch of the one before waited.
func (w *writer) commit(group []*evently.Batch) (rest []*evently.Batch) {
	rest = w.divide(group)
	if len(w.writes) > 0 {
		w.write(w.writes)
	}
	if len(w.reads) > 0 {
		w.finish(w.reads, w.exec(confirmStatement, w.confirmParams(w.reads)))
	}
	clear(w.writes)
	clear(w.reads)
	return rest
}

// divide tells the batches to write, those that only ask whether the owner still is the owner, and the rest apart.
func (w *writer) divide(group []*evently.Batch) (rest []*evently.Batch) {
	w.writes, w.reads, rest = w.writes[:0], w.reads[:0], group[:0]
	clear(w.taken)
	for _, batch := range group {
		switch {
		case w.taken[batch.Event]:
			rest = append(rest, batch)
			continue
		case len(batch.Entries) > 0:
			w.writes = append(w.writes, batch)
		default:
			w.reads = append(w.reads, batch)
		}
		w.taken[batch.Event] = true
	}
	clear(group[len(rest):])
	return rest
}

// gather takes what else is queued, up to the bound of a transaction.
func (w *writer) gather(group []*evently.Batch) []*evently.Batch {
	entries := len(group[0].Entries)
	for entries < w.config.EntriesMax && len(group) < w.config.EntriesMax {
		select {
		case batch, open := <-w.queue:
			if !open {
				return group
			}
			group = append(group, batch)
			entries += len(batch.Entries)
		default:
			return group
		}
	}
	return group
}

// write appends batches in one transaction. When Postgres refuses it because of one of them, each is tried alone, so that
// one damaged event does not stop the others.
func (w *writer) write(batches []*evently.Batch) {
	statement, params, err := w.args.params(w.params[:0], batches)
	w.params = params
	result := written{err: err, refused: err != nil}
	if err == nil {
		began := time.Now()
		result = w.exec(statement, params)
		w.config.Metrics.commits.Observe(time.Since(began).Seconds())
	}
	if result.refused && len(batches) > 1 {
		for i := range batches {
			w.write(batches[i : i+1])
		}
		return
	}
	entries := 0
	for _, batch := range batches {
		entries += len(batch.Entries)
	}
	w.config.Metrics.entries.Observe(float64(entries))
	w.config.Metrics.events.Observe(float64(len(batches)))
	w.finish(batches, result)
}

func (w *writer) confirmParams(batches []*evently.Batch) [][]byte {
	reset(w.confirm)
	w.params = w.params[:0]
	for _, batch := range batches {
		w.confirm[0].int8(uint64(batch.Event))
		w.confirm[1].int8(batch.Epoch)
		w.confirm[2].uuid(batch.Owner)
		w.confirm[3].int8(batch.PrevSeq)
	}
	w.params = appendBytes(w.params, w.confirm)
	return w.params
}

// written is the outcome of a statement.
type written struct {
	now     time.Time
	tenures map[tenureKey]bool // those that were written or confirmed; valid until the next statement
	err     error              // of all batches; wraps one of the journal's errors unless refused
	refused bool               // the statement itself is at fault, not the circumstances
}

type tenureKey struct {
	event evently.EventID
	epoch uint64
}

// Values of the label of evently_batches_total.
const (
	outcomeOK         = "ok"
	outcomeNotWritten = "not_written"
	outcomeUnknown    = "unknown"
	outcomeFenced     = "fenced"
)

// finish tells each batch its outcome.
func (w *writer) finish(batches []*evently.Batch, result written) {
	if result.refused {
		w.config.Logger.Error("batch refused", "event", batches[0].Event.String(), "error", result.err)
		result.err = fmt.Errorf("%w: %w", evently.ErrNotWritten, result.err)
	}
	for _, batch := range batches {
		err, outcome := result.err, outcomeOK
		switch {
		case errors.Is(err, evently.ErrNotWritten):
			outcome = outcomeNotWritten
		case err != nil:
			outcome = outcomeUnknown
		case !result.tenures[tenureKey{batch.Event, batch.Epoch}]:
			err, outcome = fmt.Errorf("append event %s epoch %d: %w", batch.Event, batch.Epoch, evently.ErrFenced), outcomeFenced
		}
		w.config.Metrics.outcomes.WithLabelValues(outcome).Inc()
		batch.Done(result.now, err)
	}
}

// exec runs a prepared statement, which is a transaction of its own, and sorts its failure by what may have happened. It does not
// connect: what follows on a connection that broke would wait as long again while Postgres is away.
func (w *writer) exec(statement string, params [][]byte) written {
	if w.conn == nil {
		return written{err: fmt.Errorf("%w: %w", evently.ErrNotWritten, w.lost)}
	}
	w.unsure.Store(false)
	// A deadline of the socket and no context: a context would make pgx send a cancel request, which can arrive at any time.
	if err := w.conn.Conn().SetDeadline(time.Now().Add(w.config.Timeout)); err != nil {
		w.lose(err)
		return written{err: fmt.Errorf("%w: set deadline: %w", evently.ErrNotWritten, err)}
	}
	clear(w.tenures)
	result := written{tenures: w.tenures}
	reader := w.conn.ExecPrepared(context.Background(), statement, params, w.formats, w.formats)
	for reader.NextRow() {
		row := reader.Values()
		event, epoch := binary.BigEndian.Uint64(row[0]), binary.BigEndian.Uint64(row[1])
		result.tenures[tenureKey{evently.EventID(event), epoch}] = true
		result.now = time.UnixMilli(int64(binary.BigEndian.Uint64(row[2]))).UTC()
	}
	_, err := reader.Close()
	if err == nil && w.unsure.Load() {
		err = errors.New("the server gave up waiting for synchronous replication")
	}
	if err == nil {
		return result
	}
	return w.failure(err)
}

func (w *writer) failure(err error) written {
	var refusal *pgconn.PgError
	switch {
	case errors.As(err, &refusal) && refusal.SeverityUnlocalized == "ERROR":
		// The statement was rolled back and the connection lives.
		if classify(err) == unexpected {
			return written{err: err, refused: true}
		}
		return written{err: fmt.Errorf("%w: %w", evently.ErrNotWritten, err)}
	case pgconn.SafeToRetry(err):
		w.lose(err)
		return written{err: fmt.Errorf("%w: %w", evently.ErrNotWritten, err)}
	}
	// A broken connection, or a FATAL that may have come after the commit.
	w.lose(err)
	return written{err: fmt.Errorf("%w: %w", evently.ErrOutcomeUnknown, err)}
}

func (w *writer) ensureConnected() {
	if w.conn != nil && !w.conn.IsClosed() {
		return
	}
	w.disconnect()
	err := w.reconnect()
	w.reach.note(err)
	if err != nil {
		w.lost = failed(err, "connect")
	}
}

// lose gives up a connection that is of no use any more.
func (w *writer) lose(reason error) {
	w.lost = fmt.Errorf("the connection has just broken: %w", reason)
	w.disconnect()
}

func (w *writer) reconnect() error {
	config := w.connect.Config.Copy()
	// After a broken connection pgx dials once more to send a cancel request. A commit whose outcome is unknown is settled by
	// Acquire and by nothing else, so only the dials of the connect itself are let through.
	var connected atomic.Bool
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if connected.Load() {
			return nil, errors.New("no cancel request for a commit")
		}
		return dial(ctx, network, address)
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.config.Timeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	connected.Store(true)
	for name, sql := range w.statements {
		if _, err := conn.Prepare(ctx, name, sql, nil); err != nil {
			return errors.Join(fmt.Errorf("prepare %s: %w", name, err), conn.Close(ctx))
		}
	}
	w.conn = conn
	return nil
}

// disconnect closes the connection without waiting for what the server thinks of it.
func (w *writer) disconnect() {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := w.conn.Close(ctx); err != nil {
		w.config.Logger.Debug("close writer connection", "error", err)
	}
	w.conn = nil
}
