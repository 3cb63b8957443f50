package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/http/apitest"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

// Bounds on what a process does.
const (
	upMax   = time.Minute
	stopMax = 40 * time.Second
)

// process is a running evently.
type process struct {
	cmd    *osexec.Cmd
	lines  chan string // of standard output
	exited chan struct{}
	dir    string

	mu   sync.Mutex
	text bytes.Buffer // all output
}

// dataDir is a fresh one that the account that runs Postgres can enter.
func dataDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the test's, which is closed to others
		t.Fatal(err)
	}
	return filepath.Join(dir, "data")
}

// launch starts the program with a data directory and free ports.
func launch(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{cmd: osexec.Command(eventlyPath, args...), lines: make(chan string, 1000), exited: make(chan struct{}), dir: dir}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "EVENTLY_DATA_DIR=" + dir},
		"EVENTLY_HTTP_ADDR=127.0.0.1:0", "EVENTLY_ADMIN_ADDR=127.0.0.1:0", "EVENTLY_RATE_LIMIT_AUTH=off")
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		defer close(p.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			fmt.Fprintln(p, scanner.Text())
			p.lines <- scanner.Text()
		}
		p.cmd.Wait() //nolint:errcheck // the tests look at ProcessState
	}()
	t.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			p.signal(t, syscall.SIGKILL)
			<-p.exited
		}
		if t.Failed() {
			t.Logf("output of evently %s:\n%s", strings.Join(args, " "), p.output())
		}
	})
	return p
}

func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(text)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await returns the match of a line of standard output that is yet to come.
func (p *process) await(t *testing.T, pattern string) []string {
	t.Helper()
	timeout := time.After(upMax)
	for {
		select {
		case line, open := <-p.lines:
			if match := regexp.MustCompile(pattern).FindStringSubmatch(line); match != nil {
				return match
			}
			if !open {
				t.Fatalf("evently ended before it printed %q", pattern)
			}
		case <-timeout:
			t.Fatalf("evently has not printed %q within %s", pattern, upMax)
		}
	}
}

func (p *process) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// exit waits for the end of the process and returns the exit code.
func (p *process) exit(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("evently still runs after %s", within)
		return 0
	}
}

// upNode is a process that serves.
type upNode struct {
	*process
	api, operations, email, password string

	checked *http.Client // see do
}

func up(t *testing.T, dir string, args ...string) *upNode {
	t.Helper()
	n := &upNode{process: launch(t, dir, append([]string{"up"}, args...)...)}
	n.api = n.await(t, `^API +(http://\S+)`)[1]
	n.operations = n.await(t, `^Operations +(http://\S+)/metrics`)[1]
	login := n.await(t, `^Admin +(\S+), password (\S+)`)
	n.email, n.password = login[1], login[2]
	n.await(t, `^Ready`)
	return n
}

// do makes a request, holds the answer to the API's document, and decodes the answer into out, if any.
func (n *upNode) do(t *testing.T, wantStatus int, method, path, token, body string, out any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, n.api+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Idempotency-Key", method+path)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if n.checked == nil {
		n.checked = apitest.NewClient(t, n.api)
	}
	response, err := n.checked.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != wantStatus {
		t.Fatalf("%s %s: status %d, want %d (%v): %s", method, path, response.StatusCode, wantStatus, err, text)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

func (n *upNode) login(t *testing.T) (token string) {
	t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	n.do(t, 200, "POST", "/login", "", fmt.Sprintf(`{"email":%q,"password":%q}`, n.email, n.password), &answer)
	return answer.AccessToken
}

// healthy polls /health until it is 200.
func (n *upNode) healthy(t *testing.T) {
	t.Helper()
	eventually(t, upMax, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.api+"/health", nil)
		if err != nil {
			return err
		}
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d: %s", response.StatusCode, text)
		}
		return err
	})
}

// eventually polls until check returns nil.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	timeout := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-timeout:
			t.Fatalf("not within %s: %v", within, err)
		case <-tick.C:
		}
	}
}

// postmaster is the process id of the embedded Postgres of a data directory.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, postgresDir, "pgdata", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// noPostgres waits until no process of an embedded Postgres is left.
func noPostgres(t *testing.T, dir string) {
	t.Helper()
	eventually(t, stopMax, func() error {
		used, err := embedded.InUse(filepath.Join(dir, postgresDir))
		if err == nil && used {
			err = errors.New("the embedded Postgres still runs")
		}
		return err
	})
}

func TestUp_DataOutlivesTheProcess(t *testing.T) {
	dir := dataDir(t)
	first := up(t, dir, "--demo")
	first.do(t, 200, "GET", "/health", "", "", nil)
	var events struct {
		Data []struct {
			ID   string
			City string
		}
	}
	first.do(t, 200, "GET", "/events?city=Vienna", "", "", &events)
	if len(events.Data) != 1 {
		t.Fatalf("events in Vienna: %+v", events)
	}
	var booked, found struct {
		ID       string
		Status   string
		Quantity int
	}
	first.do(t, 201, "POST", "/events/"+events.Data[0].ID+"/book", first.login(t), `{"quantity":2}`, &booked)

	// While it runs: the tools find its database.
	verify := launch(t, dir, "verify")
	verify.await(t, `^Verified 12 events, 13 entries and 1 reservations: 0 differences`)
	if exit := verify.exit(t, stopMax); exit != exitOK {
		t.Errorf("verify: exit %d, want %d", exit, exitOK)
	}

	first.signal(t, syscall.SIGTERM)
	if exit := first.exit(t, stopMax); exit != exitOK {
		t.Errorf("exit %d after SIGTERM, want %d", exit, exitOK)
	}
	noPostgres(t, dir)

	second := up(t, dir, "--demo")
	if second.password != first.password {
		t.Errorf("the administrator's password has changed from %q to %q", first.password, second.password)
	}
	second.do(t, 200, "GET", "/reservations/"+booked.ID, second.login(t), "", &found)
	if found != booked || found.Status != "held" || found.Quantity != 2 {
		t.Errorf("the reservation was %+v and is %+v", booked, found)
	}
	second.signal(t, syscall.SIGINT)
	if exit := second.exit(t, stopMax); exit != exitOK {
		t.Errorf("exit %d after SIGINT, want %d", exit, exitOK)
	}
	noPostgres(t, dir)

	// Nothing runs: the tools start the database for themselves, and stop it.
	verify = launch(t, dir, "verify", "--json")
	if exit := verify.exit(t, stopMax); exit != exitOK {
		t.Errorf("verify without a node: exit %d, want %d", exit, exitOK)
	}
	noPostgres(t, dir)
}

func TestUp_SecretsAreForTheirOwnerAlone(t *testing.T) {
	dir := dataDir(t)
	n := up(t, dir)
	for _, name := range []string{jwtSecretFile, adminPasswordFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v (%v), want mode 0600", name, info, err)
		}
	}
	n.signal(t, syscall.SIGTERM)
	n.exit(t, stopMax)
	if out := n.output(); strings.Contains(out, mustRead(t, filepath.Join(dir, jwtSecretFile))) {
		t.Error("the secret of tokens was printed")
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	text, err := readSecretFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestUp_RefusesAnotherNodeOnItsDataOrPorts(t *testing.T) {
	const quickly = 10 * time.Second
	dir := dataDir(t)
	n := up(t, dir)

	second := launch(t, dir, "up")
	if exit := second.exit(t, quickly); exit != exitFailed || !strings.Contains(second.output(), "another evently runs on "+dir) {
		t.Errorf("on the same data: exit %d, %s", exit, second.output())
	}

	for _, flag := range []string{"--http-addr=", "--admin-addr="} {
		other := dataDir(t)
		taken := launch(t, other, "up", flag+strings.TrimPrefix(n.api, "http://"))
		if exit := taken.exit(t, quickly); exit != exitFailed || !strings.Contains(taken.output(), "address already in use") {
			t.Errorf("%s taken: exit %d, %s", flag, exit, taken.output())
		}
		if _, err := os.Stat(other); err == nil {
			t.Errorf("%s taken: something was written to the data directory", flag)
		}
	}
	n.do(t, 200, "GET", "/health", "", "", nil)
	n.signal(t, syscall.SIGTERM)
	n.exit(t, stopMax)
}

func TestUp_BringsBackItsPostgres(t *testing.T) {
	dir := dataDir(t)
	n := up(t, dir, "--demo")
	token := n.login(t)
	before := postmaster(t, dir)
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, upMax, func() error {
		if strings.Count(n.output(), "PostgreSQL is up") < 2 {
			return errors.New("Postgres was not started again")
		}
		return nil
	})
	n.healthy(t)
	if after := postmaster(t, dir); after == before {
		t.Errorf("Postgres has the process id %d still", after)
	}
	var events struct{ Data []struct{ ID string } }
	n.do(t, 200, "GET", "/events?city=Vienna", "", "", &events)
	n.do(t, 201, "POST", "/events/"+events.Data[0].ID+"/book", token, `{"quantity":1}`, nil)
	n.signal(t, syscall.SIGTERM)
	if exit := n.exit(t, stopMax); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
	noPostgres(t, dir)
}

func TestUp_KilledLeavesNothingBehindAndRecovers(t *testing.T) {
	dir := dataDir(t)
	n := up(t, dir)
	n.signal(t, syscall.SIGKILL)
	n.exit(t, stopMax)
	noPostgres(t, dir)
	again := up(t, dir)
	again.do(t, 200, "GET", "/health", "", "", nil)
	again.signal(t, syscall.SIGTERM)
	if exit := again.exit(t, stopMax); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
}

func TestUp_HoldsExpireAfterACrash(t *testing.T) {
	dir := dataDir(t)
	n := up(t, dir, "--demo", "--hold-ttl=1s")
	var events struct{ Data []struct{ ID string } }
	n.do(t, 200, "GET", "/events?city=Vienna", "", "", &events)
	path := "/events/" + events.Data[0].ID
	n.do(t, 201, "POST", path+"/book", n.login(t), `{"quantity":4}`, nil)
	n.signal(t, syscall.SIGKILL)
	n.exit(t, stopMax)

	again := up(t, dir)
	eventually(t, upMax, func() error {
		var seats struct{ Available, Held int }
		again.do(t, 200, "GET", path+"/availability", "", "", &seats)
		if seats.Available != 12 || seats.Held != 0 {
			return fmt.Errorf("seats are %+v, want 12 available", seats)
		}
		return nil
	})
	again.signal(t, syscall.SIGTERM)
	again.exit(t, stopMax)
}

func TestUp_SecondSignalForces(t *testing.T) {
	dir := dataDir(t)
	n := up(t, dir, "--drain-delay=5m")
	n.healthy(t) // it serves, and so has something to drain
	n.signal(t, syscall.SIGTERM)
	eventually(t, upMax, func() error {
		if !strings.Contains(n.output(), "msg=stopping") {
			return errors.New("does not stop")
		}
		return nil
	})
	n.signal(t, syscall.SIGTERM)
	n.exit(t, 10*time.Second)
	if status := n.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want the signal", n.cmd.ProcessState)
	}
	noPostgres(t, dir)
}

func TestPostgres_IsGivenUpInTheEnd(t *testing.T) {
	server := pgtest.Private(t)
	broken := embedded.Config{Log: slog.New(slog.DiscardHandler)} // has no data directory
	p := watchPostgres(broken, server, []time.Duration{0, 0, 0})
	if err := syscall.Kill(server.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), upMax)
	defer cancel()
	err := p.wait(ctx)
	if err == nil || !strings.Contains(err.Error(), "after 3 attempts") || !strings.Contains(err.Error(), "DataDir is empty") {
		t.Errorf("got %v", err)
	}
	if err := p.stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestServe_RunsOverAnyPostgres(t *testing.T) {
	// Production refuses a server that can lose commits, as those of pgtest do.
	url := pgtest.Private(t, func(c *embedded.Config) { c.UnsafeNoFsync = false }).DSN()
	dir := filepath.Join(t.TempDir(), "data")
	secret := write(t, "secret", "pJ5m/0a7kTq3vX9zWc1LrY8uBn4eHs6GdFo2\n")
	p := launch(t, dir, "serve", "--env=production", "--database-url="+url, "--jwt-secret-file="+secret, "--log-format=json",
		"--http-addr="+freeAddr(t), "--admin-email=ops@example.org", "--admin-password=Kd7-tulip-Vq2-harbour")
	n := &upNode{process: p, email: "ops@example.org", password: "Kd7-tulip-Vq2-harbour"}
	eventually(t, upMax, func() error {
		match := regexp.MustCompile(`"msg":"serving","http_addr":"([^"]+)"`).FindStringSubmatch(p.output())
		if match == nil {
			return errors.New("does not serve")
		}
		n.api = "http://" + match[1]
		return nil
	})
	n.healthy(t)
	n.login(t)
	if _, err := os.Stat(dir); err == nil {
		t.Error("with a database and a secret there is nothing to keep, and yet there is a data directory")
	}
	p.signal(t, syscall.SIGTERM)
	if exit := p.exit(t, stopMax); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
	for line := range strings.Lines(p.output()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("log has %q", line)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
