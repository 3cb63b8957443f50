package bench

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// ThisMachine describes where the program runs. What Postgres and Redis are is for the caller to fill in.
func ThisMachine() Machine {
	return Machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), MemoryMB: memoryMB(), OS: system(),
		Go: strings.TrimPrefix(runtime.Version(), "go"),
	}
}

const settingsSQL = `
select current_setting('server_version'), string_agg(name || '=' || setting, ' ' order by name)
from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'wal_sync_method')`

// DescribePostgres is the version of a server and its settings that durability depends on.
func DescribePostgres(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	var version, settings string
	if err := pool.QueryRow(ctx, settingsSQL).Scan(&version, &settings); err != nil {
		return "", fmt.Errorf("describe Postgres: %w", err)
	}
	version, _, _ = strings.Cut(version, " ") // of the packager's words
	return version + ", " + settings, nil
}
