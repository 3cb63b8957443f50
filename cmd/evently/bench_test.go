package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
	"github.com/evently/evently/bench"
	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/pgtest"
)

// benchRun is a process of `evently bench`, with a directory for its temporary files alone.
type benchRun struct {
	cmd            *osexec.Cmd
	tmp            string
	stdout, stderr bytes.Buffer
}

func newBenchRun(t *testing.T, args ...string) *benchRun {
	t.Helper()
	b := &benchRun{tmp: proctest.DataDir(t)}
	if err := os.Mkdir(b.tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*proctest.UpMax)
	t.Cleanup(cancel)
	b.cmd = osexec.CommandContext(ctx, proctest.Program(t), append([]string{"bench"}, args...)...)
	b.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + b.tmp}
	b.cmd.Stdout, b.cmd.Stderr = &b.stdout, &b.stderr
	return b
}

// run expects an exit code, and that nothing is left: no process that knows the directory, and nothing in it.
func (b *benchRun) run(t *testing.T, want int) {
	t.Helper()
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.wait(t, want)
}

func (b *benchRun) wait(t *testing.T, want int) {
	t.Helper()
	err := b.cmd.Wait()
	if exit := b.cmd.ProcessState.ExitCode(); exit != want {
		t.Fatalf("exit %d (%v), want %d; stdout:\n%s\nstderr:\n%s", exit, err, want, &b.stdout, &b.stderr)
	}
	entries, err := os.ReadDir(b.tmp)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	for _, pattern := range []string{"/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(b.tmp)) {
				t.Errorf("still running: %s: %q", path, text)
			}
		}
	}
}

func decodeReport(t *testing.T, text []byte) (report bench.Report) {
	t.Helper()
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return report
}

func TestBench_MeasuresDesignsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "report.html")
	b := newBenchRun(t, "--design", "evently,noop,for-update", "--workload", "hot", "--duration", "500ms", "--warmup", "100ms", "--rounds", "1",
		"--connections", "8", "--users", "16", "--json", "-", "--html", page)
	b.run(t, exitOK)
	report := decodeReport(t, b.stdout.Bytes())
	if len(report.Rounds) != 3 || len(report.Summary) != 3 || report.Machine.Cores == 0 || !strings.Contains(report.Machine.Postgres, "fsync=on") {
		t.Fatalf("%d rounds, %d summaries on %+v", len(report.Rounds), len(report.Summary), report.Machine)
	}
	for _, round := range report.Rounds {
		audited := round.Audit.Skipped == "" && round.Audit.Acknowledged > 0 && round.Audit.Stored >= round.Audit.Acknowledged
		if !round.Audit.Passed() || audited == (round.Design == "noop") || round.Outcomes["failed"] > 0 {
			t.Errorf("%s: %+v, %v", round.Design, round.Audit, round.Outcomes)
		}
	}
	for _, s := range report.Summary {
		if !s.Passed || s.Done <= 0 || s.OfCeiling <= 0 || s.Latency.P99 <= 0 {
			t.Errorf("%+v", s)
		}
	}
	if !strings.Contains(report.Settings, "webhooks") {
		t.Errorf("settings: %q", report.Settings)
	}
	text, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(text, []byte("SELECT ... FOR UPDATE")) {
		t.Errorf("the page: %v %s", err, text)
	}
	if !strings.Contains(b.stderr.String(), "2 of 3: noop, hot, 8 connections, round 1\n") {
		t.Errorf("progress:\n%s", &b.stderr)
	}
}

func TestBench_InterruptedTellsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	result := filepath.Join(t.TempDir(), "report.json")
	b := newBenchRun(t, "--database-url", dsn, "--design", "evently", "--connections", "4", "--users", "8", "--duration", "100ms",
		"--warmup", "0s", "--rounds", "100", "--json", result)
	progress, err := os.CreateTemp(t.TempDir(), "progress")
	if err != nil {
		t.Fatal(err)
	}
	defer progress.Close()
	b.cmd.Stderr = progress
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.UpMax, func() error {
		text, err := os.ReadFile(progress.Name())
		if err == nil && !bytes.Contains(text, []byte("2 of 100")) {
			err = fmt.Errorf("no second measurement: %s", text)
		}
		return err
	})
	if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	b.wait(t, exitFailed)
	text, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	if rounds := len(decodeReport(t, text).Rounds); rounds < 1 || rounds >= 100 {
		t.Errorf("%d rounds", rounds)
	}
	if !strings.Contains(b.stdout.String(), "Hot event") {
		t.Errorf("stdout:\n%s", &b.stdout)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	proctest.Eventually(t, proctest.UpMax, func() error { // as those of other tests may be there
		left := 0
		err := conn.QueryRow(t.Context(), `select count(*) from pg_database where datname like 'evently_bench_%'`).Scan(&left)
		if err == nil && left != 0 {
			err = fmt.Errorf("%d databases are left", left)
		}
		return err
	})
}

func TestBench_AbsentDesignSaysWhy(t *testing.T) {
	t.Parallel()
	b := newBenchRun(t, "--database-url", pgtest.Database(t), "--design", "redis", "--users", "1")
	b.cmd.Env = append(b.cmd.Env, "PATH="+t.TempDir())
	b.run(t, exitOK)
	if out := b.stdout.String(); !strings.Contains(out, "absent: install redis-server") {
		t.Errorf("stdout:\n%s", out)
	}
}

// forgetful is an API that acknowledges every booking and keeps none.
func forgetful(t *testing.T) *httptest.Server {
	t.Helper()
	signer := bench.Signer{KID: "test", Key: bytes.Repeat([]byte("k"), 32), TTL: time.Hour}
	var last atomic.Uint64
	answer := func(status int, body func(r *http.Request) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			text := body(r)
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			w.WriteHeader(status)
			if _, err := w.Write([]byte(text)); err != nil && r.Context().Err() == nil {
				t.Error(err)
			}
		}
	}
	constant := func(text string) func(*http.Request) string { return func(*http.Request) string { return text } }
	mux := http.NewServeMux()
	mux.Handle("POST /register", answer(http.StatusCreated, constant("{}")))
	mux.Handle("POST /login", answer(http.StatusOK, func(*http.Request) string {
		token, err := signer.Sign(evently.Principal{User: evently.UserID(last.Add(1))}, time.Now())
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf(`{"access_token":%q}`, token)
	}))
	mux.Handle("POST /admin/events", answer(http.StatusCreated, func(*http.Request) string {
		return fmt.Sprintf(`{"id":%q}`, evently.EventID(last.Add(1)))
	}))
	mux.Handle("POST /events/{id}/book", answer(http.StatusCreated, func(r *http.Request) string {
		event, err := evently.ParseEventID(r.PathValue("id"))
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf(`{"id":%q,"status":"held","quantity":1}`, evently.ReservationID{Event: event, Token: evently.Token(last.Add(1))})
	}))
	mux.Handle("GET /admin/events/{id}/bookings.csv", answer(http.StatusOK, constant("id,user_id,status,quantity\n")))
	mux.Handle("GET /events/{id}/availability", answer(http.StatusOK, constant(`{"held":0,"booked":0}`)))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func TestBench_FailedAuditIsNoResult(t *testing.T) {
	t.Parallel()
	server := forgetful(t)
	for _, format := range [][]string{nil, {"--json", "-"}} {
		b := newBenchRun(t, append([]string{
			"--target", server.URL, "--users", "2", "--connections", "2", "--duration", "100ms", "--warmup", "0s",
		}, format...)...)
		b.cmd.Env = append(b.cmd.Env, "EVENTLY_ADMIN_PASSWORD=what-it-takes")
		b.run(t, exitFailed)
		if text := b.stderr.String(); !strings.Contains(text, "audits failed") || !strings.Contains(text, "acknowledged bookings lost") {
			t.Errorf("%v: stderr:\n%s", format, text)
		}
		out := b.stdout.String()
		if strings.Contains(strings.Join(format, ""), "json") {
			report := decodeReport(t, b.stdout.Bytes())
			if len(report.Rounds) != 1 || report.Rounds[0].Audit.Passed() || report.Rounds[0].Done != 0 || report.Rounds[0].Latency != (bench.Latency{}) ||
				len(report.Summary) != 1 || report.Summary[0].Done != 0 || report.Summary[0].Passed {
				t.Errorf("%s", out)
			}
			continue
		}
		if !strings.Contains(out, "FAILED its audit") || strings.Contains(out, "1.00x") {
			t.Errorf("%v: stdout:\n%s", format, out)
		}
	}
}

func TestBench_RefusesWhatCannotBeMeant(t *testing.T) {
	for line, want := range map[string]string{
		"--compare --design redis":                     "do not go together",
		"--compare --target http://h":                  "do not go together",
		"--compare --rate 10":                          "do not go together",
		"--target http://h --design redis":             "do not go together",
		"--target http://h --database-url postgres://": "do not go together",
		"--target http://h":                            "needs an administrator",
		"--target ftp://h --admin-password p":          "not of the form",
		"--tokens f":                                   "--tokens is for --target",
		"--admin-password p":                           "--admin-password is for --target",
		"--design evently,mysql":                       `"mysql" is none of evently`,
		"--design evently,evently":                     "stands twice",
		"--workload cold":                              `"cold" is none of hot`,
		"--connections 0":                              "0 is not from 1",
		"--connections 8,8":                            "stands twice",
		"--rate 0":                                     "--rate: must be above 0",
		"--rate NaN":                                   "--rate: must be above 0",
		"--rounds 0":                                   "--rounds: must be 1",
		"--users 0":                                    "--users: must be 1",
		"--duration 1ms":                               "--duration: must be",
		"--warmup -1s":                                 "--warmup: must be",
		"--json - --markdown":                          "standard output",
		"--json f --html f":                            "files of their own",
		"--target http://h --admin-password p --workload tail-100k": "would leave 100000 events",
		"--database-url mysql://h":                                  "postgres://",
		"--database-url postgres://h/d?pool_max_conns=9":            "without pool_max_conns",
		"serve --design mysql":                                      `"mysql"`,
		"serve --design noop":                                       "database_url is not set",
		"more":                                                      "more",
	} {
		args := append([]string{"bench"}, strings.Fields(line)...)
		if out := exec(t, exitUsage, environment{"HOME": t.TempDir()}, args...); !strings.Contains(out, want) {
			t.Errorf("evently bench %s says %q, want %q", line, out, want)
		}
	}
}

func TestBenchMethod_SaysWhatDiffers(t *testing.T) {
	for _, c := range []struct {
		options benchOptions
		want    string
	}{
		{
			benchOptions{workloads: []string{"hot"}, rounds: 1},
			"Each measurement is a warm-up of 500ms and a window of 2s; in 1 round the designs take turns; " +
				"a first block of the first design is measured and thrown away.",
		},
		{
			benchOptions{compare: true, workloads: []string{"hot"}, rounds: 3},
			"Each measurement is a warm-up of 500ms and a window of 2s (flash: until its demand is met, for 20s at most); " +
				"in 3 rounds the designs take turns (flash: in 1; tail-100k: the first design alone); " +
				"a first block of the first design is measured and thrown away.",
		},
		{
			benchOptions{quick: true, target: "http://h", workloads: []string{"flash"}, rounds: 1},
			"Each measurement is a warm-up of 500ms and a window of 2s (flash: until its demand is met, for 2s at most).",
		},
	} {
		c.options.warmup, c.options.duration = 500*time.Millisecond, 2*time.Second
		if got := c.options.method(); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

func TestBenchCommandLine_ShowsNoSecret(t *testing.T) {
	before := os.Args
	defer func() { os.Args = before }()
	os.Args = []string{"evently", "bench", "--target=http://h", "--admin-password", "hunter", "--database-url=postgres://u:hunter@h/d", "--quick"}
	if got, want := benchCommandLine(), "evently bench --target=http://h --admin-password ... --database-url=... --quick"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
