package peers

import (
	"errors"
	"testing"

	"github.com/evently/evently"
)

// refuseUser has Postgres refuse the reservations of a user.
const refuseUser = `
create function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused'; end $$;
create trigger refuse before insert on reservations for each row when (new.user_id = 666) execute function refuse();`

func TestRedisPostgres_SeatsComeBackWhenPostgresRefuses(t *testing.T) {
	w := newWorld(t, "redis-postgres")
	event := w.event(t, nil, 2)
	w.prepare(t, event)
	if _, err := w.pool.Exec(t.Context(), refuseUser); err != nil {
		t.Fatal(err)
	}
	for range 3 { // of which each finds both seats free and its key unknown
		var refusal *evently.Error
		if _, err := w.book(t.Context(), event, 666, "k", 2); err == nil || errors.As(err, &refusal) {
			t.Fatalf("refused with %v", err)
		}
	}
	w.audit(t, event, 2, nil)
	if _, err := w.pool.Exec(t.Context(), "drop trigger refuse on reservations"); err != nil {
		t.Fatal(err)
	}
	r := w.mustBook(t, event, 666, "k", 2)
	w.audit(t, event, 2, []promise{{key: evently.BookKey(666, "k"), id: r.ID}})
}

func TestRedisPostgres_SeatsStayWithWhoMayHaveStoredThem(t *testing.T) {
	w := newWorld(t, "redis-postgres")
	event := w.event(t, nil, 2)
	w.prepare(t, event)
	r := w.mustBook(t, event, 1, "k", 1)
	// As if the insert had not come that far.
	if _, err := w.pool.Exec(t.Context(), "delete from reservations where event_id = $1", int64(event)); err != nil {
		t.Fatal(err)
	}
	reply, err := w.book(t.Context(), event, 1, "k", 1)
	if err != nil || !reply.Replayed || reply.Reservation.ID != r.ID {
		t.Fatalf("the key again: %+v %v", reply, err)
	}
	promises := []promise{{key: evently.BookKey(1, "k"), id: r.ID}}
	w.audit(t, event, 2, promises)
	// The first caller, who hears only now that it failed, takes nothing away.
	d := w.peer.design.(*redisPostgres)
	b := &booking{offer: newOffer(&evently.Event{ID: event}, 0), tier: 0, quantity: 1, token: r.ID.Token, key: evently.BookKey(1, "k")}
	if err := d.undo(t.Context(), b, nil); err != nil {
		t.Fatal(err)
	}
	w.audit(t, event, 2, promises)
}

func TestRedisPostgres_CountersAreMadeAgainFromTheRows(t *testing.T) {
	w := newWorld(t, "redis-postgres")
	event := w.event(t, nil, 5)
	w.prepare(t, event)
	booked := w.mustBook(t, event, 1, "booked", 1)
	step(t, "confirm", w.confirm, &booked, evently.Confirmed, nil)
	held := w.mustBook(t, event, 1, "held", 2)
	if err := w.peer.design.(*redisPostgres).redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	reply, err := w.book(t.Context(), event, 1, "held", 2) // takes two seats, hears of the first two, and gives them back
	if err != nil || reply.Reservation.ID != held.ID {
		t.Errorf("a key that Redis forgot: %+v %v", reply, err)
	}
	last := w.mustBook(t, event, 1, "last", 2)
	if _, err := w.book(t.Context(), event, 1, "one more", 1); !errors.Is(err, evently.ErrSoldOut) {
		t.Errorf("one more: %v", err)
	}
	step(t, "confirm a hold from before", w.confirm, &held, evently.Confirmed, nil)
	step(t, "cancel a booking from before", w.cancel, &booked, evently.Cancelled, nil)
	w.audit(t, event, 5, []promise{
		{key: evently.BookKey(1, "booked"), id: booked.ID}, {key: evently.BookKey(1, "held"), id: held.ID}, {key: evently.BookKey(1, "last"), id: last.ID},
	})
}
