package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/evently/evently/store/embedded"
)

func (s *shell) databaseCommand() *cobra.Command {
	group := &cobra.Command{Use: "database", Short: "Run the embedded Postgres without a node, or set the rights of a role"}
	group.AddCommand(s.databaseUpCommand(), s.databaseURLCommand(), s.databaseGrantsCommand())
	requireSubcommand(group)
	return group
}

func (s *shell) databaseUpCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "up",
		Short: "Run the embedded Postgres of the data directory until Ctrl-C",
		Long: `Run the embedded Postgres of the data directory until Ctrl-C, and print its URL. Several nodes on this machine can then share
it. It listens on a Unix socket only.`,
	}
	return s.configured(command, general|database, func(ctx context.Context, config *Config, log *slog.Logger) error {
		if err := config.makeDataDir(); err != nil {
			return err
		}
		database, err := startPostgres(ctx, config.embedded(log))
		if err != nil {
			return err
		}
		fmt.Fprintln(s.stdout, database.server.DSN())
		err = database.wait(ctx)
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgresStopMax)
		defer cancel()
		if stopErr := database.stop(stop); err == nil {
			err = stopErr
		}
		return err
	})
}

func (s *shell) databaseURLCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "url",
		Short: "Print the URL of the embedded Postgres that runs on the data directory",
		Long: `Print the URL of the embedded Postgres that runs on the data directory, started by ` + "`evently up`" + ` or
` + "`evently database up`" + `. It waits up to --start-timeout for it to come up.`,
	}
	return s.configured(command, general|database, func(ctx context.Context, config *Config, _ *slog.Logger) error {
		if err := config.resolveDataDir(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, config.StartTimeout)
		defer cancel()
		url, err := embedded.Running(ctx, filepath.Join(config.DataDir, postgresDir))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.stdout, url)
		return err
	})
}
