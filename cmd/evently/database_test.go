package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/pgtest"
)

func opened(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := store.Open(t.Context(), url, store.PoolOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestFirstAdmin_IsMadeOnceAndSignsInWithTheKeptPassword(t *testing.T) {
	accounts := store.NewAccounts(opened(t, pgtest.Database(t)), nil)
	config := &Config{DataDir: t.TempDir(), AdminEmail: " Boss@Example.ORG "}
	log := slog.New(slog.DiscardHandler)
	first, err := config.firstAdmin(t.Context(), accounts, log)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(config.DataDir, adminPasswordFile))
	if err != nil || strings.TrimSpace(string(kept)) != first.password || len(first.password) < 20 {
		t.Errorf("password %q, kept as %q (%v)", first.password, kept, err)
	}
	user, err := accounts.UserByEmail(t.Context(), "boss@example.org")
	if err != nil || user.Role != evently.RoleAdmin || !user.EmailVerified || user.ID == 0 {
		t.Fatalf("account is %+v (%v)", user, err)
	}
	if same, err := argon2id.ComparePasswordAndHash(first.password, user.PasswordHash); err != nil || !same {
		t.Errorf("the password does not fit its hash (%v)", err)
	}
	again, err := config.firstAdmin(t.Context(), accounts, log)
	if err != nil || again.user.ID != user.ID || again.password != first.password {
		t.Errorf("then %v (%v), want %v", again, err, first)
	}
}

func TestFirstAdmin_ShowsNoPasswordThatIsNotItsOwn(t *testing.T) {
	accounts := store.NewAccounts(opened(t, pgtest.Database(t)), nil)
	config := &Config{DataDir: t.TempDir(), AdminEmail: "boss@example.org", AdminPassword: "chosen by the owner"}
	log := slog.New(slog.DiscardHandler)
	if _, err := config.firstAdmin(t.Context(), accounts, log); err != nil {
		t.Fatal(err)
	}
	if _, err := keptSecret(config.DataDir, adminPasswordFile, newPassword()); err != nil {
		t.Fatal(err)
	}
	config.AdminPassword = ""
	login, err := config.firstAdmin(t.Context(), accounts, log)
	if err != nil || login.password != "" {
		t.Errorf("login is %v (%v), want no password", login, err)
	}
}

func TestAdminCreate(t *testing.T) {
	url := pgtest.Database(t)
	env := environment{"DATABASE_URL": url}
	var out map[string]string
	text := exec(t, exitOK, env, "admin", "create", "--admin-email=One@example.org", "--json")
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	accounts := store.NewAccounts(opened(t, url), nil)
	user, err := accounts.UserByEmail(t.Context(), "one@example.org")
	if err != nil || user.Role != evently.RoleAdmin || user.ID.String() != out["id"] {
		t.Fatalf("account is %+v (%v), printed %v", user, err, out)
	}
	if same, err := argon2id.ComparePasswordAndHash(out["password"], user.PasswordHash); err != nil || !same {
		t.Errorf("the printed password does not fit (%v)", err)
	}
	if text := exec(t, exitFailed, env, "admin", "create", "--admin-email=one@example.org"); !strings.Contains(text, "taken") {
		t.Errorf("a second time it says %q", text)
	}

	var stdout, stderr bytes.Buffer
	args := []string{"admin", "create", "--admin-email=two@example.org", "--password-stdin"}
	if exit := run(t.Context(), args, strings.NewReader("from standard input\n"), &stdout, &stderr, env.get); exit != exitOK {
		t.Fatalf("exit %d: %s", exit, &stderr)
	}
	user, err = accounts.UserByEmail(t.Context(), "two@example.org")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := argon2id.ComparePasswordAndHash("from standard input", user.PasswordHash); err != nil || !same {
		t.Errorf("the password read does not fit (%v)", err)
	}
	if strings.Contains(stdout.String(), "assword") {
		t.Errorf("prints the password that it was given: %s", &stdout)
	}

	for _, c := range []struct{ email, password, want string }{
		{"nobody", "long enough", "admin_email"}, {"a@b@c d", "long enough", "admin_email"}, {"a@b", "short", "admin_password"},
	} {
		env["EVENTLY_ADMIN_PASSWORD"] = c.password
		if text := exec(t, exitUsage, env, "admin", "create", "--admin-email="+c.email); !strings.Contains(text, c.want) {
			t.Errorf("%q with %q gives %q, want %q", c.email, c.password, text, c.want)
		}
	}
}

func TestSeedDemo_AddsTheCatalogueOnce(t *testing.T) {
	catalogue := store.NewCatalogue(opened(t, pgtest.Database(t)))
	now := time.Now()
	added, err := seedDemo(t.Context(), catalogue, 7, time.Minute, now)
	if err != nil || added != len(demoEvents) {
		t.Fatalf("added %d of %d (%v)", added, len(demoEvents), err)
	}
	added, err = seedDemo(t.Context(), catalogue, 8, time.Minute, now.Add(100*24*time.Hour)) // another administrator, much later
	if err != nil || added != 0 {
		t.Errorf("then added %d (%v), want none", added, err)
	}
	states, _, err := catalogue.States(t.Context(), evently.EventFilter{From: now}, evently.Page{Limit: 100})
	if err != nil || len(states) != len(demoEvents) {
		t.Fatalf("%d events to come (%v), want %d", len(states), err, len(demoEvents))
	}
	cities, categories, zones, currencies := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	smallest, onSale, tiersMax := evently.CapacityMax, 0, 0
	for _, state := range states {
		event := state.Event
		cities[event.City], categories[event.Category], zones[event.Timezone], currencies[event.Currency] = true, true, true, true
		smallest, tiersMax = min(smallest, event.Capacity()), max(tiersMax, len(event.Tiers))
		if event.OnSale(now) {
			onSale++
		}
		zone, err := time.LoadLocation(event.Timezone)
		if err != nil {
			t.Fatal(err)
		}
		if local := event.StartsAt.In(zone); local.Second() != 0 || local.Minute()%15 != 0 {
			t.Errorf("%s starts at %s", event.Name, local)
		}
	}
	if len(cities) < 10 || len(categories) < 6 || len(zones) < 8 || len(currencies) < 5 {
		t.Errorf("%d cities, %d categories, %d zones, %d currencies", len(cities), len(categories), len(zones), len(currencies))
	}
	if smallest > 20 || tiersMax < 3 || onSale != len(states)-1 {
		t.Errorf("smallest event has %d seats, largest %d tiers, %d of %d are on sale", smallest, tiersMax, onSale, len(states))
	}
}

func TestMigrate_StatusAndUp(t *testing.T) {
	server := pgtest.Private(t)
	env := environment{"DATABASE_URL": server.DSN()}
	type status struct {
		Current, Target int
		Pending         []string
	}
	var before, after status
	if err := json.Unmarshal([]byte(exec(t, exitOK, env, "migrate", "status", "--json")), &before); err != nil {
		t.Fatal(err)
	}
	if before.Current != 0 || before.Target < 1 || len(before.Pending) != before.Target {
		t.Errorf("before: %+v", before)
	}
	exec(t, exitOK, env, "migrate", "up")
	if out := exec(t, exitOK, env, "migrate", "up"); !strings.Contains(out, "0 migrations") {
		t.Errorf("the second time it prints %q", out)
	}
	if err := json.Unmarshal([]byte(exec(t, exitOK, env, "migrate", "status", "--json")), &after); err != nil {
		t.Fatal(err)
	}
	if after.Current != before.Target || after.Pending == nil || len(after.Pending) != 0 {
		t.Errorf("after: %+v", after)
	}
	if out := exec(t, exitOK, env, "migrate", "status"); strings.Contains(out, "pending") {
		t.Errorf("status is %q", out)
	}
}

func TestVerify_PrintsEveryDifference(t *testing.T) {
	url := pgtest.Database(t)
	pool := opened(t, url)
	env := environment{"DATABASE_URL": url}
	if _, err := seedDemo(t.Context(), store.NewCatalogue(pool), 7, time.Minute, time.Now()); err != nil {
		t.Fatal(err)
	}
	if out := exec(t, exitOK, env, "verify"); !strings.Contains(out, "Verified 12 events, 12 entries, 0 reservations and 0 waiters: 0 differences") {
		t.Errorf("prints %q", out)
	}
	if _, err := pool.Exec(t.Context(), "update event_heads set booked[1] = 1"); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if exit := run(t.Context(), []string{"verify", "--json"}, strings.NewReader(""), &stdout, &stderr, env.get); exit != exitFailed {
		t.Fatalf("exit %d, want %d: %s", exit, exitFailed, &stderr)
	}
	var got verification
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, &stdout)
	}
	if len(got.Differences) != 12 || got.Differences[0].Event == "" || got.Differences[0].What == "" || got.Events != 12 {
		t.Errorf("got %+v, want a difference for each of 12 events", got)
	}
	stdout.Reset()
	if exit := run(t.Context(), []string{"verify"}, strings.NewReader(""), &stdout, &stderr, env.get); exit != exitFailed {
		t.Errorf("exit %d, want %d", exit, exitFailed)
	}
	if lines := strings.Count(stdout.String(), "event evt_"); lines != 12 {
		t.Errorf("prints %d differences: %s", lines, &stdout)
	}
}

func TestTools_RefuseWithoutADatabase(t *testing.T) {
	for _, args := range [][]string{{"verify"}, {"migrate", "status"}, {"migrate", "up"}, {"admin", "create"}} {
		env := environment{"EVENTLY_DATA_DIR": t.TempDir()}
		if out := exec(t, exitUsage, env, args...); !strings.Contains(out, "no embedded database in "+env["EVENTLY_DATA_DIR"]) {
			t.Errorf("%v says %q", args, out)
		}
		env["DATABASE_URL"] = "postgres://u:hunter2@[::1:5432/db"
		if out := exec(t, exitUsage, env, args...); !strings.Contains(out, "database_url") || strings.Contains(out, "hunter2") {
			t.Errorf("%v with a wrong URL says %q", args, out)
		}
	}
}

func TestServe_GivesUpOnADatabaseThatStaysAway(t *testing.T) {
	env := environment{
		"DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/db", "EVENTLY_START_TIMEOUT": "600ms", "EVENTLY_DATA_DIR": t.TempDir(),
		"EVENTLY_HTTP_ADDR": "127.0.0.1:0", "EVENTLY_ADMIN_ADDR": "127.0.0.1:0",
	}
	began := time.Now()
	out := exec(t, exitFailed, env, "serve")
	if !strings.Contains(out, "trying again") || !strings.Contains(out, "start_timeout (600ms)") || strings.Contains(out, "hunter2") {
		t.Errorf("says %q", out)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestServe_StoppedWhileItWaitsForTheDatabase(t *testing.T) {
	env := environment{
		"DATABASE_URL": "postgres://127.0.0.1:1/db", "EVENTLY_DATA_DIR": t.TempDir(),
		"EVENTLY_HTTP_ADDR": "127.0.0.1:0", "EVENTLY_ADMIN_ADDR": "127.0.0.1:0",
	}
	ctx, cancel := context.WithCancel(t.Context())
	stderr := &watched{mark: "trying again", seen: cancel}
	if exit := run(ctx, []string{"serve"}, strings.NewReader(""), stderr, stderr, env.get); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
}

// watched is a writer that calls seen when a text was written that has the mark in it.
type watched struct {
	mark string
	seen func()
}

func (w *watched) Write(text []byte) (int, error) {
	if bytes.Contains(text, []byte(w.mark)) {
		w.seen()
	}
	return len(text), nil
}

func TestServe_MigratesUnlessToldNotTo(t *testing.T) {
	server := pgtest.Private(t)
	env := environment{
		"DATABASE_URL": server.DSN(), "EVENTLY_MIGRATE": "never", "EVENTLY_DATA_DIR": t.TempDir(),
		"EVENTLY_HTTP_ADDR": "127.0.0.1:0", "EVENTLY_ADMIN_ADDR": "127.0.0.1:0",
	}
	if out := exec(t, exitFailed, env, "serve"); !strings.Contains(out, "evently migrate up") {
		t.Errorf("says %q", out)
	}
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var tables int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_tables where schemaname = 'public'").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("%d tables (%v), want none", tables, err)
	}
}
