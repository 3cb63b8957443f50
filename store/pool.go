package store

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Limits of connections.
const (
	// MaxConnsDefault is how many connections a pool has unless told otherwise.
	MaxConnsDefault = 16
	// maxConnsMin leaves connections to others while Answers holds some.
	maxConnsMin = 4

	connectTimeout = 5 * time.Second
	pingTimeout    = 2 * time.Second
	connIdleMax    = 5 * time.Minute
	connLifetime   = 30 * time.Minute // so that connections spread again after a failover
	healthPeriod   = 15 * time.Second

	// A peer that vanished without a word is noticed after keepAliveIdle + keepAliveCount * keepAliveInterval, or when
	// what was sent to it stays unacknowledged for userTimeout.
	keepAliveIdle     = 5 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	userTimeout       = 10 * time.Second
)

// PoolOptions size a pool.
type PoolOptions struct {
	// MaxConns is how many connections the pool has at most, at least 4. Each costs Postgres a process and some 10 MB.
	// Zero: what the URL says with pool_max_conns, or MaxConnsDefault.
	MaxConns int32
}

// Open connects to the database at a URL, or a DSN of keywords and values, and returns a pool of connections.
// Settings in the URL win over the defaults of ConnConfig. The error is an evently.ErrUnavailable when Postgres cannot
// be reached.
func Open(ctx context.Context, url string, options PoolOptions) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	tune(config.ConnConfig)
	switch {
	case options.MaxConns > 0:
		config.MaxConns = options.MaxConns
	case !strings.Contains(url, "pool_max_conns"):
		config.MaxConns = MaxConnsDefault
	}
	if config.MaxConns < maxConnsMin {
		return nil, fmt.Errorf("open database: a pool of %d connections is too small; at least %d are needed", config.MaxConns, maxConnsMin)
	}
	config.MaxConnIdleTime = connIdleMax
	config.MaxConnLifetime = connLifetime
	config.MaxConnLifetimeJitter = connLifetime / 4
	config.HealthCheckPeriod = healthPeriod
	config.PingTimeout = pingTimeout // pings connections that were idle for a second before they are used
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		nameTypes(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, failed(err, "open database")
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, failed(err, "open database")
	}
	return pool, nil
}

// nameTypes tells what parameters of types are that mean nothing to pgx by themselves. Where no statement is prepared it goes by the Go type
// alone.
func nameTypes(types *pgtype.Map) {
	types.RegisterDefaultPgType([16]byte{}, "uuid")
	types.RegisterDefaultPgType([][16]byte{}, "_uuid")
	types.RegisterDefaultPgType(map[string]string{}, "jsonb")
}

// ConnConfig is the configuration of a connection to the database at a URL: those of the pool, and dedicated ones.
//
// Unless the URL says otherwise a connection is named evently, does not use JIT, is given up after about 10 s without a sign of
// life from the other side, and is closed by Postgres when it stands idle in a transaction for 10 s, so that a
// stalled node does not hold its locks.
// Statements are prepared and cached; behind a pooler that forbids it the URL says default_query_exec_mode=exec.
func ConnConfig(url string) (*pgx.ConnConfig, error) {
	config, err := pgxpool.ParseConfig(url) // not pgx.ParseConfig: this one takes the pool's settings out
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	tune(config.ConnConfig)
	return config.ConnConfig, nil
}

func tune(config *pgx.ConnConfig) {
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	defaults := map[string]string{
		"application_name":                    "evently",
		"jit":                                 "off", // statements are short: compiling costs more than it saves
		"idle_in_transaction_session_timeout": "10s",
	}
	if network, _ := pgconn.NetworkAddress(config.Host, config.Port); network == "tcp" {
		// What Postgres does when this side vanishes.
		defaults["tcp_keepalives_idle"] = fmt.Sprint(keepAliveIdle.Seconds())
		defaults["tcp_keepalives_interval"] = fmt.Sprint(keepAliveInterval.Seconds())
		defaults["tcp_keepalives_count"] = fmt.Sprint(keepAliveCount)
		defaults["tcp_user_timeout"] = fmt.Sprint(userTimeout.Milliseconds())
		// What this side does when Postgres vanishes.
		dialer := &net.Dialer{
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount},
			Control:         limitUnacknowledged,
		}
		config.DialFunc = dialer.DialContext
	}
	for name, value := range defaults {
		if _, found := config.RuntimeParams[name]; !found {
			config.RuntimeParams[name] = value
		}
	}
}
