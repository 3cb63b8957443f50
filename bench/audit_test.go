package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/evently/evently"
)

// vault is a Storage in memory.
type vault struct {
	rows   []Stored
	counts map[evently.EventID]Count
	err    error
}

func (v *vault) Reservations(_ context.Context, _ []evently.EventID, row func(Stored)) error {
	for _, r := range v.rows {
		row(r)
	}
	return v.err
}

func (v *vault) Counts(context.Context, []evently.EventID) (map[evently.EventID]Count, error) {
	return v.counts, nil
}

// sales are ten holds of each of two events, which are sold out then; two are confirmed, one of them cancelled again.
func sales() (*Told, *vault) {
	told, v := new(Told), &vault{counts: make(map[evently.EventID]Count)}
	for event := range evently.EventID(2) {
		for n := range 11 {
			p := Promise{ID: evently.ReservationID{Event: event + 1, Token: evently.Token(n + 1)}, User: evently.UserID(n + 1)}
			switch n {
			case 1:
				p.Status = evently.Confirmed
			case 2:
				p.Status = evently.Cancelled
			}
			told.Promises = append(told.Promises, p)
			v.rows = append(v.rows, Stored{p.ID, p.User, p.Status, 1, evently.Key{Hi: uint64(n + 1)}})
		}
		v.counts[event+1] = Count{Held: 9, Booked: 1}
	}
	return told, v
}

func TestAudit_FindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(told *Told, v *vault)
		want  Audit // without Acknowledged and Stored
		fault string
	}{
		{"nothing", func(*Told, *vault) {}, Audit{}, ""},
		{"refused when nothing was left", func(told *Told, _ *vault) { told.refused(1, 5) }, Audit{}, ""},
		{"refused, and a seat came back", func(told *Told, v *vault) {
			told.refused(1, 5)
			told.Promises, v.rows, v.counts[1] = told.Promises[1:], v.rows[1:], Count{8, 1}
		}, Audit{}, ""},
		{"refused, and an unanswered booking came to nothing", func(told *Told, v *vault) {
			told.refused(1, 5)
			told.unknown(1, 2)
			told.Promises, v.rows, v.counts[1] = told.Promises[3:], v.rows[3:], Count{8, 0}
		}, Audit{}, ""},
		{"refused although seats were left", func(told *Told, v *vault) {
			told.refused(1, 5)
			told.Promises, v.rows, v.counts[1] = told.Promises[3:], v.rows[3:], Count{8, 0}
		}, Audit{}, "2 seats left, and refused 5 bookings"},
		{"no counters", func(_ *Told, v *vault) { v.counts = nil }, Audit{}, ""},
		{"row of an unanswered booking", func(told *Told, v *vault) {
			v.rows = append(v.rows, Stored{ID: evently.ReservationID{Event: 1, Token: 99}, Status: evently.Cancelled, Quantity: 1})
			told.unknown(1, 1)
		}, Audit{}, ""},
		{"unanswered confirmation", func(told *Told, v *vault) {
			told.Promises[0].Unsure, v.rows[0].Status = true, evently.Confirmed
			v.counts[1] = Count{8, 2}
		}, Audit{}, ""},
		{
			"lost", func(_ *Told, v *vault) { v.rows, v.counts[1] = v.rows[1:], Count{8, 1} },
			Audit{Lost: 1},
			"was acknowledged and is not stored",
		},
		{"lost of many", func(_ *Told, v *vault) { v.rows, v.counts = nil, map[evently.EventID]Count{1: {}, 2: {}} }, Audit{Lost: 22}, "is not stored"},
		{
			"one for two", func(told *Told, v *vault) {
				told.Promises[0].ID = told.Promises[3].ID
				v.rows, v.counts[1] = v.rows[1:], Count{8, 1}
			},
			Audit{Lost: 1},
			"was given to two requests",
		},
		{
			"oversold", func(told *Told, v *vault) {
				for n := range 3 {
					id := evently.ReservationID{Event: 2, Token: evently.Token(50 + n)}
					told.Promises = append(told.Promises, Promise{ID: id})
					v.rows = append(v.rows, Stored{ID: id, Quantity: 1})
				}
				v.counts[2] = Count{12, 1}
			},
			Audit{Oversold: 3},
			"13 seats sold of 10",
		},
		{
			"doubled", func(told *Told, v *vault) {
				told.unknown(1, 1)
				v.rows = append(v.rows, Stored{ID: evently.ReservationID{Event: 1, Token: 99}, Status: evently.Expired, Quantity: 1, Key: evently.Key{Hi: 4}})
			},
			Audit{DoubledKeys: 1},
			"a key has the reservations",
		},
		{"answered differently", func(told *Told, _ *vault) { told.Doubled = []string{"key x: y and z"} }, Audit{DoubledKeys: 1}, "key x: y and z"},
		{"miscounted", func(_ *Told, v *vault) { v.counts[1] = Count{10, 1} }, Audit{Miscounted: 1}, "its counters say 10 and 1"},
		{"uncounted", func(_ *Told, v *vault) { delete(v.counts, 2) }, Audit{Miscounted: 1}, "its counters say 0 and 0"},
		{
			"unknown row", func(_ *Told, v *vault) {
				v.rows = append(v.rows, Stored{ID: evently.ReservationID{Event: 1, Token: 99}, Status: evently.Cancelled, Quantity: 1})
			},
			Audit{},
			"1 reservations that nobody was told of, and 0 bookings without an answer",
		},
		{"row twice", func(_ *Told, v *vault) {
			twice := v.rows[2] // cancelled: it takes no seat
			twice.Key = evently.Key{}
			v.rows = append(v.rows, twice)
		}, Audit{}, "nobody was told of"},
		{"row of another event", func(_ *Told, v *vault) {
			v.rows = append(v.rows, Stored{ID: evently.ReservationID{Event: 3, Token: 1}, Quantity: 1})
		}, Audit{}, "an event that was not asked for"},
		{"another user's", func(_ *Told, v *vault) { v.rows[0].User = 77 }, Audit{}, "was given to user"},
		{
			"two seats", func(_ *Told, v *vault) { v.rows[2].Quantity = 2 },
			Audit{},
			"has 2 seats, and 1 was asked for",
		},
		{
			"confirmation lost", func(_ *Told, v *vault) { v.rows[1].Status, v.counts[1] = evently.Held, Count{10, 0} },
			Audit{},
			"is held, and a client was told that it is confirmed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			told, v := sales()
			c.spoil(told, v)
			got, err := AuditOf(t.Context(), told, v, []evently.EventID{1, 2}, 10)
			if err != nil {
				t.Fatal(err)
			}
			if got.Acknowledged != len(told.Promises) || got.Stored != len(v.rows) {
				t.Errorf("%d acknowledged and %d stored, want %d and %d", got.Acknowledged, got.Stored, len(told.Promises), len(v.rows))
			}
			faults := strings.Join(got.Faults, "\n")
			if !strings.Contains(faults, c.fault) || got.Passed() != (c.fault == "") || len(got.Faults) > faultsMax {
				t.Errorf("faults %q, passed: %v, want %q", faults, got.Passed(), c.fault)
			}
			if got.Keys == 0 && len(v.rows) > 0 {
				t.Error("no key was looked at")
			}
			got.Acknowledged, got.Stored, got.Keys, got.Faults = 0, 0, 0, nil
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestAudit_FailsWithItsStorage(t *testing.T) {
	told, v := sales()
	v.err = errors.New("gone")
	if _, err := AuditOf(t.Context(), told, v, []evently.EventID{1, 2}, 10); !errors.Is(err, v.err) {
		t.Errorf("%v, want %v", err, v.err)
	}
}

// What is stored is read from the tables as it is.
func TestTables_ReadWhatIsThere(t *testing.T) {
	pool, organizer := database(t)
	events, err := SeedEvents(t.Context(), pool, organizer, "Three", 3, 100)
	if err != nil {
		t.Fatal(err)
	}
	var want []Stored
	for n, event := range events[:2] {
		for status := evently.Held; status <= evently.Expired; status++ {
			r := Stored{
				ID:   evently.ReservationID{Event: event, Token: evently.Token(1<<63 + uint64(status))},
				User: 1<<63 + 5, Status: status, Quantity: 2, Key: evently.Key{Hi: 1 << 63, Lo: uint64(status)},
			}
			more, key := "null", fmt.Sprintf("'%016x%016x'::uuid", r.Key.Hi, r.Key.Lo)
			if status == evently.Expired {
				more, r.Quantity = `'[{"tier":1,"quantity":3,"unit_price":1},{"tier":2,"quantity":4,"unit_price":1}]'`, 9
				key, r.Key = "null", evently.Key{}
			}
			if _, err := pool.Exec(t.Context(), `
				insert into reservations (event_id, token, user_id, status, tier, quantity, unit_price, more, created_at, expires_at, created_seq, seq, key)
				values ($1, $2, $3, $4, 0, 2, 1, `+more+`, now(), now(), $5, 1, `+key+`)`,
				int64(event), int64(r.ID.Token), int64(r.User), status, n); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				want = append(want, r)
			}
		}
	}
	if _, err := pool.Exec(t.Context(), `update event_heads set held = '{3}', booked = '{4}' where event_id = $1`, int64(events[0])); err != nil {
		t.Fatal(err)
	}
	tables := &Tables{Pool: pool}
	var got []Stored
	asked := []evently.EventID{events[0], events[2], 12345}
	if err := tables.Reservations(t.Context(), asked, func(r Stored) { got = append(got, r) }); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b Stored) int { return int(a.Status) - int(b.Status) })
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	counts, err := tables.Counts(t.Context(), asked)
	if wantCounts := map[evently.EventID]Count{events[0]: {3, 4}, events[2]: {}}; err != nil || !maps.Equal(counts, wantCounts) {
		t.Errorf("%v (%v), want %v", counts, err, wantCounts)
	}
}
