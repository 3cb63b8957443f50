package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/bench"
	"github.com/evently/evently/bench/peers"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/embedded"
)

// benchHost starts designs on this machine, each in a process of its own and over a copy of one database.
type benchHost struct {
	secret string // of tokens
	log    *slog.Logger

	dir       string           // temporary; empty: none was made
	unsettled bool             // Postgres takes no checkpoints for this role
	postgres  *embedded.Server // nil: it is somebody else's
	redis     string           // version; empty: absent, or not needed
	server    *pgxpool.Pool    // of the database in which others are made
	address   func(database string) string
	prefix    string // of databases
	databases int    // that were made
	users     []bench.User
	organizer evently.UserID
	undoing
}

const (
	benchEmail    = "admin@evently.local"
	benchTokenTTL = 12 * time.Hour
)

// benchHostOptions say what a benchHost has to bring.
type benchHostOptions struct {
	databaseURL string // of a Postgres in which databases can be made; empty: one of its own
	provision   bool   // a Postgres that is missing may be installed
	users       int
	redis       bool // a design needs it
	log         *slog.Logger
	warn        func(string)
}

// newBenchHost brings up what all designs need. After an error nothing is left.
func newBenchHost(ctx context.Context, options benchHostOptions) (h *benchHost, err error) {
	h = &benchHost{secret: newPassword() + newPassword(), log: options.log, prefix: fmt.Sprintf("%s%x_", benchDatabasePrefix, random64())}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close(context.WithoutCancel(ctx)))
		}
	}()
	if err := sweepBenchDirs(); err != nil {
		options.warn("what a bench that was killed has left: " + err.Error())
	}
	if options.databaseURL == "" || options.redis {
		if err := h.makeDir(); err != nil {
			return h, err
		}
	}
	if options.databaseURL == "" {
		err = h.startPostgres(ctx, !options.provision)
	} else {
		err = h.usePostgres(options.databaseURL)
	}
	if err != nil {
		return h, err
	}
	if err := h.connect(ctx, options.warn); err != nil {
		return h, err
	}
	if options.redis {
		// The version is all that is wanted now: every block has one of its own.
		redis, err := h.startRedis(ctx)
		if err == nil {
			h.redis, err = redis.Version, redis.Stop()
		}
		if err != nil && !errors.Is(err, peers.ErrNoRedis) {
			return h, err
		}
	}
	return h, h.makeTemplate(ctx, options.users)
}

func (h *benchHost) makeDir() error {
	dir, err := newBenchDir()
	if err != nil {
		return err
	}
	h.dir = dir.path
	h.add(func(context.Context) error { return dir.remove() })
	return nil
}

// startPostgres starts one with the settings of `evently up`.
func (h *benchHost) startPostgres(ctx context.Context, noProvision bool) (err error) {
	h.postgres, err = embedded.Start(ctx, embedded.Config{DataDir: filepath.Join(h.dir, postgresDir), NoProvision: noProvision, Log: h.log})
	if err != nil {
		return err
	}
	h.add(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, postgresStopMax)
		defer cancel()
		return h.postgres.StopImmediate(ctx) // what is in it goes anyway
	})
	h.address = h.postgres.DatabaseDSN
	return nil
}

// startRedis starts one that has nothing in it.
func (h *benchHost) startRedis(ctx context.Context) (*peers.Redis, error) {
	dir, err := os.MkdirTemp(h.dir, "redis-")
	if err != nil {
		return nil, err
	}
	return peers.StartRedis(ctx, dir)
}

func (h *benchHost) usePostgres(text string) error {
	base, err := url.Parse(text)
	if err != nil || base.Scheme != "postgres" && base.Scheme != "postgresql" {
		return usageError{errors.New("database-url: must be of the form postgres://user:password@host:port/name")}
	}
	if base.Query().Has("pool_max_conns") {
		return usageError{errors.New("database-url: without pool_max_conns: each design has the connections that the report says")}
	}
	h.address = func(database string) string {
		if database == "" {
			return text
		}
		one := *base
		one.Path = "/" + database
		return one.String()
	}
	return nil
}

// connect connects to the database in which others are made.
func (h *benchHost) connect(ctx context.Context, warn func(string)) (err error) {
	database := ""
	if h.postgres != nil {
		database = "postgres"
	}
	if h.server, err = store.Open(ctx, h.address(database), store.PoolOptions{}); err != nil {
		return err
	}
	h.add(func(context.Context) error {
		h.server.Close()
		return nil
	})
	if h.postgres == nil {
		checkpoints, err := inspectPostgres(ctx, h.server, warn)
		h.unsettled = !checkpoints
		return err
	}
	return nil
}

// makeTemplate makes the database that all blocks get a copy of: migrated, with an administrator and users.
func (h *benchHost) makeTemplate(ctx context.Context, users int) error {
	template := h.prefix + "template"
	if err := h.create(ctx, template, "template0"); err != nil {
		return err
	}
	if err := store.Migrate(ctx, h.address(template), h.log); err != nil {
		return err
	}
	pool, err := store.Open(ctx, h.address(template), store.PoolOptions{})
	if err != nil {
		return err
	}
	defer pool.Close()
	admin, err := createAdmin(ctx, store.NewAccounts(pool, nil), benchEmail, newPassword())
	if err != nil {
		return fmt.Errorf("create the administrator: %w", err)
	}
	h.organizer = admin.ID
	if err := bench.SeedPast(ctx, pool); err != nil {
		return err
	}
	secret := (&Config{JWTSecret: h.secret}).tokenSecrets()[0]
	h.users, err = bench.SeedUsers(ctx, pool, bench.Signer{KID: secret.KID, Key: secret.Key, TTL: benchTokenTTL}, users)
	return err
}

// create makes a database, which goes at the end.
func (h *benchHost) create(ctx context.Context, name, template string) error {
	if h.postgres == nil { // also when it is not known whether the database was made
		h.add(func(ctx context.Context) error { return h.drop(ctx, name) })
	}
	// Collation and encoding are those of the template.
	sql := fmt.Sprintf("create database %s template %s", pgx.Identifier{name}.Sanitize(), pgx.Identifier{template}.Sanitize())
	if _, err := h.server.Exec(ctx, sql); err != nil {
		return fmt.Errorf("create a database: %w", err)
	}
	return nil
}

// benchDropMax bounds the removal of a database.
const benchDropMax = 10 * time.Second

func (h *benchHost) drop(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, benchDropMax)
	defer cancel()
	if _, err := h.server.Exec(ctx, "drop database if exists "+pgx.Identifier{name}.Sanitize()+" with (force)"); err != nil {
		return fmt.Errorf("drop a database: %w", err)
	}
	return nil
}

// settings are those of every process that is measured, whatever its design. There are no others: it gets no variable of this one
// but PATH.
func (h *benchHost) settings(database string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"EVENTLY_LOG_FORMAT=json", // see benchProcess.read
		"EVENTLY_LOG_LEVEL=info",
		"EVENTLY_DATABASE_URL=" + h.address(database),
		"EVENTLY_MIGRATE=" + never,
		"EVENTLY_HTTP_ADDR=127.0.0.1:0",
		"EVENTLY_ADMIN_ADDR=127.0.0.1:0",
		"EVENTLY_JWT_SECRET=" + h.secret,
		"EVENTLY_ACCESS_TTL=" + short(benchTokenTTL),
		"EVENTLY_RATE_LIMIT_BOOK=" + off,
		"EVENTLY_RATE_LIMIT_AUTH=" + off,
		"EVENTLY_RATE_LIMIT_ADDRESS=" + off,
		"EVENTLY_PRICING_INTERVAL=" + off,
		"EVENTLY_CONSUMERS=" + off,
		"EVENTLY_ACCESS_LOG=" + off,
	}
}

// benchSettings is what a report tells of settings.
const benchSettings = "Of all designs, limits of requests, the access log, pricing runs and what follows bookings (analytics, mails, webhooks) " +
	"are off."

// Start implements bench.Host.
func (h *benchHost) Start(ctx context.Context, design string) (target *bench.Target, err error) {
	block := new(undoing)
	defer func() {
		if err != nil {
			err = errors.Join(err, block.Close(context.WithoutCancel(ctx)))
		}
	}()
	h.databases++
	database := fmt.Sprintf("%s%d", h.prefix, h.databases)
	if err := h.create(ctx, database, h.prefix+"template"); err != nil {
		return nil, err
	}
	block.add(func(ctx context.Context) error { return h.drop(ctx, database) })
	if h.postgres != nil {
		// Every block begins with the same distance to the next one.
		if _, err := h.server.Exec(ctx, "checkpoint"); err != nil {
			return nil, err
		}
	}
	pool, err := store.Open(ctx, h.address(database), store.PoolOptions{})
	if err != nil {
		return nil, err
	}
	block.add(func(context.Context) error {
		pool.Close()
		return nil
	})
	target = &bench.Target{Users: h.users, Database: pool, Organizer: h.organizer, Stop: block.Close}
	if h.postgres != nil {
		target.Processes.Postgres = h.postgres.PID()
	}
	args := []string{"serve"}
	if peer, found := peers.Named(design); found {
		args = []string{"bench", "serve", "--design", design}
		redis := ""
		if peer.Redis {
			server, err := h.startRedis(ctx)
			if err != nil {
				return nil, err
			}
			block.add(func(context.Context) error {
				return errors.Join(server.Stop(), os.RemoveAll(filepath.Dir(server.Addr)))
			})
			redis = server.Addr
			args = append(args, "--redis", redis)
			target.Processes.Redis = server.PID
		}
		storage, err := peers.OpenStorage(design, pool, redis)
		if err != nil {
			return nil, err
		}
		block.add(func(context.Context) error { return storage.Close() })
		target.Storage = storage
		target.Prepare = func(ctx context.Context, events []evently.EventID, _ int) error {
			return peers.Prepare(ctx, design, pool, redis, events)
		}
	}
	process, err := startBenchProcess(ctx, args, h.settings(database))
	if err != nil {
		return nil, err
	}
	block.add(process.stop)
	target.URL, target.Processes.Server = "http://"+process.addr, process.cmd.Process.Pid
	return target, nil
}

// undoing is what is to be undone, the last first.
type undoing struct{ steps []func(context.Context) error }

func (u *undoing) add(step func(context.Context) error) { u.steps = append(u.steps, step) }

// Close undoes everything once. It goes on after failures.
func (u *undoing) Close(ctx context.Context) error {
	var errs []error
	for len(u.steps) > 0 {
		last := u.steps[len(u.steps)-1]
		u.steps = u.steps[:len(u.steps)-1]
		errs = append(errs, last(ctx))
	}
	return errors.Join(errs...)
}

// describe is the machine with the servers of the designs.
func (h *benchHost) describe(ctx context.Context) (bench.Machine, error) {
	m := bench.ThisMachine()
	m.Redis = h.redis
	var err error
	m.Postgres, err = bench.DescribePostgres(ctx, h.server)
	if h.postgres != nil && inMemory(h.dir) {
		m.Postgres += ", data in memory and not on a disk"
	}
	if h.unsettled {
		m.Postgres += ", without a checkpoint before each measurement (its role may take none)"
	}
	return m, err
}
