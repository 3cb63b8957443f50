package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func (s *shell) configCommand() *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Look at the settings"}
	group.AddCommand(s.configPrintCommand())
	requireSubcommand(group)
	return group
}

// printed is a setting as `config print --json` shows it.
type printed struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

const redacted = "(redacted)"

func (s *shell) configPrintCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "print",
		Short: "Print every setting, where it comes from, and no secret",
		Long:  "Print every setting in force and where it comes from. Secrets are not shown, only whether they are set.",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(command)
	addFlags(command.Flags(), every)
	command.RunE = func(command *cobra.Command, _ []string) error {
		s.started = true
		config, list, err := s.load(command)
		if err != nil {
			return err
		}
		rows := make([]printed, len(list))
		for i, r := range list {
			rows[i] = printed{r.name, r.value.String(), r.source}
			if r.name == "data_dir" {
				rows[i].Value = config.DataDir // its default depends on the user
			}
			if r.secret && rows[i].Value != "" {
				rows[i].Value = redacted
			}
		}
		if *asJSON {
			return s.printJSON(rows)
		}
		table := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
		for _, row := range rows {
			fmt.Fprintf(table, "%s\t%s\t%s\n", row.Name, row.Value, row.Source)
		}
		return table.Flush()
	}
	return command
}
