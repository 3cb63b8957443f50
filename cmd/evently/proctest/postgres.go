package proctest

import (
	"context"
	"testing"

	"github.com/evently/evently/store/embedded"
	"github.com/evently/evently/store/pgtest"
)

// Postgres is a server that a test can stop and start again. Its URL stays the same.
type Postgres struct {
	config embedded.Config
	server *embedded.Server
}

// connectionsMax is for nodes that each have their pool full, with room for their connections that Postgres has not missed yet.
const connectionsMax = "400"

// StartPostgres runs a server for this test alone. Its database is empty. Options change its configuration.
func StartPostgres(t testing.TB, options ...func(*embedded.Config)) *Postgres {
	t.Helper()
	p := &Postgres{}
	p.server = pgtest.Private(t, func(config *embedded.Config) {
		for _, option := range options {
			option(config)
		}
		config.Settings = map[string]string{"max_connections": connectionsMax, "max_wal_size": "256MB", "dynamic_shared_memory_type": "mmap"}
		p.config = *config
	})
	t.Cleanup(func() { p.Stop(t) })
	return p
}

// DSN is the URL of the database.
func (p *Postgres) DSN() string { return p.server.DSN() }

// Stop breaks all connections at once and ends the server as a crash would (pg_ctl -m immediate). What was committed stays.
func (p *Postgres) Stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), UpMax)
	defer cancel()
	if err := p.server.StopImmediate(ctx); err != nil {
		t.Error(err)
	}
}

// Start runs a server on the same data after Stop, and returns when it has recovered.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	server, err := embedded.Start(t.Context(), p.config)
	if err != nil {
		t.Fatal(err)
	}
	p.server = server
}
