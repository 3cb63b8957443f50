package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

const (
	// versionTable has one row with the number of the last migration. tern owns it.
	versionTable = "evently_schema_version"
	// serverVersionMin is the oldest Postgres that is tested.
	serverVersionMin = 15
)

// Migrate brings the database at a URL to the schema of this program. Several callers may do so at once: one works, the
// others wait for it. It refuses a schema that a newer program has made.
func Migrate(ctx context.Context, url string, logger *slog.Logger) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := checkServer(ctx, conn); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	migrator, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err != nil {
		return failed(err, "migrate")
	}
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := migrator.LoadMigrations(files); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	migrator.OnStart = func(version int32, name, _, _ string) {
		logger.InfoContext(ctx, "migrating the database", "version", version, "name", name)
	}
	current, err := migrator.GetCurrentVersion(ctx)
	if err != nil {
		return failed(err, "migrate: read the schema's version")
	}
	if target := len(migrator.Migrations); int(current) > target {
		return fmt.Errorf("migrate: the database has schema version %d, this program knows up to %d: "+
			"a newer evently has migrated it; use that one", current, target)
	}
	if err := migrator.Migrate(ctx); err != nil {
		var refused migrate.MigrationPgError
		if errors.As(err, &refused) {
			return failed(refused.PgError, "migrate: %s", describeRefusal(&refused))
		}
		return failed(err, "migrate")
	}
	return nil
}

// describeRefusal says where in a migration Postgres found a fault.
func describeRefusal(refused *migrate.MigrationPgError) string {
	parts := []string{refused.MigrationName}
	if at := int(refused.Position); at > 0 && at <= len([]rune(refused.Sql)) {
		parts = append(parts, "line "+strconv.Itoa(1+strings.Count(string([]rune(refused.Sql)[:at-1]), "\n")))
	}
	for _, text := range []string{refused.Detail, refused.Hint} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, ": ")
}

// SchemaStatus says how a database's schema stands to this program.
type SchemaStatus struct {
	Current int      // number of the last migration that was done; 0: none
	Target  int      // number of the last one that this program knows
	Pending []string // file names of those still to do, in order
}

const (
	versionTableExistsSQL = `select to_regclass('` + versionTable + `') is not null` // false before the first migration
	readVersionSQL        = `select version from ` + versionTable
)

// MigrationStatus compares the schema of the database at a URL with this program. It changes nothing.
func MigrationStatus(ctx context.Context, url string) (SchemaStatus, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("migration status: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("migration status: %w", err)
	}
	names, err := migrate.FindMigrations(files)
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("migration status: %w", err)
	}
	status := SchemaStatus{Target: len(names)}
	var exists bool
	if err := conn.QueryRow(ctx, versionTableExistsSQL).Scan(&exists); err != nil {
		return SchemaStatus{}, failed(err, "migration status")
	}
	if exists {
		if err := conn.QueryRow(ctx, readVersionSQL).Scan(&status.Current); err != nil {
			return SchemaStatus{}, failed(err, "migration status")
		}
	}
	if status.Current < status.Target {
		status.Pending = names[status.Current:]
	}
	return status, nil
}

func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := ConnConfig(url)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, failed(err, "connect")
	}
	return conn, nil
}

const serverSQL = `select current_setting('server_version_num')::int4, current_setting('server_encoding')`

// checkServer refuses a database that would fail later in ways that are hard to read.
func checkServer(ctx context.Context, conn *pgx.Conn) error {
	var version int
	var encoding string
	if err := conn.QueryRow(ctx, serverSQL).Scan(&version, &encoding); err != nil {
		return failed(err, "read the server's version")
	}
	if major := version / 10_000; major < serverVersionMin {
		return fmt.Errorf("the server is Postgres %d; %d or newer is needed", major, serverVersionMin)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database has the encoding %s; create it with encoding 'UTF8'", encoding)
	}
	return nil
}
