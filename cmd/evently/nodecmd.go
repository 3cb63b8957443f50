package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/evently/evently/store"
)

func (s *shell) upCommand() *cobra.Command {
	var demo bool
	command := &cobra.Command{
		Use:   "up",
		Short: "Run one node with everything it needs",
		Long: `Run one node with everything it needs: a Postgres of its own in the data directory (or the one that --database-url
names), the schema, and an administrator. Running it again goes on with the same data.`,
	}
	command.Flags().BoolVar(&demo, "demo", false, "add a catalogue of demo events, once")
	return s.configured(command, every, func(ctx context.Context, config *Config, log *slog.Logger) error {
		return s.runNode(ctx, config, log, &nodeOptions{up: true, demo: demo})
	})
}

func (s *shell) serveCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run a node over an existing Postgres",
		Long: `Run a node of a cluster over the Postgres that --database-url names. An administrator is made only if --admin-password is
given and the address of --admin-email has no account.`,
	}
	return s.configured(command, every, func(ctx context.Context, config *Config, log *slog.Logger) error {
		if config.DatabaseURL == "" {
			return usageError{errors.New("database_url is not set: serve needs a Postgres; `evently up` brings its own")}
		}
		return s.runNode(ctx, config, log, &nodeOptions{})
	})
}

// nodeOptions are what `up` does more than `serve`.
type nodeOptions struct {
	up   bool // tell people what happens; bring a database; make an administrator
	demo bool
}

// runNode runs a node until ctx ends or a part of it fails, and stops it in order.
func (s *shell) runNode(ctx context.Context, config *Config, log *slog.Logger, options *nodeOptions) error {
	if err := config.check(); err != nil {
		return err
	}
	if n := len(config.JWTSecret); n > 0 && n < secretBytesMin {
		log.Warn("jwt_secret is too short for production", "bytes", n, "bytes_min", secretBytesMin)
	}
	if len(config.Join) > 0 && config.ClusterQuorum < 2 {
		log.Warn("cluster_quorum is not set: cut off from each other, nodes would all serve and take events from each other in turns")
	}
	if config.RemoteTLSCert == "" && exposed(config.RemoteAddr) {
		log.Warn("remote_tls_cert_file is not set: whoever reaches remote_addr can book in anybody's name; keep it within the cluster",
			"remote_addr", config.RemoteAddr)
	}
	p, err := newProgram(config, log)
	if err != nil {
		return err
	}
	if p.mailboxURL() != "" && exposed(config.AdminAddr) {
		log.Warn("smtp_url is not set: whoever reaches admin_addr can read all mails, and set new passwords with the codes in them",
			"admin_addr", config.AdminAddr)
	}
	return p.runUntil(ctx, func() error { return s.bringUp(ctx, p, options) })
}

// runUntil runs the program until ctx ends or a part of it fails, and stops it in order. bringUp starts its parts.
func (p *program) runUntil(ctx context.Context, bringUp func() error) (err error) {
	defer func() {
		p.log.Info("stopping")
		if stopErr := p.stop(); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
		if err == nil {
			p.log.Info("stopped")
		}
	}()
	err = bringUp()
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-p.failed:
		}
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // asked to stop before it was up
	}
	return err
}

// servingMessage is what is logged when the program serves. `evently bench` waits for it.
const servingMessage = "serving"

func (p *program) serving() {
	p.log.Info(servingMessage, "http_addr", p.public.Addr().String(), "admin_addr", p.admin.Addr().String())
}

func (s *shell) bringUp(ctx context.Context, p *program, options *nodeOptions) error {
	config := p.config
	say := func(format string, args ...any) {
		if options.up {
			fmt.Fprintf(s.stdout, format+"\n", args...)
		}
	}
	if options.up || config.JWTSecret == "" {
		if err := p.ownDataDir(); err != nil {
			return err
		}
	}
	if config.JWTSecret == "" {
		var err error
		if config.JWTSecret, err = keptSecret(config.DataDir, jwtSecretFile, newPassword()+newPassword()); err != nil {
			return fmt.Errorf("keep the secret of tokens: %w", err)
		}
	}
	say("Evently %s, data in %s", thisBuild().Version, config.DataDir)
	url := config.DatabaseURL
	if url == "" {
		say("Starting the embedded PostgreSQL (it is installed first if this machine has none)")
		database, err := startPostgres(ctx, config.embedded(p.log))
		if err != nil {
			return err
		}
		p.onStop("embedded Postgres", database.stop)
		p.background("embedded Postgres' watch", database.wait)
		url = database.server.DSN()
		say("PostgreSQL %s is up", database.server.Version())
	}
	say("Migrating the database")
	pool, err := config.prepareDatabase(ctx, url, p.log)
	if err != nil {
		return err
	}
	var admin *adminLogin
	if options.up || config.AdminPassword != "" {
		if admin, err = config.firstAdmin(ctx, store.NewAccounts(pool, nil), p.log); err != nil {
			pool.Close()
			return err
		}
	}
	if options.demo {
		added, err := seedDemo(ctx, store.NewCatalogue(pool), admin.user.ID, config.HoldTTL, time.Now())
		if err != nil {
			pool.Close()
			return err
		}
		say("Demo catalogue: %d events added, %d there already", added, len(demoEvents)-added)
	}
	if err := p.start(ctx, pool); err != nil {
		return err
	}
	p.serving()
	say("")
	say("API         http://%s (documentation at /docs, state at /health)", p.public.Addr())
	say("Operations  http://%s/metrics", p.admin.Addr())
	if mailbox := p.mailboxURL(); mailbox != "" {
		say("Mail        %s", mailbox)
	}
	if options.up {
		say("Admin       %s", admin)
	}
	say("")
	say("Ready. Ctrl-C stops it; the data stays.")
	return nil
}

// ownDataDir makes the data directory and keeps other nodes out of it.
func (p *program) ownDataDir() error {
	if err := p.config.makeDataDir(); err != nil {
		return err
	}
	lock, err := p.config.lockDataDir()
	if err != nil {
		return err
	}
	p.onStop("data directory", func(context.Context) error { return lock.Unlock() })
	return nil
}

func (a *adminLogin) String() string {
	if a.password == "" {
		return a.user.Email + ", with the password chosen for it"
	}
	if a.kept == "" {
		return a.user.Email + ", with the password of the settings"
	}
	return fmt.Sprintf("%s, password %s (kept in %s)", a.user.Email, a.password, a.kept)
}

// exposed reports whether other machines can reach what listens on an address.
func exposed(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false // it will fail to listen
	}
	ip, err := netip.ParseAddr(host)
	return host != "localhost" && (err != nil || !ip.IsLoopback())
}
