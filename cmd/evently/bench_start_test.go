package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/bench"
	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/embedded/filelock"
	"github.com/evently/evently/store/pgtest"
)

// A file stays as it is until the report is there, and is the same one then.
func TestBenchFile_IsWrittenInPlaceWhenAllIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	before := strings.Repeat("before ", 10_000) // longer than a report
	err := errors.Join(os.WriteFile(path("old"), []byte(before), 0o600), os.Chmod(path("old"), 0o604),
		os.Symlink("old", path("link")), os.Symlink("aim", path("dangling")))
	was, statErr := os.Stat(path("old"))
	if err := errors.Join(err, statErr); err != nil {
		t.Fatal(err)
	}
	look := func(when, names string, began ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		var found []string
		for _, entry := range entries {
			found = append(found, entry.Name())
		}
		if got := strings.Join(found, " "); err != nil || got != names {
			t.Errorf("%s: %s are there (%v), want %s", when, got, err, names)
		}
		text, err := os.ReadFile(path("old"))
		if now, statErr := os.Stat(path("old")); err != nil || statErr != nil || !os.SameFile(was, now) || now.Mode() != was.Mode() {
			t.Errorf("%s: %v is %v (%v)", when, was, now, errors.Join(err, statErr))
		}
		if len(began) == 0 && string(text) != before || len(began) > 0 && (!bytes.HasPrefix(text, []byte(began[0])) || bytes.Contains(text, []byte("before"))) {
			t.Errorf("%s: %.40s", when, text)
		}
	}
	var stdout bytes.Buffer
	s := &shell{stdout: &stdout}
	open := func(json, html string) *benchOutputs {
		t.Helper()
		out, err := s.openOutputs(&benchOptions{json: json, html: html})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	out := open(path("link"), path("new"))
	look("while it is measured", "dangling link new old")
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	look("not written", "dangling link old")
	out = open(path("dangling"), path("old"))
	look("while it is measured", "aim dangling link old")
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	look("not written", "dangling link old")
	written := func(json, html string) {
		t.Helper()
		out := open(json, html)
		if err := errors.Join(out.write(&bench.Report{}), out.Close()); err != nil {
			t.Error(err)
		}
	}
	written(path("link"), path("new"))
	look("written", "dangling link new old", "{")
	written(path("dangling"), path("old"))
	look("written", "aim dangling link new old", "<!DOCTYPE")

	for _, wrong := range []string{dir, path("none/report.json")} {
		if _, err := s.openOutputs(&benchOptions{json: path("never"), html: wrong}); err == nil {
			t.Errorf("%s can be written", wrong)
		}
	}
	look("not opened", "aim dangling link new old", "<!DOCTYPE")
}

func TestBenchFile_MayBeAPipeOrADevice(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	piped := make(chan string)
	go func() {
		text, err := os.ReadFile(pipe)
		if err != nil {
			t.Error(err)
		}
		piped <- string(text)
	}()
	for path, take := range map[string]func(stdout string) string{
		pipe: func(string) string { return <-piped }, "-": func(stdout string) string { return stdout },
		"/dev/stdout": func(stdout string) string { return stdout }, os.DevNull: nil,
	} {
		var stdout bytes.Buffer
		out, err := (&shell{stdout: &stdout}).openOutputs(&benchOptions{json: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(out.write(&bench.Report{}), out.Close()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if take != nil && !strings.HasSuffix(take(stdout.String()), "\n}\n") {
			t.Errorf("%s has no report", path)
		}
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatalf("%s was replaced: %v", os.DevNull, info)
	}
}

// Whoever may write to the directory for temporary files can neither have this account change what is not its own nor remove it.
func TestBenchDir_LeavesWhatIsNotItsOwn(t *testing.T) {
	tmp, aim := filepath.Join(t.TempDir(), "a[b*c"), t.TempDir() // a name that means something in a pattern
	t.Setenv("TMPDIR", tmp)
	kept := filepath.Join(aim, postgresDir)
	if err := errors.Join(os.Mkdir(tmp, 0o755), os.Chmod(aim, 0o700), os.Mkdir(kept, 0o700)); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(tmp, benchDirPrefix+name) }
	if err := os.Symlink(aim, path("planted")); err != nil {
		t.Fatal(err)
	}
	if _, err := makeBenchDir(path("planted")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v, want that something is there", err)
	}
	if _, err := os.Lstat(benchLockOf(path("planted"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock: %v", err)
	}
	want := []string{benchDirPrefix + "planted", benchDirPrefix + "planted.lock"}
	leave := func(name string) { // what one leaves that is killed
		t.Helper()
		d, err := makeBenchDir(path(name))
		if err == nil {
			err = d.lock.Unlock()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	leave("dead")
	if os.Geteuid() == 0 {
		leave("others")
		if err := os.Lchown(path("others"), 1, -1); err != nil {
			t.Fatal(err)
		}
		want = append([]string{benchDirPrefix + "others", benchDirPrefix + "others.lock"}, want...)
	}
	if err := os.WriteFile(benchLockOf(path("planted")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(benchLockOf(path("gone")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sweepBenchDirs(); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(tmp)
	var left []string
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	if err != nil || !slices.Equal(left, want) {
		t.Errorf("%q are left (%v), want %q", left, err, want)
	}
	if info, err := os.Stat(aim); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v (%v)", info, err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

func TestBench_NeedsOpenFiles(t *testing.T) {
	t.Parallel()
	cmd := osexec.CommandContext(t.Context(), "bash", "-c", `ulimit -n 300; exec "$0" bench --connections 64`, proctest.Program(t))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "64 need 320 open files, and the limit of this process is 300") {
		t.Errorf("%v: %s", err, out)
	}
}

// What a bench that was killed has left is removed by the next one, and what one has that runs is not.
func TestBench_RemovesWhatAKilledOneLeft(t *testing.T) {
	t.Parallel()
	killed := newBenchRun(t, "--design", "evently", "--connections", "4", "--users", "8")
	if err := killed.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.UpMax, func() error {
		found, err := filepath.Glob(filepath.Join(killed.tmp, benchDirPrefix+"*", postgresDir))
		if err == nil && len(found) == 0 {
			err = errors.New("no Postgres yet")
		}
		return err
	})
	if err := killed.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := killed.cmd.Wait(); err == nil {
		t.Fatal("it ended in order")
	}
	live := filepath.Join(killed.tmp, benchDirPrefix+"live")
	lock, err := filelock.Try(benchLockOf(live))
	if err := errors.Join(err, os.Mkdir(live, 0o755)); err != nil {
		t.Fatal(err)
	}
	dsn := pgtest.Database(t)
	proctest.Eventually(t, proctest.UpMax, func() error { // as its Postgres takes some time to end
		next := newBenchRun(t, "--database-url", dsn, "--design", "redis", "--users", "1")
		next.cmd.Env = append(next.cmd.Env, "PATH="+t.TempDir(), "TMPDIR="+killed.tmp)
		if err := next.cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, &next.stderr)
		}
		entries, err := os.ReadDir(killed.tmp)
		if err == nil && len(entries) != 2 {
			err = fmt.Errorf("%v are there, want what is in use", entries)
		}
		return err
	})
	if err := errors.Join(os.Remove(live), os.Remove(benchLockOf(live)), lock.Unlock()); err != nil {
		t.Error(err)
	}
}

// What a role may not, and what others have left, is said before anything is measured.
func TestInspectPostgres_TellsOfRightsAndLeftovers(t *testing.T) {
	t.Parallel()
	server := pgtest.Private(t)
	exec := func(sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), server.DSN())
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(t.Context(), sql)
		if err := errors.Join(err, conn.Close(context.WithoutCancel(t.Context()))); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	as, err := url.Parse(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword("poor", "poor")
	exec(`create role poor login password 'poor'`)
	run := func(want int) string {
		b := newBenchRun(t, "--database-url", as.String(), "--design", "redis", "--users", "1")
		b.cmd.Env = append(b.cmd.Env, "PATH="+t.TempDir())
		b.run(t, want)
		return b.stdout.String() + b.stderr.String()
	}
	if out := run(exitFailed); !strings.Contains(out, "alter role poor createdb") {
		t.Errorf("without createdb: %s", out)
	}
	exec(`alter role poor createdb`)
	exec(`create database evently_bench_17_template`)
	out := run(exitOK)
	for _, want := range []string{"grant pg_checkpoint to poor", "without a checkpoint", "drop database evently_bench_17_template with (force)"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	exec(`grant pg_checkpoint to poor`)
	exec(`drop database evently_bench_17_template`)
	if out := run(exitOK); strings.Contains(out, "checkpoint") || strings.Contains(out, "drop database") {
		t.Errorf("with all rights: %s", out)
	}
}
