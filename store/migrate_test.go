package store

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

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

func TestMigrate_RefusesTheSchemaOfANewerProgram(t *testing.T) {
	url, conn := emptyDatabase(t)
	if err := Migrate(t.Context(), url, discard); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "update evently_schema_version set version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), url, discard); err == nil || !strings.Contains(err.Error(), "newer evently") {
		t.Errorf("got %v, want an error about a newer evently", err)
	}
	status, err := MigrationStatus(t.Context(), url)
	if err != nil || status.Current != 99 || len(status.Pending) != 0 {
		t.Errorf("status: %+v %v", status, err)
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
