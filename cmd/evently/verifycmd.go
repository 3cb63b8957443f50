package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
)

func (s *shell) verifyCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "verify",
		Short: "Replay the journal and compare it with the database's rows",
		Long: `Replay the journal of every event from its beginning and compare the outcome with the rows that the nodes work with.
Every difference is printed. Exit code 1 if there is any. The nodes may go on serving meanwhile.`,
	}
	asJSON := jsonFlag(command)
	return s.withDatabase(command, general|database, func(ctx context.Context, _ *Config, url string, _ *slog.Logger) error {
		pool, err := store.Open(ctx, url, store.PoolOptions{})
		if err != nil {
			return err
		}
		defer pool.Close()
		differences := []difference{}
		summary, err := store.Verify(ctx, pool, func(d store.Difference) {
			if *asJSON {
				differences = append(differences, newDifference(d))
			} else {
				fmt.Fprintln(s.stdout, d)
			}
		})
		if err != nil {
			return err
		}
		if *asJSON {
			err = s.printJSON(verification{summary.Events, summary.Entries, summary.Reservations, summary.Waiters, differences})
		} else {
			_, err = fmt.Fprintf(s.stdout, "Verified %d events, %d entries, %d reservations and %d waiters: %d differences\n",
				summary.Events, summary.Entries, summary.Reservations, summary.Waiters, summary.Differences)
		}
		if err == nil && summary.Differences > 0 {
			err = fmt.Errorf("the journal and the rows differ in %d places", summary.Differences)
		}
		return err
	})
}

// verification is what `verify --json` prints.
type verification struct {
	Events       int          `json:"events"`
	Entries      int          `json:"entries"`
	Reservations int          `json:"reservations"`
	Waiters      int          `json:"waiters"`
	Differences  []difference `json:"differences"`
}

type difference struct {
	Event       string `json:"event_id"`
	Reservation string `json:"reservation_id,omitempty"`
	Waiter      string `json:"waiter_id,omitempty"`
	Seq         uint64 `json:"seq,omitempty"`
	What        string `json:"what"`
}

func newDifference(d store.Difference) difference {
	out := difference{Event: d.Event.String(), Seq: d.Seq, What: d.What}
	switch {
	case d.Waiter:
		out.Waiter = evently.WaiterID{Event: d.Event, Token: d.Token}.String()
	case d.Token != 0:
		out.Reservation = evently.ReservationID{Event: d.Event, Token: d.Token}.String()
	}
	return out
}
