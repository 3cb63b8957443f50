package peers

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/bench"
)

// Storage reads what a design has stored, for an audit. It may belong to another process than the engine.
type Storage struct {
	*resources
	kept     bool // reservations are in Redis
	counters func(s *Storage, ctx context.Context, events []evently.EventID) (map[evently.EventID]bench.Count, error)
}

var _ bench.Storage = (*Storage)(nil)

// OpenStorage returns the storage of a design. Its arguments are those of Open; close it after use.
func OpenStorage(name string, pool *pgxpool.Pool, redisAddr string) (*Storage, error) {
	d, r, err := newResources(name, pool, redisAddr)
	if err != nil {
		return nil, err
	}
	s := &Storage{resources: r}
	switch d.open(r).(type) {
	case *redisOnly:
		s.kept, s.counters = true, (*Storage).inRedis
	case *redisPostgres:
		s.counters = (*Storage).inRedis
	case *skipLocked:
		s.counters = (*Storage).inTickets
	case *advisoryLock, instant:
	default:
		s.counters = (*Storage).inHeads
	}
	return s, nil
}

// Close closes the connection to Redis. The pool is the caller's.
func (s *Storage) Close() error { return s.close() }

func numbers(events []evently.EventID) []int64 {
	ids := make([]int64, len(events))
	for i, id := range events {
		ids[i] = int64(id)
	}
	return ids
}

// Reservations implements bench.Storage.
func (s *Storage) Reservations(ctx context.Context, events []evently.EventID, row func(bench.Stored)) error {
	if s.kept {
		return s.records(ctx, events, row)
	}
	if err := s.tables().Reservations(ctx, events, row); err != nil {
		return fmt.Errorf("peers: read reservations: %w", err)
	}
	return nil
}

// tables are those of the schema, where most designs keep reservations and counters as Evently does.
func (s *Storage) tables() *bench.Tables { return &bench.Tables{Pool: s.pool} }

// scanCount is how many records are read at a time.
const scanCount = 1000

func (s *Storage) records(ctx context.Context, events []evently.EventID, row func(bench.Stored)) error {
	for _, event := range events {
		keys := keysOf(event)
		ends, err := s.redis.HGetAll(ctx, keys.ends).Result()
		if err != nil {
			return fmt.Errorf("peers: read reservations: %w", err)
		}
		seen := make(map[string]bool) // a scan may give a record twice
		records := s.redis.HScan(ctx, keys.rsv, 0, "", scanCount).Iterator()
		for records.Next(ctx) {
			token := records.Val()
			if !records.Next(ctx) || seen[token] {
				continue
			}
			seen[token] = true
			r, key, err := parse(&offer{event: event}, records.Val())
			if err == nil && ends[token] != "" {
				err = ended(r, ends[token])
			}
			if err != nil {
				return err
			}
			row(bench.Stored{ID: r.ID, User: r.User, Status: r.Status, Quantity: r.Items.Quantity(), Key: key})
		}
		if err := records.Err(); err != nil {
			return fmt.Errorf("peers: read reservations: %w", err)
		}
	}
	return nil
}

// Counts implements bench.Storage. A design without a counter has none.
func (s *Storage) Counts(ctx context.Context, events []evently.EventID) (map[evently.EventID]bench.Count, error) {
	if s.counters == nil {
		return nil, nil
	}
	counts, err := s.counters(s, ctx, events)
	if err != nil {
		return nil, fmt.Errorf("peers: read counters: %w", err)
	}
	return counts, nil
}

// ticketCountsSQL counts as held what has no ticket and is not booked.
const ticketCountsSQL = `
select h.event_id,
    (select sum(n) from unnest(h.capacity) as n)
        - (select count(*) from bench_tickets t where t.event_id = h.event_id)
        - (select sum(c.n - coalesce(l.printed, 0)) from unnest(h.capacity) with ordinality as c (n, i)
            left join bench_rolls l on l.event_id = h.event_id and l.tier = c.i - 1)
        - b.booked,
    b.booked
from event_heads h, lateral (
    select coalesce(sum(r.quantity), 0) as booked from reservations r where r.event_id = h.event_id and r.status = 1
) as b
where h.event_id = any ($1)`

func (s *Storage) inHeads(ctx context.Context, events []evently.EventID) (map[evently.EventID]bench.Count, error) {
	return s.tables().Counts(ctx, events)
}

func (s *Storage) inTickets(ctx context.Context, events []evently.EventID) (map[evently.EventID]bench.Count, error) {
	return s.tables().CountsBy(ctx, ticketCountsSQL, events)
}

// inRedis reads the counters of Redis; events that it does not know have sold nothing.
func (s *Storage) inRedis(ctx context.Context, events []evently.EventID) (map[evently.EventID]bench.Count, error) {
	capacities := make(map[evently.EventID][]int, len(events))
	result, err := s.pool.Query(ctx, capacitiesSQL, numbers(events))
	if err != nil {
		return nil, err
	}
	var event int64
	var capacity []int
	_, err = pgx.ForEachRow(result, []any{&event, &capacity}, func() error {
		capacities[evently.EventID(event)] = append([]int(nil), capacity...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	counts := make(map[evently.EventID]bench.Count, len(events))
	for event, capacity := range capacities {
		hash, err := s.redis.HGetAll(ctx, keysOf(event).seats).Result()
		if err != nil {
			return nil, err
		}
		var count bench.Count
		for i, seats := range capacity {
			free, booked, err := counters(hash, i, seats)
			if err != nil {
				return nil, err
			}
			count.Booked += booked
			count.Held += seats - free - booked
		}
		counts[event] = count
	}
	return counts, nil
}

// counters reads the counters of a tier from the hash of its event; a tier that has none is free.
func counters(hash map[string]string, tier, capacity int) (free, booked int, err error) {
	free = capacity
	for field, to := range map[string]*int{"f": &free, "b": &booked} {
		if text, found := hash[field+strconv.Itoa(tier)]; found {
			if *to, err = strconv.Atoi(text); err != nil {
				return 0, 0, err
			}
		}
	}
	return free, booked, nil
}
