package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	nethttp "net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/evently/evently/actors"
	"github.com/evently/evently/bench"
	"github.com/evently/evently/bench/peers"
	"github.com/evently/evently/http"
	"github.com/evently/evently/store"
)

// benchServeCommand is the process that serves one of the designs that the engine is compared with. It is for `evently bench`, which
// gives it the settings that it gives `evently serve`.
func (s *shell) benchServeCommand() *cobra.Command {
	var design, redis string
	command := &cobra.Command{Use: "serve", Short: "Serve a design of bench/peers over a migrated database", Hidden: true}
	command.Flags().StringVar(&design, "design", "", "name of the design")
	command.Flags().StringVar(&redis, "redis", "", "address of the Redis of a design that needs one")
	return s.configured(command, every, func(ctx context.Context, config *Config, log *slog.Logger) error {
		found, ok := peers.Named(design)
		if !ok {
			return usageError{fmt.Errorf("design: there is none of the name %q", design)}
		}
		return s.servePeer(ctx, config, log, &found, redis)
	})
}

// servePeer serves a design until ctx ends or a part of it fails, and stops it in order.
func (s *shell) servePeer(ctx context.Context, config *Config, log *slog.Logger, design *peers.Design, redis string) error {
	if config.DatabaseURL == "" {
		return usageError{errors.New("database_url is not set")}
	}
	if err := config.check(); err != nil {
		return err
	}
	p, err := newProgram(config, log)
	if err != nil {
		return err
	}
	return p.runUntil(ctx, func() error {
		if design.Name == bareDesign {
			p.serveBare()
			return nil
		}
		pool, err := store.Open(ctx, config.DatabaseURL, store.PoolOptions{MaxConns: design.Conns})
		if err != nil {
			return err
		}
		return p.startPeer(ctx, pool, design.Name, redis)
	})
}

// serveBare serves the ceiling that has no server of ours around it.
func (p *program) serveBare() {
	server := &nethttp.Server{Handler: peers.Bare(), ReadHeaderTimeout: bareHeaderMax}
	p.background("API", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // it is over: nothing is stored here
		defer stop()
		if err := server.Serve(p.public); ctx.Err() == nil {
			return err
		}
		return nil
	})
	p.serving()
}

const (
	bareDesign    = "gin" // see peers.Bare
	bareHeaderMax = 10 * time.Second
)

// startPeer brings up the server that a node has, over another engine and outside of a cluster.
func (p *program) startPeer(ctx context.Context, pool *pgxpool.Pool, design, redis string) error {
	p.onStop("database connections", func(context.Context) error {
		pool.Close()
		return nil
	})
	store.RegisterPool(p.registry, pool)
	engine, err := peers.Open(ctx, design, pool, redis)
	if err != nil {
		return err
	}
	p.onStop("engine", func(context.Context) error { return engine.Close() })
	pricer := &actors.Pricer{
		Engine: engine, Catalogue: store.NewCatalogue(pool), Logger: p.log, Metrics: actors.NewMetrics(p.registry), Now: time.Now,
	}
	if err := p.newSenders(pool, pricer); err != nil {
		return err
	}
	config := p.httpConfig(pool, engine, store.NewHistory(pool), pricer)
	config.Catalogue = engine.Catalogue(config.Catalogue)
	var constants []http.Constant
	if design == bench.CeilingName {
		constants = peers.Constants()
	}
	server, err := http.NewShell(config, constants...)
	if err != nil {
		return err
	}
	p.startSignals(pool, server, store.NewMetrics(p.registry))
	p.serve(server)
	p.serving()
	return nil
}
