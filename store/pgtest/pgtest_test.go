package pgtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/embedded/filelock"
	"github.com/evently/evently/store/pgtest"
)

const patience = 2 * time.Minute

// asChild, when set, makes the tests named TestChild do their work; else they have none.
const asChild = "EVENTLY_TEST_AS_CHILD"

var migrations atomic.Int64

func migrate(ctx context.Context, dsn string) error {
	migrations.Add(1)
	_, err := run(ctx, dsn, "CREATE TABLE seats (free int)")
	return err
}

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		os.Exit(pgtest.Main(m, migrate))
	}
	goleak.VerifyTestMain(pgtest.Wrap(m, migrate))
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// run executes sql and returns the first column of the last row, if any.
func run(ctx context.Context, dsn, sql string) (value string, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	for _, result := range results {
		for _, row := range result.Rows {
			value = string(row[0])
		}
	}
	return value, errors.Join(err, conn.Close(ctx))
}

func mustRun(t testing.TB, dsn, sql string) string {
	t.Helper()
	value, err := run(testContext(t), dsn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func TestDatabase_EveryTestHasItsOwnMigratedOne(t *testing.T) {
	const tests = 6
	t.Run("all", func(t *testing.T) {
		for i := range tests {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				dsn := pgtest.Database(t)
				mustRun(t, dsn, fmt.Sprintf("INSERT INTO seats VALUES (%d)", i))
				if got, want := mustRun(t, dsn, "SELECT string_agg(free::text, ',') FROM seats"), fmt.Sprint(i); got != want {
					t.Errorf("read %s, want %s", got, want)
				}
			})
		}
	})
	if got := migrations.Load(); got != 1 {
		t.Errorf("%d migrations, want 1", got)
	}
}

func TestDatabase_IsDroppedWhoeverIsConnected(t *testing.T) {
	var dsn string
	var conn *pgx.Conn
	t.Run("inner", func(t *testing.T) {
		dsn = pgtest.Database(t)
		var err error
		if conn, err = pgx.Connect(testContext(t), dsn); err != nil {
			t.Fatal(err)
		}
	})
	if err := conn.Ping(testContext(t)); err == nil {
		t.Error("the session outlived the test")
	}
	if err := conn.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	_, err := run(testContext(t), dsn, "SELECT 1")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "3D000" {
		t.Errorf("connect: %v, want 3D000", err)
	}
}

func TestDatabase_ServerTakesManySessionsAndDoesNotSync(t *testing.T) {
	dsn := pgtest.Database(t)
	for name, want := range map[string]string{"max_connections": "300", "fsync": "off", "synchronous_commit": "on"} {
		if got := mustRun(t, dsn, "SHOW "+name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestPrivate_IsAServerOfItsOwn(t *testing.T) {
	shared := pgtest.Database(t)
	private := pgtest.Private(t, func(cfg *embedded.Config) { cfg.UnsafeNoFsync = false })
	if got := mustRun(t, private.DSN(), "SHOW fsync"); got != "on" {
		t.Errorf("the option was not heard: fsync is %s", got)
	}
	if err := private.Restart(testContext(t), embedded.Immediate); err != nil {
		t.Fatal(err)
	}
	mustRun(t, private.DSN(), "SELECT 1")
	if err := private.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	mustRun(t, shared, "SELECT 1")
}

// child is this test binary, running one of its tests.
func child(t *testing.T, test string, environment ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), os.Args[0], "-test.v", "-test.run=^"+test+"$")
	cmd.Env = append(append(os.Environ(), asChild+"=1"), environment...)
	return cmd
}

// TestChild_Databases is the work of children that end well, or not for want of Postgres.
func TestChild_Databases(t *testing.T) {
	mustRun(t, pgtest.Database(t), "INSERT INTO seats VALUES (1)")
}

// TestChild_WaitsToBeKilled is the work of a child that is killed.
func TestChild_WaitsToBeKilled(t *testing.T) {
	if os.Getenv(asChild) == "" {
		mustRun(t, pgtest.Private(t).DSN(), "SELECT 1")
		return
	}
	server := pgtest.Private(t)
	mustRun(t, pgtest.Database(t), "INSERT INTO seats VALUES (1)")
	fmt.Println("\nserves", server.DataDir())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutPostgres_TestsFailWithTheFixes(t *testing.T) {
	out, err := child(t, "TestChild_Databases", "EVENTLY_PG_BIN=/nonexistent").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--- FAIL: TestChild_Databases") || !strings.Contains(string(out), "EVENTLY_PG_BIN") {
		t.Errorf("%v:\n%s", err, out)
	}
	if strings.Contains(string(out), "SKIP") {
		t.Errorf("skipped:\n%s", out)
	}
}

func TestKilledTestBinary_LeavesNothing(t *testing.T) {
	temp := pgtest.Dir(t)
	cmd := child(t, "TestChild_WaitsToBeKilled", "TMPDIR="+temp)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dataDir string
	for lines := bufio.NewScanner(stdout); dataDir == "" && lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "serves "); ok {
			dataDir = name
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child was not killed")
	}
	if !strings.HasPrefix(dataDir, temp) {
		t.Fatalf("the child's server is on %q, want it under %s", dataDir, temp)
	}
	runs := filepath.Join(temp, "*", "run-*")
	left, err := filepath.Glob(runs)
	if err != nil || len(left) != 2 {
		t.Fatalf("the child had %v, %v, want two directories", left, err)
	}
	for _, dir := range left {
		lock, err := filelock.Wait(testContext(t), filepath.Join(dir, "data", "server.lock"))
		if err != nil {
			t.Fatalf("a server outlived the child: %v", err)
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := child(t, "TestChild_Databases", "TMPDIR="+temp).CombinedOutput(); err != nil {
		t.Fatalf("the next child: %v\n%s", err, out)
	}
	if left, err := filepath.Glob(runs); err != nil || len(left) != 0 {
		t.Errorf("left after the next child: %v, %v", left, err)
	}
}

func TestTemplate_ProcessesShareOneAndReplaceADamagedOne(t *testing.T) {
	temp := pgtest.Dir(t)
	children := func() {
		t.Helper()
		const processes = 3
		var wait sync.WaitGroup
		for range processes {
			cmd := child(t, "TestChild_Databases", "TMPDIR="+temp)
			wait.Go(func() {
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		wait.Wait()
	}
	children()
	files, err := filepath.Glob(filepath.Join(temp, "*", "template-*", "pgdata", "global", "pg_control"))
	if err != nil || len(files) != 1 {
		t.Fatalf("templates: %v, %v, want one", files, err)
	}
	before, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	children()
	after, err := os.Stat(files[0])
	if err != nil || !os.SameFile(before, after) {
		t.Fatalf("the template was made again: %v", err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	children()
	if _, err := os.Stat(files[0]); err != nil {
		t.Error(err)
	}
}
