package peers

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/evently/evently"
	"github.com/evently/evently/bench"
)

// Design is a design that a booking can be measured with.
type Design struct {
	bench.Design
	// Turns is how many bookings of one event it has under way at a time. Where each waits for the commit of the one before, more of them
	// only wait for the same lock, and Postgres spends its time on that. Zero: as many as there are connections.
	Turns int
	// Redis says that it needs one.
	Redis bool

	open func(*resources) design
}

// Postgres connections and turns of the designs, chosen by BenchmarkHot and BenchmarkMany.
const (
	connsOneRow  = 16 // one event does not need them, many do
	connsPerSeat = 48 // commits of one event share a flush; 32 do 0.9 of it, 16 do 0.7
	turnsOneRow  = 3  // one commits, the next waits for it, and one is on its way
	turnsRetried = 2  // whoever is not first has worked in vain
)

// All returns the designs in the order of a table, the ceilings first. Evently's own is not among them.
func All() []Design {
	return []Design{
		{
			Design: bench.Design{
				Name: "noop", Title: "No-op handler", Ceiling: true, Conns: connsOneRow,
				About: "the same HTTP shell around a handler that answers with a constant: what nobody behind this shell can exceed",
			},
			open: func(*resources) design { return instant{} },
		},
		{
			Design: bench.Design{
				Name: "gin", Title: "Bare Gin", Ceiling: true,
				About: "a bare gin.Engine that answers with the same constant, without token check, metrics or limits",
			},
			open: func(*resources) design { return instant{} },
		},
		{
			Design: bench.Design{
				Name: "for-update", Title: "SELECT ... FOR UPDATE", Durable: true, Conns: connsOneRow,
				About: "locks the event's row, checks, inserts and counts, in one stored function and so one round trip; at most three bookings of " +
					"an event are under way; writes no journal",
			},
			Turns: turnsOneRow, open: func(r *resources) design { return &forUpdate{newHeads(r)} },
		},
		{
			Design: bench.Design{
				Name: "for-update-unbounded", Title: "FOR UPDATE, unbounded", Durable: true, Conns: connsOneRow,
				About: "for-update as it is mostly written: as many bookings of an event wait for its lock as there are connections",
			},
			open: func(r *resources) design { return &forUpdate{newHeads(r)} },
		},
		{
			Design: bench.Design{
				Name: "conditional-update", Title: "Conditional UPDATE", Durable: true, Conns: connsOneRow,
				About: "counts up on the event's row where the seats fit, and inserts, in one statement; at most three bookings of an event are " +
					"under way; writes no journal",
			},
			Turns: turnsOneRow, open: func(r *resources) design { return &conditionalUpdate{newHeads(r)} },
		},
		{
			Design: bench.Design{
				Name: "optimistic", Title: "Optimistic version", Durable: true, Conns: connsOneRow,
				About: "reads the event's version, decides in the program, writes if the version still is the same, and tries again after a random " +
					"pause if not; at most two bookings of an event are under way; writes no journal",
			},
			Turns: turnsRetried, open: func(r *resources) design { return &optimistic{newHeads(r)} },
		},
		{
			Design: bench.Design{
				Name: "optimistic-unbounded", Title: "Optimistic, unbounded", Durable: true, Conns: connsOneRow,
				About: "optimistic as it is mostly written: as many bookings of an event try at a time as there are connections",
			},
			open: func(r *resources) design { return &optimistic{newHeads(r)} },
		},
		{
			Design: bench.Design{
				Name: "skip-locked", Title: "SKIP LOCKED tickets", Durable: true, Conns: connsPerSeat,
				About: "takes free rows of a table with one row for each seat, passing over those that others have locked; writes no journal",
			},
			open: func(r *resources) design { return &skipLocked{rows{r}} },
		},
		{
			Design: bench.Design{
				Name: "advisory-lock", Title: "Advisory lock + sum", Durable: true, Conns: connsOneRow,
				About: "locks the event's number, sums up its live reservations and inserts, in one stored function; at most three bookings of an " +
					"event are under way; writes no journal",
			},
			Turns: turnsOneRow, open: func(r *resources) design { return &advisoryLock{rows{r}} },
		},
		{
			Design: bench.Design{
				Name: "redis-postgres", Title: "Redis Lua + Postgres", Durable: true, Conns: connsPerSeat,
				About: "a Lua script in Redis (AOF, flushed every second) takes the seats, then an insert into Postgres is waited for; the booking " +
					"is durable, the count of seats is Redis' and can be a second older after its crash; writes no journal",
			},
			Redis: true, open: func(r *resources) design { return newRedisPostgres(r) },
		},
		{
			Design: bench.Design{
				Name: "redis", Title: "Redis Lua only", Conns: connsOneRow,
				About: "a Lua script in Redis (AOF, flushed every second) takes the seats and keeps the reservation: a crash loses up to a second " +
					"of acknowledged bookings",
			},
			Redis: true, open: func(r *resources) design { return &redisOnly{newSeats(r, true)} },
		},
	}
}

// Named returns the design of a name.
func Named(name string) (d Design, found bool) {
	for _, d := range All() {
		if d.Name == name {
			return d, true
		}
	}
	return Design{}, false
}

// resources are what designs work with.
type resources struct {
	pool  *pgxpool.Pool
	redis *redis.Client // nil unless Design.Redis
	// scripts gathers what callers ask at the same time into pipelines: half of the processor time of a connection for each.
	scripts redis.Scripter
	seq     *sequence
}

func newResources(name string, pool *pgxpool.Pool, redisAddr string) (Design, *resources, error) {
	d, found := Named(name)
	if !found {
		return d, nil, fmt.Errorf("peers: there is no design %q", name)
	}
	r := &resources{pool: pool, seq: newSequence()}
	if d.Redis {
		if redisAddr == "" {
			return d, nil, fmt.Errorf("peers: design %s needs Redis", name)
		}
		r.redis = connectRedis(redisAddr)
		pipeline, err := r.redis.AutoPipeline()
		if err != nil {
			return d, nil, errors.Join(err, r.close())
		}
		r.scripts = pipeline
	}
	return d, r, nil
}

func (r *resources) close() error {
	if r.redis == nil {
		return nil
	}
	return r.redis.Close()
}

// Open starts the engine of a design over a migrated database, of which it uses a pool of Design.Conns connections that the caller
// closes after it. redisAddr is the address of a Redis, as Redis.Addr gives it, for designs that need one.
func Open(ctx context.Context, name string, pool *pgxpool.Pool, redisAddr string) (*Peer, error) {
	d, r, err := newResources(name, pool, redisAddr)
	if err != nil {
		return nil, err
	}
	design := d.open(r)
	if err := install(ctx, r, design); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return newPeer(design, r, d.Turns), nil
}

// Prepare sets events up that were made behind the back of an engine, by SQL, so that their first bookings need not: it
// writes ticket rows or counters in Redis. It may be called from another process than Open, and again.
func Prepare(ctx context.Context, name string, pool *pgxpool.Pool, redisAddr string, events []evently.EventID) error {
	d, r, err := newResources(name, pool, redisAddr)
	if err != nil {
		return err
	}
	design := d.open(r)
	if err = install(ctx, r, design); err == nil {
		if preparer, ok := design.(preparer); ok {
			err = preparer.prepare(ctx, events)
		}
	}
	return errors.Join(err, r.close())
}

// preparer is a design that keeps more of an event than its rows.
type preparer interface {
	prepare(ctx context.Context, events []evently.EventID) error
}

// installer is a design with tables or functions of its own.
type installer interface{ schema() string }

// installLock is the number of the advisory lock of installations: two at a time would collide in the system's tables.
const installLock = 0x62656e6368

func install(ctx context.Context, r *resources, d design) error {
	i, ok := d.(installer)
	if !ok {
		return nil
	}
	tx, err := r.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("peers: install: %w", err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(installLock)); err != nil {
		return fmt.Errorf("peers: install: %w", err)
	}
	if _, err := tx.Conn().PgConn().Exec(ctx, i.schema()).ReadAll(); err != nil {
		return fmt.Errorf("peers: install: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("peers: install: %w", err)
	}
	return nil
}
