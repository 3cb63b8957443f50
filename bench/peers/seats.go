package peers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/evently/evently"
)

// seats are the counters of events in Redis, with the live reservations by their end and the keys. All keys of one event
// share a hash tag, so that a cluster has them on one server:
//
//	{event}:seats  hash: f<tier> free seats, b<tier> booked ones
//	{event}:live   sorted set of "token tier seats" by the end of the hold in ms, +inf once confirmed
//	{event}:k:key  string, the record of the key's reservation, kept for evently.KeyRetention
//	{event}:rsv    hash: record by token, and
//	{event}:ends   hash: what became of a hold by token: "status confirmed ended seq"; both only where Postgres has no row
type seats struct {
	redis   *redis.Client
	scripts redis.Scripter // of many callers in one pipeline
	rows    rows           // of the resources; for capacities and what was sold before
	record  bool           // reservations are kept in Redis
}

func newSeats(r *resources, record bool) *seats {
	return &seats{redis: r.redis, scripts: r.scripts, rows: rows{r}, record: record}
}

// event are the keys of an event.
type eventKeys struct{ seats, live, rsv, ends, tag string }

func keysOf(event evently.EventID) eventKeys {
	tag := "{" + strconv.FormatUint(uint64(event), 36) + "}:"
	return eventKeys{tag + "seats", tag + "live", tag + "rsv", tag + "ends", tag}
}

func (k *eventKeys) key(key evently.Key) string {
	return k.tag + "k:" + strconv.FormatUint(key.Hi, 36) + "." + strconv.FormatUint(key.Lo, 36)
}

// holdScript answers 0 when the seats are held; with a record when the key is known; -1 - free when they are not enough; and false when
// the event is not there. Holds past their time are ended when seats are wanted and none are free: then it answers with their
// tokens, too, and the answer above as the first of a list. A record that is to be stored elsewhere is marked when it is given to a
// second caller, who may store it: from then on its seats cannot be given back as never used.
//
// KEYS: seats, live, key, rsv, ends. ARGV: tier, seats, member, end of the hold, now, record, retention, token or "" to keep no record.
var holdScript = redis.NewScript(`
local known = redis.call('GET', KEYS[3])
if known then
    if ARGV[8] == '' and string.sub(known, -1) ~= '*' then
        redis.call('SET', KEYS[3], known .. ' *', 'KEEPTTL')
    end
    return known
end
local f = 'f' .. ARGV[1]
local q = tonumber(ARGV[2])
local free = tonumber(redis.call('HGET', KEYS[1], f))
if not free then
    return false
end
local gone
if free < q then
    local due = redis.call('ZRANGE', KEYS[2], '-inf', ARGV[5], 'BYSCORE', 'LIMIT', 0, ` + expireMax + `)
    if #due > 0 then
        gone = {0}
        for _, member in ipairs(due) do
            local token, tier, n = string.match(member, '(%d+) (%d+) (%d+)')
            redis.call('ZREM', KEYS[2], member)
            redis.call('HINCRBY', KEYS[1], 'f' .. tier, n)
            if ARGV[8] ~= '' then
                redis.call('HSET', KEYS[5], token, '3 0 ' .. ARGV[5] .. ' 0')
            end
            gone[#gone + 1] = token
        end
        free = tonumber(redis.call('HGET', KEYS[1], f))
    end
end
local answer = 0
if free < q then
    answer = -1 - free
else
    redis.call('HINCRBY', KEYS[1], f, -q)
    redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
    redis.call('SET', KEYS[3], ARGV[6], 'PX', ARGV[7])
    if ARGV[8] ~= '' then
        redis.call('HSET', KEYS[4], ARGV[8], ARGV[6])
    end
end
if gone then
    gone[1] = answer
    return gone
end
return answer
`)

// errNoCounters says that Redis does not know an event.
var errNoCounters = errors.New("no counters")

// hold takes seats. It returns the record of a key that is known, and the tokens of holds that ended for it.
func (s *seats) hold(ctx context.Context, b *booking) (known string, ended []string, err error) {
	for range 2 {
		known, ended, err = s.tryHold(ctx, b)
		if !errors.Is(err, errNoCounters) {
			return known, ended, err
		}
		if err := s.fill(ctx, b.offer); err != nil {
			return "", nil, err
		}
	}
	return "", nil, fmt.Errorf("%w: event %s: Redis lost its counters twice", evently.ErrUnavailable, b.offer.event)
}

func (s *seats) tryHold(ctx context.Context, b *booking) (known string, ended []string, err error) {
	keys := keysOf(b.offer.event)
	kept := ""
	if s.record {
		kept = strconv.FormatUint(uint64(b.token), 10)
	}
	answer, err := s.run(ctx, holdScript, []string{keys.seats, keys.live, keys.key(b.key), keys.rsv, keys.ends},
		b.tier, b.quantity, member(b.token, b.tier, b.quantity), b.until.UnixMilli(), b.at.UnixMilli(), b.text(),
		evently.KeyRetention.Milliseconds(), kept)
	switch answer := answer.(type) {
	case string:
		return answer, nil, err
	case int64:
		return "", nil, refusedBy(answer)
	case []any:
		for _, token := range answer[1:] {
			ended = append(ended, token.(string))
		}
		return "", ended, refusedBy(answer[0].(int64))
	}
	if errors.Is(err, redis.Nil) {
		err = errNoCounters
	}
	return "", nil, err
}

func refusedBy(answer int64) error {
	if answer < 0 {
		return soldOut(-1 - answer)
	}
	return nil
}

// run runs a script in a pipeline with those of other callers.
func (s *seats) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	return script.Run(ctx, s.scripts, keys, args...).Result()
}

func member(token evently.Token, tier, quantity int) string {
	return strconv.FormatUint(uint64(token), 10) + " " + strconv.Itoa(tier) + " " + strconv.Itoa(quantity)
}

// text is the record of a booking: token, user, tier, seats, price, created, end of the hold, seq, and the key in two parts.
func (b *booking) text() string {
	dst := make([]byte, 0, 160)
	dst = strconv.AppendUint(dst, uint64(b.token), 10)
	dst = strconv.AppendUint(append(dst, ' '), uint64(b.user), 10)
	for _, n := range []int64{int64(b.tier), int64(b.quantity), b.price, b.at.UnixMilli(), b.until.UnixMilli()} {
		dst = strconv.AppendInt(append(dst, ' '), n, 10)
	}
	for _, n := range []uint64{b.seq, b.key.Hi, b.key.Lo} {
		dst = strconv.AppendUint(append(dst, ' '), n, 10)
	}
	return string(dst)
}

// parse is the inverse of booking.text.
func parse(o *offer, text string) (*evently.Reservation, evently.Key, error) {
	var n [10]uint64
	fields := strings.Fields(strings.TrimSuffix(text, " *"))
	if len(fields) != len(n) {
		return nil, evently.Key{}, fmt.Errorf("peers: record %q", text)
	}
	for i, field := range fields {
		var err error
		if n[i], err = strconv.ParseUint(field, 10, 64); err != nil {
			return nil, evently.Key{}, fmt.Errorf("peers: record %q: %w", text, err)
		}
	}
	return &evently.Reservation{
		ID:   evently.ReservationID{Event: o.event, Token: evently.Token(n[0])},
		User: evently.UserID(n[1]), Status: evently.Held, Currency: o.currency,
		Items:     evently.OneItem(evently.Item{Tier: int(n[2]), Quantity: int(n[3]), UnitPriceMinor: int64(n[4])}),
		CreatedAt: time.UnixMilli(int64(n[5])).UTC(), ExpiresAt: time.UnixMilli(int64(n[6])).UTC(), Seq: n[7],
	}, evently.Key{Hi: n[8], Lo: n[9]}, nil
}

func (s *seats) known(ctx context.Context, o *offer, key evently.Key) (*evently.Reservation, error) {
	keys := keysOf(o.event)
	text, err := s.redis.Get(ctx, keys.key(key)).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, err
	}
	first, _, err := parse(o, text)
	return first, err
}

// giveScript gives the seats of a live reservation back, once. With a key it gives back those of a booking that was never stored, and forgets
// the key, unless another caller may store it. KEYS: seats, live and perhaps key. ARGV: member, tier, seats.
var giveScript = redis.NewScript(`
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not score or KEYS[3] and string.sub(redis.call('GET', KEYS[3]) or '', -1) == '*' then
    return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'f' .. ARGV[2], ARGV[3])
if score == 'inf' then
    redis.call('HINCRBY', KEYS[1], 'b' .. ARGV[2], -ARGV[3])
end
if KEYS[3] then
    redis.call('DEL', KEYS[3])
end
return 1
`)

// keepScript has a hold end no more. It answers 0 when it has ended. KEYS: seats, live. ARGV: member, tier, seats, now.
var keepScript = redis.NewScript(`
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if score == 'inf' then
    return 1
end
if not score or tonumber(score) <= tonumber(ARGV[4]) then
    return 0
end
redis.call('ZADD', KEYS[2], '+inf', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'b' .. ARGV[2], ARGV[3])
return 1
`)

// counts reads the counters.
func (s *seats) counts(ctx context.Context, o *offer) (held, booked []int, err error) {
	hash, err := s.redis.HGetAll(ctx, keysOf(o.event).seats).Result()
	if err != nil {
		return nil, nil, err
	}
	held, booked = make([]int, len(o.tiers)), make([]int, len(o.tiers))
	for i := range o.tiers {
		free, sold, err := counters(hash, i, o.tiers[i].capacity)
		if err != nil {
			return nil, nil, err
		}
		held[i], booked[i] = o.tiers[i].capacity-free-sold, sold
	}
	return held, booked, nil
}

// fillScript sets the counters of an event unless they are there. KEYS: seats, live. ARGV: number of fields, fields and values,
// scores and members.
var fillScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local last = 1 + 2 * tonumber(ARGV[1])
for i = 2, last, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for i = last + 1, #ARGV, 2 do
    redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1])
end
return 1
`)

// liveSQL is served by reservations_by_event.
const liveSQL = `select token, tier, quantity, status, expires_at from reservations where event_id = $1 and status <= 1`

// fill makes the counters of an event from its capacity and from what Postgres has, for events that Prepare was not called for and for a
// Redis that has lost its data. Bookings that are under way in that moment are not counted: after such a loss this design may oversell.
func (s *seats) fill(ctx context.Context, o *offer) error {
	free, booked := make([]int, len(o.tiers)), make([]int, len(o.tiers))
	for i := range o.tiers {
		free[i] = o.tiers[i].capacity
	}
	var live []any
	result, err := s.rows.pool.Query(ctx, liveSQL, int64(o.event))
	if err != nil {
		return err
	}
	for result.Next() {
		var token int64
		var tier, quantity int
		var status evently.ReservationStatus
		var until time.Time
		if err := result.Scan(&token, &tier, &quantity, &status, &until); err != nil {
			result.Close()
			return err
		}
		end := strconv.FormatInt(until.UnixMilli(), 10)
		if status == evently.Confirmed {
			booked[tier] += quantity
			end = "+inf"
		}
		free[tier] -= quantity
		live = append(live, end, member(evently.Token(token), tier, quantity))
	}
	if err := result.Err(); err != nil {
		return err
	}
	args := []any{2 * len(o.tiers)}
	for i := range o.tiers {
		args = append(args, "f"+strconv.Itoa(i), free[i], "b"+strconv.Itoa(i), booked[i])
	}
	keys := keysOf(o.event)
	return fillScript.Run(ctx, s.redis, []string{keys.seats, keys.live}, append(args, live...)...).Err()
}

// prepareBatch is how many events are sent at a time.
const prepareBatch = 1000

// capacitiesSQL is served by the primary key.
const capacitiesSQL = `select event_id, capacity from event_heads where event_id = any ($1)`

// prepare sets the counters of events that have sold nothing.
func (s *seats) prepare(ctx context.Context, events []evently.EventID) error {
	result, err := s.rows.pool.Query(ctx, capacitiesSQL, numbers(events))
	if err != nil {
		return err
	}
	defer result.Close()
	pipe := s.redis.Pipeline()
	for result.Next() {
		var event int64
		var capacity []int
		if err := result.Scan(&event, &capacity); err != nil {
			return err
		}
		keys := keysOf(evently.EventID(event))
		for i, seats := range capacity {
			pipe.HSetNX(ctx, keys.seats, "f"+strconv.Itoa(i), seats)
		}
		if pipe.Len() >= prepareBatch {
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
		}
	}
	if err := result.Err(); err != nil {
		return err
	}
	_, err = pipe.Exec(ctx)
	return err
}
