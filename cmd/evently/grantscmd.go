package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/evently/evently/store"
)

func (s *shell) databaseGrantsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "grants ROLE",
		Short: "Let a Postgres role run nodes that can add to the journal and not change it",
		Long: `Give an existing Postgres role the rights that nodes need, and take all others on Evently's tables from it. To the journal and the
security log it can add, and neither change nor remove anything; it can change no table.

Run it as the owner of the tables, after each ` + "`evently migrate up`" + `, which is for the owner too. Nodes then have the role's
database_url, and migrate=never.`,
	}
	command = s.withDatabase(command, general|database, func(ctx context.Context, config *Config, url string, log *slog.Logger) error {
		role := command.Flags().Arg(0)
		if err := config.reach(ctx, log, func(ctx context.Context) error { return store.Grant(ctx, url, role) }); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.stdout, "Role %s can run nodes\n", role)
		return err
	})
	command.Args = cobra.ExactArgs(1)
	return command
}
