package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
)

// What events of loads have in common.
const (
	eventLead  = 30 * 24 * time.Hour // until they begin
	eventTime  = 3 * time.Hour
	eventHold  = time.Hour // longer than a round: holds do not expire in it
	eventPrice = 2500
)

// copyEventSQL makes rows for further events that are those of a first one but for the id: in the event, in its head and in its
// first journal entry. So they have what the API writes, whatever columns there are.
const copyEventSQL = `
with made as (
    insert into events
    select made.* from events e, unnest($2::int8[]) id, jsonb_populate_record(e, jsonb_build_object('event_id', id)) made
    where e.event_id = $1
    returning event_id
), heads as (
    insert into event_heads
    select made_head.* from event_heads h, made, jsonb_populate_record(h, jsonb_build_object('event_id', made.event_id)) made_head
    where h.event_id = $1
)
insert into journal
select made_entry.* from journal j, made, jsonb_populate_record(j, jsonb_build_object('event_id', made.event_id,
    'data', jsonb_set(j.data, '{event_id}', to_jsonb(made.event_id)))) made_entry
where j.event_id = $1`

// SeedEvents publishes events of one tier, as the API would, and returns their ids. Nobody may have asked for them yet.
func SeedEvents(ctx context.Context, pool *pgxpool.Pool, organizer evently.UserID, name string, count, capacity int) ([]evently.EventID, error) {
	events := make([]evently.EventID, count)
	for i := range events {
		events[i] = evently.EventID(random64())
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	first := &evently.Event{
		ID: events[0], Organizer: organizer, Status: evently.EventPublished, Version: 1, CreatedAt: now,
		EventDetails: evently.EventDetails{
			Name: name, Category: "Bench", Venue: "Hall", City: "Vienna", Timezone: "Europe/Vienna", Currency: "EUR",
			StartsAt: now.Add(eventLead), EndsAt: now.Add(eventLead + eventTime), HoldTTL: eventHold,
			Tiers: []evently.Tier{{Name: "General admission", Capacity: capacity, BasePriceMinor: eventPrice, PriceMinor: eventPrice}},
		},
	}
	first.Normalize()
	if err := first.Validate(); err != nil {
		return nil, fmt.Errorf("seed events: %w", err)
	}
	if _, err := store.NewCatalogue(pool).CreateEvent(ctx, first, organizer, "bench"); err != nil {
		return nil, fmt.Errorf("seed events: %w", err)
	}
	if count > 1 {
		if err := copyEvent(ctx, pool, events); err != nil {
			return nil, fmt.Errorf("seed events: %w", err)
		}
	}
	return events, nil
}

// analyzed is from how many events on the statistics of Postgres are renewed, so that no design plans for empty tables.
const analyzed = 1000

func copyEvent(ctx context.Context, pool *pgxpool.Pool, events []evently.EventID) error {
	tag, err := pool.Exec(ctx, copyEventSQL, int64(events[0]), columnOf(events[1:]))
	if err == nil && tag.RowsAffected() != int64(len(events)-1) {
		err = fmt.Errorf("%d events were made of %d", tag.RowsAffected()+1, len(events))
	}
	if err == nil && len(events) >= analyzed {
		_, err = pool.Exec(ctx, `analyze events, event_heads, journal`)
	}
	return err
}

// random64 is never zero.
func random64() uint64 {
	var bytes [8]byte
	rand.Read(bytes[:])
	return max(1, binary.BigEndian.Uint64(bytes[:]))
}

const (
	pastEvents       = 2000
	pastReservations = 20_000
)

const seedPastSQL = `
insert into reservations
    (event_id, token, user_id, status, tier, quantity, unit_price, created_at, expires_at, ended_at, created_seq, seq, key)
select n % $1, n, n, $2, 0, 1, $3, now(), now(), now(), n, n, gen_random_uuid() from generate_series(1, $4) n`

// SeedPast makes reservations that have ended, of events that are no more, and has Postgres know of them. It plans a statement once for a
// connection: if autovacuum happens to look at a table of some rows before, that plan reads all of them, and goes on doing so when
// there are many. In a database that was in use this does not happen, nor by chance to one design and not to the other.
func SeedPast(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, seedPastSQL, pastEvents, evently.Cancelled, eventPrice, pastReservations)
	if err == nil {
		_, err = pool.Exec(ctx, `vacuum (analyze) reservations`)
	}
	if err != nil {
		return fmt.Errorf("seed the past: %w", err)
	}
	return nil
}

const seedUsersSQL = `
insert into users (user_id, email, name, role, password_hash, email_verified, created_at)
select id, 'bench-' || to_hex(id) || '@example.com', 'Bench', $2, '', true, $3 from unnest($1::int8[]) id`

const seedSessionsSQL = `
insert into sessions (session_id, user_id, created_at, last_used_at, expires_at, user_agent, ip, refresh)
select s.session_id, s.user_id, $3, $3, $4, 'bench', '127.0.0.1', sha256(uuid_send(s.session_id))
from unnest($1::uuid[], $2::int8[]) as s (session_id, user_id)`

// SeedUsers makes users, who are signed in and have no password, and signs their access tokens.
func SeedUsers(ctx context.Context, pool *pgxpool.Pool, signer Signer, count int) ([]User, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	ids, sessions := make([]int64, count), make([][16]byte, count)
	users := make([]User, count)
	for i := range users {
		users[i].ID = evently.UserID(random64())
		ids[i] = int64(users[i].ID)
		rand.Read(sessions[i][:])
		who := evently.Principal{User: users[i].ID, Role: evently.RoleUser, Session: sessions[i], Verified: true}
		var err error
		if users[i].Token, err = signer.Sign(who, now); err != nil {
			return nil, fmt.Errorf("seed users: %w", err)
		}
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, seedUsersSQL, ids, evently.RoleUser, now); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, seedSessionsSQL, sessions, ids, now, now.Add(signer.TTL))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("seed users: %w", err)
	}
	return users, nil
}

// administratorSQL is served by users_admins.
const administratorSQL = `select user_id from users where role = $1 order by created_at, user_id limit 1`

// Administrator is the oldest one of a database.
func Administrator(ctx context.Context, pool *pgxpool.Pool) (evently.UserID, error) {
	var id int64
	err := pool.QueryRow(ctx, administratorSQL, evently.RoleAdmin).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, errors.New("there is no administrator")
	}
	return evently.UserID(id), err
}

// Signer signs access tokens like a node does: with its first secret, issuer and audience.
type Signer struct {
	KID              string
	Key              []byte
	Issuer, Audience string        // empty: evently
	TTL              time.Duration // nodes believe a token for as long as their own setting says
}

// Sign returns the access token of a principal.
func (s Signer) Sign(who evently.Principal, now time.Time) (string, error) {
	setDefault := func(field *string) {
		if *field == "" {
			*field = "evently"
		}
	}
	setDefault(&s.Issuer)
	setDefault(&s.Audience)
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": s.Issuer, "aud": []string{s.Audience}, "sub": who.User.String(),
		"iat": jwt.NewNumericDate(now), "exp": jwt.NewNumericDate(now.Add(s.TTL)),
		"sid": fmt.Sprintf("ses_%x", who.Session[:]), "role": who.Role.String(), "ev": who.Verified,
	})
	token.Header["kid"] = s.KID
	return token.SignedString(s.Key)
}
