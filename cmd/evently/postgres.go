package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/evently/evently/store/embedded"
)

// restartPauses are the pauses before the attempts to bring back an embedded Postgres that has ended by itself. When they are
// used up, it has ended for good.
var restartPauses = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
}

const (
	// steadyAfter is how long the server must have run for an end to count as the first one again.
	steadyAfter = time.Minute
	// restartMax bounds one attempt: recovery from a crash can take a while.
	restartMax      = 2 * time.Minute
	postgresStopMax = 20 * time.Second
)

// postgres keeps an embedded Postgres running: when it ends by itself it is started again, on the same address.
type postgres struct {
	config embedded.Config
	pauses []time.Duration  // before attempts to start it again
	server *embedded.Server // of the goroutine that watches, until it has ended

	quit    context.CancelFunc
	stopped chan struct{} // closed when the watch has ended
	failed  chan error    // told once, if it cannot be brought back
}

func startPostgres(ctx context.Context, config embedded.Config) (*postgres, error) {
	server, err := embedded.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	return watchPostgres(config, server, restartPauses), nil
}

func watchPostgres(config embedded.Config, server *embedded.Server, pauses []time.Duration) *postgres {
	ctx, quit := context.WithCancel(context.Background())
	p := &postgres{
		config: config, pauses: pauses, server: server,
		quit: quit, stopped: make(chan struct{}), failed: make(chan error, 1),
	}
	go func() {
		defer close(p.stopped)
		if err := p.watch(ctx); err != nil {
			p.failed <- err
		}
	}()
	return p
}

// watch brings the server back until ctx ends. It returns an error when it cannot.
func (p *postgres) watch(ctx context.Context) error {
	attempts := 0 // since the server last was steady
	for {
		up := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-p.server.Done():
		}
		if time.Since(up) >= steadyAfter {
			attempts = 0
		}
		ended := p.server.Err()
		for back := false; !back; attempts++ {
			if attempts == len(p.pauses) {
				return fmt.Errorf("the embedded Postgres does not stay up, after %d attempts: %w", attempts, ended)
			}
			pause := time.NewTimer(p.pauses[attempts])
			select {
			case <-ctx.Done():
				pause.Stop()
				return nil
			case <-pause.C:
			}
			err := p.restart(ctx)
			if back = err == nil; !back {
				p.config.Log.Error("the embedded Postgres does not start", "attempt", attempts+1, "of", len(p.pauses), "error", err)
				ended = err
			}
		}
	}
}

// restart makes a new server in the place of one that has ended.
func (p *postgres) restart(ctx context.Context) error {
	p.config.Log.Warn("starting the embedded Postgres again")
	ctx, cancel := context.WithTimeout(ctx, restartMax)
	defer cancel()
	if err := p.server.Stop(ctx); err != nil {
		return err
	}
	server, err := embedded.Start(ctx, p.config)
	if err == nil {
		p.server = server
	}
	return err
}

// wait returns when ctx ends, or with an error when the server cannot be brought back.
func (p *postgres) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.failed:
		return err
	}
}

// stop ends the server in order.
func (p *postgres) stop(ctx context.Context) error {
	p.quit()
	<-p.stopped
	if err := p.server.Stop(ctx); err != nil {
		return fmt.Errorf("stop the embedded Postgres: %w", err)
	}
	return nil
}

// borrowed is a database for a command that looks after it: at the URL in the settings, or the embedded one, whose running
// server is used if there is one.
func (c *Config) borrowDatabase(ctx context.Context, log *slog.Logger) (url string, giveBack func() error, err error) {
	if c.DatabaseURL != "" {
		return c.DatabaseURL, func() error { return nil }, nil
	}
	if err := c.refuseEmbedded(); err != nil {
		return "", nil, err
	}
	server, err := embedded.Start(ctx, c.embedded(log))
	var used *embedded.InUseError
	if errors.As(err, &used) && used.DSN != "" {
		return used.DSN, func() error { return nil }, nil
	}
	if err != nil {
		return "", nil, err
	}
	return server.DSN(), func() error {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgresStopMax)
		defer cancel()
		return server.Stop(stopCtx)
	}, nil
}
