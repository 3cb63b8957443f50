package evently

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata/ledger with what the ledger does now")

// The transcripts say what a ledger answers to commands, and which entries it writes. A difference is a change of what is
// promised to clients and of what journals hold: update them only when it is understood and wanted.
//
// A line that begins with > is a command, at a time counted from the opening of sales. The indented lines below it are its
// entries (#), its reply (=) or refusal (!), and the seat counts after it. The other lines are comments.
func TestLedger_Transcripts(t *testing.T) {
	files, err := filepath.Glob("testdata/ledger/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcribe(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Fatalf("%s (-want +got)\n%s", file, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")))
			}
		})
	}
}

func transcribe(t *testing.T, script string) string {
	var out strings.Builder
	var l *Ledger
	for line := range strings.Lines(script) {
		switch {
		case strings.HasPrefix(line, "  "):
			continue // the output of a run before
		case !strings.HasPrefix(line, "> "):
			out.WriteString(line)
			continue
		}
		out.WriteString(line)
		words := strings.Fields(line[2:])
		if words[0] == "event" {
			l = NewLedger(transcriptEvent(t, words[1:]), 1, epoch.Add(-time.Hour), 1)
			out.WriteString(transcribeCounts(l))
			continue
		}
		at, err := time.ParseDuration(words[0])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		d, err := do(l, transcriptCommand(t, l, words[1], words[2:]), epoch.Add(at))
		for i := range d.Entries {
			fmt.Fprintf(&out, "  # %s\n", transcribeEntry(&d.Entries[i]))
		}
		switch {
		case err != nil:
			fmt.Fprintf(&out, "  ! %v%s\n", err, transcribeAvailable(err))
		case d.Event != nil:
			fmt.Fprintf(&out, "  = %s\n", transcribeEvent(d.Event))
		case d.Reservation.ID.Token != 0:
			fmt.Fprintf(&out, "  = %s%s\n", transcribeReservation(&d.Reservation), map[bool]string{true: " (replayed)"}[d.Replayed])
		}
		out.WriteString(transcribeCounts(l))
		if err := l.Check(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return out.String()
}

// transcriptEvent reads the capacities of the tiers, for example "10 5".
func transcriptEvent(t *testing.T, capacities []string) *Event {
	event := newTestEvent(len(capacities), 0)
	for i, capacity := range capacities {
		event.Tiers[i].Capacity = transcriptNumber(t, capacity)
	}
	event.SalesEndAt = epoch.AddDate(0, 0, 30)
	return event
}

func transcriptNumber(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// transcriptCommand reads a command: "book r1 u1 k1 t1x2 t2x1", "confirm r1 u1", "release r1 u1", "cancel r1 u1", "expire",
// "revise v1 t1x20@1500 t2x0" (seats and, if it changes, the price of tiers), "publish", "cancel-event", "sweep".
func transcriptCommand(t *testing.T, l *Ledger, name string, words []string) Command {
	number := func(i int) uint64 { return uint64(transcriptNumber(t, words[i][1:])) }
	switch name {
	case "book":
		var items []Item
		for _, word := range words[3:] {
			tier, item, _ := transcriptTier(t, word)
			items = append(items, Item{Tier: tier, Quantity: item.Capacity})
		}
		return &Book{Token: Token(number(0)), User: UserID(number(1)), Key: Key{0, number(2)}, Items: mustItems(items...)}
	case "confirm":
		return &Confirm{Token: Token(number(0)), User: UserID(number(1))}
	case "release":
		return &Release{Token: Token(number(0)), User: UserID(number(1))}
	case "cancel":
		return &Cancel{Token: Token(number(0)), User: UserID(number(1))}
	case "expire":
		return &Expire{}
	case "revise":
		details := l.Event().EventDetails
		details.Tiers = slices.Clone(details.Tiers)
		for _, word := range words[1:] {
			i, tier, priced := transcriptTier(t, word)
			if i == len(details.Tiers) {
				details.Tiers = append(details.Tiers, tier)
			}
			details.Tiers[i].Capacity, details.Tiers[i].Retired = tier.Capacity, tier.Capacity == 0
			if priced {
				details.Tiers[i].BasePriceMinor, details.Tiers[i].PriceMinor = tier.PriceMinor, tier.PriceMinor
			}
		}
		return &Revise{Version: number(0), Details: details}
	case "publish":
		return &Publish{}
	case "cancel-event":
		return &CancelEvent{}
	case "sweep":
		return &Sweep{}
	}
	t.Fatalf("unknown command %q", name)
	return nil
}

// transcriptTier reads "t2x5" or "t2x5@1500": 5 seats of the second tier, at a price.
func transcriptTier(t *testing.T, word string) (index int, tier Tier, priced bool) {
	word, price, priced := strings.Cut(word, "@")
	id, seats, _ := strings.Cut(word, "x")
	index, err := ParseTierID(id)
	if err != nil {
		t.Fatal(err)
	}
	tier = Tier{Name: id, Capacity: transcriptNumber(t, seats)}
	if priced {
		tier.PriceMinor = int64(transcriptNumber(t, price))
		tier.BasePriceMinor = tier.PriceMinor
	}
	return index, tier, priced
}

func transcribeEntry(e *Entry) string {
	s := fmt.Sprintf("%d %s %s", e.Seq, transcribeTime(e.At), e.Kind)
	switch e.Kind {
	case HeldEntry:
		s += fmt.Sprintf(" r%d of u%d, key k%d, until %s: %s", e.Token, e.User, e.Key.Lo, transcribeTime(e.ExpiresAt), transcribeItems(e.Items))
	case ConfirmedEntry, CancelledEntry, ExpiredEntry:
		s += fmt.Sprintf(" r%d", e.Token)
	default:
		s += " " + transcribeEvent(e.Event)
	}
	return s
}

func transcribeEvent(event *Event) string {
	s := fmt.Sprintf("v%d %s", event.Version, event.Status)
	for i, tier := range event.Tiers {
		s += fmt.Sprintf(", %sx%d at %d", TierID(i), tier.Capacity, tier.PriceMinor)
	}
	return s
}

func transcribeReservation(r *Reservation) string {
	s := fmt.Sprintf("r%d of u%d %s, entry %d, held %s until %s", r.ID.Token, r.User, r.Status, r.Seq, transcribeTime(r.CreatedAt),
		transcribeTime(r.ExpiresAt))
	if !r.ConfirmedAt.IsZero() {
		s += ", confirmed " + transcribeTime(r.ConfirmedAt)
	}
	if !r.EndedAt.IsZero() {
		s += ", ended " + transcribeTime(r.EndedAt)
	}
	return s + fmt.Sprintf(": %s, in all %d %s", transcribeItems(r.Items), r.Items.TotalMinor(), r.Currency)
}

func transcribeItems(items Items) string {
	var parts []string
	for item := range items.All() {
		parts = append(parts, fmt.Sprintf("%sx%d at %d", TierID(item.Tier), item.Quantity, item.UnitPriceMinor))
	}
	return strings.Join(parts, ", ")
}

func transcribeAvailable(err error) string {
	if refusal := (*Error)(nil); errors.As(err, &refusal) && refusal.Code == CodeSoldOut {
		return fmt.Sprintf(" (%d available)", refusal.Available)
	}
	return ""
}

func transcribeCounts(l *Ledger) string {
	var a Availability
	l.Availability(&a)
	var tiers []string
	for i, tier := range a.Tiers {
		tiers = append(tiers, fmt.Sprintf("%s %d free, %d held, %d booked", TierID(i), tier.Available(), tier.Held, tier.Booked))
	}
	s := "    " + strings.Join(tiers, "; ")
	if due := l.NextDue(); !due.IsZero() {
		s += "; due " + transcribeTime(due)
	}
	return s + "\n"
}

func transcribeTime(at time.Time) string { return at.Sub(epoch).String() }
