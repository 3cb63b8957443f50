package main

import (
	"os"
	osexec "os/exec"
	"strings"
	"testing"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/pgtest"
)

// No file may grow beyond 4 MB, which a data directory cannot live with: like a full disk, and every account can make it.
func TestUp_FullDiskIsAClearErrorAndACleanExit(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	const script = `ulimit -f 4096; exec "$0" up --http-addr=127.0.0.1:0 --admin-addr=127.0.0.1:0 --data-dir="$1"`
	cmd := osexec.CommandContext(t.Context(), "bash", "-c", script, proctest.Program(t), dir)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("exit %d (%v), want %d", cmd.ProcessState.ExitCode(), err, exitFailed)
	}
	if text := string(out); !strings.Contains(text, "initdb") || strings.Contains(text, "panic") || strings.Contains(text, "goroutine") {
		t.Errorf("output does not tell what failed:\n%s", text)
	}
	noPostgres(t, dir)

	// With room again, the same directory serves.
	n := proctest.Up(t, dir)
	n.Do(t, 200, "GET", "/health", "", "", nil)
}

func TestServe_ProductionRefusesAServerThatLosesCommits(t *testing.T) {
	p := proctest.Launch(t, proctest.DataDir(t), "serve", "--env=production", "--database-url="+pgtest.Database(t),
		"--jwt-secret=pJ5m/0a7kTq3vX9zWc1LrY8uBn4eHs6GdFo2")
	if exit := p.Exit(t, proctest.UpMax); exit != exitFailed {
		t.Errorf("exit %d, want %d", exit, exitFailed)
	}
	if text := p.Output(); !strings.Contains(text, "can lose acknowledged bookings: it runs with") || !strings.Contains(text, "fsync=off") {
		t.Errorf("output does not tell what is wrong:\n%s", text)
	}
}

func TestServe_FailedMigrationIsAClearErrorAndACleanExit(t *testing.T) {
	url := pgtest.Database(t)
	pool := opened(t, url)
	// A database that somebody else uses: without our record of versions, and with a table of ours.
	for _, sql := range []string{"drop schema public cascade", "create schema public", "create table events (id int)"} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	p := proctest.Launch(t, proctest.DataDir(t), "serve", "--database-url="+url)
	if exit := p.Exit(t, proctest.UpMax); exit != exitFailed {
		t.Errorf("exit %d, want %d", exit, exitFailed)
	}
	if text := p.Output(); !strings.Contains(text, "001_schema.sql") || !strings.Contains(text, `relation "events" already exists`) {
		t.Errorf("output does not tell what failed:\n%s", text)
	}
	var tables int
	if err := pool.QueryRow(t.Context(), "select count(*) from pg_tables where schemaname = 'public' and tablename = 'journal'").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("a failed migration left %d tables (%v)", tables, err)
	}
}
