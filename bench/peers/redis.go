package peers

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/evently/evently"
)

// redisOnly keeps all there is of a reservation in Redis.
type redisOnly struct{ *seats }

func (d *redisOnly) book(ctx context.Context, b *booking) (*evently.Reservation, error) {
	b.seq = d.rows.seq.next()
	known, _, err := d.hold(ctx, b)
	if err != nil || known == "" {
		return nil, err
	}
	first, _, err := parse(b.offer, known)
	return first, err
}

// changeScript moves a reservation on, by the rules of changeFunction. It answers with the record and what became of it.
// KEYS: seats, live, rsv, ends. ARGV: token, user, want, now, seq.
var changeScript = redis.NewScript(`
local record = redis.call('HGET', KEYS[3], ARGV[1])
if not record then
    return false
end
local user, tier, n = string.match(record, '^%d+ (%d+) (%d+) (%d+)')
if user ~= ARGV[2] then
    return false
end
local ends = redis.call('HGET', KEYS[4], ARGV[1]) or '0 0 0 0'
local status, confirmed = string.match(ends, '^(%d) (%d+)')
local member = ARGV[1] .. ' ' .. tier .. ' ' .. n
local want = ARGV[3]
if status == '0' then
    local score = tonumber(redis.call('ZSCORE', KEYS[2], member))
    if score <= tonumber(ARGV[4]) then
        return {record, ends}
    end
    if want == '1' then
        redis.call('ZADD', KEYS[2], '+inf', member)
        redis.call('HINCRBY', KEYS[1], 'b' .. tier, n)
        ends = '1 ' .. ARGV[4] .. ' 0 ' .. ARGV[5]
    end
end
if want ~= '1' and want ~= '0' and status == '0' or want == '3' and status == '1' then
    redis.call('ZREM', KEYS[2], member)
    redis.call('HINCRBY', KEYS[1], 'f' .. tier, n)
    if status == '1' then
        redis.call('HINCRBY', KEYS[1], 'b' .. tier, -n)
    end
    ends = '2 ' .. confirmed .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]
end
redis.call('HSET', KEYS[4], ARGV[1], ends)
return {record, ends}
`)

func (d *redisOnly) change(ctx context.Context, o *offer, c *change) (*evently.Reservation, error) {
	keys := keysOf(o.event)
	answer, err := d.run(ctx, changeScript, []string{keys.seats, keys.live, keys.rsv, keys.ends},
		uint64(c.token), uint64(c.user), int(c.want), c.at.UnixMilli(), d.rows.seq.next())
	if err == redis.Nil { //nolint:errorlint // it is never wrapped
		return nil, evently.ErrReservationNotFound
	}
	if err != nil {
		return nil, err
	}
	parts, ok := answer.([]any)
	if !ok || len(parts) != 2 {
		return nil, fmt.Errorf("peers: answer %v of a script", answer)
	}
	r, _, err := parse(o, parts[0].(string))
	if err != nil {
		return nil, err
	}
	if err := ended(r, parts[1].(string)); err != nil {
		return nil, err
	}
	asOf(r, c.at)
	return r, nil
}

// ended adds to a reservation what became of it.
func ended(r *evently.Reservation, ends string) error {
	var status uint8
	var confirmed, end int64
	var seq uint64
	if _, err := fmt.Sscan(ends, &status, &confirmed, &end, &seq); err != nil {
		return fmt.Errorf("peers: end %q of %s: %w", ends, r.ID, err)
	}
	r.Status = evently.ReservationStatus(status)
	if confirmed > 0 {
		r.ConfirmedAt = time.UnixMilli(confirmed).UTC()
	}
	if end > 0 {
		r.EndedAt = time.UnixMilli(end).UTC()
	}
	r.Seq = max(r.Seq, seq)
	return nil
}
