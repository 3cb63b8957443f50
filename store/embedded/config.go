package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Config says where and how to run the server. Only DataDir is required.
type Config struct {
	// DataDir is the directory described in the package comment. It is made if it is missing.
	DataDir string

	// UnsafeNoFsync turns fsync and full page writes off: committed data survives the death of every process,
	// but not that of the machine. For tests. Default: durable.
	UnsafeNoFsync bool

	// Settings are further Postgres settings, over the defaults below. Those the package depends on, and
	// those that durability depends on, are refused.
	Settings map[string]string

	// TCP makes the server listen on 127.0.0.1, too, and DSN name that address, with a password.
	// Default: the socket only, which none but the server's account and root can reach.
	TCP bool

	// Port is the port of TCP. Default: a free one, chosen by Start.
	Port int

	// NoProvision forbids to install a missing Postgres, like EVENTLY_PG_PROVISION=never. Default: root may, on Debian.
	NoProvision bool

	// Log receives the launcher's own messages and, mostly at debug level, the server's log. Default: nowhere.
	Log *slog.Logger
}

// socketPort only names the socket's file when there is no TCP.
const socketPort = 5432

// defaults are chosen for one node on one machine. They trade memory and disk, never durability.
var defaults = map[string]string{
	"shared_buffers":     "256MB",
	"max_connections":    "100",
	"max_wal_size":       "2GB",   // fewer checkpoints forced by volume; checkpoint_timeout stays at 5 min, so recovery stays short
	"min_wal_size":       "512MB", // as much is used again and not made anew, for which a commit would have to wait
	"jit":                "off",   // short queries: compiling costs more than it saves
	"synchronous_commit": "on",
	"timezone":           "UTC",
	"log_timezone":       "UTC",
	// A statement in the log would carry people's data.
	"log_min_error_statement": "panic",
	"cluster_name":            "evently",
}

// reserved settings are decided by the launcher alone.
var reserved = []string{
	"data_directory", "config_file", "hba_file", "ident_file", "external_pid_file",
	"listen_addresses", "port", "unix_socket_directories", "unix_socket_permissions",
	"log_destination", "logging_collector", "log_line_prefix",
	"fsync", "full_page_writes", "synchronous_commit", "zero_damaged_pages",
}

var settingName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*(\.[a-zA-Z_][a-zA-Z0-9_]*)?$`)

func (c Config) logger() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

func (c Config) validate() error {
	if c.DataDir == "" {
		return errors.New("embedded: Config.DataDir is empty")
	}
	if c.Port != 0 && !c.TCP {
		return errors.New("embedded: Config.Port without Config.TCP")
	}
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("embedded: port %d is outside 0 to 65535", c.Port)
	}
	for name := range c.Settings {
		// Postgres takes settings in any case.
		if !settingName.MatchString(name) || slices.Contains(reserved, strings.ToLower(name)) {
			return fmt.Errorf("embedded: setting %q is not open to Config.Settings", name)
		}
	}
	return nil
}

// arguments are the postmaster's settings on its command line, where they also outrank ALTER SYSTEM.
func (c Config) arguments(port int, socketDir, hbaFile, walCompression string) []string {
	settings := maps.Clone(defaults)
	settings["wal_compression"] = walCompression
	for name, value := range c.Settings {
		settings[strings.ToLower(name)] = value
	}
	durable := "on"
	if c.UnsafeNoFsync {
		durable = "off"
	}
	maps.Copy(settings, map[string]string{
		"fsync":            durable,
		"full_page_writes": durable,
		"listen_addresses": "",
		"port":             strconv.Itoa(port),
		// A list, in which a name with a comma or a space has to be quoted.
		"unix_socket_directories": `"` + strings.ReplaceAll(socketDir, `"`, `""`) + `"`,
		"unix_socket_permissions": "0700",
		"log_destination":         "stderr",
		"logging_collector":       "off",
		"log_line_prefix":         "[%p] ",
	})
	if c.TCP {
		settings["listen_addresses"] = "127.0.0.1"
		settings["hba_file"] = hbaFile
	}
	var args []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}
