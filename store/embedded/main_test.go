package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/evently/evently/store/embedded"
)

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// ownerOf, set to a data directory, makes the test binary a process that owns a server there.
const ownerOf = "EVENTLY_TEST_OWNER_OF"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerOf); dir != "" {
		os.Exit(beOwner(dir))
	}
	goleak.VerifyTestMain(m)
}

// beOwner reports its server's pid and DSN, and waits to be killed, or for the end of the tests.
func beOwner(dir string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := embedded.Start(ctx, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready", server.PID(), server.DSN())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		fmt.Println(err)
	}
	if err := server.StopImmediate(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// owner is another process that owns a server.
type owner struct {
	process *exec.Cmd
	pid     int // of its server
	dsn     string
}

func startOwnerProcess(t *testing.T, dir string, environment ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), ownerOf+"="+dir), environment...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		if cmd.ProcessState == nil {
			if err := cmd.Wait(); err != nil {
				t.Errorf("the owner process: %v", err)
			}
		}
	})
	return cmd, bufio.NewScanner(stdout)
}

func startOwner(t *testing.T, dir string) *owner {
	t.Helper()
	cmd, lines := startOwnerProcess(t, dir)
	if !lines.Scan() {
		t.Fatalf("the owner process ended: %v", lines.Err())
	}
	fields := strings.Fields(lines.Text())
	if len(fields) != 3 || fields[0] != "ready" {
		t.Fatalf("the owner process says %q", lines.Text())
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return &owner{process: cmd, pid: pid, dsn: fields[2]}
}

// kill is kill -9.
func (o *owner) kill(t *testing.T) {
	t.Helper()
	if err := o.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	expectKilled(t, o.process.Wait())
}

func expectKilled(t *testing.T, err error) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process ended with %v, want killed", err)
	}
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// start is embedded.Start with a server that is gone after the test.
func start(t testing.TB, cfg embedded.Config) *embedded.Server {
	t.Helper()
	server, err := embedded.Start(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.StopImmediate(testContext(t)); err != nil {
			t.Error(err)
		}
	})
	return server
}

// query returns the one text value that sql yields.
func query(t testing.TB, dsn, sql string) string {
	t.Helper()
	value, err := tryQuery(testContext(t), dsn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func tryQuery(ctx context.Context, dsn, sql string) (value string, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, sql).Scan(&value)
	return value, errors.Join(err, conn.Close(ctx))
}

func exec1(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(ctx, sql)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// expectIdle fails unless no process of a server runs on dir.
func expectIdle(t testing.TB, dir string) {
	t.Helper()
	busy, err := embedded.InUse(dir)
	if err != nil {
		t.Fatal(err)
	}
	if busy {
		t.Fatalf("a process still runs on %s", dir)
	}
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
