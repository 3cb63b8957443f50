package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/bench"
	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/embedded/filelock"
	"github.com/evently/evently/store/pgtest"
)

// A report is there at once, and one from before stays until then.
func TestBenchFile_IsReplacedWhenAllIsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "report.json")
	files := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(len(entries), " ", mustRead(t, path))
	}
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &shell{stdout: new(bytes.Buffer)}
	for _, written := range []bool{false, true} {
		out, err := s.openOutputs(&benchOptions{json: path})
		if err != nil {
			t.Fatal(err)
		}
		if got := files(); got != "2 before" {
			t.Errorf("while it is measured: %s", got)
		}
		if written {
			err = out.write(&bench.Report{})
		}
		if err := errors.Join(err, out.Close()); err != nil {
			t.Error(err)
		}
		if got := files(); strings.HasPrefix(got, "1 {") != written || !written && got != "1 before" {
			t.Errorf("written: %v: %s", written, got)
		}
	}
	for _, wrong := range []string{dir, filepath.Join(dir, "none", "report.json")} {
		if _, err := s.openOutputs(&benchOptions{html: wrong}); err == nil {
			t.Errorf("%s can be written", wrong)
		}
	}
	if out, err := s.openOutputs(&benchOptions{json: os.DevNull}); err != nil || errors.Join(out.write(&bench.Report{}), out.Close()) != nil {
		t.Errorf("no device can be written: %v", err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatalf("%s was replaced: %v", os.DevNull, info)
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
