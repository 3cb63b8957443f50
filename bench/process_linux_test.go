package bench

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
)

// burn uses the processor for a while, of which it may get less.
func burn(t *testing.T, until func() bool) {
	t.Helper()
	deadline := time.Now().Add(proctest.UpMax)
	for sum := 0; !until(); {
		for i := range 10_000_000 {
			sum += i
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s (%d)", proctest.UpMax, sum)
		}
	}
}

func TestProcess_UsesProcessorTime(t *testing.T) {
	before, known := cpuOf(os.Getpid())
	if !known {
		t.Fatal("not known")
	}
	began := time.Now()
	burn(t, func() bool {
		now, _ := cpuOf(os.Getpid())
		return now-before >= 100*time.Millisecond
	})
	if now, _ := cpuOf(os.Getpid()); now-before > 4*time.Since(began)+time.Second {
		t.Errorf("%s used within %s", now-before, time.Since(began))
	}
	if _, known := cpuOf(1 << 30); known {
		t.Error("a process that is not there is known")
	}
	if _, known := cpuOfFamily(1 << 30); known {
		t.Error("a family that is not there is known")
	}
	if rss := rssOf(os.Getpid()); rss < 1<<20 || rss > 1<<40 {
		t.Errorf("%d bytes", rss)
	}
	if rss := rssOf(1 << 30); rss != 0 {
		t.Errorf("%d bytes of a process that is not there", rss)
	}
}

// What a child uses counts, while it lives and when it has ended.
func TestProcess_CountsItsFamily(t *testing.T) {
	before, _ := cpuOfFamily(os.Getpid())
	own, _ := cpuOf(os.Getpid())
	child := exec.Command("/bin/sh", "-c", "while :; do :; done")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.UpMax, func() error {
		used, known := cpuOf(child.Process.Pid)
		if !known || used < 100*time.Millisecond {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	if parent, known := parentOf(child.Process.Pid, "sh"); !known || parent != os.Getpid() {
		t.Errorf("parent %d (%v), want %d", parent, known, os.Getpid())
	}
	if _, known := parentOf(child.Process.Pid, "postgres"); known {
		t.Error("a process of another name was taken")
	}
	check := func(when string) {
		after, _ := cpuOfFamily(os.Getpid())
		ownNow, _ := cpuOf(os.Getpid())
		if others := after - before - (ownNow - own); others < 90*time.Millisecond {
			t.Errorf("%s: %s of the family are not this process's, want 0.1 s of the child", when, others)
		}
	}
	check("alive")
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	check("ended")
}

func TestMeter_FindsThePostmaster(t *testing.T) {
	pool, _ := database(t)
	m := newMeter(t.Context(), &Target{Database: pool})
	before := m.read(t.Context())
	if !before.postgres.known || !before.load.known || before.server.known || before.redis.known || before.commits == 0 {
		t.Fatalf("%+v", before)
	}
	burnt := int64(0)
	for range 5 {
		if err := pool.QueryRow(t.Context(), `select count(*) from generate_series(1, 1000000)`).Scan(&burnt); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), `update users set name = name || 'x'`); err != nil {
			t.Fatal(err)
		}
	}
	after := m.read(t.Context())
	round := Round{Done: 10}
	after.since(&before, &round)
	if round.CPU.Postgres <= 0 || round.CPU.Server != 0 || round.CPU.Redis != 0 || round.CPU.Used <= 0 || round.CPU.Used > 1.1 {
		t.Errorf("%+v", round.CPU)
	}
	if commits := after.commits - before.commits; commits < 5 {
		t.Errorf("%d commits, want the 5 at least that were made", commits)
	}
	if err := m.settle(t.Context()); err != nil {
		t.Error(err)
	}
	if text, err := DescribePostgres(t.Context(), pool); err != nil || text[:1] < "1" || text[:1] > "9" {
		t.Errorf("%q (%v)", text, err)
	}
	if machine := ThisMachine(); machine.CPU == "" || machine.Cores < 1 || machine.MemoryMB < 100 || machine.OS == "" || machine.Go == "" {
		t.Errorf("%+v", machine)
	}
}
