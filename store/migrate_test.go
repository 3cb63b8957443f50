package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"github.com/evently/evently"
	"github.com/evently/evently/store/pgtest"
)

var discard = slog.New(slog.DiscardHandler)

// emptyDatabase returns a database without a schema of ours.
func emptyDatabase(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url = pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	if _, err := conn.Exec(t.Context(), "drop schema public cascade; create schema public"); err != nil {
		t.Fatal(err)
	}
	return url, conn
}

func TestMigrate_SeveralAtOnceDoItOnce(t *testing.T) {
	url, _ := emptyDatabase(t)
	before, err := MigrationStatus(t.Context(), url)
	if err != nil || before.Current != 0 || len(before.Pending) != before.Target || before.Pending[0] != "001_schema.sql" {
		t.Fatalf("before: %+v %v", before, err)
	}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if err := Migrate(t.Context(), url, discard); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	after, err := MigrationStatus(t.Context(), url)
	if want := (SchemaStatus{Current: before.Target, Target: before.Target}); err != nil || !cmp.Equal(after, want) {
		t.Errorf("after: %+v %v, want %+v", after, err, want)
	}
	if err := Migrate(t.Context(), url, discard); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// expand makes of a database's schema one that a later program may have made: every table has two more columns.
func expand(t *testing.T, url string) {
	t.Helper()
	execAt(t, url, `
do $$
declare
    name text;
begin
    for name in select tablename from pg_tables where schemaname = 'public' loop
        execute format('alter table %I add later_null text, add later_default int4 not null default 7', name);
    end loop;
    update evently_schema_version set version = version + 1;
end
$$`)
}

func execAt(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// The schema is newer than this program. Whether the two go together is what the schema says.
func TestMigrate_UsesANewerSchemaThatSaysItMay(t *testing.T) {
	url := pgtest.Database(t)
	expand(t, url)
	if err := Migrate(t.Context(), url, discard); err != nil {
		t.Errorf("expanded: %v", err)
	}
	status, err := MigrationStatus(t.Context(), url)
	if err != nil || status.Current != status.Target+1 || len(status.Pending) != 0 || !status.Compatible() {
		t.Errorf("expanded: %+v %v, want a compatible schema one ahead", status, err)
	}
	execAt(t, url, fmt.Sprint("update schema_compatibility set program_min = ", status.Target+1))
	want := fmt.Sprintf("the database has schema version %d, which needs a program that knows version %d; this one knows up to %d",
		status.Current, status.Target+1, status.Target)
	if err := Migrate(t.Context(), url, discard); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("contracted: got %v, want %q", err, want)
	}
	if status, err := MigrationStatus(t.Context(), url); err != nil || status.Compatible() {
		t.Errorf("contracted: %+v %v, want one that is not compatible", status, err)
	}
}

// Nodes of this version go on while one of the next version expands the schema: what they have prepared stays good.
func TestMigrate_ExpandsUnderARunningProgram(t *testing.T) {
	url := pgtest.Database(t)
	b := benchOn(t, openPool(t, url, 4), JournalConfig{Writers: 1})
	retention := NewRetention(b.pool, discard)
	o := b.acquire(b.event(100))
	work := func() {
		t.Helper()
		o.book(evently.Item{Quantity: 1})
		o.MustFlush()
		o = b.acquire(o.Ledger.Event().ID)
		details := o.Ledger.Event().EventDetails
		details.Name += "!"
		o.decide(&evently.Revise{Version: o.Ledger.Event().Version, Details: details}, o.Now)
		o.MustFlush()
		if _, err := b.events.State(t.Context(), b.event(5)); err != nil {
			t.Error(err)
		}
		if _, err := retention.Sweep(t.Context(), time.Now()); err != nil {
			t.Error(err)
		}
		b.verify()
	}
	for range 8 { // until every connection has every statement
		work()
	}
	expand(t, url)
	for range 8 {
		work()
	}
}

// A migration of tables in use whose lock is not free gives up, so that those who queue behind it go on, and is tried again.
func TestMigrate_DoesNotWaitLongForALock(t *testing.T) {
	t.Parallel()
	url, conn := emptyDatabase(t)
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	migrator, err := migrate.NewMigrator(t.Context(), conn, versionTable)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(migrator.LoadMigrations(files), migrator.MigrateTo(t.Context(), 1)); err != nil {
		t.Fatal(err)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table sessions in row exclusive mode"); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), url, discard); !errors.Is(err, evently.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, evently.ErrUnavailable)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), url, discard); err != nil {
		t.Error(err)
	}
}

// A table of the same name is in the way: the error says in which migration and line, and nothing is left behind.
func TestMigrate_SaysWhereItFails(t *testing.T) {
	url, conn := emptyDatabase(t)
	if _, err := conn.Exec(t.Context(), "create table users (id int4)"); err != nil {
		t.Fatal(err)
	}
	err := Migrate(t.Context(), url, discard)
	if err == nil || !strings.Contains(err.Error(), "001_schema.sql") || !strings.Contains(err.Error(), `"users" already exists`) {
		t.Errorf("got %v, want one that names the migration and the table", err)
	}
	status, err := MigrationStatus(t.Context(), url)
	if err != nil || status.Current != 0 {
		t.Errorf("status: %+v %v", status, err)
	}
	var tables int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_tables where tablename = 'events'").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("a failed migration left %d tables, %v", tables, err)
	}
}

func TestMigrate_JournalIsAppendOnly(t *testing.T) {
	b := newBench(t, JournalConfig{})
	b.event(10)
	for _, sql := range []string{"update journal set seq = 2", "delete from journal", "truncate journal"} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: got %v, want a refusal", sql, err)
		}
	}
}
