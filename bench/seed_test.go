package bench

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/pgtest"
)

// database is a migrated one with an administrator.
func database(t *testing.T) (*pgxpool.Pool, evently.UserID) {
	t.Helper()
	pool, err := store.Open(t.Context(), pgtest.Database(t), store.PoolOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for i, role := range []evently.Role{evently.RoleUser, evently.RoleAdmin, evently.RoleAdmin} {
		user := &evently.User{
			ID: evently.UserID(random64()), Email: string(rune('a'+i)) + "@example.com", Name: "N", Role: role,
			CreatedAt: time.Now().Add(time.Duration(i) * time.Second),
		}
		if err := store.NewAccounts(pool, nil).CreateUser(t.Context(), user, nil, &evently.Origin{At: time.Now(), IP: "127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
	}
	organizer, err := Administrator(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	if oldest, err := store.NewAccounts(pool, nil).UserByEmail(t.Context(), "b@example.com"); err != nil || oldest.ID != organizer {
		t.Fatalf("%v is no oldest administrator: %+v (%v)", organizer, oldest, err)
	}
	return pool, organizer
}

func TestSeedPast_HasPostgresPlanForMany(t *testing.T) {
	pool, _ := database(t)
	if err := SeedPast(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `
		set plan_cache_mode = force_generic_plan;
		prepare known (int8, uuid) as select from reservations where event_id = $1 and key = $2;
		prepare live (int8) as select sum(quantity) from reservations where event_id = $1 and status <= 1`, pgx.QueryExecModeSimpleProtocol,
	); err != nil {
		t.Fatal(err)
	}
	for statement, want := range map[string]string{
		"known (1, gen_random_uuid())": "Scan using reservations_by_key", "live (1)": "on reservations_",
	} {
		rows, err := conn.Query(t.Context(), "explain execute "+statement, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if plan := strings.Join(lines, "\n"); err != nil || !strings.Contains(plan, want) || strings.Contains(plan, "Seq Scan") {
			t.Errorf("%s (%v), want %q", plan, err, want)
		}
	}
}

// Events that are seeded differ in nothing but their ids from one that the catalogue makes, in any column of any table.
func TestSeedEvents_AreThoseOfTheCatalogue(t *testing.T) {
	const count = 1200
	pool, organizer := database(t)
	events, err := SeedEvents(t.Context(), pool, organizer, "Many", count, 500)
	if err != nil {
		t.Fatal(err)
	}
	rows := func(event evently.EventID) (list []map[string]any) {
		for _, table := range []string{"events", "event_heads", "journal"} {
			var row []byte
			if err := pool.QueryRow(t.Context(), `select to_jsonb(t) from `+table+` t where event_id = $1`, int64(event)).Scan(&row); err != nil {
				t.Fatalf("%s: %v", table, err)
			}
			var fields map[string]any
			if err := json.Unmarshal(row, &fields); err != nil {
				t.Fatal(err)
			}
			delete(fields, "event_id")
			if data, ok := fields["data"].(map[string]any); ok {
				delete(data, "event_id")
			}
			list = append(list, fields)
		}
		return list
	}
	want := rows(events[0])
	seen := make(map[evently.EventID]bool)
	for _, event := range []evently.EventID{events[1], events[2], events[count-1]} {
		seen[event] = true
		if got := rows(event); !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	summary, err := store.Verify(t.Context(), pool, func(d store.Difference) { t.Error(d) })
	if err != nil || summary.Events != count || summary.Entries != count {
		t.Errorf("%+v (%v), want %d events", summary, err, count)
	}
	state, err := store.NewCatalogue(pool).State(t.Context(), events[count-1])
	if err != nil || !state.Event.OnSale(time.Now()) || state.Totals().Available() != 500 || state.Event.Organizer != organizer {
		t.Errorf("%+v (%v), want 500 seats on sale", state, err)
	}
	if len(seen) != 3 {
		t.Error("ids repeat")
	}
	if _, err := SeedEvents(t.Context(), pool, organizer, "Wrong", 1, 0); err == nil {
		t.Error("an event without seats was made")
	}
}
