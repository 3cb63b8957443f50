package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/evently/evently/store"
)

// withDatabase makes a command that works on a database, the one of the settings or the embedded one.
func (s *shell) withDatabase(
	command *cobra.Command, groups group, act func(ctx context.Context, config *Config, url string, log *slog.Logger) error,
) *cobra.Command {
	return s.configured(command, groups, func(ctx context.Context, config *Config, log *slog.Logger) (err error) {
		if config.DatabaseURL != "" {
			if err := config.checkDatabaseURL(); err != nil {
				return err
			}
		}
		url, giveBack, err := config.borrowDatabase(ctx, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, giveBack()) }()
		return act(ctx, config, url, log)
	})
}

func (s *shell) migrateCommand() *cobra.Command {
	group := &cobra.Command{Use: "migrate", Short: "Bring the database's schema up to date"}
	group.AddCommand(s.migrateUpCommand(), s.migrateStatusCommand())
	requireSubcommand(group)
	return group
}

func (s *shell) migrateUpCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "up",
		Short: "Carry out the migrations that the database lacks",
		Long:  "Carry out the migrations that the database lacks. Several callers may do so at once: one works, the others wait.",
	}
	return s.withDatabase(command, general|database, func(ctx context.Context, config *Config, url string, log *slog.Logger) error {
		return config.reach(ctx, log, func(ctx context.Context) error {
			before, err := store.MigrationStatus(ctx, url)
			if err != nil {
				return err
			}
			if err := store.Migrate(ctx, url, log); err != nil {
				return err
			}
			fmt.Fprintf(s.stdout, "Schema version %d, %d migrations carried out\n", max(before.Current, before.Target), len(before.Pending))
			return nil
		})
	})
}

func (s *shell) migrateStatusCommand() *cobra.Command {
	command := &cobra.Command{Use: "status", Short: "Compare the database's schema with this program"}
	asJSON := jsonFlag(command)
	return s.withDatabase(command, general|database, func(ctx context.Context, _ *Config, url string, _ *slog.Logger) error {
		status, err := store.MigrationStatus(ctx, url)
		if err != nil {
			return err
		}
		if *asJSON {
			return s.printJSON(map[string]any{
				"current": status.Current, "target": status.Target, "pending": append([]string{}, status.Pending...),
				"compatible": status.Compatible(), "program_min": status.ProgramMin,
			})
		}
		fmt.Fprintf(s.stdout, "Schema version %d; this program knows up to %d\n", status.Current, status.Target)
		switch {
		case !status.Compatible():
			fmt.Fprintf(s.stdout, "A newer program made this schema; it needs one that knows version %d\n", status.ProgramMin)
		case status.Current > status.Target:
			fmt.Fprintln(s.stdout, "A newer program made this schema; this one can use it")
		}
		for _, name := range status.Pending {
			fmt.Fprintf(s.stdout, "pending: %s\n", name)
		}
		return nil
	})
}

func (s *shell) adminCommand() *cobra.Command {
	group := &cobra.Command{Use: "admin", Short: "Look after administrators"}
	group.AddCommand(s.adminCreateCommand())
	requireSubcommand(group)
	return group
}

func (s *shell) adminCreateCommand() *cobra.Command {
	var fromStdin bool
	command := &cobra.Command{
		Use:   "create",
		Short: "Add an administrator",
		Long: `Add an administrator with the address of --admin-email. Its password is that of the settings or the first line of the standard
input; with neither, one is generated and printed.`,
	}
	command.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from the standard input")
	asJSON := jsonFlag(command)
	act := func(ctx context.Context, config *Config, url string, _ *slog.Logger) error {
		password, generated := config.AdminPassword, false
		switch {
		case fromStdin:
			line, err := bufio.NewReader(io.LimitReader(s.stdin, secretBytesMax)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the password: %w", err)
			}
			password = strings.TrimRight(line, "\r\n")
		case password == "":
			password, generated = newPassword(), true
		}
		if config.Env == production && !generated {
			if reason := weakPassword(password); reason != "" {
				return usageError{fmt.Errorf("admin_password %s", reason)}
			}
		}
		pool, err := store.Open(ctx, url, store.PoolOptions{})
		if err != nil {
			return err
		}
		defer pool.Close()
		user, err := createAdmin(ctx, store.NewAccounts(pool, nil), config.AdminEmail, password)
		if err != nil {
			return fmt.Errorf("create %s: %w", config.AdminEmail, err)
		}
		if *asJSON {
			out := map[string]string{"id": user.ID.String(), "email": user.Email}
			if generated {
				out["password"] = password
			}
			return s.printJSON(out)
		}
		fmt.Fprintf(s.stdout, "Administrator %s (%s) created\n", user.Email, user.ID)
		if generated {
			fmt.Fprintf(s.stdout, "Password: %s\n", password)
		}
		return nil
	}
	return s.withDatabase(command, general|database|administrator, act)
}
