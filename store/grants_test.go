package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

// granted makes a role that may run the program, and returns how to connect as it. It ends with the test.
func granted(t *testing.T, url, role string) string {
	t.Helper()
	execAt(t, url, "create role "+role+" login")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "drop owned by "+role+"; drop role "+role, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // as after each migration
		if err := Grant(t.Context(), url, role); err != nil {
			t.Fatal(err)
		}
	}
	return with(url, "user="+role)
}

func TestGrant_TheProgramsRoleAddsToTheJournalAndNeverChangesIt(t *testing.T) {
	url := pgtest.Database(t)
	b := benchOn(t, openPool(t, granted(t, url, "evently_program"), 8), JournalConfig{})
	x := b.busy(7, 6, 4)
	at := x.Now
	for range 60 {
		at = at.Add(time.Second)
		x.expire(at)
		x.step(at)
		x.expire(at)
	}
	x.MustFlush()
	origin := &evently.Origin{At: time.Now(), IP: "192.0.2.1", RequestID: "r"}
	accounts := NewAccounts(b.pool, new(codeMails))
	if err := accounts.CreateUser(t.Context(), &evently.User{ID: 3, Email: "a@example.org", CreatedAt: origin.At}, nil, origin); err != nil {
		t.Fatal(err)
	}
	draft := newEvent(5)
	draft.Status = evently.EventDraft
	if _, err := b.events.CreateEvent(t.Context(), draft, 1, "create"); err != nil {
		t.Fatal(err)
	}
	if err := b.events.DeleteDraft(t.Context(), draft.ID, 1, "delete"); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRetention(b.pool, discard).Sweep(t.Context(), time.Now().Add(25*time.Hour)); err != nil {
		t.Errorf("retention: %v", err)
	}
	if status, err := MigrationStatus(t.Context(), with(url, "user=evently_program")); err != nil || len(status.Pending) > 0 {
		t.Errorf("status: %+v (%v)", status, err)
	}
	if err := Migrate(t.Context(), with(url, "user=evently_program"), discard); err != nil {
		t.Errorf("there is nothing to migrate, and the role may not see that: %v", err)
	}
	b.verify()

	for _, forbidden := range []string{
		"update journal set who = 9",
		"delete from journal",
		"truncate journal",
		"alter table journal disable trigger append_only",
		"alter table journal disable trigger all",
		"drop trigger append_only on journal",
		"drop table journal",
		"create or replace function journal_is_append_only() returns trigger language plpgsql as $$ begin return null; end $$",
		"update security_log set ip = ''",
		"delete from security_log",
		"select set_config('evently.sweep', 'on', false); delete from security_log",
		"truncate security_log",
		"alter table security_log disable trigger append_only",
		"set session_replication_role = replica",
		"drop index journal_pkey",
		"alter table event_heads drop constraint never_oversold",
		"update schema_compatibility set program_min = 99",
		"update installation set id = gen_random_uuid()",
		"delete from evently_schema_version",
		"select grant_program('evently_program')",
		"truncate reservations",
		"create table mine (i int)",
	} {
		_, err := b.pool.Exec(t.Context(), forbidden, pgx.QueryExecModeSimpleProtocol)
		if refused := new(pgconn.PgError); !errors.As(err, &refused) || refused.Code != insufficientPrivilege {
			t.Errorf("%s: got %v, want that it is not permitted", forbidden, err)
		}
	}
	if _, err := b.pool.Exec(t.Context(), "select sweep_security_log(clock_timestamp() - interval '29 days', 10)"); err == nil ||
		!strings.Contains(err.Error(), "30 days at least") {
		t.Errorf("the young part of the security log: %v", err)
	}
	if n := b.count("select count(*) from security_log"); n != 1 {
		t.Errorf("%d lines in the security log, want 1", n)
	}
	b.verify()
}

func TestGrant_RefusesARoleThatMayDoEverything(t *testing.T) {
	url := pgtest.Database(t)
	execAt(t, url, "create role evently_super superuser login")
	defer execAt(t, url, "drop role evently_super")
	for role, want := range map[string]string{"evently_super": "superuser", "evently_nobody": "evently_nobody"} {
		if err := Grant(t.Context(), url, role); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", role, err)
		}
	}
}
