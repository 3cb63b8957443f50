package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/evently/evently/store"
)

func (s *shell) analyticsCommand() *cobra.Command {
	group := &cobra.Command{Use: "analytics", Short: "Look after the figures of analytics"}
	group.AddCommand(s.analyticsRebuildCommand(), s.analyticsVerifyCommand())
	requireSubcommand(group)
	return group
}

func (s *shell) analyticsRebuildCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "rebuild",
		Short: "Count the figures of analytics again from the journal",
		Long: `Count the figures of analytics again from the first entry of the journal on, print in what they differ from those shown now, and
show the new ones, all at once. The nodes may go on serving meanwhile. Entries that were parked are counted.`,
	}
	return s.recount(command, false)
}

func (s *shell) analyticsVerifyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "verify",
		Short: "Compare the figures of analytics with the journal",
		Long: `Count the figures of analytics again from the journal, without showing them, and print every difference, of many the first ones.
Exit code 1 if there is any. The nodes may go on serving meanwhile.`,
	}
	return s.recount(command, true)
}

// recount makes a command that counts the journal and, unless it is a dry run, shows the outcome.
func (s *shell) recount(command *cobra.Command, dryRun bool) *cobra.Command {
	asJSON := jsonFlag(command)
	return s.withPool(command, func(ctx context.Context, pool *pgxpool.Pool) error {
		rebuilt, err := store.RebuildAnalytics(ctx, pool, dryRun)
		if err != nil {
			return err
		}
		if *asJSON {
			err = s.printJSON(newRecounted(rebuilt))
		} else {
			for _, d := range rebuilt.Differences {
				fmt.Fprintln(s.stdout, d)
			}
			shown := "not shown"
			if rebuilt.Swapped {
				shown = "shown now"
			}
			_, err = fmt.Fprintf(s.stdout, "Counted %d entries into %d sums in %s: %s differences; %s\n",
				rebuilt.Entries, rebuilt.Sums, rebuilt.Took.Round(time.Millisecond), countedDifferences(rebuilt), shown)
		}
		if err == nil && dryRun && len(rebuilt.Differences) > 0 {
			err = errors.New("the figures of analytics differ from the journal")
		}
		return err
	})
}

func countedDifferences(r *store.Rebuilding) string {
	if len(r.Differences) == store.RebuildDifferencesMax {
		return fmt.Sprintf("%d or more", store.RebuildDifferencesMax)
	}
	return fmt.Sprint(len(r.Differences))
}

// recounted is what `analytics rebuild --json` and `analytics verify --json` print.
type recounted struct {
	Entries     uint64          `json:"entries"`
	Sums        int             `json:"sums"`
	Shown       bool            `json:"shown"`
	Seconds     float64         `json:"seconds"`
	Differences []sumDifference `json:"differences"`
}

// sumDifference is a sum as it is shown and as the journal gives it, null where there is none.
type sumDifference struct {
	Event     string     `json:"event_id,omitempty"`
	Organizer string     `json:"organizer_id,omitempty"`
	From      *time.Time `json:"from"` // of a quarter of an hour; null: all times
	Currency  string     `json:"currency"`
	Shown     rawJSON    `json:"shown"`
	Journal   rawJSON    `json:"journal"`
}

// rawJSON is text that is JSON, or null when it is empty.
type rawJSON string

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) {
	if r == "" {
		return []byte("null"), nil
	}
	return []byte(r), nil
}

func newRecounted(r *store.Rebuilding) recounted {
	out := recounted{r.Entries, r.Sums, r.Swapped, r.Took.Seconds(), []sumDifference{}}
	for _, d := range r.Differences {
		told := sumDifference{Currency: d.Currency, Shown: rawJSON(d.Shown), Journal: rawJSON(d.Counted)}
		if d.Event != 0 {
			told.Event = d.Event.String()
		}
		if d.Organizer != 0 {
			told.Organizer = d.Organizer.String()
		}
		if !d.Bucket.IsZero() {
			told.From = &d.Bucket
		}
		out.Differences = append(out.Differences, told)
	}
	return out
}
