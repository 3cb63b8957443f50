package proctest

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// One node and a real crowd. Then copies of the rows are spoilt, each in a transaction that is not committed, and the audit has
// to find it.
func TestAudit_FindsWhatIsWrong(t *testing.T) {
	cluster := Start(t, Config{Nodes: 1})
	crowd := cluster.Crowd(t, Sales{Events: 3, Scarce: 1, ScarceSeats: 5})
	crowd.Open(t, 4)
	crowd.More(t, 60)
	cluster.Audit(t, crowd)

	conn, err := pgx.Connect(t.Context(), cluster.Postgres.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	event := eventKey(crowd.Events[1])
	at := slices.IndexFunc(crowd.promises, func(p *Promise) bool { return p.Event == crowd.Events[1] && p.Confirmed && !p.Cancelled })
	if at < 0 {
		t.Fatal("nobody has confirmed")
	}
	confirmed := crowd.promises[at]
	_, key := userOf(confirmed)
	const (
		one      = ` where event_id = $1 and key = $2`
		noUnique = `alter table reservations drop constraint reservations_pkey; drop index reservations_by_key`
		noCheck  = `alter table event_heads drop constraint never_oversold`
		noGuard  = `alter table journal disable trigger append_only`
		noKey    = `alter table journal drop constraint journal_pkey`
		copyOf   = `insert into reservations select event_id, %s, user_id, status, tier, quantity, unit_price, more, created_at, expires_at,
			confirmed_at, ended_at, created_seq, confirmed_seq, seq, key from reservations` + one
	)
	copied := func(token string) string { return strings.Replace(copyOf, "%s", token, 1) }
	for _, c := range []struct {
		name    string
		prepare string
		spoil   string // with the event as $1 and the key as $2
		want    string
	}{
		{"nothing", "", "", ""},
		{"row deleted", "", `delete from reservations` + one, "was acknowledged and is lost"},
		{"key twice", noUnique, copied("token + 1"), "has the reservations"},
		{"row that nobody asked for", "", strings.Replace(copied("token + 1"), "seq, key from", "seq, null from", 1), "was promised to nobody"},
		{"id twice", noUnique, copied("token"), "has two rows"},
		{"another user", "", `update reservations set user_id = user_id + 1` + one, "promised:"},
		{"another key", "", `update reservations set key = gen_random_uuid()` + one, "promised:"},
		{"another quantity", "", `update reservations set quantity = quantity + 1` + one, "promised:"},
		{"confirmation undone", "", `update reservations set status = 0, confirmed_at = null` + one, "is held (ever confirmed: false)"},
		{"cancelled by nobody", "", `update reservations set status = 2` + one, "is cancelled (ever confirmed: true)"},
		{"held too high", "", `update event_heads set held[1] = held[1] + 1 where event_id = $1 and $2::uuid is not null`, "the rows hold"},
		{"booked too low", "", `update event_heads set booked[1] = booked[1] - 1 where event_id = $1 and $2::uuid is not null`, "the rows hold"},
		{"oversold", noCheck, `update event_heads set capacity[1] = 1 where event_id = $1 and $2::uuid is not null`, "seats sold of 1"},
		{"gap", noGuard, `delete from journal where event_id = $1 and seq = 2 and $2::uuid is not null`, "entry 3 follows entry 1"},
		{"entry twice", noKey, `insert into journal select * from journal where event_id = $1 and seq = 2 and $2::uuid is not null`, "entry 2 follows entry 2"},
		{"end lost", noGuard, `delete from journal where event_id = $1 and $2::uuid is not null
			and seq = (select seq from event_heads where event_id = $1)`, "the journal ends with entry"},
		{"epoch out of order", noGuard, `update journal set epoch = epoch - 1 where event_id = $1 and $2::uuid is not null
			and seq = (select seq from event_heads where event_id = $1)`, "has the epoch 0 after 1"},
		{"epoch of the future", noGuard, `update journal set epoch = epoch + 1 where event_id = $1 and $2::uuid is not null
			and seq = (select seq from event_heads where event_id = $1)`, "has the epoch 2 after 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(t.Context())
			if _, err := tx.Exec(t.Context(), c.prepare, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			if c.spoil != "" {
				tag, err := tx.Exec(t.Context(), c.spoil, event, key)
				if err != nil || tag.RowsAffected() != 1 {
					t.Fatalf("%d rows spoilt (%v), want 1", tag.RowsAffected(), err)
				}
			}
			differences, _, err := compare(t.Context(), tx, crowd.Events, crowd.promises)
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(differences, "\n"); c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("found %q, want %q", all, c.want)
			}
		})
	}
	t.Run("promise made twice", func(t *testing.T) {
		twice := *confirmed
		twice.Key = "another"
		differences, _, err := compare(t.Context(), conn, crowd.Events, append(crowd.promises, &twice))
		if err != nil || !strings.Contains(strings.Join(differences, "\n"), "was promised for the keys") {
			t.Errorf("found %q (%v)", differences, err)
		}
	})
}
