package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/embedded/filelock"
	"github.com/evently/evently/store/pgtest"
)

func TestOwnerProcess_SecondGetsItsDSN(t *testing.T) {
	dir := pgtest.DataDir(t)
	owner := startOwner(t, dir)
	exec1(t, owner.dsn, "CREATE TABLE seats AS SELECT 42 AS free")
	_, err := embedded.Start(testContext(t), embedded.Config{DataDir: dir})
	var inUse *embedded.InUseError
	if !errors.As(err, &inUse) || !errors.Is(err, embedded.ErrInUse) {
		t.Fatalf("Start: %v, want an InUseError", err)
	}
	if got := query(t, inUse.DSN, "SELECT free::text FROM seats"); got != "42" {
		t.Errorf("through its DSN: %s, want 42", got)
	}
	if busy, err := embedded.InUse(dir); !busy || err != nil {
		t.Errorf("InUse: %v, %v, want true", busy, err)
	}
}

func TestOwnerProcess_KilledLeavesNoServer(t *testing.T) {
	dir := pgtest.DataDir(t)
	owner := startOwner(t, dir)
	exec1(t, owner.dsn, "CREATE TABLE seats AS SELECT 42 AS free")
	// A session that is busy does not keep the server.
	busy, err := pgx.Connect(testContext(t), owner.dsn)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := busy.Exec(testContext(t), "SELECT pg_sleep(3600)")
		result <- err
	}()
	serverLock := filepath.Join(dir, "server.lock")
	if _, err := filelock.Try(serverLock); !errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("the server does not hold its lock: %v", err)
	}
	owner.kill(t)
	lock, err := filelock.Wait(testContext(t), serverLock)
	if err != nil {
		t.Fatalf("processes of the server outlived its owner: %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil {
		t.Error("the session went on")
	}
	expectIdle(t, dir)
	again := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, again.DSN(), "SELECT free::text FROM seats"); got != "42" {
		t.Errorf("read back %s, want 42", got)
	}
}

func TestOwnerProcess_KilledIsSucceededAtOnce(t *testing.T) {
	dir := pgtest.DataDir(t)
	owner := startOwner(t, dir)
	exec1(t, owner.dsn, "CREATE TABLE seats AS SELECT generate_series(1, 10000) AS n")
	owner.kill(t)
	// Its server is still shutting down.
	again := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, again.DSN(), "SELECT count(*)::text FROM seats"); got != "10000" {
		t.Errorf("read back %s rows, want 10000", got)
	}
}

func TestOwnerProcess_AllKilledRecovers(t *testing.T) {
	dir := pgtest.DataDir(t)
	owner := startOwner(t, dir)
	exec1(t, owner.dsn, "CREATE TABLE seats AS SELECT 42 AS free")
	if err := syscall.Kill(owner.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	owner.kill(t)
	if _, err := os.Stat(filepath.Join(dir, "pgdata", "postmaster.pid")); err != nil {
		t.Fatalf("no stale pid file to cope with: %v", err)
	}
	again := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, again.DSN(), "SELECT free::text FROM seats"); got != "42" {
		t.Errorf("read back %s, want 42", got)
	}
}

func TestOwnerProcess_KilledDuringInitdb(t *testing.T) {
	dir := filepath.Join(pgtest.Dir(t), "data")
	pause := newPause(t)
	bin := fakeBinaries(t, `echo 15 >"$2/PG_VERSION"; `+pause.script())
	cmd, lines := startOwnerProcess(t, dir, "EVENTLY_PG_BIN="+bin)
	pause.await(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		t.Errorf("the owner process says %q", lines.Text())
	}
	expectKilled(t, cmd.Wait())
	leftovers, err := filepath.Glob(filepath.Join(dir, "initdb-*", "PG_VERSION"))
	if err != nil || len(leftovers) != 1 {
		t.Fatalf("no half-made directory to cope with: %v, %v", leftovers, err)
	}
	server := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, server.DSN(), "SELECT 'served'"); got != "served" {
		t.Errorf("got %q", got)
	}
	leftovers, err = filepath.Glob(filepath.Join(dir, "initdb-*"))
	if err != nil || len(leftovers) != 0 {
		t.Errorf("left over: %v, %v", leftovers, err)
	}
}

// fakeBinaries are the real ones but for initdb, which is a script.
func fakeBinaries(t *testing.T, initdb string) string {
	t.Helper()
	install, err := embedded.Find(testContext(t), embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	// Not pgtest.Dir, which may be closed to programs, nor t.TempDir, which is to the server's account.
	dir, err := os.MkdirTemp("", "evently-fake-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "pg_ctl"} {
		if err := os.Symlink(filepath.Join(install.BinDir, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	script := filepath.Join(dir, "initdb")
	if err := errors.Join(os.WriteFile(script, []byte("#!/bin/sh\n"+initdb+"\n"), 0o755), os.Chmod(script, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pause is the end of a script that says it has begun, and then waits for its own.
type pause struct {
	begun *os.File // read-write, so that neither side waits for the other to open it
	never string   // a fifo that nobody writes to
}

func newPause(t *testing.T) *pause {
	t.Helper()
	dir := pgtest.Dir(t)
	for _, name := range []string{"begun", "never"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(syscall.Mkfifo(path, 0o666), os.Chmod(path, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	begun, err := os.OpenFile(filepath.Join(dir, "begun"), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := begun.Close(); err != nil {
			t.Error(err)
		}
	})
	return &pause{begun: begun, never: filepath.Join(dir, "never")}
}

func (p *pause) script() string {
	return "echo begun >'" + p.begun.Name() + "'; exec cat '" + p.never + "'"
}

// await waits until the script has begun.
func (p *pause) await(t *testing.T) {
	t.Helper()
	if err := p.begun.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(p.begun).ReadString('\n'); err != nil || line != "begun\n" {
		t.Fatalf("the script says %q, %v", line, err)
	}
}

func TestStart_FailedInitdbLeavesNothing(t *testing.T) {
	dir := filepath.Join(pgtest.Dir(t), "data")
	t.Setenv("EVENTLY_PG_BIN", fakeBinaries(t, `touch "$2/half"; echo "could not write: No space left on device" >&2; exit 1`))
	_, err := embedded.Start(testContext(t), embedded.Config{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "No space left on device") {
		t.Fatalf("Start: %v, want what initdb said", err)
	}
	expectIdle(t, dir)
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry, ".lock") {
			t.Errorf("left over: %s", entry)
		}
	}
	if err := os.Unsetenv("EVENTLY_PG_BIN"); err != nil {
		t.Fatal(err)
	}
	server := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, server.DSN(), "SELECT 'served'"); got != "served" {
		t.Errorf("got %q", got)
	}
}

func TestStart_CanceledDuringInitdbEndsIt(t *testing.T) {
	dir := filepath.Join(pgtest.Dir(t), "data")
	pause := newPause(t)
	// In a child of the script, as initdb has children: all are interrupted.
	t.Setenv("EVENTLY_PG_BIN", fakeBinaries(t, "("+pause.script()+"); exit 1"))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := embedded.Start(ctx, embedded.Config{DataDir: dir})
		result <- err
	}()
	pause.await(t)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Start: %v, want context.Canceled", err)
	}
	expectIdle(t, dir)
}

func TestStart_FailedServerLeavesNothing(t *testing.T) {
	dir := pgtest.DataDir(t)
	_, err := embedded.Start(testContext(t), embedded.Config{DataDir: dir, Settings: map[string]string{"shared_buffers": "lots"}})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers": "lots"`) {
		t.Fatalf("Start: %v, want the tail of the server's log", err)
	}
	expectIdle(t, dir)
	if _, err := os.Lstat(filepath.Join(dir, "run")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket's directory is left: %v", err)
	}
	server := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, server.DSN(), "SELECT 'served'"); got != "served" {
		t.Errorf("got %q", got)
	}
}

func TestStart_StalePIDFileNamesALivingProcess(t *testing.T) {
	dir := pgtest.DataDir(t)
	pgdata := filepath.Join(dir, "pgdata")
	info, err := os.Stat(pgdata)
	if err != nil {
		t.Fatal(err)
	}
	// Of the server's account, or Postgres would see by itself that it is no server.
	stranger := exec.Command("cat")
	account := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() == 0 {
		stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account.Uid, Gid: account.Gid}}
	}
	stranger.Dir = "/"
	stdin, err := stranger.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(stdin.Close(), stranger.Wait()); err != nil {
			t.Error(err)
		}
	}()
	pid := strconv.Itoa(stranger.Process.Pid)
	if err := os.WriteFile(filepath.Join(pgdata, "postmaster.pid"), []byte(pid+"\n"+pgdata+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
	if got := query(t, server.DSN(), "SELECT 'served'"); got != "served" {
		t.Errorf("got %q", got)
	}
}

func TestStart_WaitsForFormerServer(t *testing.T) {
	dir := pgtest.DataDir(t)
	former, err := filelock.Try(filepath.Join(dir, "server.lock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if _, err := embedded.Start(ctx, embedded.Config{DataDir: dir}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Start beside a former server: %v, want context.Canceled", err)
	}
	if err := former.Unlock(); err != nil {
		t.Fatal(err)
	}
	start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
}

func TestStart_OwnerThatIsNotReady(t *testing.T) {
	dir := pgtest.DataDir(t)
	owner, err := filelock.Try(filepath.Join(dir, "owner.lock"))
	if err != nil {
		t.Fatal(err)
	}
	// Of a predecessor that was killed.
	if err := os.WriteFile(filepath.Join(dir, "owner.dsn"), []byte("postgres://evently@/evently?host=/nonexistent"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	_, err = embedded.Start(ctx, embedded.Config{DataDir: dir})
	var inUse *embedded.InUseError
	if !errors.As(err, &inUse) || inUse.DSN != "" {
		t.Fatalf("Start: %v, want an InUseError without a DSN", err)
	}
	if err := owner.Unlock(); err != nil {
		t.Fatal(err)
	}
	start(t, embedded.Config{DataDir: dir, UnsafeNoFsync: true})
}

func TestStart_OtherMajorVersionIsRefusedUntouched(t *testing.T) {
	dir := pgtest.DataDir(t)
	marker := filepath.Join(dir, "pgdata", "PG_VERSION")
	if err := os.WriteFile(marker, []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := listing(t, filepath.Join(dir, "pgdata"))
	_, err := embedded.Start(testContext(t), embedded.Config{DataDir: dir})
	var version *embedded.VersionError
	if !errors.As(err, &version) || version.Major != 9 || version.Installed.Major < embedded.MajorMin {
		t.Fatalf("Start: %v, want a VersionError", err)
	}
	for _, want := range []string{"pg_dump", "pg_restore", filepath.Join(dir, "pgdata")} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message lacks %q: %v", want, err)
		}
	}
	if after := listing(t, filepath.Join(dir, "pgdata")); after != before {
		t.Errorf("pgdata changed from\n%s\nto\n%s", before, after)
	}
	expectIdle(t, dir)
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestStart_DirectoriesThatAreNotOurs(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"a server's data directory": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("15\n"), 0o600)
		},
		"pgdata without a version": func(dir string) error { return os.Mkdir(filepath.Join(dir, "pgdata"), 0o700) },
		"not a directory":          func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(pgtest.Dir(t), "data")
			if err := errors.Join(os.Mkdir(dir, 0o755), make(dir)); err != nil {
				t.Fatal(err)
			}
			_, err := embedded.Start(testContext(t), embedded.Config{DataDir: dir})
			if err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("Start: %v, want a refusal that names %s", err, dir)
			}
		})
	}
}

func TestReachable_NamesTheClosedDirectory(t *testing.T) {
	closed := filepath.Join(pgtest.Dir(t), "closed")
	inner := filepath.Join(closed, "inner")
	if err := errors.Join(os.MkdirAll(inner, 0o755), os.Chmod(closed, 0o755), os.Chmod(inner, 0o755)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(inner, "data")
	if err := embedded.Reachable(dir); err != nil {
		t.Fatalf("open: %v", err)
	}
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Chmod(closed, 0o755); err != nil {
			t.Error(err)
		}
	}()
	_, err := embedded.Start(testContext(t), embedded.Config{DataDir: dir})
	var unreachable *embedded.ReachError
	if !errors.As(err, &unreachable) || unreachable.Dir != closed {
		t.Errorf("Start: %v, want a ReachError that names %s", err, closed)
	}
	if info, err := os.Stat(closed); err != nil || info.Mode().Perm() != 0 {
		t.Errorf("the directory was changed to %v, %v", info.Mode(), err)
	}
}
