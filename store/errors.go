package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/evently/evently"
)

// failure is what an error of Postgres means for those who wait for the result.
type failure uint8

const (
	// unexpected: a defect in a statement, a broken constraint, damaged data. Somebody must look at it.
	unexpected failure = iota
	// cancelled: the caller went away.
	cancelled
	// away: Postgres cannot be reached, is stopping, is out of resources, or did not answer in time.
	away
	// conflict: rolled back because of another transaction. Repeating it can succeed.
	conflict
)

// classify says what an error of pgx means. Whether something was written is another question: only the phase in which
// the error came tells.
func classify(err error) failure {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return cancelled
	case errors.As(err, &connect): // also a refused password: to a caller the database is away
		return away
	case errors.As(err, &pg):
		return classifyState(pg.Code)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network), errors.Is(err, net.ErrClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, puddle.ErrClosedPool),
		pgconn.SafeToRetry(err): // the last: the connection was closed before anything was sent
		return away
	}
	return unexpected
}

// classifyState reads an SQLSTATE: PostgreSQL documentation, appendix A.
func classifyState(code string) failure {
	switch code {
	case "40001", // serialization_failure
		"40P01", // deadlock_detected
		"55P03": // lock_not_available
		return conflict
	case "25006", // read_only_sql_transaction: a standby after a failover
		"25P03", // idle_in_transaction_session_timeout
		"25P04", // transaction_timeout
		"57014": // query_canceled: statement_timeout, or a cancel request
		return away
	}
	for _, class := range []string{
		"08",   // connection exception
		"53",   // insufficient resources
		"57P0", // operator intervention: shutdown, crash, cannot connect now, database dropped, idle session timeout
		"58",   // system error outside Postgres
	} {
		if strings.HasPrefix(code, class) {
			return away
		}
	}
	return unexpected
}

// failed wraps an error of pgx with what was tried. An error that another try can get over also is an
// evently.ErrUnavailable; the cause, and a context's error with it, stays visible to errors.Is.
func failed(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	switch classify(err) {
	case away, conflict:
		return fmt.Errorf("%s: %w: %w", what, evently.ErrUnavailable, err)
	case cancelled, unexpected:
	}
	return fmt.Errorf("%s: %w", what, err)
}
