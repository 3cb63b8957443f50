package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/evently/evently/store/embedded/lifeline"
)

// RedisSettings are those that a Redis of StartRedis has beyond its defaults. What it acknowledges is on disk within a second, as
// is usual; a crash of the machine before loses it.
const RedisSettings = "appendonly yes, appendfsync everysec, no snapshots"

// ErrNoRedis says that there is no redis-server on this machine.
var ErrNoRedis = errors.New("absent: install redis-server")

// Bounds of a Redis' start and stop.
const (
	redisStartMax = 10 * time.Second
	redisStopMax  = 10 * time.Second
	redisPoll     = 10 * time.Millisecond
	socketLenMax  = 107 // of a Unix socket's path
)

// Redis is a server of its own, with its data in a directory of its own.
type Redis struct {
	// Addr is the path of its socket.
	Addr string
	// PID is its process.
	PID int
	// Version is what it says of itself, such as 7.0.15.
	Version string

	cmd    *exec.Cmd
	exited chan struct{}
	log    bytes.Buffer // valid once exited is closed
}

// StartRedis starts a server whose data is in dir, an existing directory. It returns ErrNoRedis where redis-server is not installed.
// It ends with Stop, and on Linux also with this process.
func StartRedis(ctx context.Context, dir string) (*Redis, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNoRedis
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("peers: start Redis: %w", err)
	}
	r := &Redis{Addr: filepath.Join(dir, "redis.sock"), exited: make(chan struct{})}
	if len(r.Addr) > socketLenMax {
		return nil, fmt.Errorf("peers: start Redis: the path of its socket is too long: %s", r.Addr)
	}
	if err := os.Remove(r.Addr); err != nil && !errors.Is(err, os.ErrNotExist) { // of a server before
		return nil, fmt.Errorf("peers: start Redis: %w", err)
	}
	r.cmd = exec.Command(program, "--port", "0", "--unixsocket", r.Addr, "--unixsocketperm", "700", "--dir", dir, "--daemonize", "no",
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--loglevel", "warning")
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the terminal is this process' to handle
	err = lifeline.Start(r.cmd, syscall.SIGTERM, func() {
		_ = r.cmd.Wait() // Stop looks at the state
		close(r.exited)
	})
	if err != nil {
		return nil, fmt.Errorf("peers: start Redis: %w", err)
	}
	r.PID = r.cmd.Process.Pid
	if err := r.await(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("peers: start Redis: %w", err), r.Stop())
	}
	return r, nil
}

// await waits until the server answers.
func (r *Redis) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisStartMax)
	defer cancel()
	client := connectRedis(r.Addr)
	defer client.Close()
	ticker := time.NewTicker(redisPoll)
	defer ticker.Stop()
	for {
		if _, err := os.Stat(r.Addr); err == nil {
			info, err := client.InfoMap(ctx, "server").Result()
			if err == nil {
				r.Version = info["Server"]["redis_version"]
				return nil
			}
		}
		select {
		case <-r.exited:
			return fmt.Errorf("it ended: %s", bytes.TrimSpace(r.log.Bytes()))
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Stop ends the server and waits for its end.
func (r *Redis) Stop() error {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("peers: stop Redis: %w", err)
	}
	select {
	case <-r.exited:
		return nil
	case <-time.After(redisStopMax):
	}
	err := r.cmd.Process.Kill()
	<-r.exited
	return errors.Join(fmt.Errorf("peers: stop Redis: it did not end within %s", redisStopMax), err)
}

// connectRedis returns a client of a server's socket, or of host:port.
func connectRedis(addr string) *redis.Client {
	network := "tcp"
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	return redis.NewClient(&redis.Options{
		Network: network, Addr: addr, MaxRetries: -1, // a repeated script would be another decision; callers have their keys
		ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}
