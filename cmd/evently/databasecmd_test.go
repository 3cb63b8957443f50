package main

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/evently/evently/cmd/evently/proctest"
)

func TestDatabase_RunsWithoutANode(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	database := proctest.Launch(t, dir, "database", "up", "--log-level=warn")
	url := database.Await(t, `^(postgres://\S+)$`)[1]
	asked := proctest.Launch(t, dir, "database", "url")
	if got := asked.Await(t, `^(postgres://\S+)$`)[1]; got != url {
		t.Errorf("url %s, want %s", got, url)
	}
	if exit := asked.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
	verify := proctest.Launch(t, dir, "migrate", "up", "--database-url="+url)
	if exit := verify.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("migrate up: exit %d\n%s", exit, verify.Output())
	}
	database.Signal(t, syscall.SIGTERM)
	if exit := database.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d after SIGTERM, want %d", exit, exitOK)
	}
	noPostgres(t, dir)
	nobody := proctest.Launch(t, dir, "database", "url", "--start-timeout=100ms")
	if exit := nobody.Exit(t, proctest.StopMax); exit != exitFailed {
		t.Errorf("exit %d without a database, want %d", exit, exitFailed)
	}
}

func TestHealth_TellsByItsExitCode(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir)
	address := "--http-addr=" + strings.TrimPrefix(n.API, "http://")
	for _, args := range [][]string{{"health", address}, {"health", "--live", address}} {
		asked := proctest.Launch(t, t.TempDir(), args...)
		if exit := asked.Exit(t, proctest.StopMax); exit != exitOK || !strings.Contains(asked.Output(), `"status":"ok"`) {
			t.Errorf("%v: exit %d, want %d: %s", args, exit, exitOK, asked.Output())
		}
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	noPostgres(t, dir)
	asked := proctest.Launch(t, t.TempDir(), "health", address)
	if exit := asked.Exit(t, proctest.StopMax); exit != exitFailed {
		t.Errorf("exit %d without a node, want %d", exit, exitFailed)
	}
}

// pasted returns a block of the README.
func pasted(t *testing.T, name string) string {
	t.Helper()
	readme, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "<!-- "+name+" -->\n```sh\n")
	block, _, ended := strings.Cut(rest, "```\n")
	if !found || !ended {
		t.Fatalf("README.md has no block %s", name)
	}
	return block
}

func TestREADME_ClusterWorksWhenPasted(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	script := pasted(t, "cluster") + pasted(t, "cluster tour")
	for _, change := range [][2]string{ // this test has a program, a directory and addresses of its own
		{"go build -o bin/evently ./cmd/evently", "true"},
		{"bin/evently", proctest.Program(t)},
		{"/tmp/evently-cluster", dir},
		{"127.0.0.1", proctest.Loopbacks(t, 1, "8081", "8082", "8083", "9091", "9092", "9093", "7941", "7942", "7943", "7951", "7952", "7953")[0]},
		{"kill $(jobs -p)\n", "kill $(jobs -p); wait\n"},
	} {
		if !strings.Contains(script, change[0]) {
			t.Fatalf("no %q in\n%s", change[0], script)
		}
		script = strings.ReplaceAll(script, change[0], change[1])
	}
	command := osexec.CommandContext(t.Context(), "bash", "-c", "trap 'kill -9 $(jobs -p)' TERM; "+script)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	out, err := command.CombinedOutput()
	text := string(out)
	if err != nil {
		t.Errorf("%v", err)
	}
	for what, count := range map[string]int{
		`"cluster":{"members":3,`:     1, // the last one to be ready; the others may see it a moment later
		`"quorate":true,"serving":tr`: 3,
		"HTTP/1.1 201 Created":        2,
		"Idempotency-Replayed: true":  1,
		`"totals":{"nodes":2,`:        1,
		" 0 differences":              1,
	} {
		if got := strings.Count(text, what); got < count {
			t.Errorf("prints %q %d times, want %d", what, got, count)
		}
	}
	if t.Failed() {
		t.Log(text)
		for _, name := range []string{"node1.log", "node2.log", "node3.log"} {
			log, err := os.ReadFile(filepath.Join(dir, name))
			t.Logf("%s: %v\n%s", name, err, log)
		}
	}
	noPostgres(t, dir)
}
