package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

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
	proctest.Eventually(t, proctest.StopMax, func() error {
		used, err := embedded.InUse(filepath.Join(dir, postgresDir))
		if err == nil && used {
			err = errors.New("the embedded Postgres still runs")
		}
		return err
	})
}

func TestUp_DataOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	first := proctest.Up(t, dir, "--demo")
	first.Do(t, 200, "GET", "/health", "", "", nil)
	var events struct {
		Data []struct {
			ID   string
			City string
		}
	}
	first.Do(t, 200, "GET", "/events?city=Vienna", "", "", &events)
	if len(events.Data) != 1 {
		t.Fatalf("events in Vienna: %+v", events)
	}
	var booked, found struct {
		ID       string
		Status   string
		Quantity int
	}
	first.Do(t, 201, "POST", "/events/"+events.Data[0].ID+"/book", first.Login(t), `{"quantity":2}`, &booked)

	// While it runs: the tools find its database.
	verify := proctest.Launch(t, dir, "verify")
	verify.Await(t, `^Verified 12 events, 13 entries, 1 reservations and 0 waiters: 0 differences`)
	if exit := verify.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("verify: exit %d, want %d", exit, exitOK)
	}

	first.Signal(t, syscall.SIGTERM)
	if exit := first.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d after SIGTERM, want %d", exit, exitOK)
	}
	noPostgres(t, dir)

	second := proctest.Up(t, dir, "--demo")
	if second.Password != first.Password {
		t.Errorf("the administrator's password has changed from %q to %q", first.Password, second.Password)
	}
	second.Do(t, 200, "GET", "/reservations/"+booked.ID, second.Login(t), "", &found)
	if found != booked || found.Status != "held" || found.Quantity != 2 {
		t.Errorf("the reservation was %+v and is %+v", booked, found)
	}
	second.Signal(t, syscall.SIGINT)
	if exit := second.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d after SIGINT, want %d", exit, exitOK)
	}
	noPostgres(t, dir)

	// Nothing runs: the tools start the database for themselves, and stop it.
	verify = proctest.Launch(t, dir, "verify", "--json")
	if exit := verify.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("verify without a node: exit %d, want %d", exit, exitOK)
	}
	noPostgres(t, dir)
}

func TestUp_SecretsAreForTheirOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir)
	for _, name := range []string{jwtSecretFile, adminPasswordFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v (%v), want mode 0600", name, info, err)
		}
	}
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
	if out := n.Output(); strings.Contains(out, mustRead(t, filepath.Join(dir, jwtSecretFile))) {
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
	t.Parallel()
	const quickly = 30 * time.Second
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir)

	second := proctest.Launch(t, dir, "up")
	if exit := second.Exit(t, quickly); exit != exitFailed || !strings.Contains(second.Output(), "another evently runs on "+dir) {
		t.Errorf("on the same data: exit %d, %s", exit, second.Output())
	}

	for _, flag := range []string{"--http-addr=", "--admin-addr="} {
		other := proctest.DataDir(t)
		taken := proctest.Launch(t, other, "up", flag+strings.TrimPrefix(n.API, "http://"))
		if exit := taken.Exit(t, quickly); exit != exitFailed || !strings.Contains(taken.Output(), "address already in use") {
			t.Errorf("%s taken: exit %d, %s", flag, exit, taken.Output())
		}
		if _, err := os.Stat(other); err == nil {
			t.Errorf("%s taken: something was written to the data directory", flag)
		}
	}
	n.Do(t, 200, "GET", "/health", "", "", nil)
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, proctest.StopMax)
}

func TestUp_BringsBackItsPostgres(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--demo")
	token := n.Login(t)
	before := postmaster(t, dir)
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.UpMax, func() error {
		if strings.Count(n.Output(), "PostgreSQL is up") < 2 {
			return errors.New("Postgres was not started again")
		}
		return nil
	})
	n.Healthy(t)
	if after := postmaster(t, dir); after == before {
		t.Errorf("Postgres has the process id %d still", after)
	}
	var events struct{ Data []struct{ ID string } }
	n.Do(t, 200, "GET", "/events?city=Vienna", "", "", &events)
	n.Do(t, 201, "POST", "/events/"+events.Data[0].ID+"/book", token, `{"quantity":1}`, nil)
	n.Signal(t, syscall.SIGTERM)
	if exit := n.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
	noPostgres(t, dir)
}

func TestUp_KilledLeavesNothingBehindAndRecovers(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir)
	n.Signal(t, syscall.SIGKILL)
	n.Exit(t, proctest.StopMax)
	noPostgres(t, dir)
	again := proctest.Up(t, dir)
	again.Do(t, 200, "GET", "/health", "", "", nil)
	again.Signal(t, syscall.SIGTERM)
	if exit := again.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
}

func TestUp_HoldsExpireAfterACrash(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--demo", "--hold-ttl=1s")
	var events struct{ Data []struct{ ID string } }
	n.Do(t, 200, "GET", "/events?city=Vienna", "", "", &events)
	path := "/events/" + events.Data[0].ID
	n.Do(t, 201, "POST", path+"/book", n.Login(t), `{"quantity":4}`, nil)
	n.Signal(t, syscall.SIGKILL)
	n.Exit(t, proctest.StopMax)

	again := proctest.Up(t, dir)
	proctest.Eventually(t, proctest.UpMax, func() error {
		var seats struct{ Available, Held int }
		again.Do(t, 200, "GET", path+"/availability", "", "", &seats)
		if seats.Available != 12 || seats.Held != 0 {
			return fmt.Errorf("seats are %+v, want 12 available", seats)
		}
		return nil
	})
	again.Signal(t, syscall.SIGTERM)
	again.Exit(t, proctest.StopMax)
}

func TestUp_SecondSignalForces(t *testing.T) {
	t.Parallel()
	dir := proctest.DataDir(t)
	n := proctest.Up(t, dir, "--drain-delay=5m")
	n.Healthy(t) // it serves, and so has something to drain
	n.Signal(t, syscall.SIGTERM)
	proctest.Eventually(t, proctest.UpMax, func() error {
		if !strings.Contains(n.Output(), "msg=stopping") {
			return errors.New("does not stop")
		}
		return nil
	})
	n.Signal(t, syscall.SIGTERM)
	n.Exit(t, 30*time.Second)
	if status := n.State().Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want the signal", n.State())
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
	ctx, cancel := context.WithTimeout(t.Context(), proctest.UpMax)
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
	p := proctest.Launch(t, dir, "serve", "--env=production", "--database-url="+url, "--jwt-secret-file="+secret, "--log-format=json",
		"--http-addr="+freeAddr(t), "--admin-email=ops@example.org", "--admin-password=Kd7-tulip-Vq2-harbour")
	n := &proctest.Server{Email: "ops@example.org", Password: "Kd7-tulip-Vq2-harbour"}
	proctest.Eventually(t, proctest.UpMax, func() error {
		match := regexp.MustCompile(`"msg":"serving","http_addr":"([^"]+)"`).FindStringSubmatch(p.Output())
		if match == nil {
			return errors.New("does not serve")
		}
		n.API = "http://" + match[1]
		return nil
	})
	n.Healthy(t)
	n.Login(t)
	if _, err := os.Stat(dir); err == nil {
		t.Error("with a database and a secret there is nothing to keep, and yet there is a data directory")
	}
	p.Signal(t, syscall.SIGTERM)
	if exit := p.Exit(t, proctest.StopMax); exit != exitOK {
		t.Errorf("exit %d, want %d", exit, exitOK)
	}
	for line := range strings.Lines(p.Output()) {
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
