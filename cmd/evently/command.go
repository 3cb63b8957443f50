package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/evently/evently/cluster"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2

	// exitRestart is for main alone: the other nodes take this one for dead, or it lost its quorum, and it can come back only
	// as a new member. main starts the program again in the same process.
	exitRestart = 3
)

// run is the whole program: it carries out one command line and returns the exit code. The end of ctx asks it to finish
// in order, which is no failure.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	s := &shell{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	root := s.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "evently: %v\n", err)
	if ctx.Err() == nil && (errors.Is(err, cluster.ErrEvicted) || errors.Is(err, cluster.ErrMinority)) {
		return exitRestart
	}
	if !s.started || errors.As(err, new(usageError)) {
		fmt.Fprintln(stderr, "See evently --help, or --help after a command.")
		return exitUsage
	}
	return exitFailed
}

// shell is what a command has of the process around it.
type shell struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	started        bool // the command line was understood
}

func (s *shell) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "evently",
		Short: "A booking engine that never oversells",
		Long: `Evently sells seats: one actor for each event decides its reservations, and Postgres keeps them.

Start with ` + "`evently up`" + `, which needs nothing but this program.

Every setting can be given as a flag, as an environment variable EVENTLY_<NAME>, for secrets as EVENTLY_<NAME>_FILE,
or in a YAML file named by --config; the first of these counts.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(
		s.upCommand(), s.serveCommand(), s.migrateCommand(), s.adminCommand(), s.databaseCommand(), s.verifyCommand(), s.replayCommand(),
		s.analyticsCommand(), s.feedCommand(), s.benchCommand(),
		s.healthCommand(), s.configCommand(), s.versionCommand(),
	)
	requireSubcommand(root)
	return root
}

// requireSubcommand makes commands that only group others refuse to run alone.
func requireSubcommand(group *cobra.Command) {
	group.Args = cobra.NoArgs
	group.RunE = func(command *cobra.Command, _ []string) error {
		command.SetOut(command.ErrOrStderr())
		return errors.Join(usageError{errors.New("which command?")}, command.Usage())
	}
}

// action is what a command does once its settings are read.
type action func(ctx context.Context, config *Config, log *slog.Logger) error

// configured makes a command read the settings, of which the groups' have flags, before it acts.
func (s *shell) configured(command *cobra.Command, groups group, act action) *cobra.Command {
	addFlags(command.Flags(), groups)
	command.Args = cobra.NoArgs
	command.RunE = func(command *cobra.Command, _ []string) error {
		s.started = true
		config, _, err := s.load(command)
		if err != nil {
			return err
		}
		return act(command.Context(), config, newLogger(s.stderr, config))
	}
	return command
}

func (s *shell) load(command *cobra.Command) (*Config, []resolved, error) {
	config, list, err := load(command.Flags(), s.getenv)
	if err == nil && config.DataDir == "" {
		config.DataDir = defaultDataDir(s.getenv, os.Geteuid() == 0)
	}
	return config, list, err
}

func newLogger(to io.Writer, config *Config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(config.LogLevel)); err != nil {
		panic(err) // the setting accepts only names of levels
	}
	options := &slog.HandlerOptions{Level: level}
	if config.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}

// jsonFlag adds --json.
func jsonFlag(command *cobra.Command) *bool {
	return command.Flags().Bool("json", false, "print JSON")
}

// printJSON writes v to standard output.
func (s *shell) printJSON(v any) error {
	encoder := json.NewEncoder(s.stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
