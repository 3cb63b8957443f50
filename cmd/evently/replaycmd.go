package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
)

// replayEntriesMax bounds the entries that `evently replay --entries` shows.
const replayEntriesMax = 100_000

func (s *shell) replayCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "replay EVENT",
		Short: "Show an event as it was at a moment, by the journal alone",
		Long: `Make the state of an event at a moment out of its journal: details, prices, seats, waitlist and reservations. The moment is a time,
--at 2027-05-01T18:00:00+02:00, or the number of an entry, --seq 118; without either it is now. What was recorded at that very time counts.
Nothing is read but the journal, so it also shows events that were deleted, and what was overwritten since.`,
	}
	var at string
	var seq uint64
	var entries int
	var reservations bool
	command.Flags().StringVar(&at, "at", "", "moment, RFC 3339 with a zone")
	command.Flags().Uint64Var(&seq, "seq", 0, "number of the last entry")
	command.Flags().IntVar(&entries, "entries", 0, fmt.Sprintf("show the last entries up to then, up to %d", replayEntriesMax))
	command.Flags().BoolVar(&reservations, "reservations", false, "show the reservations that occupied seats")
	asJSON := jsonFlag(command)
	command = s.withDatabase(command, general|database, func(ctx context.Context, config *Config, url string, log *slog.Logger) error {
		id, moment, err := replayMoment(command.Flags().Arg(0), at, seq, command.Flags().Changed("seq"))
		if err == nil && (entries < 0 || entries > replayEntriesMax) {
			err = usageError{fmt.Errorf("--entries must be 0 to %d", replayEntriesMax)}
		}
		if err != nil {
			return err
		}
		pool, err := store.Open(ctx, url, store.PoolOptions{})
		if err != nil {
			return err
		}
		defer pool.Close()
		var last []entryLine
		past, err := store.ReplayEvent(ctx, pool, id, moment, func(e *evently.Entry, epoch uint64, before *evently.Ledger) {
			if entries == 0 {
				return
			}
			if len(last) == 2*entries {
				last = append(last[:0], last[entries:]...)
			}
			last = append(last, newEntryLine(id, e, epoch, before))
		})
		if err != nil {
			return err
		}
		view := newPastView(past, reservations)
		if view.Entries = last[max(0, len(last)-entries):]; *asJSON {
			return s.printJSON(view)
		}
		return view.print(s.stdout)
	})
	command.Args = cobra.ExactArgs(1)
	return command
}

// replayMoment reads the arguments. What is wrong with them is a usage error.
func replayMoment(event, at string, seq uint64, seqGiven bool) (id evently.EventID, moment store.Moment, err error) {
	id, err = evently.ParseEventID(event)
	if err == nil && at != "" {
		if moment.At, err = time.Parse(time.RFC3339, at); err != nil {
			err = fmt.Errorf("--at: %q is no time such as 2027-05-01T18:00:00+02:00", at)
		}
	}
	switch {
	case err != nil:
	case seqGiven && at != "":
		err = errors.New("--at and --seq do not go together")
	case seqGiven && seq == 0:
		err = errors.New("--seq: entries are numbered from 1 on")
	}
	if err != nil {
		return 0, moment, usageError{err}
	}
	moment.Seq = seq
	return id, moment, nil
}

// pastView is what `replay --json` prints.
type pastView struct {
	Event        string            `json:"event_id"`
	Seq          uint64            `json:"seq"`
	Epoch        uint64            `json:"epoch"`
	At           time.Time         `json:"at"` // of the last entry
	LastEntry    string            `json:"last_entry"`
	Deleted      bool              `json:"deleted"`
	Status       string            `json:"status"`
	Version      uint64            `json:"version"`
	Details      detailsView       `json:"details"`
	Capacity     int               `json:"capacity"`
	Available    int               `json:"available"`
	Held         int               `json:"held"`
	Booked       int               `json:"booked"`
	Waitlisted   int               `json:"waitlisted"`
	Live         int               `json:"live_reservations"`
	Tiers        []tierView        `json:"tiers"`
	Reservations []reservationView `json:"reservations,omitempty"`
	Entries      []entryLine       `json:"entries,omitempty"`
}

type detailsView struct {
	Name          string       `json:"name"`
	Description   string       `json:"description"`
	Category      string       `json:"category"`
	Venue         string       `json:"venue"`
	City          string       `json:"city"`
	Timezone      string       `json:"timezone"`
	Currency      string       `json:"currency"`
	Organizer     string       `json:"organizer_id"`
	StartsAt      time.Time    `json:"starts_at"`
	EndsAt        time.Time    `json:"ends_at"`
	SalesStartAt  time.Time    `json:"sales_start_at,omitzero"`
	SalesEndAt    time.Time    `json:"sales_end_at,omitzero"`
	HoldTTL       int64        `json:"hold_ttl_seconds"`
	MaxPerBooking int          `json:"max_per_booking"`
	MaxPerUser    int          `json:"max_per_user,omitzero"`
	Pricing       *pricingView `json:"pricing,omitempty"`
}

// pricingView is a rule in the words of the API.
type pricingView struct {
	Curve      []demandView `json:"curve"`
	Time       []timeView   `json:"time"`
	Step       stepView     `json:"step,omitzero"`
	FloorBps   int          `json:"floor_bps,omitzero"`
	CeilingBps int          `json:"ceiling_bps,omitzero"`
	RoundMinor int64        `json:"round_minor,omitzero"`
	Rounding   string       `json:"rounding"`
}

type demandView struct {
	DemandBps int `json:"demand_bps"`
	FactorBps int `json:"factor_bps"`
}

type timeView struct {
	HoursBefore int `json:"hours_before"`
	FactorBps   int `json:"factor_bps"`
}

type stepView struct {
	EverySeats int   `json:"every_seats"`
	AddMinor   int64 `json:"add_minor"`
}

func newPricingView(rule *evently.PricingRule) *pricingView {
	if rule == nil {
		return nil
	}
	view := &pricingView{
		Curve: []demandView{}, Time: []timeView{}, Step: stepView(rule.Step), FloorBps: rule.FloorBps, CeilingBps: rule.CeilingBps,
		RoundMinor: rule.RoundMinor, Rounding: rule.Rounding.String(),
	}
	for _, point := range rule.Curve {
		view.Curve = append(view.Curve, demandView{point.At, point.FactorBps})
	}
	for _, point := range rule.Time {
		view.Time = append(view.Time, timeView{point.At, point.FactorBps})
	}
	return view
}

type tierView struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Capacity       int    `json:"capacity"`
	Available      int    `json:"available"`
	Held           int    `json:"held"`
	Booked         int    `json:"booked"`
	BasePriceMinor int64  `json:"base_price_minor"`
	PriceMinor     int64  `json:"price_minor"`
	Retired        bool   `json:"retired,omitzero"`
}

type reservationView struct {
	ID         string    `json:"id"`
	User       string    `json:"user_id"`
	Status     string    `json:"status"`
	Seats      string    `json:"seats"`
	TotalMinor int64     `json:"total_minor"`
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	Seq        uint64    `json:"seq"`
}

// entryLine is an entry with its reservation or waiter, if it is of one.
type entryLine struct {
	Seq       uint64    `json:"seq"`
	Epoch     uint64    `json:"epoch"`
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"`
	Who       string    `json:"actor_id,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
	Subject   string    `json:"subject_id,omitempty"`
	User      string    `json:"user_id,omitempty"`
	Seats     string    `json:"seats,omitempty"`
}

// newEntryLine takes what later entries of a reservation leave out from the ledger before them.
func newEntryLine(event evently.EventID, e *evently.Entry, epoch uint64, before *evently.Ledger) entryLine {
	line := entryLine{Seq: e.Seq, Epoch: epoch, At: e.At, Kind: e.Kind.String(), RequestID: e.RequestID}
	if e.Who != 0 {
		line.Who = e.Who.String()
	}
	if e.Token == 0 {
		return line
	}
	user, items := e.User, e.Items
	if e.Kind >= evently.WaitlistedEntry && e.Kind <= evently.WaiterClosedEntry {
		line.Subject = evently.WaiterID{Event: event, Token: e.Token}.String()
	} else {
		line.Subject = evently.ReservationID{Event: event, Token: e.Token}.String()
		if r, found := before.Reservation(e.Token); found {
			user, items = r.User, r.Items
		}
	}
	if user != 0 {
		line.User = user.String()
	}
	line.Seats = seatsText(&items)
	return line
}

func seatsText(items *evently.Items) string {
	var parts []string
	for item := range items.All() {
		parts = append(parts, fmt.Sprintf("%s x %d", evently.TierID(item.Tier), item.Quantity))
	}
	return strings.Join(parts, ", ")
}

func newPastView(past *store.Past, reservations bool) *pastView {
	event := past.Ledger.Event()
	var seats evently.Availability
	past.Ledger.Availability(&seats)
	totals := seats.Totals()
	view := &pastView{
		Event: event.ID.String(), Seq: past.Entry.Seq, Epoch: past.Epoch, At: past.Entry.At, LastEntry: past.Entry.Kind.String(),
		Deleted: past.Deleted, Status: event.Status.String(), Version: event.Version,
		Details: detailsView{
			Name: event.Name, Description: event.Description, Category: event.Category, Venue: event.Venue, City: event.City,
			Timezone: event.Timezone, Currency: event.Currency, Organizer: event.Organizer.String(), StartsAt: event.StartsAt,
			EndsAt: event.EndsAt, SalesStartAt: event.SalesStartAt, SalesEndAt: event.SalesEndAt,
			HoldTTL: int64(event.HoldTTL.Seconds()), MaxPerBooking: event.MaxPerBooking, MaxPerUser: event.MaxPerUser, Pricing: newPricingView(event.Pricing),
		},
		Capacity: totals.Capacity, Available: totals.Available(), Held: totals.Held, Booked: totals.Booked, Waitlisted: seats.Waiting,
		Live: past.Ledger.Live(),
	}
	for i, tier := range event.Tiers {
		count := seats.Tiers[i]
		view.Tiers = append(view.Tiers, tierView{
			evently.TierID(i), tier.Name, count.Capacity, count.Available(), count.Held, count.Booked, tier.BasePriceMinor, tier.PriceMinor,
			tier.Retired,
		})
	}
	if !reservations {
		return view
	}
	for _, token := range past.Live {
		r, found := past.Ledger.Reservation(token)
		if !found {
			panic(fmt.Sprintf("replay: the ledger has no live reservation %d", token))
		}
		view.Reservations = append(view.Reservations, reservationView{
			r.ID.String(), r.User.String(), r.Status.String(), seatsText(&r.Items), r.Items.TotalMinor(), r.CreatedAt, r.ExpiresAt, r.Seq,
		})
	}
	return view
}

// print writes the view for people, with the times in the zone of the event.
func (v *pastView) print(out io.Writer) error {
	zone, err := time.LoadLocation(v.Details.Timezone)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	local := func(t time.Time) string { return t.In(zone).Format("2006-01-02T15:04:05.000Z07:00") }
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	status := v.Status
	if v.Deleted {
		status = "deleted"
	}
	fmt.Fprintf(w, "%s\t%s\n", v.Event, v.Details.Name)
	fmt.Fprintf(w, "after\tentry %d (%s) of %s, epoch %d\n", v.Seq, v.LastEntry, local(v.At), v.Epoch)
	fmt.Fprintf(w, "status\t%s, version %d\n", status, v.Version)
	fmt.Fprintf(w, "starts\t%s %s, %s\n", local(v.Details.StartsAt), v.Details.Venue, v.Details.City)
	fmt.Fprintf(w, "seats\t%d: %d available, %d held, %d booked, by %d reservations; %d wait\n",
		v.Capacity, v.Available, v.Held, v.Booked, v.Live, v.Waitlisted)
	for _, t := range v.Tiers {
		fmt.Fprintf(w, "tier %s\t%s: %d of %d available, %d held, %d booked, at %d minor units of %s (base %d)\n",
			t.ID, t.Name, t.Available, t.Capacity, t.Held, t.Booked, t.PriceMinor, v.Details.Currency, t.BasePriceMinor)
	}
	for _, r := range v.Reservations {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", r.ID, r.User, r.Status, r.Seats, r.TotalMinor, local(r.CreatedAt))
	}
	for _, e := range v.Entries {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Seq, local(e.At), e.Kind, e.Subject, e.Seats, e.Who, e.RequestID)
	}
	return w.Flush()
}
