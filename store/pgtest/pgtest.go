// Package pgtest gives tests real Postgres databases.
//
// A package's TestMain wraps its tests in Main or Wrap, and a test asks for a Database:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m, store.Migrate)) }
//
//	func TestBooking(t *testing.T) {
//		pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
//		...
//
// The first Database of a package starts a server and migrates one database on it, of which every test gets
// a copy of its own. Servers start from a data directory that initdb made once on this machine.
// They run without fsync, and in all else like that of `evently up`.
//
// Invariants:
//   - Without Postgres tests fail, with the ways to get it; they are never skipped.
//   - A test process that is killed leaves no server behind (see package embedded), and the files it leaves
//     are removed by the next.
//   - Test processes may run at the same time: what they share is changed under one file lock.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/store/embedded"
)

const (
	// startMax bounds the start of a server, the installation of Postgres and the wait for other test processes included.
	startMax = 5 * time.Minute
	// statementMax bounds making or dropping a database, and the end of a server.
	statementMax = time.Minute
)

// settings of the servers.
var settings = map[string]string{
	"max_connections": "300",   // several tests with pools of their own run at once
	"max_wal_size":    "256MB", // files may be in memory
	"min_wal_size":    "80MB",
	// In the data directory, so that a server which a test has killed for good leaves nothing elsewhere.
	"dynamic_shared_memory_type": "mmap",
}

// Runner runs tests: a *testing.M, or something around it.
type Runner interface{ Run() int }

// Migrate brings the empty database at dsn to the schema that the package's tests want. It closes its connections.
type Migrate func(ctx context.Context, dsn string) error

// Main runs m's tests and returns the exit code. It stops the server that Database may have started, which if it
// fails makes the code 1. With a nil migrate the databases are empty.
func Main(m Runner, migrate Migrate) int { return Wrap(m, migrate).Run() }

// Wrap is Main for something that itself calls Run, such as goleak.VerifyTestMain.
func Wrap(m Runner, migrate Migrate) Runner { return &suite{tests: m, migrate: migrate} }

// current is the suite whose tests run: testing offers no other way from TestMain to a test.
var current atomic.Pointer[suite]

type suite struct {
	tests   Runner
	migrate Migrate

	start   sync.Once
	err     error // of start
	server  *embedded.Server
	scratch *scratch

	databases atomic.Int64 // made so far
}

func (s *suite) Run() int {
	if !current.CompareAndSwap(nil, s) {
		fmt.Fprintln(os.Stderr, "pgtest: Main inside Main")
		return 1
	}
	defer current.Store(nil)
	code := s.tests.Run()
	if err := s.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "pgtest: stop the server: %v\n", err)
		code = max(code, 1)
	}
	return code
}

// Database makes a database for this test alone, and drops it in the end, whoever is still connected.
// It returns the DSN, with the right to everything.
func Database(t testing.TB) string {
	t.Helper()
	s := current.Load()
	if s == nil {
		t.Fatal("pgtest: TestMain has to call pgtest.Main")
		return "" // for readers that do not know Fatal
	}
	s.start.Do(s.begin)
	if s.err != nil {
		t.Fatalf("pgtest: %v", s.err)
	}
	name := fmt.Sprintf("test_%d", s.databases.Add(1))
	// Without fsync a copy of the files with its checkpoints costs less than one by way of the WAL.
	if err := s.exec("CREATE DATABASE " + name + " TEMPLATE evently STRATEGY FILE_COPY"); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := s.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return s.server.DatabaseDSN(name)
}

// begin starts the server and migrates its database `evently`, which from then on is the template.
func (s *suite) begin() {
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	if s.scratch, s.err = newDataDir(ctx); s.err != nil {
		return
	}
	if s.server, s.err = embedded.Start(ctx, config(s.scratch.dataDir())); s.err != nil {
		return
	}
	if s.migrate != nil {
		if err := s.migrate(ctx, s.server.DSN()); err != nil {
			s.err = fmt.Errorf("migrate: %w", err)
		}
	}
}

func (s *suite) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), statementMax)
	defer cancel()
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.StopImmediate(ctx))
	}
	if s.scratch != nil {
		errs = append(errs, s.scratch.remove())
	}
	return errors.Join(errs...)
}

func (s *suite) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementMax)
	defer cancel()
	// Not to the template: it can be copied only while nobody is connected to it.
	conn, err := pgx.Connect(ctx, s.server.DatabaseDSN("postgres"))
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	if _, err = conn.Exec(ctx, sql); err != nil {
		err = fmt.Errorf("%s: %w", sql, err)
	}
	return errors.Join(err, conn.Close(ctx))
}

func config(dataDir string) embedded.Config {
	return embedded.Config{DataDir: dataDir, UnsafeNoFsync: true, Settings: settings}
}

// Private starts a server for this test alone, which may stop, restart and kill it. Its database `evently` is
// empty. With options the test changes the configuration: DSN stays valid over a restart.
func Private(t testing.TB, options ...func(*embedded.Config)) *embedded.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	cfg := config(DataDir(t))
	for _, option := range options {
		option(&cfg)
	}
	server, err := embedded.Start(ctx, cfg)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), statementMax)
		defer cancel()
		if err := server.StopImmediate(ctx); err != nil {
			t.Errorf("pgtest: stop the server: %v", err)
		}
	})
	return server
}

// DataDir is a data directory on which a server can start without initdb. It is removed after the test, which
// has to stop that server before.
func DataDir(t testing.TB) string {
	t.Helper()
	return keep(t, newDataDir).dataDir()
}

// Dir is an empty directory that, unlike t.TempDir, the account that runs Postgres can enter. It is removed after
// the test. It may be in memory, and closed to programs.
func Dir(t testing.TB) string {
	t.Helper()
	return keep(t, newScratch).dir()
}

func keep(t testing.TB, make func(context.Context) (*scratch, error)) *scratch {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	made, err := make(ctx)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := made.remove(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return made
}
