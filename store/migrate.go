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
// others wait for it. A newer schema is left as it is, and used if it suits this program, see SchemaStatus; else it is
// refused.
//
// While nodes are upgraded one by one, old and new programs share a schema. So a migration expands: it adds tables, and columns
// that are nullable or have a default. What older programs need is taken away only by a later release, with a
// migration that raises schema_compatibility.program_min.
//
// The error is an evently.ErrUnavailable when Postgres cannot be reached, or a lock that a migration needs is not free.
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
	if err := migrator.Migrate(ctx); err != nil {
		var outside migrate.BadVersionError
		if errors.As(err, &outside) {
			return useNewer(ctx, conn, err, logger)
		}
		var refused migrate.MigrationPgError
		if errors.As(err, &refused) {
			return failed(refused.PgError, "migrate: %s", describeRefusal(&refused))
		}
		return failed(err, "migrate")
	}
	if err := migrateJobs(ctx, conn, url, logger); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// useNewer decides about a schema whose version tern finds outside the migrations of this program.
func useNewer(ctx context.Context, conn *pgx.Conn, outside error, logger *slog.Logger) error {
	status, err := readStatus(ctx, conn)
	switch {
	case err != nil:
		return fmt.Errorf("migrate: %w", err)
	case status.Current <= status.Target:
		return fmt.Errorf("migrate: %w", outside)
	case !status.Compatible():
		return fmt.Errorf("migrate: the database has schema version %d, which needs a program that knows version %d; this one knows up to %d: "+
			"a newer evently has migrated it; use that one", status.Current, status.ProgramMin, status.Target)
	}
	logger.InfoContext(ctx, "the database has a newer schema that suits this program", "version", status.Current, "known", status.Target)
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
	Pending []string // names of those still to do, in order; those of the jobs, which have other numbers, when all others are done

	// ProgramMin is the smallest Target of programs that may use a schema newer than they know. Zero unless this schema is
	// newer than this program.
	ProgramMin int
}

// Compatible reports whether this program may use the schema, once what is pending is done.
func (s SchemaStatus) Compatible() bool { return s.Target >= s.ProgramMin }

const (
	versionTableExistsSQL = `select to_regclass('` + versionTable + `') is not null` // false before the first migration
	readVersionSQL        = `select version from ` + versionTable
	readProgramMinSQL     = `select program_min from schema_compatibility`
)

// MigrationStatus compares the schema of the database at a URL with this program. It changes nothing.
func MigrationStatus(ctx context.Context, url string) (SchemaStatus, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("migration status: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	status, err := readStatus(ctx, conn)
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("migration status: %w", err)
	}
	return status, nil
}

func readStatus(ctx context.Context, conn *pgx.Conn) (status SchemaStatus, err error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return status, err
	}
	names, err := migrate.FindMigrations(files)
	if err != nil {
		return status, err
	}
	status.Target = len(names)
	var exists bool
	if err := conn.QueryRow(ctx, versionTableExistsSQL).Scan(&exists); err != nil {
		return status, failed(err, "look for the schema's version")
	}
	if exists {
		if err := conn.QueryRow(ctx, readVersionSQL).Scan(&status.Current); err != nil {
			return status, failed(err, "read the schema's version")
		}
	}
	switch {
	case status.Current < status.Target:
		status.Pending = names[status.Current:]
	case status.Current == status.Target:
		if status.Pending, err = pendingJobMigrations(ctx, conn); err != nil {
			return status, err
		}
	case status.Current > status.Target:
		if err := conn.QueryRow(ctx, readProgramMinSQL).Scan(&status.ProgramMin); err != nil {
			return status, failed(err, "read whom the schema suits")
		}
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
