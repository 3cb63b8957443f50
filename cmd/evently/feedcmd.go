package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
)

func (s *shell) feedCommand() *cobra.Command {
	group := &cobra.Command{Use: "feed", Short: "Look after what follows the journal: analytics, mails, webhooks"}
	group.AddCommand(s.feedStatusCommand(), s.feedRetryCommand(), s.feedDiscardCommand())
	requireSubcommand(group)
	return group
}

// withPool makes a command that works on connections to the database.
func (s *shell) withPool(command *cobra.Command, act func(ctx context.Context, pool *pgxpool.Pool) error) *cobra.Command {
	return s.withDatabase(command, general|database, func(ctx context.Context, _ *Config, url string, _ *slog.Logger) error {
		pool, err := store.Open(ctx, url, store.PoolOptions{})
		if err != nil {
			return err
		}
		defer pool.Close()
		return act(ctx, pool)
	})
}

func (s *shell) feedStatusCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "List the consumers of the journal, how far they are, and the entries that they could not consume",
	}
	asJSON := jsonFlag(command)
	return s.withPool(command, func(ctx context.Context, pool *pgxpool.Pool) error {
		consumers, err := store.Consumers(ctx, pool)
		if err != nil {
			return err
		}
		parked, err := store.Parked(ctx, pool, "")
		if err != nil {
			return err
		}
		if *asJSON {
			return s.printJSON(newFeedStatus(consumers, parked))
		}
		table := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "CONSUMER\tBEHIND\tLAG\tPARKED\tLAST RUN")
		for _, c := range consumers {
			last := "by no node"
			if !c.SteppedAt.IsZero() {
				last = c.SteppedAt.Format(time.RFC3339)
			}
			fmt.Fprintf(table, "%s\t%d entries\t%s\t%d\t%s\n", c.Name, c.Behind, c.Lag.Round(100*time.Millisecond), c.Parked, last)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		for _, p := range parked {
			fmt.Fprintf(s.stdout, "parked: %s, event %s entry %d, %s: %s\n", p.Consumer, p.Event, p.Seq, p.At.Format(time.RFC3339), p.Error)
		}
		return nil
	})
}

// feedStatus is what `feed status --json` prints. The parked entries are the first hundred.
type feedStatus struct {
	Consumers []consumerStatus `json:"consumers"`
	Parked    []parkedEntry    `json:"parked"`
}

type consumerStatus struct {
	Name       string     `json:"name"`
	FromNow    bool       `json:"from_now"`
	StartedAt  time.Time  `json:"started_at"`
	SteppedAt  *time.Time `json:"stepped_at"`
	AsOf       *time.Time `json:"as_of"`
	Behind     uint64     `json:"lag_entries"`
	LagSeconds float64    `json:"lag_seconds"`
	Parked     int        `json:"parked"`
}

type parkedEntry struct {
	Consumer string    `json:"consumer"`
	Event    string    `json:"event_id"`
	Seq      uint64    `json:"seq"`
	Error    string    `json:"error"`
	At       time.Time `json:"at"`
	Retry    bool      `json:"retry"`
}

func newFeedStatus(consumers []store.ConsumerStatus, parked []store.ParkedEntry) feedStatus {
	known := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	out := feedStatus{[]consumerStatus{}, []parkedEntry{}}
	for _, c := range consumers {
		out.Consumers = append(out.Consumers, consumerStatus{
			c.Name, c.FromNow, c.StartedAt, known(c.SteppedAt), known(c.AsOf), c.Behind, c.Lag.Seconds(), c.Parked,
		})
	}
	for _, p := range parked {
		out.Parked = append(out.Parked, parkedEntry{p.Consumer, p.Event.String(), p.Seq, p.Error, p.At, p.Retry})
	}
	return out
}

// parkedFlags choose parked entries.
type parkedFlags struct {
	consumer, event string
	seq             uint64
}

func (f *parkedFlags) add(command *cobra.Command) {
	command.Flags().StringVar(&f.consumer, "consumer", "", "name of the consumer")
	command.Flags().StringVar(&f.event, "event", "", "id of the event")
	command.Flags().Uint64Var(&f.seq, "seq", 0, "number of the entry in its event's journal")
}

// eventID returns the chosen event, or zero for all.
func (f *parkedFlags) eventID() (evently.EventID, error) {
	if f.consumer == "" {
		return 0, usageError{errors.New("--consumer is missing: see evently feed status")}
	}
	if f.event == "" {
		if f.seq != 0 {
			return 0, usageError{errors.New("--seq needs --event")}
		}
		return 0, nil
	}
	id, err := evently.ParseEventID(f.event)
	if err != nil {
		return 0, usageError{fmt.Errorf("--event: %w", err)}
	}
	return id, nil
}

func (s *shell) feedRetryCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "retry",
		Short: "Have parked entries tried again",
		Long: `Have the node that runs a consumer try its parked entries again within a second: all of them, those of an event, or one. They take
effect after entries that came later. What fails again stays parked.`,
	}
	flags := new(parkedFlags)
	flags.add(command)
	return s.withPool(command, func(ctx context.Context, pool *pgxpool.Pool) error {
		event, err := flags.eventID()
		if err != nil {
			return err
		}
		count, err := store.RetryParked(ctx, pool, flags.consumer, event, flags.seq)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.stdout, "%d entries will be tried again\n", count)
		return err
	})
}

func (s *shell) feedDiscardCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "discard",
		Short: "Give up a parked entry: it never takes effect",
	}
	flags := new(parkedFlags)
	flags.add(command)
	return s.withPool(command, func(ctx context.Context, pool *pgxpool.Pool) error {
		event, err := flags.eventID()
		if err != nil {
			return err
		}
		if event == 0 || flags.seq == 0 {
			return usageError{errors.New("--event and --seq are missing: entries are discarded one by one")}
		}
		found, err := store.DiscardParked(ctx, pool, flags.consumer, event, flags.seq)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("consumer %s has not parked entry %d of event %s", flags.consumer, flags.seq, event)
		}
		_, err = fmt.Fprintln(s.stdout, "Discarded")
		return err
	})
}
