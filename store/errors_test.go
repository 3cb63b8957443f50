package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
)

func TestFailed_TellsWhatAnotherTryCanGetOver(t *testing.T) {
	state := func(code string) error { return fmt.Errorf("insert: %w", &pgconn.PgError{Code: code}) }
	for name, c := range map[string]struct {
		err  error
		want failure
	}{
		"serialization failure":  {state("40001"), conflict},
		"deadlock":               {state("40P01"), conflict},
		"lock timeout":           {state("55P03"), conflict},
		"connection lost":        {state("08006"), away},
		"too many connections":   {state("53300"), away},
		"disk full":              {state("53100"), away},
		"shutdown":               {state("57P01"), away},
		"crash of another":       {state("57P02"), away},
		"starting up":            {state("57P03"), away},
		"statement timeout":      {state("57014"), away},
		"idle in transaction":    {state("25P03"), away},
		"standby":                {state("25006"), away},
		"I/O error":              {state("58030"), away},
		"unique violation":       {state("23505"), unexpected},
		"undefined column":       {state("42703"), unexpected},
		"failed transaction":     {state("25P02"), unexpected},
		"damaged data":           {state("XX001"), unexpected},
		"deadline":               {fmt.Errorf("read: %w", context.DeadlineExceeded), away},
		"caller gone":            {fmt.Errorf("read: %w", context.Canceled), cancelled},
		"end of connection":      {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), away},
		"connection reset":       {&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, away},
		"connection was closed":  {net.ErrClosed, away},
		"no rows":                {pgx.ErrNoRows, unexpected},
		"value does not fit":     {errors.New("cannot scan"), unexpected},
		"refusal of the journal": {evently.ErrFenced, unexpected},
	} {
		t.Run(name, func(t *testing.T) {
			if got := classify(c.err); got != c.want {
				t.Errorf("classify: got %d, want %d", got, c.want)
			}
			wrapped := failed(c.err, "append event %d", 7)
			if got, want := errors.Is(wrapped, evently.ErrUnavailable), c.want == away || c.want == conflict; got != want {
				t.Errorf("%v: unavailable: got %v, want %v", wrapped, got, want)
			}
			if !errors.Is(wrapped, c.err) {
				t.Errorf("%v hides its cause %v", wrapped, c.err)
			}
		})
	}
}

// What pgx itself returns, rather than what this package thinks it does.
func TestFailed_KnowsErrorsOfTheDriver(t *testing.T) {
	bench := newBench(t, JournalConfig{})
	unreachable := "host=127.0.0.1 port=1 user=nobody dbname=none"
	_, err := Open(t.Context(), unreachable, PoolOptions{})
	if !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("nobody listens: got %v, want %v", err, evently.ErrUnavailable)
	}
	conn, err := bench.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	const killSQL = "select pg_terminate_backend($1)"
	if _, err := bench.pool.Exec(t.Context(), killSQL, conn.Conn().PgConn().PID()); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"killed", "closed"} { // the second use finds the connection closed
		if _, err = conn.Exec(t.Context(), "select 1"); classify(err) != away {
			t.Errorf("%s: classify(%v) = %d, want %d", what, err, classify(err), away)
		}
	}
	cancelledContext, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = bench.pool.Exec(cancelledContext, "select 1"); classify(err) != cancelled {
		t.Errorf("cancelled: classify(%v) = %d, want %d", err, classify(err), cancelled)
	}
	config, err := pgxpool.ParseConfig(bench.pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	closed, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err = closed.Exec(t.Context(), "select 1"); classify(err) != away {
		t.Errorf("closed pool: classify(%v) = %d, want %d", err, classify(err), away)
	}
}
