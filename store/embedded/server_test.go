package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

func TestStart_EmptyDirectoryBecomesDurableDatabase(t *testing.T) {
	dir := filepath.Join(pgtest.Dir(t), "deep", "data")
	server := start(t, embedded.Config{DataDir: dir})
	for name, want := range map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on",
		"wal_compression": query(t, server.DSN(),
			"SELECT CASE WHEN 'lz4' = ANY (enumvals) THEN 'lz4' ELSE 'off' END FROM pg_settings WHERE name = 'wal_compression'"),
		"jit": "off", "listen_addresses": "", "shared_buffers": "256MB",
		"max_connections": "100", "server_encoding": "UTF8", "server_version": server.Version(), "TimeZone": "UTC",
	} {
		got := query(t, server.DSN(), "SHOW "+name)
		if name == "server_version" {
			got, _, _ = strings.Cut(got, " ")
		}
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := query(t, server.DSN(), "SELECT current_database() || ' ' || current_user || ' ' || datcollate "+
		"FROM pg_database WHERE datname = current_database()"); got != "evently evently C" {
		t.Errorf("database, user and collation are %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "pgdata"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("pgdata has mode %v, want 0700", info.Mode())
	}
	if err := server.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	expectIdle(t, dir)
}

func TestStop_ReopenKeepsDataAndAddress(t *testing.T) {
	cfg := embedded.Config{DataDir: pgtest.DataDir(t)}
	first := start(t, cfg)
	exec1(t, first.DSN(), "CREATE TABLE seats AS SELECT 42 AS free")
	select {
	case <-first.Done():
		t.Fatal("Done before Stop")
	default:
	}
	if err := first.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	if err := first.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}
	if alive(first.PID()) {
		t.Error("the postmaster outlived Stop")
	}
	if err := first.Stop(testContext(t)); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	for _, name := range []string{"run", "owner.dsn"} {
		if _, err := os.Lstat(filepath.Join(cfg.DataDir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after Stop: %v", name, err)
		}
	}
	second := start(t, cfg)
	if got := query(t, second.DSN(), "SELECT free::text FROM seats"); got != "42" {
		t.Errorf("read back %s, want 42", got)
	}
	if first.DSN() != second.DSN() {
		t.Errorf("the DSN changed from %s to %s", first.DSN(), second.DSN())
	}
}

func TestStop_EndedContextStillEndsTheServer(t *testing.T) {
	dir := pgtest.DataDir(t)
	server := start(t, embedded.Config{DataDir: dir})
	exec1(t, server.DSN(), "CREATE TABLE seats AS SELECT 42 AS free")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop: %v, want context.Canceled", err)
	}
	if alive(server.PID()) {
		t.Error("the postmaster outlived Stop")
	}
	expectIdle(t, dir)
	again := start(t, embedded.Config{DataDir: dir})
	if got := query(t, again.DSN(), "SELECT free::text FROM seats"); got != "42" {
		t.Errorf("read back %s, want 42", got)
	}
}

func TestStart_ServerOutlivesTheCallersThread(t *testing.T) {
	dir := pgtest.DataDir(t)
	var server *embedded.Server
	var err error
	var wait sync.WaitGroup
	wait.Go(func() {
		// Never unlocked: the thread ends with the goroutine, and what the kernel ties to it.
		runtime.LockOSThread()
		server, err = embedded.Start(testContext(t), embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	})
	wait.Wait()
	if err != nil {
		t.Fatal(err)
	}
	// A restart takes longer than the signal, and fails for a server that has ended.
	if err := server.Restart(testContext(t), embedded.Fast); err != nil {
		t.Error(err)
	}
	if err := errors.Join(server.Err(), server.Stop(testContext(t))); err != nil {
		t.Error(err)
	}
}

func TestRestart_KeepsDSNAndCommittedData(t *testing.T) {
	server := pgtest.Private(t)
	exec1(t, server.DSN(), "CREATE TABLE restarts (n int)")
	for n, how := range []embedded.Shutdown{embedded.Fast, embedded.Immediate} {
		before := server.PID()
		exec1(t, server.DSN(), fmt.Sprintf("INSERT INTO restarts VALUES (%d)", n))
		if err := server.Restart(testContext(t), how); err != nil {
			t.Fatal(err)
		}
		if alive(before) || server.PID() == before {
			t.Errorf("restart %d: the old postmaster %d still runs", n, before)
		}
		if got, want := query(t, server.DSN(), "SELECT count(*)::text FROM restarts"), fmt.Sprint(n+1); got != want {
			t.Errorf("restart %d: %s rows, want %s", n, got, want)
		}
	}
	select {
	case <-server.Done():
		t.Errorf("a restart closed Done: %v", server.Err())
	default:
	}
}

func TestStart_DatabaseThatIsMissingIsMade(t *testing.T) {
	cfg := embedded.Config{DataDir: pgtest.DataDir(t), UnsafeNoFsync: true}
	first := start(t, cfg)
	// As after a crash between initdb and the end of Start.
	exec1(t, first.DatabaseDSN("postgres"), "DROP DATABASE evently")
	if err := first.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := query(t, start(t, cfg).DSN(), "SELECT current_database()"); got != "evently" {
		t.Errorf("connected to %s", got)
	}
}

func TestStop_ReportsAnUncleanShutdown(t *testing.T) {
	dir := pgtest.DataDir(t)
	server := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	exec1(t, server.DSN(), "CREATE TABLE seats AS SELECT 42 AS free")
	// In the way of the last checkpoint, as a full disk would be.
	control := filepath.Join(dir, "pgdata", "global", "pg_control")
	if err := errors.Join(os.Rename(control, control+".away"), os.Mkdir(control, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(testContext(t)); err == nil || !strings.Contains(err.Error(), "pg_control") {
		t.Errorf("Stop: %v, want what the server's log says of pg_control", err)
	}
	expectIdle(t, dir)
	if err := errors.Join(os.Remove(control), os.Rename(control+".away", control)); err != nil {
		t.Fatal(err)
	}
	again := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, again.DSN(), "SELECT free::text FROM seats"); got != "42" {
		t.Errorf("read back %s, want 42", got)
	}
}

func TestDone_FiresWhenPostmasterIsKilled(t *testing.T) {
	server := pgtest.Private(t)
	exec1(t, server.DSN(), "CREATE TABLE seats AS SELECT 42 AS free")
	if err := syscall.Kill(server.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-server.Done():
	case <-testContext(t).Done():
		t.Fatal("Done did not fire")
	}
	if err := server.Err(); err == nil || !strings.Contains(err.Error(), "killed") ||
		!strings.Contains(err.Error(), "ready to accept connections") {
		t.Errorf("Err: %v, want the cause and the tail of the log", err)
	}
	if err := server.Restart(testContext(t), embedded.Fast); err == nil {
		t.Error("Restart of a dead server succeeded")
	}
	if err := server.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// At once: whatever the killed postmaster's children still do, and its stale pid file, is not in the way.
	again := start(t, embedded.Config{DataDir: server.DataDir(), UnsafeNoFsync: true})
	if got := query(t, again.DSN(), "SELECT free::text FROM seats"); got != "42" {
		t.Errorf("read back %s, want 42", got)
	}
}

func TestStart_OfManyOneOwns(t *testing.T) {
	dir := pgtest.DataDir(t)
	const starters = 4
	var (
		wait    sync.WaitGroup
		servers [starters]*embedded.Server
		errs    [starters]error
	)
	ctx := testContext(t)
	for i := range starters {
		wait.Go(func() {
			servers[i], errs[i] = embedded.Start(ctx, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
		})
	}
	wait.Wait()
	owners := 0
	for i := range starters {
		var inUse *embedded.InUseError
		switch {
		case errs[i] == nil:
			owners++
			defer func() {
				if err := servers[i].StopImmediate(ctx); err != nil {
					t.Error(err)
				}
			}()
		case !errors.As(errs[i], &inUse) || !errors.Is(errs[i], embedded.ErrInUse):
			t.Errorf("start %d: %v, want an InUseError", i, errs[i])
		default:
			if got := query(t, inUse.DSN, "SELECT 'served'"); got != "served" {
				t.Errorf("start %d: its DSN yields %q", i, got)
			}
		}
	}
	if owners != 1 {
		t.Errorf("%d owners, want 1", owners)
	}
}

func TestTCP_WantsThePassword(t *testing.T) {
	server := pgtest.Private(t, func(cfg *embedded.Config) { cfg.TCP = true })
	dsn, err := url.Parse(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	if dsn.Hostname() != "127.0.0.1" {
		t.Fatalf("DSN names %s, want 127.0.0.1", dsn.Host)
	}
	if got := query(t, server.DSN(), "SELECT host(inet_server_addr())"); got != "127.0.0.1" {
		t.Errorf("connected to %s", got)
	}
	if err := server.Restart(testContext(t), embedded.Immediate); err != nil {
		t.Fatal(err)
	}
	if got := query(t, server.DatabaseDSN("postgres"), "SELECT current_database()"); got != "postgres" {
		t.Errorf("connected to %s", got)
	}
	for _, user := range []*url.Userinfo{url.User("evently"), url.UserPassword("evently", "guess")} {
		dsn.User = user
		_, err := tryQuery(testContext(t), dsn.String(), "SELECT 'in'")
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "28P01" {
			t.Errorf("as %s: %v, want 28P01", user, err)
		}
	}
	_, err = embedded.Start(testContext(t), embedded.Config{DataDir: server.DataDir()})
	var inUse *embedded.InUseError
	if !errors.As(err, &inUse) || inUse.DSN != server.DSN() {
		t.Fatalf("second owner: %v, want an InUseError with %s", err, server.DSN())
	}
	if password, _ := url.Parse(inUse.DSN); strings.Contains(err.Error(), password.Redacted()) || strings.Contains(err.Error(), "@") {
		t.Errorf("the message shows the DSN: %v", err)
	}
}

func TestSocketPath_IsShortWhateverTheDataDirectory(t *testing.T) {
	for _, name := range []string{"short", `with space "and quote"`, "with,comma", strings.Repeat("long", 30)} {
		t.Run(name[:5], func(t *testing.T) {
			data := filepath.Join(pgtest.Dir(t), name)
			if err := os.Rename(pgtest.DataDir(t), data); err != nil {
				t.Fatal(err)
			}
			server := start(t, embedded.Config{DataDir: data, UnsafeNoFsync: true})
			dsn, err := url.Parse(server.DSN())
			if err != nil {
				t.Fatal(err)
			}
			socketDir := dsn.Query().Get("host")
			if path := filepath.Join(socketDir, ".s.PGSQL."+dsn.Query().Get("port")); len(path) > 100 {
				t.Errorf("%d bytes: %s", len(path), path)
			}
			info, err := os.Stat(socketDir)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v, want 0700", socketDir, info.Mode())
			}
			if got := query(t, server.DSN(), "SELECT 'served'"); got != "served" {
				t.Errorf("got %q", got)
			}
			if err := server.Stop(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(socketDir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s after Stop: %v", socketDir, err)
			}
		})
	}
}

func TestConfig_RefusesWhatItCannotHold(t *testing.T) {
	dir := pgtest.Dir(t)
	for name, cfg := range map[string]embedded.Config{
		"no directory":     {},
		"fsync":            {DataDir: dir, Settings: map[string]string{"FSync": "off"}},
		"listen_addresses": {DataDir: dir, Settings: map[string]string{"listen_addresses": "*"}},
		"two in one":       {DataDir: dir, Settings: map[string]string{"jit=on -c fsync": "off"}},
		"port without TCP": {DataDir: dir, Port: 5433},
		"no such port":     {DataDir: dir, TCP: true, Port: 65536},
	} {
		server, err := embedded.Start(testContext(t), cfg)
		if err == nil {
			t.Errorf("%s: started", name)
			if err := server.StopImmediate(testContext(t)); err != nil {
				t.Error(err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("refusals left %v, %v", entries, err)
	}
}

func TestLog_CarriesTheServersLog(t *testing.T) {
	var text lockedBuffer
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server := pgtest.Private(t, func(cfg *embedded.Config) { cfg.Log = log })
	exec1(t, server.DSN(), "DO $$ BEGIN RAISE WARNING 'the % is on fire', 'box office'; END $$")
	if err := server.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PostgreSQL is up", "ready to accept connections", "level=WARN", "the box office is on fire", "shut down"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, text.String())
		}
	}
}

// lockedBuffer is read while the server may still write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func BenchmarkStart_NothingToSelect1(b *testing.B) {
	for b.Loop() {
		server := start(b, embedded.Config{DataDir: filepath.Join(pgtest.Dir(b), "data")})
		query(b, server.DSN(), "SELECT '1'")
		b.StopTimer()
		if err := server.StopImmediate(testContext(b)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkStart_ReopenToSelect1(b *testing.B) {
	cfg := embedded.Config{DataDir: pgtest.DataDir(b)}
	for b.Loop() {
		server := start(b, cfg)
		query(b, server.DSN(), "SELECT '1'")
		b.StopTimer()
		if err := server.Stop(testContext(b)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
